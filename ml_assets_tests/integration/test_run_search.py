"""Searches over runs on the real PostgreSQL: what the filters mean there, orders, pages; and the lake's part."""

import csv
import io
import json
import math
import random
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from psycopg.types.json import Jsonb

import ml_assets
from ml_assets.contracts.experiments import RUN_METRICS, RUN_PARAMS, RUNS
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.filters import postgres as compiler
from ml_assets.lib.filters.duckdb import asked_at_steps
from ml_assets.lib.filters.evaluate import matches, ordered
from ml_assets.lib.filters.fields import STATISTICS, Attribute, Field, Metric, Param, Tag
from ml_assets.lib.filters.normal import without_accents
from ml_assets.lib.filters.postgres import Known, page_statements
from ml_assets.lib.filters.tree import (
    And,
    Between,
    Compare,
    Fuzzy,
    In,
    IsNull,
    Like,
    Node,
    Not,
    Or,
    Order,
    leaves,
)
from ml_assets.lib.run_values import number_of, text_of
from ml_assets.operations import run_search
from ml_assets.operations.run_search import Runs, Search, search_page
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings
from ml_assets.stores.postgres_table import ensure_table
from ml_assets_tests.scale import examples

NOW = datetime(2026, 3, 1, tzinfo=UTC)
TEXTS = (
    "",
    "a",
    "B",
    "ärger",
    "Ärger",
    "über",
    "Été à Paris",
    "50%",
    "a_b",
    "back\\slash",
    "it's",
    "ΣΙ",
    "Ёж",
    "10",
    "9",
)
NUMBERS = (0.0, -0.0, 1.0, 0.1, -2.5, 1e-3, 1e300, math.inf, -math.inf)
LOOSE = (
    *TEXTS,
    1,
    2.5,
    True,
    [1, 2],
    "1e999",
    "-1e999",
    "1e-999",
    "0x1",
    " 1",
    "1e-3",
    "Infinity",
    "nan",
    None,
)
KEYS = ("loss", "eval/f1 é", 'quo"te')
STEPS = (0, 10)


def seeded(seed: int) -> random.Random:
    return random.Random(seed)  # noqa: S311 - to be repeatable is the point


def random_run(chance: random.Random, n: int) -> dict[str, Any]:
    start = NOW - timedelta(days=chance.randrange(5), microseconds=chance.randrange(3))

    def perhaps(value: Any) -> Any:
        return value if chance.random() < 0.7 else None

    def metric() -> dict[str, Any]:
        numbers = {name: perhaps(chance.choice(NUMBERS)) for name in ("last", "best", "min", "max", "mean")}
        if chance.random() < 0.2:
            numbers["last"] = math.nan
        steps = {step: chance.choice(NUMBERS) for step in STEPS if chance.random() < 0.5}
        counts = {"count": chance.randrange(3), "last_step": perhaps(chance.randrange(3))}
        return {**numbers, **counts, "first_nan_at": perhaps(start), "steps": steps}

    return {
        "run_id": f"r{n:03}",
        "parent_run_id": None,
        "experiment": chance.choice(TEXTS[1:]),
        "name": perhaps(chance.choice(TEXTS)),
        "model_name": perhaps(chance.choice("abc")),
        "model_version": perhaps(chance.choice(("1", "2", "10", "x"))),
        "model_type": None,
        "dataset": perhaps(chance.choice("ab")),
        "status": chance.choice(("completed", "failed", "running")),
        "origin": chance.choice(("graph", "api")),
        "notes": perhaps(chance.choice(TEXTS)),
        "error": None,
        "artifact_uri": None,
        "created_at": start,
        "completed_at": perhaps(start + timedelta(microseconds=chance.randrange(1, 10**8))),
        "metrics": {key: metric() for key in KEYS if chance.random() < 0.7},
        "parameters": {key: chance.choice(LOOSE) for key in KEYS if chance.random() < 0.7},
        "tags": chance.choice(({key: chance.choice(LOOSE) for key in KEYS if chance.random() < 0.7}, None)),
    }


