"""Runs that are meant by what they have: by equality, or by a filter as `search` takes it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal, StoreUnavailable, missing_table
from ml_assets.lib.filters.postgres import METRICS, PARAMS
from ml_assets.lib.run_selectors import conditions, parse_selector, run_field, told
from ml_assets.operations.run_search import Search

if TYPE_CHECKING:
    from psycopg.errors import UndefinedTable

    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource


@dataclass(frozen=True)
class Wanted:
    """What runs are asked for.

    Args:
        equal: value by field, as `run_selectors.conditions` takes them.
        search: a filter besides, as its text and what it is.
    """

    equal: Mapping[str, Any]
    search: tuple[str, Search] | None = None

    def __str__(self) -> str:
        return ", ".join(filter(None, (self.search and self.search[0], told(self.equal))))

    @property
    def names_status(self) -> bool:
        """Whether it is said which status the runs have."""
        fields = [str(field) for field in self.search[1].fields] if self.search else []
        return "status" in (*self.equal, *fields)

    def also(self, equal: Mapping[str, Any]) -> "Wanted":
        """The same, and more.

        Raises:
            Refusal: no run can have both.
        """
        for name, value in equal.items():
            if self.equal.get(name, value) != value:
                raise Refusal(
                    f"No run has {name}={self.equal[name]} and {name}={value}: ask for one of them."
                )
        return Wanted({**self.equal, **equal}, self.search)

    def sql(self, bound: dict[str, Any]) -> str:
        """The condition over `ml_experiments AS run`; the values to bind are added to `bound`."""
        condition = conditions(self.equal, bound)
        if self.search is None:
            return condition
        filtered, values = self.search[1].condition("run")
        bound |= values
        return f"{filtered} AND {condition}"


def wanted(
    asked: str | Mapping[str, Any] | None,
    postgres: "PostgresResource",
    lake: "Callable[[], DuckLakeResource]",
) -> Wanted:
    """What is asked for: fields and values, `model_name=cats,params.lr=0.1`, or a filter as `search` takes it.

    Raises:
        Refusal: it is neither.
    """
    if not isinstance(asked, str):
        return Wanted(dict(asked or {}))
    try:
        equal = parse_selector(asked)
        for name in equal:
            run_field(name)
    except Refusal:  # no list of fields and values: a filter, or what the filter's own sentence says
        return Wanted({}, (asked.strip(), Search(postgres, lake, asked)))
    return Wanted(equal)


def missing_relation(fault: "UndefinedTable", table: str) -> StoreUnavailable:
    """The sentence for a table that is not there: one that a filter asks, or else the one that is named."""
    missing = next((name for name in (METRICS, PARAMS) if name in str(fault)), table)
    return missing_table(f"postgres/{missing}")
