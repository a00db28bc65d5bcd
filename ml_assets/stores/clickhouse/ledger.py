"""ClickHouse's ledger of writes, in the database itself.

Entries are added and never changed, since ClickHouse has no transaction in which to change them: the newest one of
a partition counts. A write's entries stand in its plan until it is published; see redo.py.
"""

import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.contracts.text import contract_of_text, contract_text
from ml_assets.lib.sql import quote_literal
from ml_assets.sql_files import read_sql, read_statements
from ml_assets.stores.clickhouse.catalog import columns_of
from ml_assets.stores.clickhouse.cluster import cluster_of, clustered, on_cluster
from ml_assets.tables.hashing import HASH_VERSION

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ml_assets.tables.staging import Buckets

LEDGER = "write_ledger"
CONTRACTS = "write_contracts"
_COLUMNS = (
    "table_name",
    "partition",
    "sequence",
    "rows",
    "bytes",
    "content_hash",
    "hash_version",
    "written_at",
    "run_id",
)
_UNKNOWN_TABLE = 60


def ensure(client: "Client") -> None:
    """Make the ledger if it is not there, and bring that of a former version up to date."""
    if "run_id" in columns_of(client, LEDGER) and columns_of(client, CONTRACTS):
        return
    for statement in read_statements("clickhouse/ledger/schema.sql"):
        client.command(clustered(statement, cluster_of(client)))


def buckets(client: "Client", contract: Contract, any_version: bool = False) -> "Buckets":
    """What the ledger says of a table; nothing of what was hashed in another way, unless that is asked for."""
    from ml_assets.tables.ledger import noted

    given = {"table_name": contract.table, "hash_version": HASH_VERSION, "any_version": any_version}
    return noted(_answer(client, "noted.sql", given))


def planned(contract: Contract, held: "Buckets") -> dict[str, Any]:
    """What a plan says of the ledger: what each partition will hold, and the run that writes it."""
    from ml_assets.lib.current_run import run_id
    from ml_assets.tables.ledger import entries

    states = [[e.partition, e.rows, e.bytes, e.content_hash] for e in entries(contract, held, None)]
    return {"ledger": states, "run_id": run_id.get()}


def record(client: "Client", plan: dict[str, Any]) -> None:
    """Note what a plan says that the partitions hold now. A former version's plan does not name its run."""
    now, run = datetime.now(UTC), plan.get("run_id")
    entries = [
        [plan["table"], partition, plan["sequence"], rows, size, content_hash, HASH_VERSION, now, run]
        for partition, rows, size, content_hash in plan["ledger"]
    ]
    if entries:
        client.insert(LEDGER, entries, column_names=_COLUMNS)


def forget(client: "Client", contract: Contract) -> None:
    """Take everything out of the ledger that it says of a table."""
    where = f"table_name = {quote_literal(contract.table)}"
    client.command(
        f"ALTER TABLE {LEDGER}{on_cluster(client)} DELETE WHERE {where} SETTINGS mutations_sync = 2"
    )


def remember(client: "Client", contract: Contract) -> None:
    """Note by which contract a table is written now."""
    entry = [[contract.asset, contract_text(contract), time.time_ns()]]
    client.insert(CONTRACTS, entry, column_names=["asset", "contract", "sequence"])


def last_contract(client: "Client", asset: str) -> Contract | None:
    """The contract by which a table was last written; None if it never was."""
    rows = _answer(client, "last_contract.sql", {"asset": asset})
    return contract_of_text(rows[0][0]) if rows else None


def contracts(client: "Client") -> list[Contract]:
    """Of each table that was written and is there, the contract that it was last written by."""
    known = [contract_of_text(text) for (text,) in _answer(client, "contracts.sql", {})]
    return [each for each in known if columns_of(client, each.table)]


def _answer(client: "Client", name: str, given: dict[str, Any]) -> Sequence[Sequence[Any]]:
    """What a statement in `sql/clickhouse/ledger` finds; nothing if there is no ledger yet."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        return client.query(read_sql(f"clickhouse/ledger/{name}"), parameters=given).result_rows
    except DatabaseError as fault:
        if fault.code != _UNKNOWN_TABLE:
            raise
        return []
