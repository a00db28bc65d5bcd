"""Why a model became worse: the rows of all stores that lib/why.py weighs, and the training set of that day.

What belongs here: finding the episode that is meant and reading what stands around it. What a table never had is said
as a sentence of the answer; a store that does not answer is an error, for half of the facts would point elsewhere.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import TYPE_CHECKING, Any

import orjson

from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.lib.run_selectors import require_text
from ml_assets.lib.why import (
    ALERTS,
    DRIFT,
    PIN_TAG,
    PINS,
    RUNS,
    Claim,
    Explanation,
    Facts,
    Row,
    Summary,
    explain,
    strange_figures,
)
from ml_assets.operations.missing_tables import is_missing_table, missing_is_told
from ml_assets.operations.performance_regressions import COST, QUALITY, regressions
from ml_assets.operations.performance_trend import require_model
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    from clickhouse_connect.driver.client import Client

    from ml_assets.embedders import Embedder
    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.settings import Settings
    from ml_assets.stores.duckdb.pins import Pin

HOURLY = "clickhouse/performance_hourly"
"""The table that knows every model."""

DAY = timedelta(days=1)
BEFORE = timedelta(days=28)
"""How far back versions are looked at."""

WEEK = timedelta(days=7)
SIMILAR = 3
"""Similar runs that are told."""

_PAST = 3
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

_TOLD = (
    "You summarise findings about a machine learning model that became worse. Use the facts that you are given and "
    "nothing else: no other figure, name or cause, no advice. Say what became worse, since when, and the most likely "
    "cause with what speaks for it. At most 120 words of plain prose, no lists, no headings."
)


@dataclass(frozen=True)
class Stores:
    """The stores that are asked.

    Args:
        lake: None if training sets are not to be looked at.
        embedder: gives the model of the cards; None if similar runs are not to be looked for.
    """

    clickhouse: "ClickHouseResource"
    postgres: "PostgresResource"
    lake: "DuckLakeResource | None" = None
    embedder: "Callable[[], Embedder] | None" = None


def why(
    stores: Stores,
    model_name: str,
    day: date | None = None,
    alerts: Sequence[Mapping[str, Any]] | None = None,
) -> Explanation:
    """What is known of a model's becoming worse.

    Args:
        day: UTC, any one on which the model was worse; today if None.
        alerts: rows of clickhouse/alerts, of any model; those of the table if None.

    Raises:
        Refusal: no model is named, or it was not worse on that day; says when it was.
        StoreUnavailable: a store does not answer, or no regression was ever looked for.
    """
    if not require_text(model_name, "the name of a model").strip():
        raise Refusal("Name a model: 'ml-assets alerts' lists those with open alerts.")
    known = regressions(stores.clickhouse, model_name, None, False).to_pylist()
    with stores.clickhouse.client(purpose=f"why {model_name} became worse") as client:
        told = _rows(client, "alerts", {"model_name": model_name}) if alerts is None else alerts
        missing = [] if told is not None else [_never(ALERTS)]
        stand = [row for row in told or () if row["model_name"] == model_name and not row["withdrawn"]]
        meant = _meant(client, known, stand, model_name, day)
        episodes = [row for row in known if abs(row["began_at"] - meant["began_at"]) <= DAY]
        meant = max(episodes, key=_clearness, default=meant)
        began_at: datetime = meant["began_at"]
        facts = Facts(
            model_name,
            began_at.date(),
            sorted(episodes, key=_clearness, reverse=True),
            [row for row in known if row not in episodes and row["closed_at"] is None],
            [row for row in known if row["closed_at"] and row["closed_at"] <= began_at][:_PAST],
            [row for row in stand if abs(row["began_at"] - began_at) <= DAY],
            missing=missing,
        )
        facts = _measured(client, facts, meant)
    facts = _with_runs(stores, facts)
    if stores.embedder is not None and stores.lake is not None and _never(RUNS) not in facts.missing:
        facts = _with_similar(stores.postgres, stores.lake, stores.embedder, facts)
    if stores.lake is not None:
        facts = _with_training_set(stores.lake, facts)
    return explain(facts)


def day_of(day: date | str | None) -> date | None:
    """The day that is meant, UTC.

    Raises:
        Refusal: the text is none.
    """
    if not isinstance(day, str):
        return day
    try:
        return date.fromisoformat(day)
    except ValueError:
        raise Refusal(f"{day!r} is no day: write it as 2026-11-24.") from None


def summarised(settings: "Settings", found: Explanation) -> Explanation:
    """The same with a summary in prose, if a chat model of Ollama is configured; why there is none otherwise."""
    from ml_assets.embedders.ollama_chat import chat
    from ml_assets.errors import EmbedderError

    if not (model := settings.ollama_chat_model):
        return found
    facts = found.facts()
    try:
        text = chat(settings.ollama_url or "", model, _TOLD, "\n".join(f"- {fact}" for fact in facts))
    except EmbedderError as fault:
        # The facts are what was asked for; prose is an addition.
        return replace(found, notes=(*found.notes, f"There is no summary in prose: {fault}"))
    return replace(found, summary=Summary(text, model, strange_figures(text, facts)))


def _meant(
    client: "Client",
    known: Sequence[Mapping[str, Any]],
    alerts: Sequence[Mapping[str, Any]],
    model_name: str,
    day: date | None,
) -> Mapping[str, Any]:
    """The episode that is asked about: a regression, or drift where there is none."""
    drifts = [row for row in alerts if row["source"] == "drift"]
    for rows in (known, drifts):
        if found := [row for row in rows if _goes_on(row, day)]:
            return max(found, key=lambda row: (row["began_at"].date() == day, *_clearness(row)))
    when = f"on {day}" if day else "now"
    every = sorted({row["began_at"].date() for row in (*known, *drifts)})
    if every:
        told = ", ".join(map(str, every[-3:]))
        raise Refusal(
            f"{model_name} is not worse than before {when}: it became so on {told}; name such a day, as in "
            f"'ml-assets why {model_name} {every[-1]}'."
        )
    with missing_is_told(HOURLY):
        require_model(client, HOURLY, model_name)
    raise Refusal(
        f"{model_name} never became worse, as far as clickhouse/performance_regressions knows: 'ml-assets alerts --all' "
        "lists what did."
    )


def _goes_on(row: Mapping[str, Any], day: date | None) -> bool:
    if day is None:
        return row["closed_at"] is None
    last = row["last_seen_at"].date() if row["closed_at"] else date.max
    return row["began_at"].date() <= day <= last


def _clearness(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Quality before cost, accuracy before what follows from the same answers, and then what lies farthest."""
    metric = row.get("metric")
    plain = -list(QUALITY).index(metric) if metric in QUALITY else -len(QUALITY)
    far = abs(row.get("deviations") or 0.0)
    return (plain, far if math.isfinite(far) else 0.0, metric or "")


