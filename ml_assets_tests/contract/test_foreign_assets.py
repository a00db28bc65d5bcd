"""Assets of any project, whose contracts are made of their metadata: what Dagster maps, what is refused, what is told."""

import re
from collections.abc import Callable
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.cli.refresh import QUIET
from ml_assets.errors import ContractViolation
from ml_assets.io_managers.base import TableIOManager
from ml_assets.io_managers.sqlite import SQLiteIOManager

DAILY = dg.DailyPartitionsDefinition("2026-01-01", end_date="2026-01-06")
BY_DAY = {"key": "id", "partition_column": "at"}


@pytest.fixture
def materialize(sqlite, lake, postgres) -> Callable[..., dg.ExecuteInProcessResult]:
    """Materializes assets with one of our IO managers as the default one."""
    from ml_assets.io_managers.duckdb import DuckLakeIOManager
    from ml_assets.io_managers.postgres import PostgresIOManager

    managers: dict[str, TableIOManager] = {
        "sqlite": SQLiteIOManager(sqlite=sqlite),
        "duckdb": DuckLakeIOManager(lake=lake),
        "postgres": PostgresIOManager(postgres=postgres),
    }

    def run(*assets: Any, store: str = "sqlite", **options: Any) -> dg.ExecuteInProcessResult:
        io = {"io_manager": managers[store]}
        return dg.materialize(list(assets), resources=io, run_config=QUIET, **options)

    return run


def test_a_running_total_begins_with_nothing(materialize):
    """An asset that reads its own day before: on the first one there is none, and not even a table."""
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1)
    seen: list[list[str]] = []

    @dg.asset(
        partitions_def=DAILY, metadata=BY_DAY, ins={"total": dg.AssetIn("total", partition_mapping=before)}
    )
    def total(context: dg.AssetExecutionContext, total: pd.DataFrame) -> pd.DataFrame:
        seen.append(list(total.columns))
        spent = total["spent"].sum() if len(total) else 0
        return pd.DataFrame({"id": ["a"], "at": [context.partition_time_window.start], "spent": [spent + 1]})

    for day in ("2026-01-01", "2026-01-02", "2026-01-03", "2026-01-01"):
        materialize(total, partition_key=day)
    assert seen == [[], ["id", "at", "spent"], ["id", "at", "spent"], ["id", "at", "spent"]]

    @dg.asset(ins={"total": dg.AssetIn("total")})
    def told(total: pa.Table) -> None:
        assert total["spent"].to_pylist() == [1, 2, 3]

    materialize(total, told, selection=[told])


def test_partitions_with_gaps_between_them_are_refused(materialize):
    @dg.asset(partitions_def=DAILY, metadata=BY_DAY)
    def days(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"id": ["a"], "at": [context.partition_time_window.start]})

    some = dg.SpecificPartitionsPartitionMapping(["2026-01-01", "2026-01-03"])

    @dg.asset(ins={"days": dg.AssetIn("days", partition_mapping=some)})
    def two(days: pa.Table) -> None: ...

    for day in ("2026-01-01", "2026-01-02", "2026-01-03"):
        materialize(days, partition_key=day)
    with pytest.raises(
        ValueError, match=r"days is read in partitions with gaps .*\(2026-01-01, 2026-01-03\)"
    ):
        materialize(days, two, selection=[two])


@pytest.mark.parametrize("store", ["sqlite", "duckdb", "postgres"])
def test_two_assets_do_not_replace_each_others_rows(materialize, store):
    """`orders` and `sqlite/orders` are both called `orders` there."""

    def orders(key: list[str], value: int) -> dg.AssetsDefinition:
        @dg.asset(key=key, metadata={"key": "id"})
        def made() -> pa.Table:
            return pa.table({"id": [value]})

        return made

    materialize(orders(["orders"], 1), store=store)
    other = (
        f"{store}/orders: the table is that of asset 'orders', and '{store}/orders' would replace its rows"
    )
    with pytest.raises(ContractViolation, match=other):
        materialize(orders([store, "orders"], 2), store=store)
    materialize(orders(["orders"], 3), store=store)


