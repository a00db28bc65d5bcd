"""Reading the statements that lie in `sql/`. The one place that knows the folder as files."""

from functools import cache
from typing import LiteralString, cast

from ml_assets.settings import SQL_DIR


@cache
def read_sql(name: str) -> LiteralString:
    """The statement in `sql/<name>`, such as `duckdb/features/run_features.sql`.

    A literal for type checkers: it is the project's own text, as if it stood in the code.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the name leads out of `sql/`.
    """
    path = (SQL_DIR / name).resolve()
    if not path.is_relative_to(SQL_DIR):
        raise ValueError(
            f"{name!r} is not below sql/; name a file such as 'duckdb/features/run_features.sql'"
        )
    return cast("LiteralString", path.read_text(encoding="utf-8"))


@cache
def read_statements(name: str) -> tuple[LiteralString, ...]:
    """The statements in `sql/<name>` one by one, for drivers that take no more at once."""
    parts = (part.strip() for part in read_sql(name).split(";\n"))
    return tuple(cast("LiteralString", part.rstrip(";")) for part in parts if part)
