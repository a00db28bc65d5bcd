"""Where every column of every table comes from, and what the walks and names make of it."""

import re
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest
import typer

from ml_assets import connect
from ml_assets.cli import app
from ml_assets.cli.lineage import failed_checks
from ml_assets.contracts import tables
from ml_assets.contracts.lineage import declared
from ml_assets.errors import Refusal
from ml_assets.lib.lineage import ColumnRef, Origins, Place, downstream, find_column, sql_origins, upstream
from ml_assets.lib.lineage_layout import lanes, layers
from ml_assets.metadata import column_lineage
from ml_assets.operations.lineage import ColumnLineage, graph_lineage, page_of_graph
from ml_assets.settings import Settings

RUNS = Place("raw", "raw_runs", "duckdb/raw_runs", ("run_id", "created_at", "status"))
METRICS = Place("raw", "raw_metrics", "duckdb/raw_metrics", ("run_id", "key", "value"))


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return Settings(home=tmp_path_factory.mktemp("lineage") / "home")


@pytest.fixture(scope="module")
def graph(settings: Settings) -> ColumnLineage:
    return graph_lineage(settings)


def test_every_column_of_every_table_has_sources_or_a_reason(graph, settings):
    columns = graph.columns()
    unexplained, unknown, both = [], [], []
    for asset, contract in tables(settings).items():
        origins = graph.of(asset)
        assert origins is not None
        named = {*origins.columns, *origins.made}
        unexplained += [f"{asset}.{name}" for name in contract.names if name not in named]
        unexplained += [f"{asset}.{name} of no contract" for name in named - set(contract.names)]
        both += [f"{asset}.{name}" for name in origins.columns.keys() & origins.made.keys()]
        assert all(origins.columns.values())
        # Dagster takes none twice.
        assert all(len(set(sources)) == len(sources) for sources in origins.columns.values()), asset
        assert all(origins.made.values())
        sources = {*origins.rows, *(each for sources in origins.columns.values() for each in sources)}
        unknown += [f"{asset} comes from {s}" for s in sources if s.column not in columns.get(s.asset, ())]
    assert (unexplained, unknown, both) == ([], [], [])


# A constant, a count of rows, or what the program hands in: the rules that judge runs, which PostgreSQL unnests.
OF_NO_COLUMN = re.compile(r"'.*'|COUNT\(\*\).*|metric_rules AS \w+|name|higher_is_better")


def test_what_sql_makes_of_no_column_is_a_constant_a_count_or_handed_in(graph):
    """A way that the parser loses shows here."""
    found = {
        f"{asset}.{name}": why.partition(": ")[2]
        for asset, origins in graph.whole().items()
        for name, why in origins.made.items()
        if why.startswith("The SQL")
    }
    assert found["postgres/ml_experiments.origin"] == "'graph'"
    assert found["duckdb/run_features.point_count"] == "COUNT(*)"
    assert {column: why for column, why in found.items() if not OF_NO_COLUMN.fullmatch(why)} == {}
    assert not [asset for asset in graph.whole() if "cannot be followed" in str(graph.of(asset))]


@pytest.mark.parametrize(
    ("column", "sources"),
    [
        ("duckdb/intake_runs.notes", ["landing/runs.notes", "mlflow/runs.tags"]),
        ("duckdb/run_features.loss_slope", ["duckdb/raw_metrics.step", "duckdb/raw_metrics.value"]),
        ("postgres/ml_run_params.text", ["duckdb/raw_runs.parameters"]),
        (
            "clickhouse/performance_hourly.p95_inference_time_ms",
            ["clickhouse/ml_model_performance.inference_time_ms"],
        ),
        ("postgres/run_leaderboard.mean", ["postgres/ml_experiments.metrics"]),
        ("serving/online_features.event_timestamp", ["duckdb/run_features.created_at"]),
        ("chroma/document_index.embedding", ["postgres/document_embeddings.embedding"]),
    ],
)
def test_a_column_comes_from(graph, column, sources):
    asset, _, name = column.rpartition(".")
    found = list(map(str, graph.of(asset).columns[name]))
    assert set(sources) <= set(found)


