"""Feature files in another project: what `dg` lists, what it scaffolds, and that it runs on our lake."""

import tomllib
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from click.testing import CliRunner
from dagster_dg_cli.cli import create_dg_cli

from ml_assets.cli.refresh import QUIET
from ml_assets.components import FeatureTables
from ml_assets.contracts.feature_files import pin, pin_of, read_files
from ml_assets.contracts.text import pinned_contract
from ml_assets.defs.options import FAULT
from ml_assets.io_managers.duckdb import DuckLakeIOManager
from ml_assets.partitions import lookback_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import PROJECT_ROOT
from ml_assets.stores.duckdb.feature_check import check_files

PROJECT = """
[project]
name = "shop"
version = "0"

[tool.dg]
directory_type = "project"

[tool.dg.project]
root_module = "shop"
"""


def dg_command(*arguments: str) -> str:
    """What `dg` prints."""
    done = CliRunner().invoke(create_dg_cli(), arguments)
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project of `dg`, and what installing this package would tell of it."""
    (defs := tmp_path / "src" / "shop" / "defs").mkdir(parents=True)
    (defs.parent / "__init__.py").touch()
    (defs / "__init__.py").touch()
    (tmp_path / "pyproject.toml").write_text(PROJECT)
    (told := tmp_path / "installed" / "shop_needs-0.dist-info").mkdir(parents=True)
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: shop-needs\nVersion: 0\n")
    points = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["entry-points"]
    lines = [
        f"[{group}]\n" + "".join(f"{n} = {v}\n" for n, v in each.items()) for group, each in points.items()
    ]
    (told / "entry_points.txt").write_text("\n".join(lines))
    for folder in (told.parent, defs.parent.parent):
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
    return tmp_path


def test_dg_lists_and_scaffolds_feature_tables(project, shared_lake):
    assert "ml_assets.components.FeatureTables" in dg_command("list", "components")
    dg_command("scaffold", "defs", "ml_assets.components.FeatureTables", "weather")
    written = (project / "src" / "shop" / "defs" / "weather" / "defs.yaml").read_text().strip()
    assert written in (PROJECT_ROOT / "docs" / "features.md").read_text()
    defs = dg.load_from_defs_folder(path_within_project=project / "src" / "shop")
    keeper = (defs.resources or {})["io_manager"]
    assert isinstance(keeper, DuckLakeIOManager)
    assert keeper.lake.home == str(project / "data")
    assert run(shared_lake, defs, "weekdays", "2026-02-28").success
    rows = shared_lake.reader(
        "SELECT weekday, day::VARCHAR AS day, is_weekend FROM features.weekdays"
    ).read_all()
    assert rows.to_pylist() == [{"weekday": "Saturday", "day": "2026-02-28 00:00:00+00", "is_weekend": True}]
    pinned = pin_of(project / "src" / "shop" / "defs" / "weather" / "weekdays.sql")
    contract = pinned_contract("duckdb/weekdays", pinned.read_text())
    assert contract.columns[0].description == "its name"
    assert (contract.key, contract.partition_column) == (("weekday", "day"), "day")


def run(
    lake: DuckLakeResource, defs: dg.Definitions, table: str, day: str | None = None
) -> dg.ExecuteInProcessResult:
    assets = [each for each in defs.assets or () if isinstance(each, dg.AssetsDefinition)]
    resources = {"io_manager": DuckLakeIOManager(lake=lake)}
    return dg.materialize(
        assets,
        resources=resources,
        selection=[dg.AssetKey(table)],
        partition_key=day,
        run_config=QUIET,
        raise_on_error=False,
    )


SPENT = """-- What each customer has spent.
-- entity: customer
SELECT customer, sum(amount) AS amount, any_value(to_json({'last': amount})) AS detail
FROM features.orders
GROUP BY customer
"""


@pytest.fixture
def orders(shared_lake) -> dg.AssetsDefinition:
    """An asset of the project, whose columns nobody has written down."""

    @dg.asset(metadata={"key": "id"})
    def orders() -> pa.Table:
        return pa.table({"id": [1, 2], "customer": ["ada", "ada"], "amount": [3, 4]})

    dg.materialize([orders], resources={"io_manager": DuckLakeIOManager(lake=shared_lake)}, run_config=QUIET)
    return orders


def made(folder: Path, **texts: str) -> dg.Definitions:
    for name, text in texts.items():
        (folder / f"{name}.sql").write_text(text)
    return FeatureTables(folder=str(folder)).build_defs(dg.ComponentTree.for_test().load_context)


def why(result: dg.ExecuteInProcessResult) -> str:
    [failure] = [event for event in result.all_events if event.event_type_value == "STEP_FAILURE"]
    data = failure.step_failure_data.user_failure_data
    return (data and data.description) or str(failure.step_failure_data.error)


def test_a_file_reads_what_other_assets_of_the_project_keep(shared_lake, orders, tmp_path):
    defs = made(
        tmp_path, spent=SPENT, above="-- Above.\nSELECT customer, amount + 1 AS more FROM features.spent"
    )
    result = run(shared_lake, defs, "spent")
    assert result.success
    assert shared_lake.reader("FROM features.spent").read_all().to_pylist() == [
        {"customer": "ada", "amount": 7, "detail": '{"last":3}'}
    ]
    keys = {asset.key.to_user_string() for asset in defs.resolve_asset_graph().asset_nodes}
    assert keys == {"above", "orders", "spent"}
    [event] = [
        event
        for event in result.asset_materializations_for_node("spent")
        if "dagster/column_lineage" in event.metadata
    ]
    lineage = event.metadata["dagster/column_lineage"].value
    assert isinstance(lineage, dg.TableColumnLineage)
    deps = lineage.deps_by_column["amount"]
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in deps] == [("orders", "amount")]
    contract = pinned_contract("duckdb/spent", pin_of(tmp_path / "spent.sql").read_text())
    assert [column.type for column in contract.columns] == ["string", "int64", "json"]
    assert run(shared_lake, made(tmp_path), "above").success
    # The pin is kept to.
    changed = made(tmp_path, spent=SPENT.replace("sum(amount)", "max(customer)"))
    told = why(run(shared_lake, changed, "spent"))
    assert "spent.sql is not as spent.contract.json beside it promises: column 'amount' is string" in told


def test_a_folder_that_is_not_there_is_told(tmp_path):
    with pytest.raises(
        NotADirectoryError, match=f"{tmp_path}/missing, which a component FeatureTables names"
    ):
        made(tmp_path / "missing")


def test_a_wrong_file_fails_when_it_runs_or_at_once(shared_lake, orders, tmp_path):
    defs = made(
        tmp_path,
        gone="-- Gone.\nSELECT id\nFROM features.nowhere",
        starred="-- Starred.\nSELECT * FROM features.orders",
        halves="-- Halves.\n-- ttl: 0d\nSELECT id FROM features.orders",
    )
    assert "gone.sql, line 3, column 6: Table with name nowhere does not exist" in why(
        run(shared_lake, defs, "gone")
    )
    assert "starred.sql, line 2, column 8: a star takes" in why(run(shared_lake, defs, "starred"))
    assert "halves.sql, line 2: ttl is '0d'" in why(run(shared_lake, defs, "halves"))


def test_a_table_that_looks_back_is_mapped_to_the_days_that_it_reads(tmp_path):
    by_day = "-- entity: id\n-- event_time: day\n"
    defs = made(
        tmp_path,
        low=f"-- Low.\n{by_day}SELECT id, day FROM features.orders WHERE day >= $start AND day < $end",
        high=f"-- High.\n{by_day}-- lookback: 2d\nSELECT low.id, low.day FROM features.low AS low "
        "JOIN features.orders AS o ON low.id = o.id WHERE low.day >= $lookback_start AND low.day < $end",
    )
    mappings = defs.resolve_asset_graph().get(dg.AssetKey("high")).partition_mappings
    assert {key.to_user_string(): lookback_days(mapping) for key, mapping in mappings.items()} == {"low": 2}


def test_a_wrong_line_in_the_header_of_one_file_leaves_the_others(tmp_path):
    reading = "SELECT id FROM features.orders"
    defs = made(
        tmp_path,
        good=f"-- Good.\n{reading}",
        owned=f"-- Owned.\n-- owner: bob\n{reading}",
        tagged=f"-- Tagged.\n-- tags: my tag!\n{reading}",
        looking=f"-- Looking.\n-- lookback: 2d\n{reading}",
        timeless=f"-- Timeless.\n{reading} WHERE day >= $start AND day < $end",
    )
    dg.Definitions.validate_loadable(defs)
    nodes = {node.key.to_user_string(): node for node in defs.resolve_asset_graph().asset_nodes}
    assert set(nodes) == {"good", "looking", "orders", "owned", "tagged", "timeless"}
    assert {
        name: node.metadata[FAULT].split(":")[0] for name, node in nodes.items() if FAULT in node.metadata
    } == {
        "owned": "owned.sql, line 2",
        "tagged": "tagged.sql, line 2",
        "looking": "looking.sql, line 2",
        "timeless": "timeless.sql",
    }


def test_a_pin_is_no_new_version_and_keeps_the_partitions_of_a_file_that_broke(tmp_path):
    low = (
        "-- Low.\n-- entity: id\n-- event_time: day\nSELECT 1 AS id, $start AS day, $end > $start AS is_long"
    )

    def loaded(**texts: str) -> dict[str, dg.AssetSpec]:
        defs = made(tmp_path, **texts)
        dg.Definitions.validate_loadable(defs)
        return {spec.key.to_user_string(): spec for spec in defs.resolve_all_asset_specs()}

    before = loaded(low=low)["low"]
    [checked] = check_files(read_files([tmp_path / "low.sql"]), {}, others=True)
    assert checked.contract
    pin(tmp_path / "low.sql", checked.contract)
    assert loaded()["low"].code_version == before.code_version
    high = low.replace("$end > $start AS is_long", "low.is_long").replace(
        "-- entity", "-- lookback: 2d\n-- entity"
    )
    after = loaded(low="-- Low.\nSELECT 1 AS id", high=f"{high} FROM features.low AS low")
    assert FAULT in after["low"].metadata
    assert after["low"].partitions_def == before.partitions_def == after["high"].partitions_def
