"""What all IO managers have in common: which slice is written or read, checks, metadata, types.

What belongs here: the translation between Dagster's contexts and the plain pieces in lib/ (contract, window,
staged rows). What does not: any store. A store's module gives the operations at the end of `TableIOManager`
and is otherwise free.
"""

import time
from abc import abstractmethod
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from math import gcd
from typing import TYPE_CHECKING, Any, ClassVar
from zoneinfo import ZoneInfo

import dagster as dg

from ml_assets import metadata
from ml_assets.contracts import INHERITED, Contract
from ml_assets.io_managers.outages import GATHERED, READ, WRITTEN, explain_outages
from ml_assets.lib.current_run import on_behalf_of
from ml_assets.resources.base import plain
from ml_assets.tables.pause import writing
from ml_assets.tables.store import TableStore
from ml_assets.tables.validation import WHOLE, Limits, Window, micros

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ml_assets.tables.found import Place
    from ml_assets.tables.staging import Buckets, Staged

_DAY_US = 86_400_000_000
_MINUTE_US = 60_000_000
_BUCKETS_US = (_DAY_US, 60 * _MINUTE_US, 15 * _MINUTE_US, 5 * _MINUTE_US, _MINUTE_US)
"""Lengths of a stored partition, longest first: the longest is taken that no partition of Dagster's cuts in two."""

_WINDOWS = 60
"""Windows after which a cron schedule, whose finest step is a minute, has shown all its minutes and hours of the day."""


