"""Time travel: the lake's tables as they stood at a time, and versions of the lake that are kept by a name.

What belongs here: finding the version and the table that are meant, and telling MLflow. How a version is kept is in
stores/duckdb/pins.py.
"""

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.lib.metric_rules import VERSION as RULES
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.sql import qualified
from ml_assets.lib.versions import shown, version_at
from ml_assets.stores.duckdb import DuckLakeStore, pins
from ml_assets.tables.validation import WHOLE

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.mlflow import MLflowResource
    from ml_assets.stores.duckdb.pins import Pin

PIN_TAG, VERSION_TAG = "ml_assets.pin", "ml_assets.pin_version"
"""Tags of a run of MLflow: the name of the pin that was made for it, and the lake's version."""


def as_of(lake: "DuckLakeResource", table: str, time: datetime | str) -> "pa.RecordBatchReader":
    """The rows of a table as they stood at a time.

    Args:
        table: `run_features`, `duckdb/run_features` or `features.run_features`.
        time: aware, or text such as `2026-11-29T13:00:00Z`.

    Raises:
        Refusal: a time without a zone or to come, a version that was cleaned up, or a table that was not there then.
    """
    moment = _moment(time)
    with _told(), lake.get_connection() as connection:
        versions = pins.versions(connection)
        # The clock of the server may be a little ahead.
        if moment > max(datetime.now(UTC), *versions.values()):
            raise Refusal(f"{shown(moment)} is yet to come: name a time until now.")
        version = version_at(versions, moment, pins.pinned(lake, connection))
    return rows_at(lake.at(version), table, f"at {shown(moment)}")


def make_pin(
    lake: "DuckLakeResource",
    mlflow: "MLflowResource",
    name: str,
    tables: Collection[str] | None,
    files: Mapping[str, str],
    rules: MetricRules,
    run_id: str | None,
) -> "Pin":
    """Keep the lake as it stands now, and note it on the run of MLflow.

    Args:
        tables: whose content is noted; all if None.
        files: text of the feature files by table.
        rules: by which the files judge runs.
        run_id: a run of MLflow's gets tags; of another one the id is kept.

    Raises:
        Refusal: a bad or taken name, an unknown table, or a run of MLflow that is deleted.
        StoreUnavailable: MLflow or the catalog does not answer; nothing is pinned then.
    """
    if not name.strip() or name != name.strip():
        raise Refusal(f"{name!r} is no name for a pin: give it one without spaces around, such as 'paper'.")
    client = None if run_id is None else _client_of_run(mlflow, run_id)
    assets = None if tables is None else [asset_of(table) for table in tables]
    settings = {"metric_rules": RULES, **asdict(rules)}
    with _told():
        made = pins.pin(lake, name, tables=assets, files=files, settings=settings, run_id=run_id)
    if client is not None and run_id is not None:
        from mlflow.entities import RunTag

        try:
            # Both or none: MLflow writes them in one transaction.
            client.log_batch(run_id, tags=[RunTag(VERSION_TAG, str(made.version)), RunTag(PIN_TAG, name)])
        except BaseException:
            # A pin that its run does not know of would never be let go.
            pins.unpin(lake, name)
            raise
    return made


def has_run(mlflow: "MLflowResource", run_id: str) -> bool:
    """Whether a run is one of MLflow's.

    Raises:
        Refusal: it is deleted.
        StoreUnavailable: MLflow does not answer.
    """
    return _client_of_run(mlflow, run_id) is not None


def unpin(lake: "DuckLakeResource", name: str) -> None:
    """Let a pin go; the tags of its run stay, which tell of the past.

    Raises:
        Refusal: there is none of this name.
    """
    with _told():
        pins.unpin(lake, name)


def the_pin(lake: "DuckLakeResource", name: str) -> "Pin":
    """The pin of this name.

    Raises:
        Refusal: there is none.
    """
    with _told():
        return pins.the_pin(lake, name)