def _measured(client: "Client", facts: Facts, meant: Mapping[str, Any]) -> Facts:
    """With what ClickHouse knows: drift, other models, versions, load."""
    clearest = next(iter(facts.episodes), None)
    began_at: datetime = meant["began_at"]
    end = max(row["last_seen_at"] for row in (meant, *facts.episodes)) + DAY
    start = datetime.combine(facts.day, time(), UTC)
    model = {"model_name": facts.model_name}
    drift = _rows(
        client,
        "drift",
        {**model, "start_us": _us(start - WEEK), "end_us": _us(min(max(end, start + DAY), start + WEEK))},
    )
    compared = sorted({row["day"].date() for row in drift or () if row["day"] >= start})
    missing = list(facts.missing)
    if drift is None:
        missing.append(_never(DRIFT))
    elif not compared:
        missing.append(f"The inputs of {facts.model_name} were not compared with their baseline since then.")
    metric = clearest["metric"] if clearest else "accuracy"
    kind = clearest["kind"] if clearest else "quality"
    window = {"began_us": _us(began_at), "until_us": _us(end)}
    used = _rows(
        client,
        "in_use",
        {
            **model,
            **window,
            "from_us": _us(began_at - BEFORE),
            "metric": _event_column(metric),
            "slice": clearest["slice"] if clearest else "all",
            "slice_value": clearest["slice_value"] if clearest else "",
        },
    )
    day = {"start_us": _us(start), "end_us": _us(start + DAY)}
    peers = _rows(client, "peers", {**day, "kind": kind})
    load = (
        _rows(client, "load", {**model, **window, "from_us": _us(began_at - WEEK)}) if metric in COST else []
    )
    before, after = _around(clearest, used or (), began_at)
    return replace(
        facts,
        drift=None
        if drift is None
        else [row for row in drift if row["day"].date() <= min(compared, default=facts.day)],
        drift_day=min(compared, default=None),
        peers=peers or (),
        in_use=used or (),
        load=dict(load[0]) if load else {},
        before=before,
        after=after,
        missing=missing,
    )