def random_field(chance: random.Random, number: bool | None = None) -> Field:
    """Any field; one that has numbers, or texts, if that is asked."""
    key = chance.choice((*KEYS, "none"))
    named = ("name", "notes", "experiment", "model_version", "status", "dataset", "run_id")
    numeric = [name for name, kind in STATISTICS.items() if kind == "number"]
    loose = [Param(key), Tag(key), Attribute(chance.choice(named))]
    numbers = [
        Metric(key, chance.choice(numeric)),
        Metric(key, step=chance.choice(STEPS)),
        Attribute("duration_s"),
    ]
    times = [Attribute("created_at"), Attribute("completed_at"), Metric(key, "first_nan_at")]
    return chance.choice(loose if number is False else numbers + loose if number else numbers + loose + times)


def random_tree(chance: random.Random, depth: int = 3) -> Node:
    kind = chance.random()
    if depth and kind < 0.55:
        parts = tuple(random_tree(chance, depth - 1) for _ in range(chance.randrange(2, 4)))
        return And(parts) if kind < 0.2 else Or(parts) if kind < 0.4 else Not(random_tree(chance, depth - 1))
    negated = chance.random() < 0.3
    if kind < 0.62:
        return IsNull(random_field(chance))
    if kind < 0.68:
        pattern = chance.choice(
            ("%", "_", "%r%", "Ä%", "50\\%", "A\\_b", "%\\\\%", "\u03c3\u03b9", "%é_à%", "10")
        )
        return Like(random_field(chance, False), pattern, chance.random() < 0.5, negated)
    if kind < 0.74:
        words = without_accents(chance.choice(("arger", "ETE paris", "Uber", "%", "Σι", "еж", "5"))).split()
        return Fuzzy(random_field(chance, False), tuple(words), negated)
    field = random_field(chance, chance.choice((True, False, None)))
    if field.kind == "time":
        values = [NOW - timedelta(days=chance.randrange(6)) for _ in range(3)]
    elif field.kind == "number" or chance.random() < 0.5:
        finite = [each for each in NUMBERS if math.isfinite(each)]
        values = [chance.choice((*finite, 2.0, 10.0)) for _ in range(3)]
    else:
        values = [chance.choice((*TEXTS, "1", "[1, 2]", "true", "nan", "completed")) for _ in range(3)]
    if kind < 0.9:
        return Compare(field, chance.choice(("=", "!=", "<", "<=", ">", ">=")), values[0])
    if kind < 0.95:
        return In(field, tuple(values), negated)
    low, high, _ = sorted(values)
    return Between(field, low, high, negated)


def narrow_tree(chance: random.Random) -> Node:
    """One of those of which indexes are asked first: several conditions, most of them on metrics and parameters."""
    parts: list[Node] = []
    for _ in range(chance.randrange(1, 4)):
        key = chance.choice(KEYS)
        metric = Metric(key, chance.choice(("last", "best", "min", "max", "mean")))
        above = Compare(metric, chance.choice(("<", ">", ">=", "!=")), chance.choice(NUMBERS[:6]))
        text = In(Param(key), tuple(chance.choices(TEXTS, k=3)), chance.random() < 0.3)
        number = Between(Param(key), 0.0, chance.choice((1.0, 10.0)))
        there = Not(IsNull(chance.choice((metric, Param(key)))))
        parts.append(chance.choice((above, text, number, there, Or((above, number)), random_tree(chance, 1))))
    return And(tuple(parts))


def written(node: Node) -> str:
    """A tree as a person writes it."""

    def value(each: Any) -> str:
        text = each.isoformat() if isinstance(each, datetime) else each
        return f"'{text.replace(chr(39), chr(39) * 2)}'" if isinstance(text, str) else repr(each)

    if isinstance(node, Not):
        return f"NOT ({written(node.part)})"
    if isinstance(node, And | Or):
        return (" AND " if isinstance(node, And) else " OR ").join(
            f"({written(part)})" for part in node.parts
        )
    if isinstance(node, Compare):
        return f"{node.field} {node.operator} {value(node.value)}"
    if isinstance(node, IsNull):
        return f"{node.field} IS NULL"
    no = "NOT " if node.negated else ""
    if isinstance(node, Between):
        return f"{node.field} {no}BETWEEN {value(node.low)} AND {value(node.high)}"
    if isinstance(node, In):
        return f"{node.field} {no}IN ({', '.join(map(value, node.values))})"
    if isinstance(node, Like):
        return f"{node.field} {no}{'ILIKE' if node.ignore_case else 'LIKE'} {value(node.pattern)}"
    return f"{node.field} {'!~' if node.negated else '~'} {value(' '.join(node.words))}"