class TableIOManager(dg.ConfigurableIOManager):
    """Base of the six IO managers.

    A table's contract is the one that was given for its asset key; an asset that has none gets one from its metadata
    (see tables/inference.py) and from the schema of its rows.

    Args:
        contracts: contracts by asset key, such as `contracts.tables` builds for this project's own assets.
        lineage: its method `of` says where the columns of a table come from, by asset key.
    """

    contracts: dg.ResourceDependency[Any] = None  # pyright: ignore[reportAssignmentType]
    lineage: dg.ResourceDependency[Any] = None  # pyright: ignore[reportAssignmentType]

    store: ClassVar[str]
    """First part of the keys of the assets that it writes."""

    limits: ClassVar[Limits]
    """What the store can hold."""

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        """Write the rows of the run's partitions, or of the whole table.

        Raises:
            ContractViolation: rows, columns or types break the contract; the table is as it was.
            TableUnavailable: a disk is full, or a server is not there or went away; the rows are the old ones or,
                if the write was just being committed, the new ones.
        """
        with on_behalf_of(context.run_id):
            self._handle_output(context, obj)

    def _handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        import pyarrow as pa

        from ml_assets.tables.arrow_types import tabular
        from ml_assets.tables.staging import stage

        start = time.perf_counter()
        _require_asset(context)
        asset = "/".join(context.asset_key.path)
        with self._explained(asset, GATHERED):
            rows = tabular(self._rows(obj), asset)
        try:
            with self._explained(asset, READ):
                contract = self._brought_contract(asset, obj) or self._output_contract(context, rows)
            window, partition_us = output_window(context, contract)
            if window.whole and contract.partition_column:
                with self._explained(asset, READ):
                    partition_us = getattr(
                        self.table_store().last_contract(contract.asset), "partition_us", partition_us
                    )
            contract = replace(contract, partition_us=partition_us)
            described = self._described(context, contract)
            with self._explained(asset, GATHERED):
                staged = stage(rows, contract, self.limits, window)
            with staged:
                with self._explained(asset, WRITTEN), writing(self._home()):
                    written = self.table_store().write(contract, staged)
                self._committed(obj)
                described |= metadata.write_metadata(
                    staged.rows, time.perf_counter() - start, written.changed
                ) | dict(written.told)
                try:
                    _report(context, contract, staged, written.held, described, self._lineage(asset))
                except Exception:  # the rows are in place, whatever is told of them
                    context.log.warning(
                        f"{asset}: the rows are in place, but not all of the run's metadata could be told",
                        exc_info=True,
                    )
        finally:
            if rows is not obj and isinstance(rows, pa.RecordBatchReader):
                rows.close()

    def load_input(self, context: dg.InputContext) -> Any:
        """The rows that the consumer asks for, in the type of its annotation.

        `pandas.DataFrame`, `pyarrow.Table` (also without annotation), or `pyarrow.RecordBatchReader`, which
        is streamed. The metadata `columns` of the input names the columns to read. The rows are those of the
        partitions that Dagster maps the consumer's to, or of all that the asset's definition has now.

        Raises:
            LookupError: the table was never written, unless no partition of it is asked for.
        """
        _require_asset(context)
        with self._explained("/".join(context.asset_key.path), READ):
            wanted = context.dagster_type.typing_type
            if _asks_for_nothing(context):
                return as_type(self._no_rows(context), wanted)
            contract = self._known_contract(context)
            if contract is None:
                return self._load_found(wanted, context)
            names = _wanted_columns(context, contract) or list(contract.names)
            return self._load(wanted, contract, names, input_window(context, contract))

    def _load_found(self, wanted: Any, context: dg.InputContext) -> Any:
        """Rows of a table that another tool made: what the store has, as a contract has it.

        Raises:
            LookupError: there is no such table.
        """
        place = _place(context, self.store)
        found = self.table_store().found(place)
        if found is None:
            raise LookupError(
                f"{place.asset} has never been written here: materialize it first; or, if another tool made the table, "
                "name schema and table in the asset's metadata 'dagster/table_name', so that it is found."
            )
        found.refuse_unread(_named_columns(context))
        names = _wanted_columns(context, found.contract) or list(found.contract.names)
        if context.has_asset_partitions and found.contract.partition_column is None:
            raise ValueError(
                f"{place.asset} is partitioned, and nothing says which rows a partition has: name the timestamp or date "
                "in the asset's metadata 'partition_column'."
            )
        rows = found.rows(names, input_window(context, found.contract))
        return as_type(self._streamed(place.asset, rows), wanted)

    def _load(self, wanted: Any, contract: Contract, columns: Sequence[str], window: Window) -> Any:
        return as_type(
            self._streamed(contract.asset, self.table_store().read(contract, columns, window)), wanted
        )

    def _streamed(self, asset: str, reader: "pa.RecordBatchReader") -> "pa.RecordBatchReader":
        """The same batches; a fault in the midst of them, when load_input has long returned, is told as well."""
        from ml_assets.tables.arrow_types import stream

        def batches() -> "Iterator[pa.RecordBatch]":
            with self._explained(asset, READ), reader:
                yield from reader

        return stream(reader.schema, batches())

    def _explained(self, asset: str, when: str) -> AbstractContextManager[None]:
        """Faults that lie outside are told in a sentence; see outages.py."""
        resources = [getattr(self, name) for name in type(self).model_fields]
        urls = [
            plain(getattr(resource, name))
            for resource in resources
            if isinstance(resource, dg.ConfigurableResource)
            for name in type(resource).model_fields
            if name.endswith("url")
        ]
        return explain_outages(asset, when, urls)

    def _brought_contract(self, asset: str, obj: Any) -> Contract | None:
        """The contract that came with the rows."""
        return None

    def _output_contract(self, context: dg.OutputContext, rows: Any) -> Contract:
        asset = "/".join(context.asset_key.path)
        if given := (self.contracts or {}).get(asset):
            return given
        from ml_assets.tables.inference import inferred_contract, table_asset

        table = table_asset(context.asset_key.path, self.store)
        contract = inferred_contract(
            table, context.definition_metadata or {}, rows, self.table_store().last_contract(table)
        )
        return replace(contract, asset_key=asset)

    def _known_contract(self, context: dg.InputContext) -> Contract | None:
        from ml_assets.tables.inference import table_asset

        path = context.asset_key.path
        return (self.contracts or {}).get("/".join(path)) or self.table_store().last_contract(
            table_asset(path, self.store)
        )

    def _described(self, context: dg.OutputContext, contract: Contract) -> dict[str, Any]:
        """Metadata of the table, whatever its rows are."""
        declared = (context.definition_metadata or {}).get("dagster/column_schema")
        ours = contract.asset in (self.contracts or {})
        store = self.table_store()
        return metadata.table_metadata(
            contract,
            store.kind,
            store.table_name(contract),
            getattr(declared, "schema", declared),
            INHERITED if ours else metadata.NOTHING,
        )

    def _lineage(self, asset: str) -> dict[str, Any]:
        origins = self.lineage.of(asset) if self.lineage else None
        return metadata.column_lineage(origins) if origins else {}

    def _no_rows(self, context: dg.InputContext) -> "pa.RecordBatchReader":
        """No rows of a table that need not be there yet, and no columns unless they are known."""
        import pyarrow as pa

        from ml_assets.tables.arrow_types import arrow_schema

        contract = self._known_contract(context)
        schema = arrow_schema(contract, _wanted_columns(context, contract)) if contract else pa.schema([])
        return pa.RecordBatchReader.from_batches(schema, [])

    def _rows(self, obj: Any) -> Any:
        """What the asset returned, or a reader of it: a store may accept more than tables."""
        return obj

    def _home(self) -> str:
        """The home that the store belongs to, whose backups a write waits for."""
        given = (getattr(self, name) for name in type(self).model_fields)
        return next(resource.home for resource in given if hasattr(resource, "home"))

    def _committed(self, obj: Any) -> None:
        """Called with what the asset returned once its rows are in place."""

    @abstractmethod
    def table_store(self) -> TableStore:
        """The store, over this IO manager's resources."""


