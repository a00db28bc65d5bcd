"""What a consumer gets: the type it asks for, the columns and partitions that it needs."""

import time
from datetime import UTC, date, datetime
from functools import partial
from typing import Any

import dagster as dg
import duckdb
import pandas as pd
import pyarrow as pa
import pytest

from ml_assets.contracts import Column
from ml_assets.io_managers.base import as_type
from ml_assets.lib.query import Query
from ml_assets.tables.validation import WHOLE, Window

SECOND = date(2026, 1, 2)


@pytest.fixture
def written(case, row):
    case.write(case.table(row("one"), row("two", day=1), row("three", day=1, amount=None)), days=2)
    return case


def test_the_annotation_decides_about_the_type(written):
    table = written.read(pa.Table)
    assert isinstance(table, pa.Table)
    assert isinstance(written.read(pa.RecordBatchReader), pa.Table)  # the fixture has read all of it
    frame = written.read(pd.DataFrame)
    assert sorted(frame["id"]) == ["one", "three", "two"]
    assert str(frame["happened_at"].dtype) == "datetime64[us, UTC]"
    with pytest.raises(TypeError, match="annotate it with"):
        written.read(dict)


def test_integers_are_exact_in_a_frame_whatever_is_null():
    table = pa.table({"some": [2**53 + 1, None], "none": pa.array([None, None], pa.int64()), "all": [1, 2]})
    frame = as_type(table.to_reader(), pd.DataFrame)
    assert [str(kind) for kind in frame.dtypes] == ["Int64", "Int64", "int64"]
    assert frame["some"].dropna().tolist() == [2**53 + 1]


@pytest.mark.embedded
def test_only_the_columns_and_the_days_that_are_asked_for(written):
    assert written.read(columns=["kind", "id"]).column_names == ["kind", "id"]
    assert sorted(written.read(columns=["id"], day=SECOND)["id"].to_pylist()) == ["three", "two"]
    with pytest.raises(ValueError, match="has no column 'odd'"):
        written.read(columns=["odd"])


def test_a_column_read_alone_keeps_its_nulls(case, row):
    rows = [row("one"), row("two", amount=None, kind=None, flag=None), row("three", kind="b")]
    case.write(case.table(*rows))
    for name in ("amount", "kind", "flag"):
        alone = case.read(columns=[name])
        assert sorted(alone[name].to_pylist(), key=repr) == sorted((r[name] for r in rows), key=repr)


@pytest.mark.parametrize(
    "case", ["duckdb", "postgres", "clickhouse", "clickhouse-server", "sqlite"], indirect=True
)
def test_a_table_of_one_column_without_a_key_keeps_its_nulls(case):
    case.change(columns=(Column("amount", "float64"),), key=(), partition_column=None)
    for amounts in ([1.5, None, 2.5, None], [None]):
        case.write(pa.table({"amount": pa.array(amounts, pa.float64())}), first=None)
        assert sorted(case.read()["amount"].to_pylist(), key=repr) == sorted(amounts, key=repr)
        assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_a_table_that_was_never_written_is_a_sentence(case):
    with pytest.raises(
        LookupError, match=f"{case.contract.asset} has never been written here: materialize it"
    ):
        case.read()


@pytest.mark.parametrize("case", ["duckdb", "postgres", "clickhouse", "sqlite"], indirect=True)
def test_the_time_that_the_consumer_takes_does_not_count(case):
    """Redis' tables are read as PostgreSQL's, Chroma's pages are requests of their own, and the tests' server of
    ClickHouse sends what it has at once."""
    case.change(columns=(Column("text", "string"),), key=(), partition_column=None)
    rows = 60_000
    case.write(pa.table({"text": ["x" * 200] * rows}), first=None)
    hasty = {"query_timeout_s": 1.0, "write_timeout_s": 1.0}
    with hurried(case.manager, hasty).table_store().read(case.contract, ["text"], WHOLE) as stream:
        got = stream.read_next_batch().num_rows
        time.sleep(1.5)
        got += stream.read_all().num_rows
    assert got == rows