def load(postgres: PostgresResource, runs: list[dict[str, Any]]) -> None:
    def in_json(metric: Any) -> Any:
        last = metric["last"] if isinstance(metric, dict) else metric
        return last if last is None or math.isfinite(last) else str(last).replace("inf", "Infinity")

    with postgres.connect(write=True) as connection:
        for contract in (RUNS, RUN_METRICS, RUN_PARAMS):
            ensure_table(connection, contract)
        columns = [name for name in RUNS.names if name != "id"]
        with connection.cursor().copy(
            f"COPY ml_experiments (id, {', '.join(columns)}) FROM STDIN".encode()
        ) as copy:
            for run in runs:
                metrics = {key: in_json(value) for key, value in run["metrics"].items()}
                row = run | {
                    name: None if run[name] is None else Jsonb(run[name]) for name in ("parameters", "tags")
                }
                row["metrics"] = Jsonb({key: value for key, value in metrics.items() if value is not None})
                copy.write_row([run["run_id"], *(row[name] for name in columns)])
        statistics = ", ".join(STATISTICS)
        into_metrics = f"COPY ml_run_metrics (run_id, key, created_at, origin, {statistics}) FROM STDIN"
        with connection.cursor().copy(into_metrics.encode()) as copy:
            for run in runs:
                of_run = (run["created_at"], run["origin"])
                for key, metric in run["metrics"].items():
                    copy.write_row([run["run_id"], key, *of_run, *(metric[name] for name in STATISTICS)])
        into_params = b"COPY ml_run_params (run_id, key, created_at, origin, text, number) FROM STDIN"
        with connection.cursor().copy(into_params) as copy:
            for run in runs:
                of_run = (run["created_at"], run["origin"])
                for key, value in run["parameters"].items():
                    if value is not None:
                        copy.write_row(
                            [run["run_id"], key, *of_run, text_of(value), number_of(text_of(value))]
                        )


def no_lake() -> DuckLakeResource:
    raise AssertionError("nothing here asks the lake")


def by_steps(tree: Node, runs: list[dict[str, Any]]) -> Known:
    """What the lake would answer."""
    held = {}
    for leaf in asked_at_steps(tree):
        there = Not(leaf) if isinstance(leaf, IsNull) else leaf
        held[leaf] = [run["run_id"] for run in runs if matches(there, run)]
    return Known(held)


@pytest.fixture
def runs(postgres: PostgresResource) -> list[dict[str, Any]]:
    """200 runs in PostgreSQL, as the plain evaluation takes them."""
    chance = seeded(16)
    made = [random_run(chance, n) for n in range(200)]
    load(postgres, made)
    return made


def test_random_trees_give_the_same_runs_as_a_plain_evaluation(postgres, runs):
    found = 0
    with postgres.connect() as connection:
        for seed in range(examples(300)):
            tree = random_tree(seeded(seed))
            wanted = [run["run_id"] for run in runs if matches(tree, run)]
            ((sql, bound),) = page_statements(
                tree, [Order(Attribute("run_id"))], 1000, None, by_steps(tree, runs)
            )
            got = [row[1] for row in connection.execute(sql.encode(), bound, prepare=False).fetchall()]
            assert got == wanted, f"seed {seed}: {tree}"
            found += 0 < len(wanted) < len(runs)
    assert found > examples(300) * 0.4  # trees that all runs or none fulfil show little


