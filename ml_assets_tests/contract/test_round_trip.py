"""Every value that a store can lawfully hold comes back equal; every other one is refused."""

import json
import math
import struct
from contextlib import nullcontext
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from ml_assets.contracts import Column
from ml_assets.errors import ContractViolation
from ml_assets.io_managers.base import TableIOManager, as_type
from ml_assets.lib.canonical_json import canonical
from ml_assets.tables.staging import stage
from ml_assets.tables.validation import WHOLE, Limits, Window
from ml_assets_tests.scale import examples

COLUMNS = (
    Column("id", "string", nullable=False),
    Column("happened_at", "timestamp", nullable=False),
    Column("text", "string"),
    Column("vector", "vector", dimension=3),
    Column("note", "string"),
    Column("amount", "float64"),
    Column("number", "int64"),
    Column("flag", "bool"),
    Column("due", "date"),
    Column("moment", "timestamp"),
    Column("document", "json"),
)
FINITE: Any = {"allow_nan": False, "allow_infinity": False}
DAY = datetime(2026, 1, 1, tzinfo=UTC)
WINDOW = Window(DAY, DAY + timedelta(days=1))


def _float32(value: float) -> float:
    return struct.unpack("f", struct.pack("f", value))[0]


def rows_of(limits: Limits) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows that a store with these limits can hold."""
    text = st.text(st.characters(codec="utf-8", exclude_characters="" if limits.nul else "\0"))
    plain = st.text(st.characters(codec="utf-8", exclude_characters="\0"))
    first, last = datetime(limits.first_year, 1, 1), datetime(limits.last_year, 12, 31, 23, 59, 59, 999999)
    scalars = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats(**FINITE) | plain
    longest = _float32(limits.vector_length / 2) if math.isfinite(limits.vector_length) else None
    parts = st.floats(-longest, longest, width=32) if longest else st.floats(width=32, **FINITE)
    vectors = st.lists(parts, min_size=3, max_size=3)
    documents = st.recursive(
        scalars, lambda inner: st.lists(inner) | st.dictionaries(plain, inner), max_leaves=8
    )
    row = st.fixed_dictionaries(
        {
            "id": plain,
            "happened_at": st.datetimes(
                DAY.replace(tzinfo=None),
                (DAY + timedelta(days=1, microseconds=-1)).replace(tzinfo=None),
                timezones=st.just(UTC),
            ),
            "text": st.none() | text,
            "vector": st.none() | vectors if limits.null_vector else vectors,
            "note": st.none() | text,
            "amount": st.none() | st.floats(allow_nan=limits.nan, allow_infinity=limits.infinity),
            "number": st.none() | st.integers(-(2**63), 2**63 - 1),
            "flag": st.none() | st.booleans(),
            "due": st.none() | st.dates(first.date(), last.date()),
            "moment": st.none() | st.datetimes(first, last, timezones=st.just(UTC)),
            "document": st.none() | documents.map(json.dumps),
        }
    )
    return st.lists(row, max_size=6, unique_by=lambda one: one["id"])


PROPERTY = settings(
    max_examples=examples(8),
    deadline=None,
    derandomize=True,
    suppress_health_check=[
        HealthCheck.function_scoped_fixture,
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
    ],
)


@PROPERTY
@given(data=st.data())
def check_round_trip(case: Any, data: st.DataObject) -> None:
    manager: TableIOManager = case.manager
    rows = data.draw(rows_of(manager.limits))
    with stage(case.table(*rows), case.contract, manager.limits, WINDOW) as staged:
        manager.table_store().write(case.contract, staged)
    found = manager.table_store().read(case.contract, case.contract.names, WHOLE).read_all().to_pylist()
    assert sorted(map(comparable, found)) == sorted(map(comparable, map(kept, rows)))
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


@settings(PROPERTY, max_examples=examples(2), phases=[Phase.generate])
@given(data=st.data())
def check_frames(case: Any, data: st.DataObject) -> None:
    """The same through runs of Dagster's, with a DataFrame on both sides."""
    rows = data.draw(rows_of(case.manager.limits))
    given_frame = as_type(case.table(*rows).to_reader(), pd.DataFrame)
    (event,) = case.write(given_frame, first=None).get_asset_materialization_events()
    found = case.read(pd.DataFrame)
    expected = [{name: _from_pandas(value) for name, value in kept(row).items()} for row in rows]
    assert sorted(map(comparable, _records(found))) == sorted(map(comparable, expected))
    assert event.materialization.metadata["dagster/row_count"].value == len(rows)


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    cells = zip(*(map(_from_pandas, frame[name]) for name in frame.columns), strict=True)
    return [dict(zip(frame.columns, row, strict=True)) for row in cells]


