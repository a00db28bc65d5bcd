"""DuckDB's progress bar, which is on where somebody seems to look on, and printed even into a pipe that expects JSON."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import duckdb


def hide_progress_bar(connection: "duckdb.DuckDBPyConnection") -> None:
    """Let a connection draw no progress bar; that cannot be set for all connections of an instance.

    In a notebook without ipywidgets the bar is off, and DuckDB refuses every change of the setting, to off as well.
    """
    if connection.execute("SELECT current_setting('enable_progress_bar')").fetchone() == (True,):
        connection.execute("SET enable_progress_bar = false")
