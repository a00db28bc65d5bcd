"""Rows on their way into a store: checked, hashed and kept aside until the store is ready to take them.

What belongs here: everything about a write that is the same for all stores and needs none of them. The
rows are read once; small sets stay in memory, large ones go to an unnamed temporary file, so that nothing
is left of a killed writer and memory stays flat. Only when every row is known to be good, and it is known
which partitions differ from what the store has, does the store see the first row.

What does not: connections, transactions, Dagster.
"""

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation
from ml_assets.lib.sql import ALWAYS, NEVER, joined, quote_identifier
from ml_assets.tables.arrow_types import BATCH_BYTES, arrow_schema, conform, key_taken
from ml_assets.tables.hashing import add_hashes, hash_text, key_hash_sql, row_hash_sql
from ml_assets.tables.one_model import of_one_model
from ml_assets.tables.validation import EPOCH, WHOLE, Limits, Window, bucket_sql, checks_of, micros, refusal

if TYPE_CHECKING:
    import numpy as np

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
_LAST_US = micros(datetime.max.replace(tzinfo=UTC))

_MEMORY_BYTES = 64 * 2**20
"""Rows beyond this go to a temporary file."""

_MEMORY_KEYS = 4_000_000
"""Keys beyond this go to a temporary file, too."""

_KEY_RANGES = 64
"""Parts in which they are read again."""

_PREVIEW_ROWS = 5

_CHUNK_BATCHES = 4
"""Batches that are checked by one query, unless they are large: enough work for two threads."""


@dataclass(frozen=True)
class PartitionState:
    """What one partition (or an unpartitioned table) holds.

    Args:
        rows: number of rows.
        bytes: size of the values, without the store's overhead.
        content_hash: see tables/hashing.py.
        written_at: when the ledger noted it; None of what was measured. It is no part of what the partition holds.
    """

    rows: int
    bytes: int
    content_hash: str
    written_at: datetime | None = field(default=None, compare=False)


@dataclass(frozen=True)
class TableState:
    """What a whole table holds.

    Args:
        rows: number of rows.
        content_hash: see tables/hashing.py.
        bytes: size of the values, without the store's overhead.
        newest: start of the newest partition that holds rows, in microseconds since 1970; None if none does.
        written_at: when the ledger last noted a write that changed something; None of what was measured.
    """

    rows: int
    content_hash: str
    bytes: int = field(default=0, compare=False)
    newest: int | None = field(default=None, compare=False)
    written_at: datetime | None = field(default=None, compare=False)


EMPTY = PartitionState(0, 0, hash_text(0))

Buckets = dict[int, PartitionState]
"""State by start of the partition in microseconds since 1970; key 0 for an unpartitioned table."""


def table_state(buckets: Mapping[int, PartitionState]) -> TableState:
    """The partitions taken together."""
    states = buckets.values()
    return TableState(
        sum(s.rows for s in states),
        add_hashes(s.content_hash for s in states),
        sum(s.bytes for s in states),
        max((bucket for bucket, s in buckets.items() if s.rows), default=None),
        max((s.written_at for s in states if s.written_at), default=None),
    )


def bucket_start(bucket: int) -> datetime:
    """A bucket's first instant."""
    return EPOCH + timedelta(microseconds=bucket)


def bucket_name(bucket: int, contract: Contract) -> str:
    """A bucket as text for ledgers: `2026-01-31`, `2026-01-31-09:00`, or "" if the table has no partitions."""
    if contract.partition_column is None:
        return ""
    start = bucket_start(bucket)
    day = start.date().isoformat()  # strftime's %Y has no zeros in front
    return day if contract.partition_us == DAY_US else f"{day}-{start:%H:%M}"


def bucket_of_name(name: str) -> int:
    """The bucket of a `bucket_name`."""
    if not name:
        return 0
    # Not by strptime: ledgers may hold `999-03-01`, which once was the name of `0999-03-01`.
    year, month, day, *time = name.split("-")
    hour, minute = time[0].split(":") if time else (0, 0)
    return micros(datetime(int(year), int(month), int(day), int(hour), int(minute), tzinfo=UTC))


