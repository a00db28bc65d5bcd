"""Late, doubled, changed and withdrawn rows, in any order, end in the tables of a full rebuild: every feature file.

A plain DuckDB stands for the lake and a dictionary for the ledger of touched days; everything else is what the graph
runs: the queries of the raw tables, what they say of other days, the SELECT files, and the rule by which days are
rebuilt (lib/windows.py). A file that is dropped into the folder is tested here without a word.
"""

import json
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cache
from graphlib import TopologicalSorter
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from duckdb.sqltypes import VARCHAR

from ml_assets.contracts import STREAMS, Contract
from ml_assets.contracts.feature_files import feature_files
from ml_assets.contracts.raw import intake_table, raw_table
from ml_assets.intake.due import Rebuild, rebuilds
from ml_assets.intake.raw import RawInputs, following_days, outdated_events
from ml_assets.lib.canonical_json import canonical
from ml_assets.lib.days import DayRange, bridge
from ml_assets.lib.feature_header import FeatureHeader, parse_header
from ml_assets.lib.feature_sql import METRIC_RULES, FeatureSQL
from ml_assets.lib.metric_rules import MetricRules
from ml_assets.lib.windows import bounds, reached, reaches
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.duckdb.select_file import parse_feature
from ml_assets.tables.arrow_types import arrow_schema
from ml_assets.tables.duckdb_types import DUCKDB_TYPES, UNPARSED_TYPES
from ml_assets_tests.scale import examples

FIRST, TODAY = date(2026, 1, 1), date(2026, 3, 1)
SPAN = DayRange(FIRST, TODAY)
DAILY = [name for name, stream in STREAMS.items() if stream.day_column]
RULES = MetricRules()

Row = dict[str, Any]


@dataclass(frozen=True)
class Feature:
    """A feature file, and what its days are made of."""

    sql: FeatureSQL
    header: FeatureHeader
    contract: Contract | None = None

    @property
    def name(self) -> str:
        return self.sql.name

    @property
    def by_day(self) -> bool:
        return "start" in self.sql.parameters

    @property
    def parents(self) -> list[str]:
        return [parent.removeprefix("duckdb/") for parent in self.sql.parents]

    @property
    def day_column(self) -> str:
        pinned = self.contract and self.contract.partition_column
        column = pinned or self.header.partition or self.header.event_time
        assert column, f"{self.name}.sql binds $start and names no event_time"
        return column


def feature(name: str, text: str) -> Feature:
    return Feature(parse_feature(name, text), parse_header(name, text))


@cache
def shipped() -> tuple[Feature, ...]:
    return tuple(
        replace(feature(file.name, file.text), contract=file.contract) for file in feature_files(Settings())
    )


def in_order(features: Iterable[Feature]) -> list[Feature]:
    """Parents before their children."""
    by_name = {each.name: each for each in features}
    graph = {name: each.parents for name, each in by_name.items()}
    return [by_name[name] for name in TopologicalSorter(graph).static_order() if name in by_name]


def _canonical(each: Feature) -> str:
    """JSON as a write keeps it, as part of a SELECT."""
    found = [c.name for c in each.contract.columns if c.type == "json"] if each.contract else []
    texts = ", ".join(f'canonical("{name}"::VARCHAR)::JSON AS "{name}"' for name in found)
    return f"REPLACE ({texts})" if texts else ""