def pin_table(lake: "DuckLakeResource") -> "pa.Table":
    """All pins, the oldest version first: name, version, as_of, pinned_at, run_id and how many tables were noted."""
    import pyarrow as pa

    time = pa.timestamp("us", "UTC")
    schema = pa.schema(
        [
            ("name", pa.string()),
            ("version", pa.int64()),
            ("as_of", time),
            ("pinned_at", time),
            ("run_id", pa.string()),
            ("tables", pa.int64()),
        ]
    )
    with lake.get_connection() as connection:
        held = pins.pins(lake, connection)
    rows = [
        {
            "name": each.name,
            "version": each.version,
            "as_of": each.written_at,
            "pinned_at": each.pinned_at,
            "run_id": each.run_id,
            "tables": len(each.tables),
        }
        for each in held
    ]
    return pa.Table.from_pylist(rows, schema)


def pinned(lake: "DuckLakeResource", name: str, table: str) -> "pa.RecordBatchReader":
    """The rows of a table as a pin keeps them.

    Raises:
        Refusal: there is no such pin, or no such table in it.
    """
    return rows_at(lake.at(the_pin(lake, name).version), table, f"in the pin {name!r}")


def rows_at(then: "DuckLakeResource", table: str, when: str) -> "pa.RecordBatchReader":
    """The rows of a table of a version.

    Args:
        then: the lake at that version.
        table: as `as_of`.
        when: of the version, for the sentence.

    Raises:
        Refusal: there was no such table.
    """
    from ml_assets.stores.duckdb.ddl import tables_of

    asset = asset_of(table)
    store = DuckLakeStore(then)
    contract = next((each for each in store.contracts() if each.asset == asset), None)
    if contract is not None:
        return store.read(contract, contract.names, WHOLE)
    with then.get_connection() as connection:
        there = sorted(tables_of(connection))
    bare = asset.removeprefix("duckdb/")
    for schema, name in there:
        if name == bare:  # intake's, and what was made without a contract
            return then.reader(f"SELECT * FROM {qualified('lake', schema, name)}")
    known = ", ".join(name for schema, name in there if schema != "ledger") or "none"
    raise Refusal(f"There was no table {table!r} {when}; there were: {known}.")


def asset_of(table: str) -> str:
    """`duckdb/run_features` of any way in which a table of the lake is named.

    Raises:
        Refusal: it is a table of another store.
    """
    prefix, _, bare = table.rpartition("/")
    if prefix not in ("", "duckdb"):
        raise Refusal(f"{table!r} is no table of the lake: it alone keeps versions; name one of duckdb/...")
    return f"duckdb/{bare.rpartition('.')[2]}"


def _moment(time: datetime | str) -> datetime:
    if isinstance(time, str):
        try:
            moment = datetime.fromisoformat(time)
        except ValueError:
            raise Refusal(
                f"{time!r} is not a time: write it as 2026-11-29T13:00:00Z or 2026-11-29T15:00:00+02:00."
            ) from None
    else:
        moment = time
    if moment.tzinfo is None:
        raise Refusal(
            f"{time} has no time zone, so it may be any of 26 hours: add Z for UTC or an offset such as +02:00."
        )
    return moment


def _client_of_run(mlflow: "MLflowResource", run_id: str) -> Any:
    """MLflow's client, if it has this run; None if the run is somebody else's.

    Raises:
        Refusal: the run is deleted.
        StoreUnavailable: MLflow does not answer.
    """
    if not mlflow.is_made:
        return None  # nothing was ever logged
    client = mlflow.client()
    from mlflow.exceptions import MlflowException

    try:
        run = client.get_run(run_id)
    except MlflowException as fault:
        # A run's id of another form than MLflow's is none of MLflow's either.
        if fault.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise
    if run.info.lifecycle_stage == "deleted":
        raise Refusal(
            f"MLflow has deleted the run {run_id}, which takes no tag: restore it, or pin without it."
        )
    return client


@contextmanager
def _told() -> Iterator[None]:
    """What is not there, as a refusal."""
    try:
        yield
    except LookupError as fault:
        if type(fault) is not LookupError:  # a bug of ours
            raise
        told = str(fault)
        raise Refusal(f"{told[0].upper()}{told[1:]}") from fault