def _around(
    episode: Mapping[str, Any] | None, used: Sequence[Mapping[str, Any]], began_at: datetime
) -> tuple[list[Mapping[str, Any]], Mapping[str, Any] | None]:
    """What answered last before it, and first within it."""
    if episode is not None:
        before, after = (orjson.loads(episode[name] or "[]") for name in ("runs_before", "runs_after"))
        return before, next(iter(after), None)
    earlier = sorted((row for row in used if row["first_at"] < began_at), key=lambda row: row["last_at"])
    return earlier[-_PAST:], next((row for row in used if row["last_at"] >= began_at), None)


def _event_column(metric: str) -> str:
    """The column of ml_model_performance that a metric is made of."""
    if metric in QUALITY:
        return metric
    return "memory_usage_mb" if metric == "max_memory_usage_mb" else "inference_time_ms"


def _with_runs(stores: Stores, facts: Facts) -> Facts:
    """With the runs behind the answers, and those that were made on that day."""
    ids = [each["run_id"] for each in (*facts.before, *([facts.after] if facts.after else []))]
    start = datetime.combine(facts.day, time(), UTC)
    rows = _runs(stores.postgres, [id for id in ids if id], facts.model_name, start, start + DAY)
    if rows is None:
        return replace(facts, missing=[*facts.missing, _never(RUNS)])
    known = {row["id"] for row in rows}
    answered = (facts.before[-1] if facts.before else None, facts.after)
    lacking = [each["model_version"] for each in answered if each and each["run_id"] not in known]
    missing = [
        *facts.missing,
        *(
            f"No run is known behind {f'version {version}' if version else 'the answers'}, so its parameters and data "
            "cannot be compared: record events with run_id."
            for version in dict.fromkeys(lacking)
        ),
    ]
    made = [row["id"] for row in rows if row["made_then"]]
    return replace(facts, runs={row["id"]: row for row in rows}, made_then=made, missing=missing)


def _runs(
    postgres: "PostgresResource", ids: Sequence[str], model_name: str, start: datetime, end: datetime
) -> list[dict[str, Any]] | None:
    """Runs by id, and those of the model that were made in a time; None if no run was ever taken in."""
    from psycopg.errors import UndefinedTable
    from psycopg.rows import dict_row

    bound = {"ids": list(ids), "model_name": model_name, "start": start, "end": end}
    with postgres.connect() as connection, connection.cursor(row_factory=dict_row) as cursor:
        try:
            return cursor.execute(read_sql("postgres/why/runs.sql"), bound).fetchall()
        except UndefinedTable:
            return None


def _with_similar(
    postgres: "PostgresResource",
    lake: "DuckLakeResource",
    embedder: "Callable[[], Embedder]",
    facts: Facts,
) -> Facts:
    """With runs from before that are similar to the one of that day, or to what happened."""
    from ml_assets.operations.run_similar import similar

    before = f"created_at < '{facts.day.isoformat()}T00:00:00Z'"
    words = " ".join(row["description"] for row in (*facts.episodes[:1], *facts.alerts[:1]))
    asked: list[dict[str, str]] = [
        *({"run_id": id} for id in (*facts.made_then, facts.run_after) if id and id in facts.runs),
        {"text": words},
    ]
    # What is told of already.
    around = {facts.run_after, *(each["run_id"] for each in facts.before[-1:])}
    told = ""
    for each in asked:
        try:
            found = similar(postgres, lambda: lake, embedder, k=SIMILAR + len(around), where=before, **each)
        except Refusal as fault:
            # A run without a card: another one may have one, and words may still be looked for.
            told = str(fault)
            continue
        except StoreUnavailable as fault:
            told = str(fault)
            break  # there are no vectors at all
        scores = {row["run_id"]: row["score"] for row in found if row["run_id"] not in around}
        start = datetime.combine(facts.day, time(), UTC)
        rows = {row["id"]: row for row in _runs(postgres, list(scores), "", start, start) or ()}
        told_of = [{**rows[id], "score": score} for id, score in scores.items() if id in rows]
        return replace(facts, similar=told_of[:SIMILAR])
    return replace(facts, missing=[*facts.missing, f"Similar runs were not found: {told}"])