def as_type(reader: "pa.RecordBatchReader", wanted: Any) -> Any:
    """A stream of batches as the type that a consumer's annotation names.

    Raises:
        TypeError: no such type can be given.
    """
    import pyarrow as pa

    name = f"{getattr(wanted, '__module__', '')}.{getattr(wanted, '__qualname__', '')}"
    if wanted is pa.RecordBatchReader:
        return reader
    if wanted is pa.Table or wanted is Any or wanted is object:
        return reader.read_all()
    if name.startswith("pandas.") and name.endswith("DataFrame"):
        return _frame(reader.read_all())
    raise TypeError(
        f"an input annotated with {name} cannot be loaded: annotate it with pandas.DataFrame, pyarrow.Table or "
        "pyarrow.RecordBatchReader."
    )


def _frame(table: "pa.Table") -> "pd.DataFrame":
    """A DataFrame; integers with nulls among them as pandas' own Int64, since a float bends those beyond 2^53."""
    import pandas as pd
    import pyarrow as pa

    frame = table.to_pandas()
    for field in table.schema:
        if field.type == pa.int64() and table[field.name].null_count:
            exact = {field.type: pd.Int64Dtype()}
            frame[field.name] = table[field.name].to_pandas(types_mapper=exact.get)
    return frame


def _require_asset(context: dg.OutputContext | dg.InputContext) -> None:
    if not context.has_asset_key:
        raise TypeError(
            f"{context.name!r} is handed from op to op, and this IO manager keeps assets, each in a table: give ops "
            "within a graph another one (dg.mem_io_manager, say)."
        )


def _wanted_columns(context: dg.InputContext, contract: Contract) -> list[str]:
    """The columns that the input's metadata names; none if it names none.

    Raises:
        ContractViolation: there is no such column, or one is named twice.
    """
    from ml_assets.errors import ContractViolation
    from ml_assets.tables.arrow_types import arrow_schema

    names = _named_columns(context)
    arrow_schema(contract, names)
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise ContractViolation(
            f"{contract.asset}: the metadata 'columns' of input {context.name!r} names {', '.join(map(repr, doubled))} "
            "twice; name each column once."
        )
    return names


def _named_columns(context: dg.InputContext) -> list[str]:
    columns: Any = (context.definition_metadata or {}).get("columns") or ()
    return [columns] if isinstance(columns, str) else list(columns)


def _place(context: dg.InputContext, store: str) -> "Place":
    """Where the table of an asset is that no IO manager of ours has written, as the asset's own metadata says."""
    from ml_assets.tables.found import Place
    from ml_assets.tables.inference import plain_value, table_asset

    asset = table_asset(context.asset_key.path, store)
    above = context.upstream_output
    metadata = (above.definition_metadata if above else None) or {}
    said: dict[str, Any] = {name: plain_value(value) for name, value in metadata.items()}
    name, key = said.get("dagster/table_name") or "", said.get("key") or ()
    *_, schema, table = ["", *name.split(".")] if name else ["", asset.partition("/")[2]]
    by = said.get("partition_column") or said.get("partition_expr")
    return Place(asset, schema, table, (key,) if isinstance(key, str) else tuple(key), by)


def _asks_for_nothing(context: dg.InputContext) -> bool:
    """Whether Dagster maps the consumer's partitions to none: those before the first one, for instance.

    Raises:
        ValueError: they are mapped to several that do not lie side by side.
    """
    from dagster._check import CheckError  # what Dagster says then; it has no public name

    if not context.has_asset_partitions:
        return False
    try:
        _ = context.asset_partition_key_range
    except CheckError as fault:
        keys = list(context.asset_partition_keys)
        if not keys:
            return True
        raise ValueError(
            f"{'/'.join(context.asset_key.path)} is read in partitions with gaps between them ({', '.join(keys[:3])}"
            f"{', ...' if len(keys) > 3 else ''}): map the consumer to a range of them, and leave out there what is not "
            "wanted."
        ) from fault
    return False


def output_window(context: dg.OutputContext, contract: Contract) -> tuple[Window, int]:
    """The run's window, and the length of a stored partition in microseconds."""
    if not context.has_asset_partitions:
        return WHOLE, _DAY_US
    window = _time_window(context, contract)
    return window, _bucket_us(context.asset_partitions_def, window)