def test_pages_are_the_whole_order_piece_by_piece(postgres, runs, monkeypatch):
    """Whatever is counted as few, and also where filter and order ask for the same."""
    pieces = 0
    for seed in range(examples(100)):
        chance = seeded(seed)
        tree = narrow_tree(chance)
        few, many = chance.choice(((0, 0), (0, 100), (10, 100), (30, 30), (1000, 1000)))
        for module in (run_search, compiler):
            monkeypatch.setattr(module, "FEW", few)
            monkeypatch.setattr(module, "MANY", many)
        monkeypatch.setattr(run_search, "GLANCED_AT", chance.choice((1, 10, 70)))
        monkeypatch.setattr(run_search, "WALKED", chance.choice((1, 20, 80)))
        asked = [leaf.field for leaf in leaves(tree)]
        fields = [
            chance.choice((random_field(chance), chance.choice(asked))) for _ in range(chance.randrange(1, 4))
        ]
        if seed % 3 == 0:
            fields = [Attribute("created_at")]
        if any(isinstance(each, Metric) and each.step is not None for each in (*fields, *asked)):
            continue
        order = tuple(Order(each, chance.random() < 0.5) for each in dict.fromkeys(fields))
        terms = [f"{term.field} {'DESC' if term.descending else 'ASC'}" for term in order]
        wanted = [run["run_id"] for run in ordered((run for run in runs if matches(tree, run)), order)]
        told = f"seed {seed}: {written(tree)} ORDER BY {terms}"
        search = Search(postgres, no_lake, written(tree), terms)
        assert [run["run_id"] for run in Runs(search)] == wanted, told
        got, token = [], None
        while True:
            page = search_page(postgres, no_lake, written(tree), terms, chance.choice((7, 60)), token)
            got += [run["run_id"] for run in page]
            pieces += 1
            if (token := page.next_page_token) is None:
                break
        assert got == wanted, told
    assert pieces > examples(100)


def test_runs_that_are_added_meanwhile_shift_and_repeat_none(postgres, runs):
    search = ("", ("metrics.loss.best DESC", "created_at"))
    whole = [run["run_id"] for run in search_page(postgres, no_lake, *search, 1000, None)]
    got, token, chance = [], None, seeded(1)
    for n in range(100):
        page = search_page(postgres, no_lake, *search, 9, token)
        got += [run["run_id"] for run in page]
        if (token := page.next_page_token) is None:
            break
        load(postgres, [random_run(chance, n) | {"run_id": f"z{n}"}])
    assert [each for each in got if each < "z"] == whole
    assert len(set(got)) == len(got)


def test_a_page_has_what_filter_and_order_name(postgres, runs):
    page = search_page(
        postgres,
        no_lake,
        "metrics.loss.best > 0 AND params.loss IS NOT NULL",
        "metrics.loss.max DESC",
        5,
        None,
    )
    assert len(page) == len(page.runs) == 5
    whole = {run["run_id"]: run for run in runs}
    for run in page:
        kept = whole[run["run_id"]]
        assert run["values"]["metrics.loss.best"] == kept["metrics"]["loss"]["best"] > 0
        assert run["parameters"] == kept["parameters"]
        assert {"experiment", "model_name", "status", "metrics", "tags"} <= set(run)
    assert [str(each) for each in page.fields] == ["metrics.loss.max", "metrics.loss.best", "params.loss"]
    table = page.to_arrow()
    assert table.schema.names == ["run_id", *RUNS.names[1:]]
    assert table["run_id"].to_pylist() == [run["run_id"] for run in page]
    wide = page.to_pandas()
    assert {"run_id", "metrics.loss", "metrics.loss.best", "params.loss"} <= set(wide.columns)
    assert wide["metrics.loss.best"].tolist() == [run["values"]["metrics.loss.best"] for run in page]
    stream = Runs(Search(postgres, no_lake, "status = 'failed'")).batches()
    assert isinstance(stream, pa.RecordBatchReader)
    assert set(stream.read_all()["status"].to_pylist()) == {"failed"}
    nothing = search_page(postgres, no_lake, "run_id = 'none'", (), 5, None)
    assert (len(nothing), nothing.next_page_token) == (0, None)
    assert nothing.to_pandas().empty
    assert nothing.to_arrow().num_rows == 0


def test_a_token_of_another_search_is_refused(postgres, runs):
    token = search_page(postgres, no_lake, "created_at < now", "name", 5, None).next_page_token
    assert token
    for text, order, given in [
        ("created_at < now", "name DESC", token),
        ("created_at <= now", "name", token),
        ("created_at < now", "name", token[:-5]),
        ("created_at < now", "name", "é"),
        ("created_at < now", "name", "x" * 1000),
    ]:
        with pytest.raises(Refusal, match="none of this search"):
            search_page(postgres, no_lake, text, order, 5, given)
    for limit in (0, -1, 10_001):
        with pytest.raises(Refusal, match="give a limit from 1 to 10,000"):
            search_page(postgres, no_lake, "", (), limit, None)


