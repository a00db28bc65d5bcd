"""Rows are looked up by one key, of whatever type it is: in Redis, and in PostgreSQL where Redis does not have them."""

from datetime import UTC, date, datetime, timedelta, timezone

import numpy as np
import pytest

from ml_assets.contracts import Column
from ml_assets.errors import ContractViolation
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.stores.redis.lookup import lookup

pytestmark = pytest.mark.parametrize("case", ["serving"], indirect=True)

MOMENT = datetime(999, 1, 31, 9, 30, 0, 5, tzinfo=UTC)
ELSEWHERE = MOMENT.astimezone(timezone(timedelta(hours=2)))

KEYS = {
    "string": (["a'b", "Ä"], ["a'b", np.str_("a'b")]),
    "int64": ([7, -(2**63)], [7, "7", np.int64(7), np.uint8(7)]),
    "float64": ([0.1, -0.0, float("inf")], [0.1, "0.1", "0.10", "1e-1", np.float64(0.1)]),
    "bool": ([True, False], [True, "true", "True", np.bool_(True)]),
    "date": ([date(999, 3, 1), date(2026, 1, 31)], [date(999, 3, 1), "0999-03-01"]),
    "timestamp": ([MOMENT, datetime(2026, 1, 31, tzinfo=UTC)], [MOMENT, ELSEWHERE, ELSEWHERE.isoformat()]),
    "json": (['{"a":1,"b":[2]}', "null"], ['{"a":1,"b":[2]}', '{"b": [2], "a": 1}']),
}
"""Keys, and what the first of them may be looked up by."""


def keyed(case, kind, keys=()):
    """Write a table with these keys, numbered, to look up in."""
    case.change(
        columns=(Column("key", kind, nullable=False), Column("number", "int64")),
        key=("key",),
        partition_column=None,
    )
    rows = [{"key": key, "number": number} for number, key in enumerate(keys)]
    case.write(case.table(*rows), first=None)


def found(case, entity, postgres=None, cached=True):
    """The row's number, answered by one of the two alone."""
    nowhere = PostgresResource(url="postgresql://127.0.0.1:9/none")
    with case.manager.redis.client() as cache:
        place = (cache, nowhere) if cached else (None, case.manager.postgres)
        row = lookup(*place, case.contract, entity)
    return row and row["number"]


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_of_every_type_is_looked_up_in_both(case, kind):
    keys, ways = KEYS[kind]
    keyed(case, kind, keys)
    for cached in (True, False):
        assert [found(case, key, cached=cached) for key in keys] == list(range(len(keys)))
        assert [found(case, way, cached=cached) for way in ways] == [0] * len(ways)
    assert case.manager.lookup("serving/events", ways[-1])["number"] == 0


WRONG = {
    "string": [7, None],
    "int64": ["abc", "7.5", "", 7.0, True, 2**63, np.float64(7), np.array([7, 8])],
    "float64": ["abc", True, np.bool_(True)],
    "bool": ["yes", 1],
    "date": ["2026-02-30", datetime(2026, 1, 31, tzinfo=UTC)],
    "timestamp": ["2026-01-31T09:30:00", datetime(2026, 1, 31), date(2026, 1, 31)],
    "json": ["{", {"a": 1}],
}


@pytest.mark.parametrize("kind", WRONG)
def test_a_value_that_the_key_cannot_have_is_a_sentence(case, kind):
    keyed(case, kind)
    for entity in WRONG[kind]:
        with pytest.raises(
            ValueError, match=rf"serving/events: its key 'key' is {kind}, and .* is no such value"
        ):
            case.manager.lookup("serving/events", entity)


def test_without_redis_a_row_is_looked_up_in_postgres(case):
    keyed(case, "string", ["cats"])
    gone = case.manager.model_copy(update={"redis": RedisResource(url="redis://127.0.0.1:9/0")})
    assert gone.lookup("serving/events", "cats")["number"] == 0


def test_a_vector_is_no_key(case):
    case.change(columns=(Column("key", "vector", dimension=2),), key=("key",), partition_column=None)
    with pytest.raises(ContractViolation, match="has the vector 'key' as its key"):
        case.write(case.table({"key": [1.0, 2.0]}), first=None)
