"""DuckDB's extensions out of their wheels: nothing is downloaded, and nothing is written to the user's home.

What belongs here: where a wheel keeps its extension, and which one a statement lacks. Which extensions a connection
begins with is its maker's business.
"""

import importlib.util
import re
from pathlib import Path
from typing import TYPE_CHECKING

from ml_assets.errors import ExtensionMissing
from ml_assets.lib.sql import quote_literal

if TYPE_CHECKING:
    import duckdb

# Of a function that DuckDB knows by name, and of one that it would look for itself.
_LACKING = re.compile(r"required extension '(\w+)'|exists in the (\w+) extension")


def extension_file(name: str) -> Path:
    """Where the extension's wheel keeps it, whether or not it is installed."""
    import duckdb

    spec = importlib.util.find_spec(f"duckdb_extension_{name}")
    package = Path(spec.origin).parent if spec and spec.origin else Path("not installed")
    return package / "extensions" / f"v{duckdb.__version__}" / f"{name}.duckdb_extension"


def not_installed(name: str) -> str:
    """The sentence that names the package."""
    import duckdb

    package = f"duckdb-extension-{name.replace('_', '-')}=={duckdb.__version__}"
    return f"DuckDB's extension {name} is not installed: run 'pip install {package}'"


def load_missing(connection: "duckdb.DuckDBPyConnection", fault: Exception) -> str | None:
    """Load the extension for want of which a statement failed; returns its name, or None if it failed for another reason.

    Raises:
        ExtensionMissing: its package is not installed.
    """
    import duckdb

    name = _lacking(fault)
    if name is None:
        return None
    file = extension_file(name)
    if not file.exists():
        raise ExtensionMissing(not_installed(name)) from fault
    load = f"LOAD {quote_literal(str(file))}"
    try:
        connection.execute(load)
    except duckdb.Error as refused:
        # It needs another one itself.
        if _lacking(refused) in (None, name) or load_missing(connection, refused) is None:
            raise
        connection.execute(load)
    return name


def _lacking(fault: Exception) -> str | None:
    found = _LACKING.search(str(fault))
    return next(filter(None, found.groups())) if found else None