def _with_training_set(lake: "DuckLakeResource", facts: Facts) -> Facts:
    """With the training set of that day made again from its pin, and what changed from pin to pin."""
    from ml_assets.operations.feature_rebuild import TRAINING_SET, rebuild
    from ml_assets.stores.duckdb import pins

    with lake.get_connection() as connection:
        held = pins.pins(lake, connection)
    of_run = {run: pin for pin in held for run in [_run_of(pin, facts)] if run}
    ids = [facts.run_after, *facts.made_then, facts.before[-1]["run_id"] if facts.before else None]
    chosen = next((of_run[id] for id in ids if id in of_run), None)
    if chosen is None:
        of_day = [pin for pin in held if pin.written_at and pin.written_at.date() == facts.day]
        chosen = of_day[-1] if of_day else None
    if chosen is None:
        run = facts.run_after or "RUN"
        told = (
            f"The training set of {facts.day} cannot be made again: no pin keeps the lake of that day, and none was made "
            f"for the runs around it. 'ml-assets features pin NAME --run {run}' keeps the lake as it stands for a run."
        )
        return replace(facts, missing=[*facts.missing, told])
    claims = []
    try:
        made = rebuild(lake, chosen.name, TRAINING_SET, None, False)
    except Refusal as fault:
        return replace(facts, missing=[*facts.missing, f"The training set cannot be made again: {fault}"])
    run = _run_of(chosen, facts)
    whose = f"for the run {run}" if run else f"on {chosen.pinned_at:%Y-%m-%d}"
    as_of = f" as of {chosen.written_at:%Y-%m-%d}" if chosen.written_at else ""
    verdict = (
        f"equal to what it was, {made.made.rows:,} rows with the hash {made.made.content_hash}"
        if made.equal
        else f"not what it was; {' '.join(made.differences).rstrip('.')}"
    )
    values: dict[str, Any] = {
        "version": made.version,
        "run_id": chosen.run_id,
        "table": made.table,
        "rows": made.made.rows,
        "content_hash": made.made.content_hash,
        "noted_rows": made.noted.rows if made.noted else None,
        "noted_hash": made.noted.content_hash if made.noted else None,
        "equal": made.equal,
    }
    claims.append(
        Claim(
            "training set",
            f"The training set{as_of} was made again from the pin {chosen.name!r}, which was made {whose}: {verdict}.",
            (Row(PINS, {"name": chosen.name}, values),),
        )
    )
    older = of_run.get(facts.before[-1]["run_id"]) if facts.before else None
    if older is not None and older.name != chosen.name:
        claims.append(_between(older, chosen))
    return replace(facts, pinned=claims)


def _run_of(pin: "Pin", facts: Facts) -> str | None:
    """The run around the episode that a pin was made for, as the pin or the run says."""
    if pin.run_id in facts.runs:
        return pin.run_id
    return next((id for id, run in facts.runs.items() if (run["tags"] or {}).get(PIN_TAG) == pin.name), None)


def _between(older: "Pin", newer: "Pin") -> Claim:
    """Which tables changed between two pins."""
    shared = sorted(older.tables.keys() & newer.tables.keys())
    other = [asset for asset in shared if older.tables[asset] != newer.tables[asset]]
    told = ", ".join(
        f"{asset} ({older.tables[asset].rows:,} rows before, {newer.tables[asset].rows:,} now)"
        for asset in other
    )
    rows = tuple(
        Row(
            PINS,
            {"name": pin.name},
            {"version": pin.version}
            | {asset: f"{pin.tables[asset].rows} {pin.tables[asset].content_hash}" for asset in other},
        )
        for pin in (older, newer)
    )
    what = f"{len(other):,} of {len(shared):,} tables changed: {told}" if other else "no table changed"
    return Claim("pins", f"From the pin {older.name!r} to {newer.name!r}, {what}.", rows)


def _rows(client: "Client", question: str, parameters: Mapping[str, Any]) -> list[dict[str, Any]] | None:
    """The answer; None if the table was never made."""
    from clickhouse_connect.driver.exceptions import DatabaseError

    try:
        return client.query_arrow(
            read_sql(f"clickhouse/why/{question}.sql"), dict(parameters), use_strings=True
        ).to_pylist()
    except DatabaseError as fault:
        if is_missing_table(fault):
            return None
        raise


def _never(asset: str) -> str:
    return f"{asset} was never made: 'ml-assets refresh' makes it."


def _us(moment: datetime) -> int:
    return (moment - _EPOCH) // timedelta(microseconds=1)