def test_what_a_definition_says_of_its_columns_is_shown(materialize):
    declared = dg.TableSchema(
        columns=[
            dg.TableColumn(
                "id", "string", "who", constraints=dg.TableColumnConstraints(other=["5 characters"])
            ),
            dg.TableColumn("status", "string", "marital status", tags={"pii": ""}),
            dg.TableColumn("name", "string"),
        ],
        constraints=dg.TableConstraints(other=["one row a person"]),
    )

    @dg.asset(metadata={"key": "id", "dagster/column_schema": declared})
    def people() -> pa.Table:
        return pa.table({"id": ["a"], "status": ["single"], "name": ["Ada"]})

    [event] = materialize(people).asset_materializations_for_node("people")
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    key, status, name = schema.columns
    assert (key.description, key.constraints.other, key.constraints.unique) == ("who", ["5 characters"], True)
    assert (status.description, dict(status.tags)) == ("marital status", {"pii": ""})
    assert name.description is None  # and not what a run's name is in this project
    assert schema.constraints
    assert schema.constraints.other == ["unique (id)", "one row a person"]


def test_the_length_of_a_partition_is_told(materialize):
    @dg.asset(partitions_def=dg.HourlyPartitionsDefinition("2026-01-01-00:00"), metadata=BY_DAY)
    def hours(context: dg.AssetExecutionContext) -> pa.Table:
        return pa.table({"id": ["a"], "at": [context.partition_time_window.start]})

    [event] = materialize(hours, partition_key="2026-01-01-05:00").asset_materializations_for_node("hours")
    schema = event.metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert schema.constraints
    assert "partitioned by the hour of at" in schema.constraints.other


def returning(data: Any, **metadata: Any) -> dg.AssetsDefinition:
    @dg.asset(metadata={"key": "id", **metadata})
    def made() -> Any:
        return data

    return made


def read(materialize: Callable[..., Any], made: dg.AssetsDefinition) -> pa.Table:
    found: list[pa.Table] = []

    @dg.asset(ins={"rows": dg.AssetIn("made")})
    def consumer(rows: pa.Table) -> None:
        found.append(rows)

    materialize(made, consumer, selection=[consumer])
    return found[0]


def test_a_decimal_is_kept_or_refused(materialize):
    values = ["0.1", "1.1", "123.45", "-1234567.891", "0.123456789012345", "9007199254740992"]
    wide = pa.array(list(map(Decimal, values)), pa.decimal128(38, 18))  # as Spark and warehouses have them
    made = returning(pa.table({"id": range(len(values)), "price": wide}))
    materialize(made)
    assert read(materialize, made)["price"].to_pylist() == list(map(float, values))
    for long in ("12345678901234567.89", "9007199254740993", "0.123456789012345678"):
        added = pa.array([Decimal("0.10"), Decimal(long)], pa.decimal128(38, 18))
        with pytest.raises(ContractViolation, match="more digits than a double holds") as refused:
            materialize(returning(pa.table({"id": [1, 2], "price": added})))
        assert long in str(refused.value)


@pytest.mark.parametrize("before", [1, 1.5])
def test_a_sum_keeps_the_type_that_it_had(materialize, before):
    """Whether a database wrote it as a number or as a decimal."""
    materialize(returning(pa.table({"id": [1], "total": [before]})))
    made = returning(pa.table({"id": [1], "total": pa.array([Decimal(2)], pa.decimal128(38, 0))}))
    materialize(made)
    [row] = read(materialize, made).to_pylist()
    assert (row["total"], type(row["total"])) == (2, type(before))