def test_a_table_that_is_not_there_is_told(postgres):
    with pytest.raises(StoreUnavailable, match="postgres/ml_experiments does not exist yet"):
        search_page(postgres, no_lake, "", (), 5, None)
    with postgres.connect(write=True) as connection:
        ensure_table(connection, RUNS)
    with pytest.raises(StoreUnavailable, match="postgres/ml_run_params does not exist yet"):
        search_page(postgres, no_lake, "params.lr = 1", (), 5, None)


@pytest.fixture
def steps(shared_lake: DuckLakeResource) -> Iterator[DuckLakeResource]:
    """A lake with histories of three runs."""
    with shared_lake.get_connection(write=True) as connection:
        connection.execute("CREATE SCHEMA IF NOT EXISTS raw")
        connection.execute(
            "CREATE TABLE raw.raw_metrics (run_id VARCHAR, key VARCHAR, step BIGINT, value DOUBLE, "
            "timestamp TIMESTAMPTZ)"
        )
        connection.execute(
            "INSERT INTO raw.raw_metrics SELECT 'r00' || n, 'loss', step, step / 10 + n, '2026-03-01'::TIMESTAMPTZ "
            "FROM range(3) AS a (n), range(11) AS b (step)"
        )
        connection.execute(  # the later value counts; NaN is none
            "INSERT INTO raw.raw_metrics VALUES ('r000', 'loss', 10, 99, '2026-03-02'), ('r001', 'loss', 5, 'nan', "
            "'2026-03-02'), ('r003', 'other', 10, 1, '2026-03-01')"
        )
    yield shared_lake


def test_a_metric_at_a_step_is_asked_of_the_lake(postgres, runs, steps):
    def found(text: str, order: str = "run_id") -> list[str]:
        return [run["run_id"] for run in search_page(postgres, lambda: steps, text, order, 1000, None)]

    everyone = {run["run_id"] for run in runs}
    assert found("metrics.loss.at(10) > 2.5") == ["r000", "r002"]
    assert found("metrics.loss.at(10) = 99 OR metrics.loss.at(0) IN (1, 7)") == ["r000", "r001"]
    assert found("metrics.loss.at(5) IS NOT NULL") == ["r000", "r002"]
    assert set(found("metrics.loss.at(5) IS NULL")) == everyone - {"r000", "r002"}
    assert set(found("NOT metrics.loss.at(10) BETWEEN 0 AND 50")) == everyone - {"r001", "r002"}
    assert found("metrics.loss.at(10) NOT BETWEEN 0 AND 50") == ["r000"]
    assert found("metrics.loss.at(10) != 99 AND status != 'x'") == ["r001", "r002"]
    assert found("run_id <= 'r003'", "metrics.loss.at(10) DESC") == ["r000", "r002", "r001", "r003"]


MADE = """
INSERT INTO ml_experiments (id, experiment, status, dataset, tags, created_at, origin)
SELECT 'r' || n, 'e' || n % 50, 'completed', 'd' || n % 5, jsonb_build_object('team', 't' || n % 20),
    '2026-01-01'::timestamptz + n * interval '1 minute', 'graph' FROM generate_series(1, 20000) AS n;
INSERT INTO ml_run_metrics (run_id, key, count, created_at, origin, last, best)
SELECT 'r' || n, 'm' || k, 1, '2026-01-01', 'graph', n * 7919 * k % 20000, n * 7919 * k % 20000 * 100 ^ k
FROM generate_series(1, 20000) AS n, generate_series(1, 4) AS k;
INSERT INTO ml_run_params (run_id, key, created_at, origin, text, number)
SELECT 'r' || n, 'p' || k, '2026-01-01', 'graph', n * 31 * k % 1000, n * 31 * k % 1000
FROM generate_series(1, 20000) AS n, generate_series(1, 2) AS k;
ANALYZE ml_experiments, ml_run_metrics, ml_run_params
"""
"""20,000 runs; the scales of the metrics differ, of which the planner's statistics know nothing."""