def test_the_row_that_is_served_of_an_entity_is_chosen_by_its_times_and_the_rest_of_the_key(graph, settings):
    served, table = "serving/model_daily_features", "duckdb/model_daily_features"
    rows = graph.of(served).rows
    assert set(rows) == {ColumnRef(table, name) for name in ("model_name", "day", "known_at")}
    longer = replace(tables(settings)[table], key=("model_name", "day", "avg_accuracy_7d"))
    rows = declared({**tables(settings), table: longer})[served].rows
    assert ColumnRef(table, "avg_accuracy_7d") in rows


def test_sql_goes_through_joins_and_ctes_and_tells_what_decides_about_rows():
    text = (
        "WITH m AS (SELECT run_id, max(value) AS best FROM raw.raw_metrics GROUP BY run_id) "
        "SELECT r.run_id, r.created_at, m.best - 1 AS change, 'x' AS made FROM raw.raw_runs r JOIN m USING (run_id) "
        "WHERE r.status = 'completed'"
    )
    origins = sql_origins(text, [RUNS, METRICS], "duckdb")
    assert origins.columns["change"] == (ColumnRef("duckdb/raw_metrics", "value"),)
    assert origins.columns["created_at"] == (ColumnRef("duckdb/raw_runs", "created_at"),)
    assert origins.made == {"made": "The SQL makes it of no column: 'x'"}
    assert ColumnRef("duckdb/raw_runs", "status") in origins.rows
    assert ColumnRef("duckdb/raw_metrics", "key") not in origins.rows


BY_NAME = (
    "SELECT run_id, status FROM raw.raw_runs "
    "UNION ALL BY NAME SELECT key, value AS status, run_id FROM raw.raw_metrics"
)


@pytest.mark.parametrize(
    "text",
    [
        BY_NAME,
        f"WITH u AS ({BY_NAME}) SELECT * FROM u",
        f"SELECT u.key, u.status, run_id FROM ({BY_NAME}) u",
        f"SELECT key FROM raw.raw_metrics UNION BY NAME ({BY_NAME})",
    ],
)
def test_a_union_by_name_matches_its_sides_by_name(text):
    origins = sql_origins(text, [RUNS, METRICS], "duckdb")
    assert {name: list(map(str, sources)) for name, sources in origins.columns.items()} == {
        "run_id": ["duckdb/raw_metrics.run_id", "duckdb/raw_runs.run_id"],
        "status": ["duckdb/raw_metrics.value", "duckdb/raw_runs.status"],
        "key": ["duckdb/raw_metrics.key"],
    }
    assert origins.made == {}


def test_a_union_by_name_of_what_is_handed_in_takes_nothing_down():
    text = "SELECT * FROM handed_in UNION ALL BY NAME SELECT run_id FROM raw.raw_runs"
    sql_origins(text, [RUNS], "duckdb", ["run_id"])


A, B, C = "duckdb/a", "postgres/b", "redis/c"
CHAIN = {
    B: Origins(
        {"x": (ColumnRef(A, "p"), ColumnRef(A, "q")), "y": (ColumnRef(A, "q"),)}, rows=(ColumnRef(A, "f"),)
    ),
    C: Origins({"z": (ColumnRef(B, "x"), ColumnRef(B, "y"))}),
}


def test_walks_go_both_ways_and_tell_a_step_once():
    up = list(upstream(CHAIN, ColumnRef(C, "z")))
    assert [(str(s.column), str(s.source), s.distance) for s in up] == [
        ("redis/c.z", "postgres/b.x", 1),
        ("redis/c.z", "postgres/b.y", 1),
        ("postgres/b.x", "duckdb/a.p", 2),
        ("postgres/b.x", "duckdb/a.q", 2),
        ("postgres/b.y", "duckdb/a.q", 2),
    ]
    down = list(downstream(CHAIN, ColumnRef(A, "p")))
    assert [(str(s.column), s.distance) for s in down] == [("postgres/b.x", 1), ("redis/c.z", 2)]
    assert [(s.column.asset, s.how) for s in downstream(CHAIN, ColumnRef(A, "f"))] == [
        (B, "rows"),
        (C, "rows"),  # cannot be built without b
    ]