@dataclass
class Staged:
    """Good rows that wait to be written.

    Args:
        contract: of the table.
        window: slice that the rows replace.
        buckets: what the rows are, by partition.
    """

    contract: Contract
    window: Window
    buckets: Buckets
    _spool: "_Spool"
    _previews: dict[int, pa.Table] = field(default_factory=dict)

    @property
    def rows(self) -> int:
        """All rows."""
        return sum(state.rows for state in self.buckets.values())

    @property
    def bytes(self) -> int:
        """Size of all values."""
        return sum(state.bytes for state in self.buckets.values())

    def changed(self, stored: Mapping[int, PartitionState]) -> set[int]:
        """Partitions within the window whose content differs from what the store has."""
        inside = {bucket for bucket in stored if self.covers(bucket)}
        return {
            bucket
            for bucket in inside | set(self.buckets)
            if not same_content(stored.get(bucket, EMPTY), self.buckets.get(bucket, EMPTY))
        }

    def covers(self, bucket: int) -> bool:
        """Whether a partition lies in the window."""
        if self.window.start is None or self.window.end is None:
            return True
        return self.window.start <= bucket_start(bucket) < self.window.end

    @property
    def rest_of_days(self) -> list[Window]:
        """The hours of the first and the last day that lie outside the window, if a key may not stand there again."""
        if self.window.start is None or self.window.end is None or not self.contract.key_by_day:
            return []
        start, end, day = micros(self.window.start), micros(self.window.end), DAY_US
        rest = (start - start % day, start), (end, end + -end % day)
        return [Window(bucket_start(first), bucket_start(last)) for first, last in rest if first < last]

    def partitions_losing_rows(self, found: Iterable[Sequence[Any]]) -> set[int]:
        """Partitions that rows are taken from, because the time of a key has changed.

        Args:
            found: such a partition, and the values of a key that stands in it and is given for another one.

        Raises:
            ContractViolation: it is not being written, and the key is unique within its day.
        """
        taken = set()
        for bucket, *key in found:
            if self.contract.key_by_day and not self.covers(int(bucket)):
                where = bucket_name(int(bucket), self.contract)
                raise key_taken(self.contract, f"{', '.join(map(repr, key))} in {where}")
            taken.add(int(bucket))
        return taken

    def batches(self, buckets: set[int] | None = None) -> Iterator[pa.RecordBatch]:
        """The rows, or those of some partitions. Can be read any number of times."""
        every = buckets is None or buckets >= set(self.buckets)
        for batch in self._spool:
            chosen = batch if every else batch.filter(self._within(batch, buckets or set()))
            if chosen.num_rows:
                yield chosen

    def reader(self, buckets: set[int] | None = None) -> pa.RecordBatchReader:
        """`batches` as a reader."""
        return pa.RecordBatchReader.from_batches(arrow_schema(self.contract), self.batches(buckets))

    def rows_in(self, buckets: set[int]) -> int:
        """Rows of some partitions."""
        return sum(self.buckets[bucket].rows for bucket in buckets if bucket in self.buckets)

    def preview(self, buckets: Iterable[int]) -> pa.Table:
        """The first rows of some partitions."""
        found = [self._previews[bucket] for bucket in sorted(buckets) if bucket in self._previews]
        return pa.concat_tables([arrow_schema(self.contract).empty_table(), *found]).slice(0, _PREVIEW_ROWS)

    def close(self) -> None:
        """Forget the rows."""
        self._spool.close()

    def __enter__(self) -> "Staged":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _within(self, batch: pa.RecordBatch, buckets: set[int]) -> pa.Array:
        import numpy as np

        wanted = np.fromiter(buckets, dtype=np.int64)
        return pa.array(np.isin(_buckets_of(batch, self.contract), wanted))


def _buckets_of(rows: pa.RecordBatch | pa.Table, contract: Contract) -> "np.ndarray":
    """The partition of each row."""
    import numpy as np

    if contract.partition_column is None:
        return np.zeros(rows.num_rows, dtype=np.int64)
    moments = rows.column(contract.partition_column)
    if pa.types.is_date(moments.type):
        moments = pc.cast(moments, pa.timestamp("us"))
    return (
        pc.cast(moments, pa.int64()).to_numpy(zero_copy_only=False)
        // contract.partition_us
        * contract.partition_us
    )


