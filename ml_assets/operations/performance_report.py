"""The page of a model: what the stores know of it, read at one time, as a file for people.

What belongs here: reading, one small question a section. How the page looks is in lib/model_page/. A table that was
never made is None, which the page says; a store that does not answer is an error, for a page without a part of the
truth would be believed.
"""

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal
from ml_assets.lib.days import DayRange
from ml_assets.lib.model_page.facts import RECENT_DAYS, ModelFacts, Reliability, Rows
from ml_assets.lib.model_page.page import model_page
from ml_assets.operations.page_file import page_part, write_page
from ml_assets.operations.performance_alerts import alerts as alerts_of
from ml_assets.operations.performance_baselines import Baseline, baselines
from ml_assets.sql_files import read_sql
from ml_assets.tables.validation import micros

if TYPE_CHECKING:
    import duckdb
    from clickhouse_connect.driver.client import Client

    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

DAYS = 90
"""Days that a page shows, up to the last one of the model."""

_AHEAD = timedelta(days=1)
"""What is later than this from now on is the work of a clock that is wrong, and is not what the page ends with."""

_EVENTS, _ROLLUP = "ml_model_performance", "performance_daily"
_LONGEST_NAME = 80


def write_report(
    clickhouse: "ClickHouseResource",
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    model_name: str,
    path: Path | str | None,
    folder: Path,
) -> Path:
    """Write the page of a model; see `Performance.report`.

    Args:
        path: of the file; None for one that is named after the model, in the folder.
        folder: of pages; it is made if need be.
    """
    if path is None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / file_name(model_name)
    return write_page(path, lambda: report(clickhouse, lake, postgres, model_name))


def report(
    clickhouse: "ClickHouseResource", lake: "DuckLakeResource", postgres: "PostgresResource", model_name: str
) -> str:
    """The page of a model.

    Raises:
        Refusal: there is neither an event nor a prediction of it.
        StoreUnavailable: a store does not answer.
    """
    facts = facts_of(clickhouse, lake, postgres, model_name, datetime.now(UTC))
    style = page_part("compare.css") + page_part("model.css")
    return model_page(facts, style, page_part("model.js"))