@pytest.mark.parametrize("store", ["sqlite", "duckdb", "postgres"])
def test_a_column_keeps_its_type_whatever_the_day_brings(materialize, store):
    """Whole numbers into floats, and floats that are whole into integers: also without pandas."""
    materialize(returning(pd.DataFrame({"id": [1], "loss": [3.0], "count": [7]})), store=store)
    later = pa.table({"id": [1.0, 2.0], "loss": [1, 2], "count": [8.0, None]})
    made = returning(later.to_reader())
    materialize(made, store=store)
    found = read(partial(materialize, store=store), made).sort_by("id")
    assert found.to_pydict() == {"id": [1, 2], "loss": [1.0, 2.0], "count": [8, None]}
    assert [str(kind) for kind in found.schema.types] == ["int64", "double", "int64"]


def test_the_way_to_another_type(materialize, postgres):
    """A fraction does not fit integers; what is declared is believed, and the table is altered as the sentence says."""
    made = {"key": "id"}
    materialize(returning(pa.table({"id": [1], "value": [2]}), **made), store="postgres")
    halves = pa.table({"id": [1], "value": [2.5]})
    with pytest.raises(
        ContractViolation, match=r"holds 2.5: convert .* in the metadata 'dagster/column_schema'"
    ):
        materialize(returning(halves, **made), store="postgres")
    columns = [dg.TableColumn("id", "int64"), dg.TableColumn("value", "float64")]
    declared = returning(halves, **made, **{"dagster/column_schema": dg.TableSchema(columns)})
    with pytest.raises(ContractViolation, match="; run ALTER TABLE") as refused:
        materialize(declared, store="postgres")
    [statement] = re.findall("; run (ALTER TABLE .*) USING", str(refused.value))
    with postgres.connect(write=True) as connection:
        connection.execute(statement)
    materialize(declared, store="postgres")
    for values in ([2.5], [3]):
        made = returning(pa.table({"id": [1], "value": values}))
        materialize(made, store="postgres")
        assert read(partial(materialize, store="postgres"), made)["value"].to_pylist() == values


class Foreign:
    """A table of another library, polars for instance."""

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return pa.table({"id": pa.array(["a", "b"], pa.string_view())}).__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("store", ["sqlite", "duckdb"])
def test_a_table_of_another_library_is_written(materialize, store):
    made = returning(Foreign())
    materialize(made, store=store)
    assert read(partial(materialize, store=store), made).to_pydict() == {"id": ["a", "b"]}


def test_a_key_in_the_index_is_not_lost(materialize):
    losses = pd.DataFrame({"id": ["a", "a"], "loss": [1.0, 2.0]})
    means: pd.DataFrame = losses.groupby("id").agg({"loss": "mean"})
    with pytest.raises(ContractViolation, match=r"has the index 'id' \('a', ...\).*reset_index\(\)"):
        materialize(returning(means))
    made = returning(means.reset_index())
    materialize(made)
    assert read(materialize, made).to_pylist() == [{"id": "a", "loss": 1.5}]


@pytest.mark.parametrize(
    ("data", "metadata", "said"),
    [
        (pd.DataFrame(), {}, "the asset returned no columns. An empty result has columns, too"),
        (
            pa.table({"id": [1]}),
            {"partition_expr": {"day": "at"}},
            "'partition_expr'.* is {'day': 'at'}; name",
        ),
    ],
    ids=["nothing", "expression"],
)
def test_what_cannot_be_a_table_is_refused(materialize, data, metadata, said):
    with pytest.raises(ContractViolation, match=said):
        materialize(returning(data, **metadata))


@pytest.mark.parametrize("store", ["sqlite", "duckdb"])
@pytest.mark.parametrize(
    ("columns", "said"),
    [(["nothing"], "has no column 'nothing'; ask for some of id, n"), (["n", "n"], "names 'n' twice")],
    ids=["unknown", "twice"],
)
def test_columns_that_cannot_be_read(materialize, store, columns, said):
    made = returning(pa.table({"id": [1], "n": [2]}))
    materialize(made, store=store)

    @dg.asset(ins={"rows": dg.AssetIn("made", metadata={"columns": columns})})
    def consumer(rows: pa.Table) -> None: ...

    with pytest.raises(ContractViolation, match=said):
        materialize(made, consumer, selection=[consumer], store=store)


