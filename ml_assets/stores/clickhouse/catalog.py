"""What ClickHouse's own tables tell of a table: its columns and its partitions."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client


def columns_of(client: "Client", table: str, database: str = "") -> dict[str, str]:
    """Type of each column that a table has; none if there is no such table.

    Args:
        database: where it lies; the client's own if empty.
    """
    rows = client.query(
        "SELECT name, type FROM system.columns WHERE table = {table:String} "
        "AND database = if({database:String} = '', currentDatabase(), {database:String})",
        parameters={"table": table, "database": database},
    ).result_rows
    return {name: kind for name, kind in rows}  # noqa: C416 - pairs, and typed as such


def rows_by_partition(client: "Client", table: str) -> dict[str, int]:
    """Number of rows by the id of each partition that a table has."""
    rows = client.query(
        "SELECT partition_id, sum(rows) FROM system.parts "
        "WHERE database = currentDatabase() AND table = {table:String} AND active GROUP BY partition_id",
        parameters={"table": table},
    ).result_rows
    return {partition: int(count) for partition, count in rows}