class Lake:
    """The tables, and the days on which they are due.

    Args:
        features: the tables above the raw ones.
        forget_windows: whether days that look back are left as they are; to show that this would be seen.
    """

    home = ""  # nobody makes a backup of it

    def __init__(self, features: Iterable[Feature], forget_windows: bool = False) -> None:
        features = tuple(features)
        read = {parent for each in features for parent in each.parents}
        # One without days is a full rebuild each time; it matters where others are made of it.
        self.features = [each for each in in_order(features) if each.by_day or each.name in read]
        self._forget = forget_windows
        lookbacks = {
            each.name: dict.fromkeys(each.parents, each.header.lookback_days)
            for each in self.features
            if each.by_day
        }
        self._lookbacks, self._reach = lookbacks, reaches(lookbacks)
        self.due: dict[str, set[date]] = {name: set() for name in STREAMS}
        self.live: dict[str, dict[str, str]] = {name: {} for name in STREAMS}
        """By stream, the origin of each file that counts."""
        self.rebuilt: dict[str, set[date]] = {}
        """The days of each table that the last `settle` rebuilt."""
        self._connection = duckdb.connect(config={"threads": 1})
        self._make_tables()

    def _make_tables(self) -> None:
        run = self._connection.execute
        run("SET TimeZone = 'UTC'; ATTACH ':memory:' AS lake; USE lake")
        run("CREATE SCHEMA intake; CREATE SCHEMA raw; CREATE SCHEMA features")
        for stream in STREAMS.values():
            for contract, types in (
                (intake_table(stream), UNPARSED_TYPES),
                (raw_table(stream), DUCKDB_TYPES),
            ):
                columns = ", ".join(f'"{c.name}" {types[c.type]}' for c in contract.columns)
                run(f"CREATE TABLE {contract.schema}.{contract.table} ({columns})")
        self._connection.create_function("canonical", canonical, [VARCHAR], VARCHAR)
        for each in self.features:
            if each.contract:
                columns = ", ".join(f'"{c.name}" {DUCKDB_TYPES[c.type]}' for c in each.contract.columns)
                run(f"CREATE TABLE features.{each.name} ({columns})")
                continue
            with self._rules(each, SPAN):
                run(
                    f"CREATE TABLE features.{each.name} AS {each.sql.text}",
                    self._parameters(each, SPAN) or None,
                )

    # What intake and raw need of the lake.

    @contextmanager
    def get_connection(self, write: bool = False) -> Iterator[duckdb.DuckDBPyConnection]:
        yield self._connection

    # What comes in.

    def arrive(self, stream: str, unit: str, origin: str, rows: Sequence[Row]) -> None:
        """A file or a run's history comes, and counts from now on."""
        contract = intake_table(STREAMS[stream])
        schema = arrow_schema(contract)
        day_column = STREAMS[stream].day_column
        assert day_column
        told = [
            {name: row.get(name) for name in schema.names}
            | {"unit": unit, "unit_hash": unit, "line": line, "day": row[day_column].date()}
            for line, row in enumerate(rows, 1)
        ]
        self._connection.register("arrived", pa.Table.from_pylist(told, schema))
        self._connection.execute(f"INSERT INTO intake.{contract.table} BY NAME FROM arrived")
        self.turn(stream, unit, origin)

    def turn(self, stream: str, unit: str, origin: str | None) -> None:
        """A file counts, or no more: its days are touched, and those of the runs that it speaks of."""
        if origin:
            self.live[stream][unit] = origin
        else:
            self.live[stream].pop(unit, None)
        table = f"intake.intake_{stream}"
        self.due[stream] |= self._days(f"SELECT DISTINCT day FROM {table} WHERE unit_hash = $unit", unit)
        if stream in ("runs", "metrics"):
            self.due["runs"] |= self._days(
                "SELECT DISTINCT day FROM intake.intake_runs "
                f"WHERE run_id IN (SELECT run_id FROM {table} WHERE unit_hash = $unit)",
                unit,
            )

    def _days(self, statement: str, unit: str) -> set[date]:
        return {day for (day,) in self._connection.execute(statement, {"unit": unit}).fetchall()}

    # The rule.

    def settle(self) -> None:
        """Rebuild what is due, as the sensor of touched days, the conditions and a refresh do."""
        self.rebuilt = {}
        rounds = 0
        while any(self.due.values()):
            assert (rounds := rounds + 1) < 20, f"it never ends: {self.due}"
            for rebuild in rebuilds({stream: sorted(days) for stream, days in self.due.items()}):
                self._rebuild(rebuild)
        for each in self.features:
            if self._reach.get(each.name) and not self._forget:
                days: set[date] = set()
                for parent, lookback in self._lookbacks[each.name].items():
                    days |= reached(self.rebuilt.get(parent, ()), lookback, TODAY)
                for span in bridge(days):
                    self._build(each, span)
            elif not each.by_day:
                self._build(each, SPAN)

    def _rebuild(self, rebuild: Rebuild) -> None:
        span = rebuild.days
        assert span
        built = set()
        for stream in sorted(rebuild.streams):
            self._build_raw(stream, span)
            built.add(f"raw_{stream}")
        for each in self.features:
            if each.by_day and not self._reach[each.name] and built & set(each.parents):
                self._build(each, span)
                built.add(each.name)
                within = {"run_features": False, "model_performance_events": True}.get(each.name)
                if within is not None:
                    self.due["performance"] |= outdated_events(self, span.first, span.last, within)

    def _build_raw(self, stream: str, span: DayRange) -> None:
        captured = self.due[stream] & set(span.days())
        inputs = RawInputs(stream, span.first, span.last, list(self.live[stream].items()), {})
        following = following_days(self, inputs, RULES)
        self._write_raw(inputs, span)
        self.due[stream] -= captured
        self.due["runs"] |= following

    def _write_raw(self, inputs: RawInputs, span: DayRange) -> None:
        table, day = f"raw.raw_{inputs.stream}", STREAMS[inputs.stream].day_column
        self._connection.register("live", inputs.table)
        self._connection.execute(
            f"DELETE FROM {table} WHERE {day} >= $start AND {day} < $end",
            {"start": span.start, "end": span.end},
        )
        self._connection.execute(
            f"INSERT INTO {table} BY NAME {inputs.select()}", {"first": span.first, "last": span.last}
        )
        self.rebuilt.setdefault(f"raw_{inputs.stream}", set()).update(span.days())

    def _build(self, each: Feature, span: DayRange) -> None:
        table, window = f"features.{each.name}", {"start": span.start, "end": span.end}
        if each.by_day:
            held = f"{each.day_column}::TIMESTAMPTZ >= $start AND {each.day_column}::TIMESTAMPTZ < $end"
            self._connection.execute(f"DELETE FROM {table} WHERE {held}", window)
        else:
            self._connection.execute(f"DELETE FROM {table}")
        with self._rules(each, span):
            self._connection.execute(
                f"INSERT INTO {table} BY NAME SELECT * {_canonical(each)} FROM (\n{each.sql.text}\n)",
                self._parameters(each, span) or None,
            )
        self.rebuilt.setdefault(each.name, set()).update(span.days())

    def _parameters(self, each: Feature, span: DayRange) -> Mapping[str, Any]:
        given = bounds(span, each.header.lookback_days)
        return {name: given[name] for name in each.sql.parameters}

    @contextmanager
    def _rules(self, each: Feature, span: DayRange) -> Iterator[None]:
        if each.sql.is_judged:
            statement = read_sql("duckdb/operations/metric_keys.sql")
            window = {"start": span.start, "end": span.end}
            keys = [key for (key,) in self._connection.execute(statement, window).fetchall()]
            self._connection.register(METRIC_RULES, RULES.table(keys))
        yield

    # The proof.

    def difference(self) -> str:
        """What a full rebuild changes, of the first table in which it changes anything; "" if all is as it should be."""
        for stream in DAILY:
            inputs = RawInputs(stream, FIRST, TODAY, list(self.live[stream].items()), {})
            if told := self._changed_by(
                f"raw.raw_{stream}", lambda given=inputs: self._write_raw(given, SPAN)
            ):
                return told
        for each in self.features:
            if told := self._changed_by(f"features.{each.name}", lambda given=each: self._build(given, SPAN)):
                return told
        return ""

    def _changed_by(self, table: str, rebuild: Any) -> str:
        run = self._connection.execute
        run("BEGIN")
        held = self._fingerprint(table)
        rebuild()
        if self._fingerprint(table) == held:
            run("COMMIT")
            return ""
        should = set(map(repr, run(f"FROM {table}").to_arrow_table().to_pylist()))
        run("ROLLBACK")
        found = set(map(repr, run(f"FROM {table}").to_arrow_table().to_pylist()))
        return "\n".join(
            [
                f"{table}: a full rebuild changes it",
                *(f"  it has    {row}" for row in sorted(found - should)[:5]),
                *(f"  and lacks {row}" for row in sorted(should - found)[:5]),
            ]
        )

    def _fingerprint(self, table: str) -> tuple[Any, ...]:
        """Number of the rows, and a hash of them as text to the last bit, whatever their order."""
        row = self._connection.execute(
            f"SELECT count(*), sum(hash(held::VARCHAR)::HUGEINT) FROM {table} AS held"
        ).fetchone()
        assert row
        return row