def file_name(model_name: str) -> str:
    """A file name that tells the model, and no other one's."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", model_name)[:_LONGEST_NAME].strip("-.")
    if plain != model_name:
        digest = hashlib.sha256(model_name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        plain = f"{plain}-{digest}" if plain else digest
    return f"model-{plain}.html"


def facts_of(
    clickhouse: "ClickHouseResource",
    lake: "DuckLakeResource",
    postgres: "PostgresResource",
    model_name: str,
    at: datetime,
) -> ModelFacts:
    """All that the page of a model tells.

    Raises:
        Refusal, StoreUnavailable: as `report`.
    """
    with (
        lake.get_connection() as connection,
        lake.limit(connection),
        clickhouse.client(purpose=f"the page of the model {model_name}") as client,
    ):
        predicted = _predicted(connection, model_name, at)
        there = {name for (name,) in client.query(read_sql("clickhouse/report/tables.sql")).result_rows}
        known, later = _known(client, there, model_name, at)
        spans = [span for span in (known, predicted) if span]
        if not spans:
            raise _unknown(_names(client, there) | _predicting(connection), model_name)
        whole = DayRange(min(span.first for span in spans), max(span.last for span in spans))
        days = DayRange(max(whole.first, whole.last - timedelta(days=DAYS - 1)), whole.last)
        compared = _baseline(postgres, model_name, whole.first)
        asked = _Asked(client, there, model_name)
        found = {
            "served": _served(connection, model_name, days),
            "reliability": _reliability(connection, model_name, compared.days, days),
            "daily": asked.by_day(days),
            "baseline_daily": asked.by_day(compared.days),
            "versions": asked.events("versions", days),
            "drift": asked.rows("rows_by_day", "feature_drift", days),
            "estimates": asked.rows("rows_by_day", "estimated_accuracy", days),
            "episodes": _with_alerts(
                asked.rows("episodes", "performance_regressions", days),
                _as_of_now(postgres, model_name, asked.rows("episodes", "alerts", days), at),
            ),
        }
    decision, gate_known = _decision(postgres, model_name)
    return ModelFacts(
        model_name=model_name,
        days=days,
        all_days=whole,
        baseline=compared.days,
        pinned=compared.pinned_at is not None,
        made_at=at,
        later_events=later,
        decision=decision,
        gate_known=gate_known,
        **found,
    )


class _Asked:
    """Questions about one model to ClickHouse.

    Args:
        there: the tables that there are.
    """

    def __init__(self, client: "Client", there: set[str], model_name: str) -> None:
        self._client = client
        self._there = there
        self._model_name = model_name

    def events(self, question: str, days: DayRange) -> Rows:
        """Rows of a question to the events; none where there is no table of them."""
        return self._answer(question, days) if _EVENTS in self._there else []

    def by_day(self, days: DayRange) -> Rows:
        """What the events of each day say; of days whose events are no longer kept what the daily rollup says."""
        found = self.events("days", days)
        if _ROLLUP not in self._there:
            return found
        known = {row["day"] for row in found}
        rolled_up = [row for row in self._answer("rolled_up_days", days) if row["day"] not in known]
        return sorted([*rolled_up, *found], key=lambda row: row["day"])

    def rows(self, question: str, table: str, days: DayRange) -> Rows | None:
        """Rows of a table; None if it was never made."""
        return self._answer(question, days, table=table) if table in self._there else None

    def _answer(self, question: str, days: DayRange, **more: str) -> Rows:
        parameters = {
            "model_name": self._model_name,
            "start_us": micros(days.start),
            "end_us": micros(days.end),
            **more,
        }
        sql = read_sql(f"clickhouse/report/{question}.sql")
        return self._client.query_arrow(sql, parameters, use_strings=True).to_pylist()


def _known(client: "Client", there: set[str], model_name: str, at: datetime) -> tuple[DayRange | None, int]:
    """From when to when there are events, or were and are rolled up, and how many claim to be of a time to come."""
    parameters = {"model_name": model_name, "until_us": micros(at + _AHEAD)}
    spans: list[DayRange] = []
    later = 0
    for table, question in ((_ROLLUP, "known_days"), (_EVENTS, "known")):
        if table not in there:
            continue
        sql = read_sql(f"clickhouse/report/{question}.sql")
        for first, last, ahead in client.query(sql, parameters).result_rows:
            later = ahead  # events are counted last, where there are any
            if first:
                spans.append(DayRange(first.date(), last.date()))
    if spans:
        return DayRange(min(span.first for span in spans), max(span.last for span in spans)), later
    # Nothing but the future: then that is what there is to show.
    today = at.date()
    return (DayRange(today, today) if later else None), later


def _names(client: "Client", there: set[str]) -> set[str]:
    if _EVENTS not in there:
        return set()
    return {name for (name,) in client.query(read_sql("clickhouse/report/models.sql")).result_rows}


def _unknown(names: set[str], model_name: str) -> Refusal:
    near = get_close_matches(model_name, names, 3, cutoff=0.5)
    if not names:
        remedy = "no event or prediction of any model was taken in yet: 'ml-assets refresh' does that."
    elif near:
        remedy = f"did you mean {' or '.join(map(repr, near))}?"
    else:
        some = sorted(names)
        more = f" and {len(some) - 5:,} more" if len(some) > 5 else ""
        remedy = f"there are {', '.join(map(repr, some[:5]))}{more}."
    return Refusal(f"There is neither an event nor a prediction of a model {model_name!r}: {remedy}")


def _baseline(postgres: "PostgresResource", model_name: str, first: date) -> Baseline:
    return baselines(postgres, {model_name: first})[model_name]


def _lake_rows(
    connection: "duckdb.DuckDBPyConnection", question: str, parameters: Mapping[str, Any]
) -> Rows | None:
    """The answer of the lake; None if a table that is asked was never made."""
    import duckdb

    try:
        answer = connection.execute(read_sql(f"duckdb/report/{question}.sql"), parameters)
        return answer.to_arrow_table().to_pylist()
    except duckdb.CatalogException:
        return None


def _predicted(connection: "duckdb.DuckDBPyConnection", model_name: str, at: datetime) -> DayRange | None:
    """From when to when there are predictions."""
    asked = {"model_name": model_name, "until": at + _AHEAD}
    for row in _lake_rows(connection, "known_predictions", asked) or ():
        if row["first_at"]:
            return DayRange(row["first_at"].date(), row["last_at"].date())
    return None


def _predicting(connection: "duckdb.DuckDBPyConnection") -> set[str]:
    return {row["model_name"] for row in _lake_rows(connection, "predicting_models", {}) or ()}


def _of_days(model_name: str, days: DayRange) -> Mapping[str, Any]:
    return {"model_name": model_name, "start": days.start, "end": days.end}


def _served(connection: "duckdb.DuckDBPyConnection", model_name: str, days: DayRange) -> Rows | None:
    return _lake_rows(connection, "served_days", _of_days(model_name, days))


def _reliability(
    connection: "duckdb.DuckDBPyConnection", model_name: str, compared: DayRange, days: DayRange
) -> Sequence[Reliability] | None:
    """Of the baseline and of the last days; of the last days alone where they are the baseline."""
    recent = DayRange(max(days.first, days.last - timedelta(days=RECENT_DAYS - 1)), days.last)
    asked = {"baseline": compared} if compared != recent else {}
    found = []
    for name, each in {**asked, f"last {len(recent)} days": recent}.items():
        bins = _lake_rows(connection, "reliability", _of_days(model_name, each))
        if bins is None:
            return None
        found.append(Reliability(name, bins))
    return found


def _as_of_now(
    postgres: "PostgresResource", model_name: str, alerts: Rows | None, at: datetime
) -> Rows | None:
    """Alerts with what people have said of them since the table was built."""
    if not alerts:
        return alerts
    book = {row["alert_id"]: row for row in alerts_of(postgres, model_name, None, at).to_pylist()}
    return [
        {**row, **{name: book[row["alert_id"]][name] for name in ("state", "snoozed_until")}}
        if row["alert_id"] in book
        else row
        for row in alerts
    ]


def _with_alerts(regressions: Rows | None, alerts: Rows | None) -> Rows | None:
    """Episodes with what has become of their alerts; those that only alerts tell of, drift for one, stand beside."""
    if regressions is None and alerts is None:
        return None
    told = {_episode(row): row for row in alerts or () if row["source"] != "drift"}
    known = {_episode(row) for row in regressions or ()}
    merged = [
        {**row, **{name: told[_episode(row)].get(name) for name in ("state", "snoozed_until")}}
        if _episode(row) in told
        else row
        for row in regressions or ()
    ]
    return merged + [
        row
        for row in alerts or ()
        if not row["withdrawn"] and (row["source"] == "drift" or _episode(row) not in known)
    ]


def _episode(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("metric", "slice", "slice_value", "opened_at"))


def _decision(postgres: "PostgresResource", model_name: str) -> tuple[Mapping[str, Any] | None, bool]:
    """The newest decision of the gate on a model, and whether the gate has ever been asked."""
    from psycopg.rows import dict_row

    with postgres.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        found = cursor.execute("SELECT to_regclass('ml_promotions') IS NOT NULL AS there").fetchone()
        if not found or not found["there"]:
            return None, False
        row = cursor.execute(read_sql("postgres/report/decision.sql"), {"model_name": model_name}).fetchone()
        return row, True