def test_one_column_needs_no_list(materialize):
    made = returning(pa.table({"id": [1], "amount": [2]}))
    materialize(made)

    @dg.asset(ins={"rows": dg.AssetIn("made", metadata={"columns": "amount"})})
    def consumer(rows: pa.Table) -> None:
        assert rows.to_pylist() == [{"amount": 2}]

    materialize(made, consumer, selection=[consumer])


def test_an_op_within_a_graph_needs_another_io_manager(materialize):
    @dg.op
    def begin() -> int:
        return 1

    @dg.op
    def end(number: int) -> pa.Table:
        return pa.table({"id": [number]})

    @dg.graph_asset
    def of_ops() -> pa.Table:
        return end(begin())

    with pytest.raises(TypeError, match="is handed from op to op, and this IO manager keeps assets"):
        materialize(of_ops)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (pa.array(["2026-01-01"]), pa.array([datetime(2026, 1, 1, tzinfo=UTC)])),
        (pa.array(["2026-01-01"]), pa.array([date(2026, 1, 1)])),
        (pa.array([datetime(2026, 1, 1, tzinfo=UTC)]), pa.array(["2026-01-01"])),
        (pa.array([5]), pa.array([True])),
        (pa.array([True]), pa.array([5])),
        (pa.array(["hello"]), pa.array([{"a": 1}])),
    ],
    ids=lambda value: str(value.type).partition("[")[0].partition("<")[0],
)
def test_a_type_that_sqlite_stores_alike_is_another_type(materialize, before, after):
    """The file would not show it, and old values would be read as what they are not. Where none stay, it may change."""
    materialize(returning(pa.table({"id": [1], "value": before})))
    with pytest.raises(ContractViolation, match=r"'value' was \w+ when the table was made and is \w+ in the"):
        materialize(returning(pa.table({"id": [2], "value": after}), mode="upsert"))
    made = returning(pa.table({"id": [2], "value": after}))
    materialize(made)
    assert len(read(materialize, made)) == 1


def test_a_committed_step_does_not_fail_for_what_is_told_of_it(materialize, monkeypatch):
    from ml_assets import metadata

    def unwell(table: pa.Table) -> None:
        raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte")

    monkeypatch.setattr(metadata, "preview", unwell)
    made = returning(pa.table({"id": [1]}))
    result = materialize(made)
    assert read(materialize, made).to_pylist() == [{"id": 1}]
    (event,) = result.asset_materializations_for_node("made")
    assert event.metadata["dagster/table_name"].value == "made", "what could be told is"


def test_a_key_of_this_project_has_its_own_columns_in_another_project(materialize):
    """`duckdb/run_features` is a table of ours; who has nothing else of ours gets what is returned."""

    @dg.asset(key=["duckdb", "run_features"], metadata={"key": "runner"})
    def run_features() -> pa.Table:
        return pa.table({"runner": ["Ada", "Grace"], "speed_km_h": [9.5, 11.0]})

    seen: list[list[dict[str, Any]]] = []

    @dg.asset(ins={"rows": dg.AssetIn(["duckdb", "run_features"])})
    def podium(rows: pa.Table) -> None:  # nothing is written for what returns None by its annotation
        seen.append(rows.sort_by("runner").to_pylist())

    result = materialize(run_features, podium, store="duckdb")
    assert seen == [[{"runner": "Ada", "speed_km_h": 9.5}, {"runner": "Grace", "speed_km_h": 11.0}]]
    (event,) = result.asset_materializations_for_node("duckdb__run_features")
    schema = event.metadata["dagster/column_schema"].value
    assert [column.name for column in schema.columns] == ["runner", "speed_km_h"]  # pyright: ignore