# What comes in, made up.

MODELS = ("cats", "dogs", None)
DATASETS = ("iris", "digits", None)


@dataclass
class World:
    """Makes files up: new rows, the same rows again, and other versions of them."""

    seed: int
    streams: Sequence[str]
    files: dict[tuple[str, str], tuple[str, list[Row]]] = field(default_factory=dict)
    days: tuple[date, ...] = ()

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)  # noqa: S311 - the same history again for the same seed
        # Few days, so that rows meet; some lie side by side, some as far apart as windows reach.
        starts = [self.rng.randrange(len(SPAN)) for _ in range(3)]
        offsets = {min(start + n, len(SPAN) - 1) for start in starts for n in (0, 1, 6, 7, 27, 28)}
        self.days = tuple(FIRST + timedelta(days=n) for n in sorted(offsets))

    def change(self, lake: Lake) -> str:
        """One thing happens; returns what."""
        gone = [key for key in self.files if key[1] not in lake.live[key[0]]]
        there = [key for key in self.files if key[1] in lake.live[key[0]]]
        what = self.rng.choices(("new", "again", "withdrawn", "back"), (6, 4, 3, 1))[0]
        if what == "withdrawn" and there:
            stream, unit = self.rng.choice(there)
            lake.turn(stream, unit, None)
        elif what == "back" and gone:
            stream, unit = self.rng.choice(gone)
            lake.turn(stream, unit, self.files[stream, unit][0])
        else:
            stream, unit = self._arrive(lake, self.rng.choice(there) if what == "again" and there else None)
        return f"{what} {stream}/{unit}"

    def _arrive(self, lake: Lake, of: tuple[str, str] | None) -> tuple[str, str]:
        stream = of[0] if of else self.rng.choice(self.streams)
        if of:
            rows = [self._version(stream, row) for row in self.files[of][1] if self.rng.random() < 0.8]
        else:
            rows = [getattr(self, f"_{stream}")() for _ in range(self.rng.randint(1, 6))]
        origin = "mlflow" if STREAMS[stream].from_mlflow and self.rng.random() < 0.3 else "landing"
        unit = f"u{len(self.files)}"
        self.files[stream, unit] = origin, rows
        if rows:
            lake.arrive(stream, unit, origin, rows)
        else:
            lake.turn(stream, unit, origin)
        return stream, unit

    def _version(self, stream: str, row: Row) -> Row:
        """The same row, or a later or an earlier state of it."""
        if self.rng.random() < 0.4:
            return row
        other = getattr(self, f"_{stream}")()
        day = STREAMS[stream].day_column
        same = {*STREAMS[stream].key, *(() if stream == "runs" and self.rng.random() < 0.3 else (day,))}
        return {name: row[name] if name in same or self.rng.random() < 0.6 else other[name] for name in row}

    def _time(self) -> datetime:
        day = self.rng.choice(self.days)
        seconds = self.rng.choice((0, 1, 43_200, 86_399, self.rng.randrange(86_400)))
        tail = self.rng.choice((0, 999_999)) if seconds == 86_399 else 0
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        return start + timedelta(seconds=seconds, microseconds=tail)

    def _number(self) -> float | None:
        rng = self.rng
        odd = (None, 0.0, -0.0, 0.5, 1.0, float("nan"), float("inf"), float("-inf"), 1e300, 1e-300)
        return rng.choice(odd) if rng.random() < 0.2 else rng.random() * 10 ** rng.randint(-3, 3)

    def _share(self) -> float | None:
        return self.rng.choice((None, 0.0, 1.0, 0.5, self.rng.random(), self.rng.random()))

    def _run_id(self) -> str:
        return f"r{self.rng.randrange(8)}"

    def _runs(self) -> Row:
        rng, start = self.rng, self._time()
        status = rng.choice(("created", "running", "completed", "completed", "completed", "failed"))
        ended = start + timedelta(seconds=rng.choice((0, 60, 86_400, 5 * 86_400)))
        metrics = {
            key: self._share() for key in ("accuracy", "f1_score", "val_loss", "rmse") if rng.random() < 0.5
        }
        return {
            "run_id": self._run_id(),
            "experiment": rng.choice(("e1", "e2")),
            "name": rng.choice(("first", None)),
            "model_name": rng.choice(MODELS),
            "model_version": rng.choice(("1", "2", None)),
            "model_type": rng.choice(("forest", None)),
            "dataset": rng.choice(DATASETS),
            "status": status,
            "parameters": json.dumps({"lr": rng.choice((0.1, 0.2))}),
            "metrics": json.dumps(metrics, sort_keys=True),
            "created_at": start,
            "completed_at": ended if status in ("completed", "failed") and rng.random() < 0.9 else None,
        }

    def _metrics(self) -> Row:
        return {
            "run_id": self._run_id(),
            "key": self.rng.choice(("accuracy", "val_accuracy", "loss", "train/loss")),
            "step": self.rng.randrange(4),
            "value": self._number(),
            "timestamp": self._time(),
        }

    def _performance(self) -> Row:
        return {
            "event_id": f"e{self.rng.randrange(30)}",
            "kind": self.rng.choice(("evaluation", "inference")),
            "timestamp": self._time(),
            "model_name": self.rng.choice(MODELS[:2]),
            "model_version": self.rng.choice(("1", "2", None)),
            "experiment": self.rng.choice(("e1", None)),
            "run_id": self.rng.choice((None, self._run_id(), self._run_id())),
            **{name: self._share() for name in ("accuracy", "precision", "recall", "f1_score")},
            "inference_time_ms": self.rng.choice((None, 0.0, 5.0, self.rng.random() * 100)),
            "memory_usage_mb": self.rng.choice((None, self.rng.random() * 1000)),
            "batch_size": self.rng.choice((None, 1, 32)),
        }

    def _predictions(self) -> Row:
        return {
            "prediction_id": f"p{self.rng.randrange(40)}",
            "run_id": self.rng.choice((None, self._run_id())),
            "model_name": self.rng.choice(MODELS[:2]),
            "model_version": self.rng.choice(("1", "2", None)),
            "input_features": json.dumps({"x": self.rng.randrange(3)}),
            "prediction": json.dumps(self.rng.choice(("cat", "dog", 1, True))),
            "confidence": self._share(),
            "label": self.rng.choice((None, None, "cat", "dog", "1", "true")),
            "created_at": self._time(),
        }