def same_content(one: PartitionState, other: PartitionState) -> bool:
    """Whether two partitions hold the same rows."""
    return one.rows == other.rows and one.content_hash == other.content_hash


def kept_from(days: int, now: datetime | None = None) -> datetime:
    """First instant of the days that are kept of a table whose rows are kept for so many days after their own."""
    today = (now or datetime.now(UTC)).astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return today - timedelta(days=days)


def stage(
    data: Any,
    contract: Contract,
    limits: Limits,
    window: Window = WHOLE,
) -> Staged:
    """Take in all rows, or refuse them all.

    Args:
        data: DataFrame, Table or RecordBatchReader.
        contract: what the rows must keep.
        limits: what the store can hold.
        window: slice that the rows must lie in.

    Raises:
        ContractViolation: a row breaks the contract; says which column and shows values.
    """
    if limits.columns is not None and len(contract.columns) > limits.columns:
        raise ContractViolation(
            f"{contract.asset} has {len(contract.columns):,} columns, and a table of {limits.store} has "
            f"{limits.columns:,} at most: keep several of them as one JSON document, or make rows of them. Nothing was "
            "written."
        )
    spool = _Spool(arrow_schema(contract))
    try:
        with _Checker(contract, limits, window) as checker:
            for chunk in chunked(of_one_model(conform(data, contract), contract)):
                checker.take(chunk)
                spool.extend(chunk)
            checker.refuse_duplicates(spool)
            return Staged(contract, window, checker.buckets, spool, checker.previews)
    except BaseException:
        spool.close()
        raise


def measure(data: Iterable[pa.RecordBatch], contract: Contract) -> Buckets:
    """State of the partitions that rows of the contract's schema make up, without checking them."""
    with _Checker(contract, None, WHOLE) as checker:
        for chunk in chunked(iter(data)):
            checker.take(chunk)
        return checker.buckets


