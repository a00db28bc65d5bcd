"""Tables of ClickHouse that no run has made yet: how it is seen, and how it is told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ml_assets.errors import missing_table

if TYPE_CHECKING:
    from clickhouse_connect.driver.exceptions import DatabaseError

_UNKNOWN_TABLE = 60


def is_missing_table(fault: "DatabaseError") -> bool:
    """Whether a statement failed for want of a table."""
    return fault.code == _UNKNOWN_TABLE


@contextmanager
def missing_is_told(asset: str) -> Iterator[None]:
    """A table that nobody has made is named, with the way out.

    Raises:
        StoreUnavailable: it was asked for.
    """
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        yield
    except DatabaseError as fault:
        if is_missing_table(fault):
            raise missing_table(asset) from fault
        raise