def history(
    seed: int,
    features: Sequence[Feature],
    steps: int,
    every: int,
    streams: Sequence[str] = (),
    forget_windows: bool = False,
) -> str:
    """Let things happen and hold the tables against full rebuilds.

    Args:
        steps: how often what happened is settled.
        every: after how many of them the tables are held against full rebuilds; at the end in any case.
        streams: what comes in; everything that the features are made of, if none is named.
        forget_windows: see `Lake`.

    Returns:
        What differs, and after what; "" if nothing does.
    """
    read = {parent for each in features for parent in each.parents}
    streams = streams or [stream for stream in DAILY if f"raw_{stream}" in read]
    lake, world, told = Lake(features, forget_windows), World(seed, streams), []
    for step in range(1, steps + 1):
        told.append(", ".join(world.change(lake) for _ in range(world.rng.randint(1, 3))))
        lake.settle()
        if (step % every == 0 or step == steps) and (found := lake.difference()):
            if every > 1:  # once more, to find the step
                return history(seed, features, steps, 1, streams, forget_windows)
            return f"seed {seed}: {'; '.join(told)}\n{found}"
    return ""


def test_any_order_ends_in_the_tables_of_a_full_rebuild():
    for seed in range(examples(2)):
        assert history(seed, shipped(), steps=6, every=3) == ""