def test_a_page_reads_little_however_few_or_many_it_finds(postgres, monkeypatch):
    """Pages of 8 kB; the tables have some 2,000, and to look up a metric of each run would read 60,000."""
    load(postgres, [])
    with postgres.connect(write=True) as connection:
        for statement in MADE.split(";"):
            connection.execute(statement.encode())
    for module in (run_search, compiler):
        monkeypatch.setattr(module, "FEW", 300)
        monkeypatch.setattr(module, "MANY", 3000)
    monkeypatch.setattr(run_search, "GLANCED_AT", 120)
    monkeypatch.setattr(run_search, "WALKED", 200)
    asked, read = run_search._asked, []

    def counted(cursor: Any, sql: str, bound: Any) -> Any:
        explain = f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {sql}"
        ((explained,),) = asked(cursor, explain, bound).fetchall()
        read.append(explained[0]["Plan"]["Shared Hit Blocks"] + explained[0]["Plan"]["Shared Read Blocks"])
        return asked(cursor, sql, bound)

    monkeypatch.setattr(run_search, "_asked", counted)
    newest, found = "created_at DESC", {}
    for text, order in [
        ("metrics.m1.best < 200", newest),  # 0.01 %, 1 %, 50 %
        ("metrics.m1.best < 20000", newest),
        ("metrics.m1.best < 1000000", newest),
        ("metrics.m3.last < 2 OR metrics.m2.best < 30000", newest),
        ("metrics.m3.last < 10000 OR params.p1 = 7", newest),
        ("metrics.m1.best < 1000000", "metrics.m1.best DESC"),
        ("params.p1 = '7' AND metrics.m2.last > 100", "metrics.m1.best"),
        ("params.p1 > 900 AND metrics.m1.last < 2000", newest),
        ("NOT metrics.m1.best < 200 AND params.p3 IS NULL", newest),
        ("experiment = 'e7' AND metrics.m4.best IS NOT NULL", newest),
    ]:
        read.clear()
        page = search_page(postgres, no_lake, text, order, 100, None)
        found[f"{text} BY {order}: {len(page)} runs"] = sum(read)
    assert not {told: pages for told, pages in found.items() if pages > 20_000}, found


def test_runs_are_found_from_notebook_and_terminal(postgres, runs, cli, tmp_path):
    experiments = ml_assets.connect(settings=Settings(home=tmp_path, postgres_url=postgres.url)).experiments
    text, order = "metrics.loss.best > 0 AND status = 'completed'", "metrics.loss.best DESC"
    page = experiments.search(text, order, limit=3)
    everyone = [run["run_id"] for run in experiments.search_all(text, order)]
    assert [run["run_id"] for run in page] == everyone[:3]
    assert len(experiments.search()) == 100

    def asked(*arguments: str) -> subprocess.CompletedProcess[str]:
        return cli(tmp_path, "runs", "search", *arguments, ML_ASSETS_POSTGRES_URL=postgres.url, COLUMNS="200")

    done = asked(text, "--order-by", order, "--limit", "3", "--json")
    found = json.loads(done.stdout)
    assert [run["run_id"] for run in found] == everyone[:3]
    values = [float(run["values"]["metrics.loss.best"]) for run in found]
    assert values == [run["values"]["metrics.loss.best"] for run in page]
    token = done.stderr.strip().rpartition("--page ")[2]
    following = asked(text, "--order-by", order, "--limit", "3", "--page", token, "--csv")
    rows = list(csv.DictReader(io.StringIO(following.stdout)))
    assert [row["run_id"] for row in rows] == everyone[3:6]
    assert float(rows[0]["metrics.loss.best"]) > 0
    table = asked(text, "--order-by", order, "--limit", "3").stdout
    assert "metrics.loss.best" in table
    assert "3 runs" in table
    assert all(id in table for id in everyone[:3])
    none = asked("metrics.los < 1 AND params.xyz = 1 AND status = 'finished' AND metrics.loss < 1")
    assert none.stderr.splitlines() == [
        "No run has a metric 'los'; do you mean 'loss'?",
        "No run has a parameter 'xyz'.",
        "No run has the status 'finished': it is one of created, running, completed, failed, cancelled.",
    ]
    wrong = asked("metrics.loss.best >")
    assert wrong.returncode == 1
    assert wrong.stderr.splitlines()[1:] == ["  metrics.loss.best >", "                     ^"]
    assert "--json or --csv" in asked("--json", "--csv").stderr
