"""ClickHouse's own logs: a server notes each query, each part and much else in tables of its database `system`, for ever.

Only the server's configuration can say for how long (deploy/clickhouse-logs.xml does), since a table that is altered is
made anew as configured at the next start. So here they are measured, and those that keep all are named. The embedded
engine has none (measured, chdb 4.4).
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

from ml_assets.tables.store import Maintained, Retention

if TYPE_CHECKING:
    from ml_assets.stores.clickhouse import ClickHouse

_LOGS = "FROM system.tables WHERE database = 'system' AND engine LIKE '%MergeTree' AND name LIKE '%\\_log%'"


class SystemTables(Maintained):
    """Tables of a server's database `system` that grow.

    Args:
        clickhouse: opens clients.
    """

    name: ClassVar[str] = "clickhouse's system tables"

    def __init__(self, clickhouse: "ClickHouse") -> None:
        self._clickhouse = clickhouse

    def size(self) -> int:
        """Bytes of all of them."""
        with self._clickhouse.client() as client:
            rows = client.query(f"SELECT sum(total_bytes) {_LOGS}").result_rows
        return int(rows[0][0] or 0)

    def maintain(self, retention: Retention) -> Iterator[str]:
        """Nothing but name those that keep every row.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        with self._clickhouse.client() as client:
            rows = client.query(
                f"SELECT name, formatReadableSize(total_bytes) {_LOGS} AND engine_full NOT LIKE '% TTL %' "
                "ORDER BY total_bytes DESC"
            ).result_rows
        if rows:
            told = ", ".join(f"{name} ({size})" for name, size in rows)
            yield f"Without a TTL in the server's configuration: {told}; deploy/clickhouse-logs.xml gives them one."