def _from_pandas(value: Any) -> Any:
    """None for whatever pandas takes for a null, NaN included."""
    value = value.tolist() if isinstance(value, np.ndarray | np.generic) else value
    return None if not isinstance(value, list) and pd.isna(value) else value


def kept(row: dict[str, Any]) -> dict[str, Any]:
    """A row as it comes back."""
    return {**row, "document": row["document"] and canonical(row["document"])}


def comparable(row: dict[str, Any]) -> list[tuple[str, str]]:
    """Cells whose equality is what is promised: NaN is NaN, -0.0 is 0.0."""
    return [(name, repr(_plain(value))) for name, value in sorted(row.items())]


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(part) for part in value]
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if isinstance(value, float):
        return "nan" if math.isnan(value) else value + 0.0
    return value


@pytest.mark.embedded
def test_lawful_values_come_back_equal(case):
    case.change(columns=COLUMNS)
    # The embedded engine takes a second to open: keep it open for all examples.
    engine = case.manager.clickhouse.client() if case.name == "clickhouse" else nullcontext()
    with engine:
        check_round_trip(case)
        check_frames(case)


@pytest.mark.parametrize("case", ["chroma"], indirect=True)
def test_vectors_that_chroma_takes_for_nothing_come_back_equal(case):
    case.change(columns=COLUMNS)
    rest = dict.fromkeys(("note", "amount", "number", "flag", "due", "moment", "document", "text"))
    vectors = [[_float32(sign * 10**-exponent), 0.0, 0.0] for exponent in range(16, 46) for sign in (1, -3)]
    rows = [{"id": str(n), "happened_at": DAY, "vector": v, **rest} for n, v in enumerate(vectors)]
    case.write(case.table(*rows))
    found = case.read(columns=["id", "vector"]).to_pylist()
    assert {row["id"]: row["vector"] for row in found} == {row["id"]: row["vector"] for row in rows}
    assert case.store.ledger_state(case.contract) == case.store.live_state(case.contract)


def test_values_that_the_store_cannot_hold_are_refused(case):
    case.change(columns=COLUMNS)
    limits = case.manager.limits
    good = {"id": "a", "happened_at": DAY, "text": "", "vector": [1.0, 2.0, 3.0]}
    good |= dict.fromkeys(("note", "amount", "number", "flag", "due", "moment", "document"))
    outside = [
        {"document": '{"a": NaN}'},
        {"document": '{"a": "\\u0000"}'},
        {"document": str(2**64)},
        {"document": "{"},
        {"vector": [1.0, math.inf, 3.0]},
        {"vector": [1.0, None, 3.0]},
    ]
    outside += [] if math.isinf(limits.vector_length) else [{"vector": [0.0, 2 * limits.vector_length, 0.0]}]
    outside += [] if limits.nul else [{"note": "a\0b"}]
    outside += [] if limits.nan else [{"amount": math.nan}]
    outside += [] if limits.infinity else [{"amount": -math.inf}]
    if limits.first_year > 1:
        outside += [{"due": date(limits.first_year - 1, 12, 31)}]
        outside += [{"moment": datetime(limits.last_year + 1, 1, 1, tzinfo=UTC)}]
    for wrong in outside:
        with pytest.raises(ContractViolation, match=f"column '{next(iter(wrong))}'"):
            stage(case.table({**good, **wrong}), case.contract, limits, WINDOW)


@pytest.mark.parametrize("case", ["clickhouse"], indirect=True)
def test_text_that_is_no_utf8_reaches_no_store(case, row):
    """ClickHouse would take it, and nobody could read the table then."""
    case.write(case.table(row("kept")))
    rows = case.table(row("new"))
    bad = pa.Array.from_buffers(pa.string(), 1, pa.array([b"\xff"], pa.binary()).buffers())
    with pytest.raises(ValueError, match=r"column 'text' is .* UTF8 .*row 0, counted from 0\); it holds b'"):
        case.write(rows.set_column(rows.schema.get_field_index("text"), "text", bad))
    assert case.ids() == ["kept"]