def test_tables_stand_right_of_their_parents_and_lanes_that_do_not_meet_share_a_band():
    parents = {
        "in/1": [],
        "in/2": [],
        "db/1": ["in/2"],
        "db/2": ["in/1"],
        "pg/1": ["db/1", "in/1"],
        "db/3": ["db/2"],
    }
    lane_of = {table: table.split("/")[0] for table in parents}
    found = {lane.name: (lane.band, lane.first, list(lane.cells)) for lane in lanes(parents, lane_of)}
    assert found == {
        "in": (0, 0, [["in/1", "in/2"]]),
        "db": (0, 1, [["db/2", "db/1"], ["db/3"]]),  # so that no lines cross
        "pg": (1, 2, [["pg/1"]]),
    }
    assert layers({"a": ["b"], "b": ["a"], "c": ["b"]}) == {"a": 1, "b": 0, "c": 1}


NAMES = {A: ("p", "q"), B: ("x", "q"), "sqlite/b": ("x",)}


@pytest.mark.parametrize(
    ("name", "found"),
    [("p", ColumnRef(A, "p")), ("b.q", ColumnRef(B, "q")), ("sqlite/b.x", ColumnRef("sqlite/b", "x"))],
)
def test_a_column_is_found_by_as_much_of_its_name_as_is_needed(name, found):
    assert find_column(NAMES, name) == found


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("q", "2 columns are called 'q'.*\n  duckdb/a.q\n  postgres/b.q"),
        ("b.x", "2 columns are called 'b.x'.*\n  postgres/b.x\n  sqlite/b.x"),
        ("duckdb/a", "is a table; name one of its columns:\n  duckdb/a.p"),
        ("sqlite/b.xx", "There is no column 'sqlite/b.xx'; did you mean 'sqlite/b.x'"),
        ("zebra", "There is no column 'zebra'"),
    ],
)
def test_a_name_that_is_none_or_several_says_what_could_be_meant(name, told):
    with pytest.raises(ValueError, match=told):
        find_column(NAMES, name)


def test_the_stack_answers_with_a_row_a_step(settings):
    stack = connect(settings=settings)
    found = stack.lineage("performance_hourly.avg_accuracy").to_pylist()
    values = [row for row in found if row["how"] == "value"]
    assert [row["source_asset"] for row in values] == [
        "clickhouse/ml_model_performance",
        "duckdb/model_performance_events",
        "duckdb/raw_performance",
        "duckdb/intake_performance",
        "landing/performance",
    ]
    later = stack.lineage("landing/runs.status", downstream=True).to_pylist()
    assert {"serving/online_features", "postgres/run_leaderboard"} <= {
        r["asset"] for r in later if r["how"] == "rows"
    }
    with pytest.raises(Refusal, match=r"did you mean 'run_features\.accuracy'"):
        stack.lineage("run_features.acuracy")


def test_sql_that_cannot_be_followed_takes_nothing_else_down(settings):
    graph = ColumnLineage(tables(settings), {"duckdb/run_features": "SELECT ( FROM"})
    whole = graph.whole()
    assert whole["duckdb/run_features"].columns == {}
    assert "cannot be followed" in whole["duckdb/run_features"].made["loss"]
    assert whole["duckdb/raw_runs"].columns