@pytest.mark.parametrize("case", ["postgres"], indirect=True)
def test_a_server_that_gives_no_rows_in_time_is_a_sentence(written):
    hasty = hurried(written.manager, {"write_timeout_s": 0.5})
    read = partial(hasty.table_store().read, written.contract, ["id"], WHOLE)
    with written.manager.postgres.connect(write=True) as other:
        other.execute("LOCK TABLE events IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(TimeoutError, match=r"postgres/events: .*no rows for longer than 0\.5 s: read"):
            read().read_all()
    assert read().read_all().num_rows == 3


@pytest.mark.parametrize("case", ["duckdb", "postgres", "chroma", "sqlite", "serving"], indirect=True)
@pytest.mark.parametrize("year", [1, 999])
def test_a_day_of_a_year_before_1000_is_found(case, row, year):
    case.change(mode="upsert")
    for count in (1, 2):
        early = row("old", happened_at=datetime(year, 3, 1, 9, tzinfo=UTC), count=count)
        case.write(case.table(early, row("new", count=count)), first=None)
    day = Window(datetime(year, 3, 1, tzinfo=UTC), datetime(year, 3, 2, tzinfo=UTC))
    found = case.manager.table_store().read(case.contract, ["id", "count"], day).read_all()
    assert found.to_pylist() == [{"id": "old", "count": 2}]
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@pytest.mark.parametrize("case", ["postgres", "serving"], indirect=True)
def test_another_way_of_writing_values_that_the_database_prefers(case, row):
    odd = {
        "DateStyle": "German",
        "IntervalStyle": "sql_standard",
        "extra_float_digits": "-5",
        "bytea_output": "escape",
        "TimeZone": "America/New_York",
    }
    postgres = case.manager.postgres
    with postgres.connect(write=True) as connection:
        (name,) = connection.execute("SELECT quote_ident(current_database())").fetchone()
        for setting, value in odd.items():
            connection.execute(f"ALTER DATABASE {name} SET {setting} = '{value}'".encode())
    postgres.close()  # what is set holds for new connections
    rows = [row("one", amount=0.1 + 0.2, vector=[0.1, 1 / 3, 1.0]), row("two", due=None)]
    case.write(case.table(*rows))
    assert case.read().sort_by("id").equals(case.table(*rows))
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def hurried(manager: Any, limits: dict[str, float]) -> Any:
    """The same manager, whose stores allow less time."""
    resources = {name: getattr(manager, name) for name in type(manager).model_fields}
    for name, resource in resources.items():
        if isinstance(resource, dg.ConfigurableResource):
            known = {limit: value for limit, value in limits.items() if limit in type(resource).model_fields}
            resources[name] = resource.model_copy(update=known)
    return type(manager)(**resources)


@pytest.mark.parametrize("form", [pd.DataFrame, pa.Table, pa.RecordBatchReader])
def test_every_type_can_be_written(case, row, form):
    table = case.table(row("one"), row("two", document='{"b":1,"a":[1,2]}'))
    given = {
        pd.DataFrame: table.to_pandas,
        pa.Table: lambda: table,
        pa.RecordBatchReader: lambda: pa.RecordBatchReader.from_batches(
            table.schema, (batch for batch in table.to_batches(max_chunksize=1))
        ),
    }[form]
    case.write(given)
    found = case.read().sort_by("id").to_pylist()
    assert found == [row("one"), row("two", document='{"a":[1,2],"b":1}')]


@pytest.mark.parametrize("case", ["duckdb"], indirect=True)
def test_the_lake_takes_and_gives_relations_and_runs_queries(written, row):
    relation = written.read(duckdb.DuckDBPyRelation)
    late = relation.filter("happened_at >= TIMESTAMPTZ '2026-01-02'").set_alias("late")
    del relation
    assert late.aggregate("count(*)").fetchall() == [(2,)]
    written.write(late.project("* REPLACE (9.5 AS amount)"), first=SECOND)
    assert set(written.read(columns=["amount"], day=SECOND)["amount"].to_pylist()) == {9.5}

    more = pa.table({"id": ["four"]})
    sql = "SELECT e.* REPLACE (n.id AS id) FROM features.events AS e, names AS n WHERE e.id = $old"
    written.write(Query(sql, {"old": "two"}, {"names": more}), first=SECOND)
    assert written.ids() == ["four", "one"]