def chunked(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Batches in lists that are worth one query each."""
    chunk: list[pa.RecordBatch] = []
    for batch in batches:
        if batch.num_rows:
            chunk.append(batch)
        if len(chunk) == _CHUNK_BATCHES or sum(each.nbytes for each in chunk) >= _CHUNK_BATCHES * BATCH_BYTES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


class _Spool:
    """Batches, in memory up to a limit, then in an unnamed temporary file. Can be read again."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema = schema
        self._memory: list[pa.RecordBatch] = []
        self._bytes = 0
        self._file: IO[bytes] | None = None
        self._writer: pa.RecordBatchFileWriter | None = None

    def extend(self, batches: Iterable[pa.RecordBatch]) -> None:
        for batch in batches:
            self._bytes += batch.nbytes
            if self._writer is None and self._bytes > _MEMORY_BYTES:
                self._file = tempfile.TemporaryFile(prefix="ml-assets-")  # noqa: SIM115 - closed by close()
                self._writer = pa.ipc.new_file(self._file, self._schema)
            if self._writer is None:
                self._memory.append(batch)
            else:
                self._writer.write_batch(batch)

    def __iter__(self) -> Iterator[pa.RecordBatch]:
        yield from self._memory
        if self._file is None or self._writer is None:
            return
        self._writer.close()
        self._file.flush()
        # A path of its own position: two readers must not move each other's.
        with pa.OSFile(f"/proc/self/fd/{self._file.fileno()}") as source:
            stored = pa.ipc.open_file(source)
            for index in range(stored.num_record_batches):
                yield stored.get_batch(index)

    def close(self) -> None:
        self._memory = []
        if self._file is not None:
            self._file.close()
            self._file = None


@dataclass
class _Checker:
    """Runs a contract's checks over batches and adds up what they hold, with DuckDB on Arrow data."""

    contract: Contract
    limits: Limits | None
    window: Window
    buckets: Buckets = field(default_factory=dict)
    previews: dict[int, pa.Table] = field(default_factory=dict)

    def __enter__(self) -> "_Checker":
        import duckdb

        self._connection = duckdb.connect()
        self._connection.execute("SET TimeZone = 'UTC'")
        self._connection.execute("SET arrow_large_buffer_size = true")
        self._checks = checks_of(self.contract, self.limits, self.window) if self.limits else []
        self._bucket = bucket_sql(self.contract)
        self._key_hashes: list[np.ndarray] = []
        self._keys: IO[bytes] | None = None
        self._key_runs: list[list[int]] = []
        broken = [f"count_if({check.broken})" for check in self._checks]
        sums = ["count(*)", self._bytes_sql(), f"sum({row_hash_sql(self.contract.columns)})", *broken]
        group = f"GROUP BY {self._bucket}" if self.contract.partition_column else ""
        self._statement = f"SELECT any_value({self._bucket}), {', '.join(sums)} FROM chunk {group}"
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()
        if self._keys is not None:
            self._keys.close()

    def take(self, chunk: list[pa.RecordBatch]) -> None:
        """Check and count some batches.

        Raises:
            ContractViolation: a row breaks a demand.
        """
        import numpy as np

        self._refuse_large(chunk)
        table, seen = pa.Table.from_batches(chunk), []
        self._connection.register("chunk", table)
        for bucket, rows, size, total, *broken in self._summed(len(chunk) == _CHUNK_BATCHES):
            for check, count in zip(self._checks, broken, strict=True):
                if count:
                    # A full chunk need not be the last one; those before it kept every demand.
                    self._refuse(check, more=len(chunk) == _CHUNK_BATCHES)
            held = self.buckets.get(bucket, EMPTY)
            both = add_hashes([held.content_hash, hash_text(int(total))])
            self.buckets[bucket] = PartitionState(held.rows + rows, held.bytes + int(size), both)
            seen.append(bucket)
        if self.limits:
            self._keep_previews(table, seen)
        if self.limits and self.contract.key:
            hashes = f"SELECT {self._key_hash_sql()} AS key_hash FROM chunk"
            self._key_hashes.append(np.asarray(self._connection.execute(hashes).fetchnumpy()["key_hash"]))
            if sum(map(len, self._key_hashes)) > _MEMORY_KEYS:
                self._set_keys_aside()

    def _refuse_large(self, chunk: list[pa.RecordBatch]) -> None:
        """Refuse a row that is larger than the store's. Such a row is a batch by itself; see `conform`."""
        for batch in chunk:
            if batch.num_rows == 1 and self.limits and batch.nbytes > self.limits.row_bytes:
                sizes = {name: batch.column(name).nbytes for name in self.contract.names}
                largest = max(sizes, key=sizes.__getitem__)
                key = ", ".join(repr(batch.column(name)[0].as_py()) for name in self.contract.key)
                raise ContractViolation(
                    f"{self.contract.asset}: a row{f' (key {key})' if key else ''} has {batch.nbytes:,} bytes, "
                    f"{sizes[largest]:,} of them in column {largest!r}, and {self.limits.store} holds rows of at most "
                    f"{self.limits.row_bytes:,}: keep what is so large in a file, and its path here. Nothing was written."
                )

    def _summed(self, more: bool) -> list[tuple[Any, ...]]:
        """What a chunk holds, a line a partition.

        Raises:
            ContractViolation: a time is so far off that its partition cannot be worked out.
        """
        import duckdb

        try:
            return self._connection.execute(self._statement).fetchall()
        except (duckdb.OutOfRangeException, duckdb.ConversionException):
            for check in self._checks:
                with suppress(duckdb.OutOfRangeException, duckdb.ConversionException):
                    if self._count_of(check):
                        self._refuse(check, more)
            raise

    def _keep_previews(self, table: pa.Table, seen: list[int]) -> None:
        """Keep copies of the first rows of partitions that have not been seen before."""
        import numpy as np

        new = np.array([bucket for bucket in seen if bucket not in self.previews], dtype=np.int64)
        if not len(new):
            return
        buckets = _buckets_of(table, self.contract)
        order = np.argsort(buckets, kind="stable")
        starts = np.searchsorted(buckets, new, sorter=order)
        counts = [min(_PREVIEW_ROWS, self.buckets[bucket].rows) for bucket in new]
        found = [order[start : start + count] for start, count in zip(starts, counts, strict=True)]
        rows = table.take(np.concatenate(found))
        ends = np.cumsum(counts).tolist()
        for bucket, count, end in zip(new.tolist(), counts, ends, strict=True):
            self.previews[bucket] = rows.slice(end - count, count)

    def _set_keys_aside(self) -> None:
        """Move the hashes of keys from memory to an unnamed file, in order and by ranges."""
        import numpy as np

        if self._keys is None:
            self._keys = tempfile.TemporaryFile(prefix="ml-assets-")  # noqa: SIM115 - closed by __exit__
        hashes = np.concatenate(self._key_hashes)
        hashes.sort()
        starts = np.arange(_KEY_RANGES, dtype=np.uint64) * np.uint64(2**64 // _KEY_RANGES)
        before = self._keys.tell() // hashes.itemsize
        self._key_runs.append([before + int(n) for n in (*np.searchsorted(hashes, starts), len(hashes))])
        self._keys.write(hashes.data)
        self._key_hashes = []

    def _suspects(self) -> "np.ndarray":
        """Hashes that stand twice."""
        import numpy as np

        if self._keys is None:
            return _doubled(np.concatenate(self._key_hashes))
        if self._key_hashes:
            self._set_keys_aside()
        return np.concatenate([_doubled(hashes) for hashes in self._kept_keys(self._keys)])

    def _kept_keys(self, file: IO[bytes]) -> "Iterator[np.ndarray]":
        """All hashes, one range after the other, so that each fits in memory."""
        import numpy as np

        size = np.dtype(np.uint64).itemsize
        for part in range(_KEY_RANGES):
            hashes = []
            for edges in self._key_runs:
                file.seek(edges[part] * size)
                hashes.append(
                    np.frombuffer(file.read((edges[part + 1] - edges[part]) * size), dtype=np.uint64)
                )
            yield np.concatenate(hashes)

    def refuse_duplicates(self, spool: _Spool) -> None:
        """Refuse keys that stand twice. Hashes are compared first, values only where hashes are equal.

        Raises:
            ContractViolation: with some of the keys.
        """
        if not self.contract.key or not (self._key_hashes or self._keys):
            return
        suspects = self._suspects()
        self._key_hashes = []
        if not len(suspects):
            return
        self._connection.register("suspect", pa.table({"key_hash": suspects}))
        keys = ", ".join(f"any_value({quote_identifier(name)})" for name in self.contract.key)
        statement = (
            f"SELECT {keys}, count(*) FROM spooled "
            f"WHERE {self._key_hash_sql()} IN (SELECT key_hash FROM suspect) "
            f"GROUP BY {', '.join(self._key_parts())} HAVING count(*) > 1 ORDER BY ALL LIMIT 3"
        )
        self._connection.register(
            "spooled", pa.RecordBatchReader.from_batches(arrow_schema(self.contract), iter(spool))
        )
        found = self._connection.execute(statement).fetchall()
        if found:
            shown = "; ".join(", ".join(map(repr, row[:-1])) + f" ({row[-1]} times)" for row in found)
            within = " within a day of UTC" if self.contract.key_by_day else ""
            raise ContractViolation(
                f"{self.contract.asset}: key {', '.join(self.contract.key)} is not unique{within}: {shown}; "
                "deduplicate upstream. Nothing was written."
            )

    def _key_parts(self) -> list[str]:
        parts = [quote_identifier(name) for name in self.contract.key]
        return [bucket_sql(self.contract, DAY_US), *parts] if self.contract.key_by_day else parts

    def _key_hash_sql(self) -> str:
        return key_hash_sql(self._key_parts())

    def _bytes_sql(self) -> str:
        fixed = 0
        sizes = []
        for column in self.contract.columns:
            name = quote_identifier(column.name)
            if column.type in ("string", "json"):
                sizes.append(f"coalesce(sum(strlen({name})), 0)")
            elif column.type == "vector":
                sizes.append(f"coalesce(sum(len({name})), 0) * 4")
            else:
                fixed += {"bool": 1, "date": 4}.get(column.type, 8)
        return joined([f"count(*) * {fixed}", *sizes], "+")

    def _refuse(self, check: Any, more: bool) -> None:
        """Raise for the first check that fails, with its first values."""
        import duckdb

        name, count = quote_identifier(check.column), self._count_of(check)
        chosen = f"FROM chunk WHERE {check.broken} ORDER BY 1 LIMIT 3"
        try:
            values = self._connection.execute(f"SELECT DISTINCT {name} {chosen}").fetchall()
        except duckdb.ConversionException:  # a time that nobody has a name for
            values = self._connection.execute(f"SELECT DISTINCT epoch({name}) {chosen}").fetchall()
        raise ContractViolation(refusal(self.contract, check, count, [value for (value,) in values], more))

    def _count_of(self, check: Any) -> int:
        """Rows of the chunk that break a demand."""
        return self._connection.execute(f"SELECT count(*) FROM chunk WHERE {check.broken}").fetchall()[0][0]


def _doubled(hashes: "np.ndarray") -> "np.ndarray":
    """Those that stand more than once."""
    import numpy as np

    hashes.sort()
    return np.unique(hashes[1:][hashes[1:] == hashes[:-1]])


def partitions_to_write(
    staged: Staged, ledger: Mapping[int, PartitionState], live: Callable[[Window], Buckets]
) -> set[int]:
    """Partitions that must be written.

    The ledger is believed when it says that content differs. Where it says that content is the same, the
    rows themselves are measured, since somebody may have changed them by hand.

    Args:
        ledger: the store's ledger.
        live: reads and measures the rows of a window.
    """
    changed = staged.changed(ledger)
    if staged.window.start is None or staged.window.end is None:
        # All or nothing: rows of days that no ledger knows must go, too, so that every day is written again.
        changed = changed or staged.changed(live(staged.window))
        return changed | set(ledger) | set(staged.buckets) if changed else changed
    length = (staged.window.end - staged.window.start) // timedelta(microseconds=staged.contract.partition_us)
    return changed if len(changed) >= length else changed | staged.changed(live(staged.window))


def spans(staged: Staged, buckets: Iterable[int]) -> list[Window]:
    """The windows of some partitions; the whole table if that is what is written."""
    return [WHOLE] if staged.window.whole else spans_of(buckets, staged.contract)


def spans_of(buckets: Iterable[int], contract: Contract) -> list[Window]:
    """The buckets as few windows, neighbours joined."""
    found: list[tuple[int, int]] = []
    for bucket in sorted(buckets):
        if found and found[-1][1] == bucket:
            found[-1] = (found[-1][0], bucket + contract.partition_us)
        else:
            found.append((bucket, bucket + contract.partition_us))
    # No end after the last day of the year 9999, after which Python knows no other.
    return [
        Window(bucket_start(first), bucket_start(last) if last <= _LAST_US else None) for first, last in found
    ]


def windows_sql(contract: Contract, windows: Iterable[Window], literal: Callable[[datetime], str]) -> str:
    """Condition for the rows of some windows.

    Args:
        literal: the store's form of a point in time, to compare the partition column with.
    """
    if contract.partition_column is None:
        return ALWAYS
    column = quote_identifier(contract.partition_column)
    parts = []
    for window in windows:
        if window.start is None:
            return ALWAYS
        end = f" AND {column} < {literal(window.end)}" if window.end else ""
        parts.append(f"({column} >= {literal(window.start)}{end})")
    return joined(parts, "OR") if parts else NEVER


def row_hashes(batch: pa.RecordBatch, contract: Contract) -> tuple[list[int], list[int]]:
    """Hash and partition of each row of a batch."""
    import duckdb

    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("chunk", pa.Table.from_batches([batch]))
        rows = connection.execute(
            f"SELECT {row_hash_sql(contract.columns)}, {bucket_sql(contract)} FROM chunk"
        ).fetchall()
    return [row[0] for row in rows], [row[1] for row in rows]