WEEK = """-- A week of latencies.
-- entity: model_name
-- event_time: day
-- lookback: 6d
SELECT
    model_name,
    day.day::TIMESTAMPTZ AS day,
    count(*) AS events,
    sum(event.inference_time_ms ORDER BY event.timestamp, event.event_id) AS total_ms
FROM generate_series($start::DATE, $end::DATE - 1, INTERVAL 1 DAY) AS day(day)
JOIN raw.raw_performance AS event
    ON event.timestamp >= day.day::TIMESTAMPTZ - INTERVAL {days} DAY
    AND event.timestamp < day.day::TIMESTAMPTZ + INTERVAL 1 DAY
WHERE event.timestamp >= $lookback_start AND event.timestamp < $end
GROUP BY ALL
"""

MONTH = """-- The weeks of a month.
-- entity: model_name
-- event_time: day
-- lookback: 27d
SELECT
    model_name,
    day.day::TIMESTAMPTZ AS day,
    max(week.events) AS most_events,
    count(*) AS days
FROM generate_series($start::DATE, $end::DATE - 1, INTERVAL 1 DAY) AS day(day)
JOIN features.week AS week
    ON week.day BETWEEN day.day::TIMESTAMPTZ - INTERVAL 27 DAY AND day.day::TIMESTAMPTZ
WHERE week.day >= $lookback_start AND week.day < $end
GROUP BY ALL
"""