def input_window(context: dg.InputContext, contract: Contract) -> Window:
    """The window of the partitions that Dagster maps the consumer's to; the whole table if it has none."""
    if not context.has_asset_partitions or contract.partition_column is None:
        return WHOLE
    return _time_window(context, contract)


def _time_window(context: dg.OutputContext | dg.InputContext, contract: Contract) -> Window:
    if not isinstance(context.asset_partitions_def, dg.TimeWindowPartitionsDefinition):
        raise TypeError(
            f"{contract.asset} has partitions of {type(context.asset_partitions_def).__name__}, and only those of time "
            "can be written and read: partition by time (dg.DailyPartitionsDefinition), or take the partitions away "
            "and keep what they tell apart in a column."
        )
    if contract.partition_column is None:
        raise ValueError(
            f"{contract.asset} is partitioned, but its contract names no partition_column: name the timestamp or "
            "date whose day is the partition."
        )
    window = context.asset_partitions_time_window
    return Window(window.start, window.end)


def _bucket_us(partitions: Any, window: Window) -> int:
    """Length of a stored partition of a table that is partitioned by time.

    The same for every run of a definition, whose windows may begin at other hours of UTC in summer.
    """
    local = [micros(edge.replace(tzinfo=UTC)) for edge in _first_edges(partitions)]
    written = [micros(edge) for edge in (window.start, window.end) if edge is not None]
    grain = gcd(_DAY_US, *local, *_utc_offsets_us(partitions), *written)
    for length in _BUCKETS_US:
        if grain % length == 0:
            return length
    raise ValueError(
        f"{partitions} These partitions do not begin with a minute of UTC: name another timezone, or a later start. "
        "Nothing was written."
    )


def _first_edges(partitions: dg.TimeWindowPartitionsDefinition) -> Iterator[datetime]:
    edge = partitions.start
    for _ in range(_WINDOWS):
        found = partitions.get_next_partition_window(edge, respect_bounds=False)
        if found is None:
            return
        edge = found.end
        yield found.start


def _utc_offsets_us(partitions: dg.TimeWindowPartitionsDefinition) -> set[int]:
    """What the time zone's clocks were and will be ahead of UTC, looked at once a week."""
    zone, first = ZoneInfo(partitions.timezone), partitions.start.astimezone(UTC)
    weeks = (max(datetime.now(UTC), first) - first) // timedelta(weeks=1) + 53
    moments = (first + timedelta(weeks=week) for week in range(weeks))
    offsets = (moment.astimezone(zone).utcoffset() or timedelta() for moment in moments)
    return {offset // timedelta(microseconds=1) for offset in offsets}


def _report(
    context: dg.OutputContext,
    contract: Contract,
    staged: "Staged",
    held: "Buckets",
    described: dict[str, Any],
    lineage: dict[str, Any],
) -> None:
    if not context.has_asset_partitions:
        context.add_output_metadata({**described, **lineage})
        context.add_output_metadata(
            _held(contract, staged, held, "dagster/row_count", {*held, *staged.buckets})
        )
        return
    # What is added to the output stands at every one of the run's partitions.
    context.add_output_metadata(described)
    partitions = context.asset_partitions_def
    buckets = sorted({*held, *staged.buckets})
    keys = context.asset_partition_keys
    for key in keys:
        window = partitions.time_window_for_partition_key(key)  # pyright: ignore[reportAttributeAccessIssue]
        first, last = (bisect_left(buckets, micros(edge)) for edge in (window.start, window.end))
        told = _held(contract, staged, held, "dagster/partition_row_count", set(buckets[first:last]))
        context.step_context.add_asset_metadata(
            # At the last one alone, whose event is the newest: it is the same for all, and larger than all else.
            {**told, **lineage} if key == keys[-1] else told,
            asset_key=context.asset_key,
            partition_key=key,
        )


def _held(
    contract: Contract, staged: "Staged", held: "Buckets", count: str, buckets: set[int]
) -> dict[str, Any]:
    """Metadata of what some stored partitions hold after the write.

    Args:
        count: name of their number of rows.
    """
    from ml_assets.tables.staging import table_state

    state = table_state(chosen := {bucket: state for bucket, state in held.items() if bucket in buckets})
    given = {"rows_given": staged.rows_in(buckets)} if contract.mode == "upsert" else {}
    return {
        count: state.rows,
        "bytes": sum(each.bytes for each in chosen.values()),
        "content_hash": state.content_hash,
        "preview": metadata.preview(staged.preview(buckets)),
        **given,
    }
