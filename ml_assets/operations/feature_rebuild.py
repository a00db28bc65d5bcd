"""A feature table made again from what a pin keeps: the inputs of that time, by the SQL file of that time.

What is made is held against what the table held at the version, day by day, and against the hash that the pin noted.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import Refusal
from ml_assets.lib.feature_header import FeatureHeader, parse_header
from ml_assets.lib.feature_sql import METRIC_RULES, FeatureSQL
from ml_assets.lib.metric_rules import VERSION as RULES
from ml_assets.lib.metric_rules import MetricRules, PrimaryMetric
from ml_assets.lib.sql import joined, quote_identifier
from ml_assets.lib.words import counted
from ml_assets.operations.feature_pins import asset_of, the_pin
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.stores.duckdb.rows import live
from ml_assets.stores.duckdb.select_file import parse_feature
from ml_assets.tables.hashing import HASH_VERSION
from ml_assets.tables.staging import (
    EMPTY,
    Buckets,
    Staged,
    TableState,
    bucket_name,
    bucket_start,
    same_content,
    stage,
    table_state,
)
from ml_assets.tables.validation import WHOLE, Window, shown_value

if TYPE_CHECKING:
    import duckdb

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.stores.duckdb.pins import Pin

TRAINING_SET = "training_set"
"""The table that is rebuilt unless another one is named."""

_SHOWN = 5
"""Days of a difference that are named, and columns of a row."""


@dataclass(frozen=True)
class Rebuilt:
    """What came of it.

    Args:
        pin, version: whose inputs were read.
        table: that was made.
        made: its rows and content hash.
        noted: what the pin says that the table held; None if it does not say.
        differences: sentences; none if every row is as it was.
    """

    pin: str
    version: int
    table: str
    made: TableState
    noted: TableState | None
    differences: tuple[str, ...]

    @property
    def equal(self) -> bool:
        """Whether every row is as it was."""
        return not self.differences

    def __str__(self) -> str:
        made = f"{counted(self.made.rows, 'row')}, hash {self.made.content_hash}"
        if self.equal:
            return f"{self.table} of the pin {self.pin} (version {self.version}) is equal: {made}."
        told = "\n".join(self.differences)
        return f"{self.table} of the pin {self.pin} (version {self.version}) differs ({made}):\n{told}"


def rebuild(
    lake: "DuckLakeResource", name: str, table: str | None, out: Path | None, overwrite: bool
) -> Rebuilt:
    """Make a table again from what a pin keeps, compare, and write it to a file if one is named.

    Args:
        name: of the pin.
        table: as `as_of`; `training_set` if None.
        out: `.parquet`, `.csv` or `.duckdb`; it is written even if the rows differ, so that one can look at them.
        overwrite: replace a file that is there.

    Raises:
        Refusal: no such pin, no such table or file in it, or the file's text cannot be run on the pinned tables.
        StoreUnavailable: the lake does not answer.
    """
    pin, wanted = the_pin(lake, name), asset_of(table or TRAINING_SET).removeprefix("duckdb/")
    feature, header = _file(pin, wanted)
    then = lake.at(pin.version)
    contract = DuckLakeStore(then).last_contract(f"duckdb/{wanted}")
    if contract is None:
        raise Refusal(
            f"{wanted} was not made yet when {name!r} was pinned: there is nothing to compare with; name another table."
        )
    with then.get_connection() as connection, then.limit(connection, write=True, what=f"reading {wanted}"):
        held = live(connection, contract)
    with _made(then, pin, feature, header.lookback_days, contract, held) as staged:
        noted = pin.tables.get(contract.asset)
        differences = [*_differences(pin, contract, staged.buckets, held, noted)]
        if other := changed(staged.buckets, held):
            differences.append(_one_row(then, staged, other[0]))
        if out is not None:
            from ml_assets.tables.export import export

            export(staged.reader, wanted, out, overwrite)
        return Rebuilt(name, pin.version, wanted, table_state(staged.buckets), noted, tuple(differences))


def _file(pin: "Pin", table: str) -> tuple[FeatureSQL, FeatureHeader]:
    if (text := pin.files.get(table)) is None:
        known = ", ".join(sorted(pin.files)) or "none"
        raise Refusal(
            f"The pin {pin.name!r} has no SQL file for {table}, so it cannot be made again; name one of: {known}. "
            f"Its rows may be read by stack.features.pinned({pin.name!r}, {table!r})."
        )
    try:
        return parse_feature(table, text), parse_header(table, text)
    except ValueError as fault:
        raise Refusal(f"The SQL file that the pin {pin.name!r} keeps cannot be run: {fault}.") from fault


@contextmanager
def _made(
    then: "DuckLakeResource",
    pin: "Pin",
    feature: FeatureSQL,
    lookback_days: int,
    contract: Contract,
    held: Buckets,
) -> Iterator[Staged]:
    """The rows that the file makes of the pinned tables."""
    import duckdb

    window = _window(contract, held, pin)
    days = {"start": window.start, "end": window.end}
    values = days | {"lookback_start": window.start and window.start - timedelta(days=lookback_days)}
    if strange := feature.parameters - values.keys():
        known = ", ".join(f"${name}" for name in values)
        raise Refusal(f"{feature.name}.sql asks for ${min(strange)}, and only {known} are known.")
    with (
        then.get_connection() as connection,
        then.limit(connection, write=True, what=f"making {feature.name}"),
    ):
        if feature.is_judged:
            connection.register(METRIC_RULES, _ranked(connection, pin, days))
        try:
            rows = connection.execute(
                feature.text, {name: values[name] for name in feature.parameters} or None
            )
        except duckdb.Error as fault:
            raise Refusal(
                f"{feature.name}.sql cannot be run on the tables of {pin.name!r}: {fault}."
            ) from fault
        staged = stage(rows.to_arrow_reader(65_536), contract, DuckLakeStore.limits, window)
    with staged:
        yield staged


def _window(contract: Contract, held: Buckets, pin: "Pin") -> Window:
    """From the first partition that the table had to the last one; all of time until then if it had none."""
    if contract.partition_column is None:
        return WHOLE
    if not held:
        return Window(datetime(1970, 1, 1, tzinfo=UTC), pin.written_at or pin.pinned_at)
    return Window(
        bucket_start(min(held)), bucket_start(max(held)) + timedelta(microseconds=contract.partition_us)
    )


def _ranked(connection: Any, pin: "Pin", days: Mapping[str, Any]) -> Any:
    """The metrics as they were ranked then."""
    said = dict(pin.settings)
    if (version := said.pop("metric_rules", RULES)) != RULES:
        raise Refusal(
            f"The pin {pin.name!r} was made by {version!r}, and this release judges runs by {RULES!r}: rebuild it with "
            "the release that made it."
        )
    for chosen in ("of_dataset", "of_experiment"):
        said[chosen] = {each: PrimaryMetric(**metric) for each, metric in said.get(chosen, {}).items()}
    keys = connection.execute(read_sql("duckdb/operations/metric_keys.sql"), dict(days)).fetchall()
    return MetricRules(**said).table([key for (key,) in keys])


def _differences(
    pin: "Pin", contract: Contract, made: Buckets, held: Buckets, noted: TableState | None
) -> Iterator[str]:
    stored = table_state(held)
    if noted is not None and pin.hash_version == HASH_VERSION and stored != noted:
        yield (
            f"The lake's version {pin.version} holds {_told(stored)}, and {_told(noted)} was noted when it was pinned: "
            "its files were changed."
        )
    other = changed(made, held)
    for bucket in other[:_SHOWN]:
        day = bucket_name(bucket, contract)
        now, before = made.get(bucket, EMPTY), held.get(bucket, EMPTY)
        yield (
            f"{f'Of {day}' if day else 'In all'} there are {counted(now.rows, 'row')} ({now.content_hash}) in place of "
            f"{before.rows:,} ({before.content_hash})."
        )
    if len(other) > _SHOWN:
        more = len(other) - _SHOWN
        yield f"So {'does' if more == 1 else 'do'} {counted(more, 'more partition')}."


def _told(state: TableState) -> str:
    return f"{counted(state.rows, 'row')} ({state.content_hash})"


def changed(made: Buckets, held: Buckets) -> list[int]:
    """The partitions that differ, in order."""
    every = sorted(made.keys() | held.keys())
    return [each for each in every if not same_content(made.get(each, EMPTY), held.get(each, EMPTY))]


def _one_row(then: "DuckLakeResource", staged: Staged, bucket: int) -> str:
    """What has become of the first row of a partition that is not as it was."""
    import duckdb

    contract = staged.contract
    start = bucket_start(bucket)
    window = (
        Window(start, start + timedelta(microseconds=contract.partition_us))
        if contract.partition_column
        else WHOLE
    )
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("made", staged.reader({bucket}))
        connection.register("held", DuckLakeStore(then).read(contract, contract.names, window))
        return first_row(connection, contract)


def first_row(connection: "duckdb.DuckDBPyConnection", contract: Contract) -> str:
    """How the first row differs of the relations `made` and `held`, which do not have the same rows."""
    order = [quote_identifier(name) for name in contract.key or contract.names]
    same = joined([f"made.{name} IS NOT DISTINCT FROM held.{name}" for name in order], "AND")
    rows = connection.execute(
        f"SELECT made, held FROM (FROM made) AS made FULL JOIN (FROM held) AS held ON {same} "
        f"WHERE made IS DISTINCT FROM held ORDER BY {', '.join(f'coalesce(made.{n}, held.{n})' for n in order)} "
        "LIMIT 1"
    ).fetchall()
    if not rows:  # of a table without a key, in which a row may stand several times
        return "The rows are the same, but do not stand there as often."
    return row_told(contract, *rows[0])


def _same(one: Any, other: Any) -> bool:
    return one == other or (one != one and other != other)  # NaN and NaN


def row_told(contract: Contract, made: Mapping[str, Any], held: Mapping[str, Any]) -> str:
    """How one row differs.

    Args:
        made, held: its values by column; all are null where there is no such row.
    """
    key = contract.key or contract.names[:3]
    name = ", ".join(
        f"{each} {shown_value(made[each] if made[each] is not None else held[each])}" for each in key
    )
    if all(value is None for value in held.values()):
        return f"The first row is {name}, which was not there."
    if all(value is None for value in made.values()):
        return f"The first row is {name}, which is not made any more."
    told = [
        f"{each} is {shown_value(made[each])} in place of {shown_value(held[each])}"
        for each in contract.names
        if not _same(made[each], held[each])
    ]
    more = f", and {counted(len(told) - _SHOWN, 'more column')}" if len(told) > _SHOWN else ""
    return f"The first row is {name}: {', '.join(told[:_SHOWN])}{more}."