@pytest.mark.parametrize(
    ("select", "column", "sources"),
    [
        # never built; a count of rows has no source
        ("new_file: SELECT model_name, count(*) AS runs FROM raw.raw_runs GROUP BY ALL", "runs", None),
        ("new_file: SELECT run_id, 1 AS one FROM raw.raw_runs", "one", None),
        # edited since it was built
        (
            "run_features: SELECT run_id, status, epochs AS added FROM raw.raw_runs",
            "status",
            "raw_runs.status",
        ),
        ("run_features: SELECT run_id, status, 1 AS one FROM raw.raw_runs", "status", "raw_runs.status"),
        ("run_features: SELECT run_id AS Run_ID, Status FROM raw.raw_runs", "run_id", "raw_runs.run_id"),
    ],
)
def test_an_edited_file_takes_no_page_down(settings, select, column, sources):
    name, _, text = select.partition(": ")
    graph = ColumnLineage(tables(settings), {f"duckdb/{name}": text})
    assert f'aria-label="duckdb/{name}"' in page_of_graph(graph, {})
    asset = f"duckdb/{name}"
    assert column in graph.columns()[asset]
    origins = graph.whole()[asset]
    assert (column in origins.made) == (sources is None)
    if sources:
        assert list(map(str, origins.columns[column])) == [f"duckdb/{sources}"]


def test_columns_are_spelled_as_the_contract_has_them():
    inside = Place("raw", "mixed", "duckdb/mixed", ("Run_ID", "One"))
    origins = sql_origins("SELECT Run_ID, 1 AS One FROM raw.mixed", [inside], "duckdb", ["Run_ID", "One"])
    assert origins.columns == {"Run_ID": (ColumnRef("duckdb/mixed", "Run_ID"),)}
    assert list(origins.made) == ["One"]


def test_dagster_gets_every_column_with_its_sources(graph):
    told = column_lineage(graph.of("postgres/ml_experiments"))["dagster/column_lineage"].deps_by_column
    assert told["origin"] == []
    assert told["id"] == [
        dg.TableColumnDep(asset_key=dg.AssetKey(["duckdb", "raw_runs"]), column_name="run_id")
    ]


def test_a_check_that_crashed_did_not_pass():
    @dg.asset(key=["duckdb", "made"])
    def made() -> None: ...

    @dg.asset_check(asset=made)
    def passes() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    @dg.asset_check(asset=made)
    def fails() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=False)

    @dg.asset_check(asset=made)
    def crashes() -> dg.AssetCheckResult:
        raise RuntimeError("no disk")

    checks = [passes, fails, crashes]
    keys = [key for check in checks for key in check.check_keys]
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([made, *checks], instance=instance, raise_on_error=False)
        assert failed_checks(instance, keys) == {"duckdb/made": ["crashes", "fails"]}


def test_the_command_prints_a_tree(cli, tmp_path: Path):
    done = cli(tmp_path / "none", "lineage", "hourly.avg_accuracy")
    assert done.returncode == 1
    assert "performance_hourly.avg_accuracy" in done.stderr
    done = cli(tmp_path / "none", "lineage", "performance_hourly.avg_accuracy")
    assert done.stdout.splitlines()[1].endswith("clickhouse/ml_model_performance.accuracy")
    done = cli(tmp_path / "none", "features", "lineage", "raw_performance.accuracy", "--downstream", "--json")
    assert '"clickhouse/performance_hourly"' in done.stdout


@pytest.mark.parametrize("asked", [{"downstream": True}, {"as_json": True}])
def test_the_page_is_not_asked_for_with_what_it_would_ignore(asked, tmp_path: Path, capsys):
    page = tmp_path / "lineage.html"
    with pytest.raises(typer.Exit):
        app.lineage("raw_runs.status", html=page, **asked)
    assert "leave out --downstream and --json" in capsys.readouterr().err
    assert not page.exists()


def test_sql_that_lies_too_deep_within_itself_is_told():
    origins = sql_origins(f"SELECT {'(' * 3000}1{')' * 3000} AS one", [], "duckdb", ["one"])
    assert origins.made["one"].startswith("Its SQL cannot be followed: maximum recursion depth")