SCORED = """-- Events with the month of their model.
-- entity: event_id
-- event_time: timestamp
SELECT event.event_id, event.timestamp, month.most_events
FROM raw.raw_performance AS event
LEFT JOIN features.month AS month
    ON event.model_name = month.model_name AND date_trunc('day', event.timestamp) = month.day
WHERE event.timestamp >= $start AND event.timestamp < $end
"""


def windowed(days: int = 6) -> tuple[Feature, ...]:
    """Three tables one above the other; the lowest reads so many days back, and says that it reads six."""
    texts = {"week": WEEK.replace("{days}", str(days)), "month": MONTH, "scored": SCORED}
    return tuple(feature(name, text) for name, text in texts.items())


def test_windows_above_windows_end_in_the_tables_of_a_full_rebuild():
    for seed in range(examples(3)):
        assert history(seed, windowed(), steps=6, every=3) == ""


def test_days_that_are_left_as_they_were_are_found():
    assert any("features.week" in history(seed, windowed(), 6, 3, forget_windows=True) for seed in range(5))


def test_a_lookback_that_says_less_than_the_select_reads_is_found():
    assert any("features.week" in history(seed, windowed(9), 6, 3) for seed in range(40))


def test_a_late_row_rebuilds_the_days_that_read_it_and_no_other():
    lake, world = Lake(windowed()), World(1, DAILY)
    event = world._performance()
    lake.arrive("performance", "u1", "landing", [event | {"timestamp": SPAN.start + timedelta(days=10)}])
    lake.settle()
    day = FIRST + timedelta(days=10)
    assert lake.rebuilt == {
        "raw_performance": {day},
        "week": reached({day}, 6, TODAY),
        "month": reached({day}, 33, TODAY),
        "scored": reached({day}, 33, TODAY),
    }


def test_a_label_that_comes_late_rebuilds_the_day_of_its_prediction():
    lake, world = Lake(shipped()), World(1, DAILY)
    day = FIRST + timedelta(days=10)
    made = world._predictions() | {"created_at": SPAN.start + timedelta(days=10), "label": None}
    lake.arrive("predictions", "u1", "landing", [made])
    lake.settle()
    lake.arrive("predictions", "u2", "landing", [made | {"label": "cat", "prediction": '"cat"'}])
    lake.settle()
    assert lake.rebuilt["ml_predictions"] == {day}
    with lake.get_connection() as connection:
        rows = connection.execute("SELECT label, is_correct FROM features.ml_predictions").fetchall()
    assert rows == [("cat", True)]


@pytest.mark.parametrize("each", [e for e in shipped() if e.header.lookback_days], ids=lambda each: each.name)
def test_a_shipped_lookback_is_no_day_too_long(each):
    shorter = replace(each, header=replace(each.header, lookback_days=each.header.lookback_days - 1))
    by_name = {other.name: other for other in shipped()} | {each.name: shorter}
    made_of = {each.name}
    for other in reversed(in_order(by_name.values())):
        if other.name in made_of:
            made_of |= set(other.parents)
    streams = [stream for stream in DAILY if f"raw_{stream}" in made_of]
    features = [by_name[name] for name in made_of & by_name.keys()]
    changed = [name for name in streams if f"features.{each.name}" in _after_a_late_file(features, name)]
    assert changed


def _after_a_late_file(features: Sequence[Feature], stream: str) -> str:
    """What differs where each day had rows, and more come late for one of them."""
    lake, world, column = Lake(features), World(1, [stream]), STREAMS[stream].day_column
    noons = [day + timedelta(hours=12) for day in (SPAN.start + timedelta(days=n) for n in range(len(SPAN)))]
    made = [getattr(world, f"_{stream}")() | {column: noon} for noon in noons for _ in range(4)]
    lake.arrive(stream, "u1", "landing", made)
    lake.settle()
    late = [getattr(world, f"_{stream}")() | {column: noons[10] + timedelta(minutes=n)} for n in range(4)]
    lake.arrive(stream, "u2", "landing", late)
    lake.settle()
    return lake.difference()


@pytest.mark.parametrize("each", shipped(), ids=lambda each: each.name)
def test_a_file_by_day_says_where_its_window_begins(each):
    """A window without a lookback in the header would be rebuilt on too few days."""
    if "lookback_start" in each.sql.parameters:
        assert each.header.lookback_days
