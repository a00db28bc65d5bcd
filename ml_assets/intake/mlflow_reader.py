"""MLflow runs and their metric histories as rows of the streams `runs` and `metrics`.

What belongs here: asking a tracking store, and translating what it says. Nothing is written anywhere.

Nothing in MLflow tells when a run was last changed. So each run has a mark, which changes when the run does:
in a SQLite store it is made from the rows of MLflow's tables, which takes a tenth of a second for thousands
of runs; of a server's runs it is made from what the listing returns.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from ml_assets.intake.artifacts import DATASETS_TAG, FILES_TAG, RunFile, kept_entries

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Dataset, Run
    from mlflow.entities.model_registry import ModelVersion

STATUSES = {
    "SCHEDULED": "created",
    "RUNNING": "running",
    "FINISHED": "completed",
    "FAILED": "failed",
    "KILLED": "cancelled",
}

LOGGED_MODELS = "mlflow.logged_models"
"""Tag of a run's row with the ids of the models that it logged."""

PAGE = 1_000
"""Runs in one answer of a listing."""

_FEW_RUNS = 50
"""Up to so many runs are asked for one by one; beyond that a listing of all is cheaper."""

_EXPERIMENTS_A_SEARCH = 500
_RUNS_A_HISTORY = 100
_POINTS_A_HISTORY = 25_000
"""What a server returns at most of the histories of a metric, whatever is asked for."""

_REQUESTS_AT_ONCE = 8
_LARGEST = 1.7976931348623157e308  # what MLflow stores for an infinity

_ACTIVE_RUNS = "SELECT run_uuid FROM runs WHERE lifecycle_stage = 'active'"
_ROWS_OF_RUNS = (
    "SELECT run_uuid, runs.*, experiments.name FROM runs JOIN experiments USING (experiment_id)",
    "SELECT run_uuid, * FROM params",
    "SELECT run_uuid, * FROM tags",
    "SELECT run_uuid, * FROM latest_metrics",
    "SELECT destination_id, inputs.*, datasets.* FROM inputs JOIN datasets ON source_id = dataset_uuid",
    "SELECT destination_id, input_tags.* FROM inputs JOIN input_tags USING (input_uuid)",
    "SELECT source_id, destination_id FROM inputs WHERE destination_type = 'MODEL_OUTPUT'",
    "SELECT run_id, name, version FROM model_versions WHERE run_id IS NOT NULL",
    "SELECT v.run_id, a.* FROM model_versions v "
    "JOIN registered_model_aliases a ON a.name = v.name AND a.version = v.version WHERE v.run_id IS NOT NULL",
)
"""All that makes a run's row, each with the run's id in front."""

TIMES = ("created_at", "completed_at", "timestamp")
"""Columns in milliseconds since 1970, as MLflow has them. It takes any number for one."""

_ITEM_FIELDS = [("unit", pa.string()), ("unit_hash", pa.string()), ("line", pa.int64())]

RUN_SCHEMA = pa.schema(
    [
        *_ITEM_FIELDS,
        *(
            (name, pa.string())
            for name in (
                "run_id",
                "parent_run_id",
                "experiment",
                "name",
                "model_name",
                "model_version",
                "model_type",
                "dataset",
                "status",
                "parameters",
                "metrics",
                "tags",
                "notes",
                "error",
                "artifact_uri",
            )
        ),
        ("created_at", pa.int64()),
        ("completed_at", pa.int64()),
    ]
)

METRIC_SCHEMA = pa.schema(
    [
        *_ITEM_FIELDS,
        ("run_id", pa.string()),
        ("key", pa.string()),
        ("step", pa.int64()),
        ("value", pa.float64()),
        ("timestamp", pa.int64()),
    ]
)


@dataclass(frozen=True)
class Registration:
    """A registered version of a model that a run made."""

    model: str
    version: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class MLflowRun:
    """A run as a row.

    Args:
        content_hash: SHA-256 of the row.
        row: columns of the stream `runs`.
    """

    run_id: str
    content_hash: str
    row: Mapping[str, Any]


@dataclass(frozen=True)
class History:
    """All values of all metrics of a run, in columns, ordered by key, step, time and value."""

    run_id: str
    content_hash: str
    keys: Sequence[str]
    steps: Sequence[int]
    values: Sequence[float]
    timestamps_ms: Sequence[int]


# --- runs -------------------------------------------------------------------------------------------


def run_marks(client: "MlflowClient") -> dict[str, str]:
    """A mark for every run that is not deleted, of every experiment, nested ones too.

    Raises:
        mlflow.exceptions.MlflowException: the store does not answer.
    """
    if _is_sql(client):
        return _sql_marks(client)
    return {run.run_id: run.content_hash for run in _list_runs(client)}


def read_runs(client: "MlflowClient", run_ids: Collection[str]) -> Iterator[MLflowRun]:
    """These runs, as far as they are not deleted by now."""
    wanted = set(run_ids)
    if len(wanted) > _FEW_RUNS:
        yield from (run for run in _list_runs(client) if run.run_id in wanted)
        return
    names = _experiments(client)
    registered = _registrations(client)
    for run in _get_runs(client, sorted(wanted)):
        yield _as_run(run, names[run.info.experiment_id], registered.get(run.info.run_id, ()))


def _list_runs(client: "MlflowClient") -> Iterator[MLflowRun]:
    names = _experiments(client)
    registered = _registrations(client)
    for run in _search_runs(client, list(names)):
        yield _as_run(run, names[run.info.experiment_id], registered.get(run.info.run_id, ()))


def _get_runs(client: "MlflowClient", run_ids: Iterable[str]) -> Iterator["Run"]:
    for run_id in run_ids:
        run = client.get_run(run_id)
        if run.info.lifecycle_stage == "active":
            yield run


def _sql_marks(client: "MlflowClient") -> dict[str, str]:
    with _session(client) as session:
        cursor = session.connection().connection.cursor()
        cursor.execute(_ACTIVE_RUNS)
        totals = {run_id: 0 for (run_id,) in cursor}
        for statement in _ROWS_OF_RUNS:
            for run_id, *row in cursor.execute(statement):
                if run_id in totals:
                    digest = hashlib.blake2b(f"{statement}{row!r}".encode(), digest_size=8).digest()
                    # A sum, since rows come in any order.
                    totals[run_id] += int.from_bytes(digest, "big")
    return {run_id: f"{total % 2**64:016x}" for run_id, total in totals.items()}


def run_batch(runs: Sequence[MLflowRun]) -> pa.RecordBatch:
    """Runs as one batch of `RUN_SCHEMA`."""
    rows = [{"unit": r.run_id, "unit_hash": r.content_hash, "line": 1, **r.row} for r in runs]
    return pa.RecordBatch.from_pylist(rows, schema=RUN_SCHEMA)


def _experiments(client: "MlflowClient") -> dict[str, str]:
    """Names of all experiments by id."""
    from mlflow.entities import ViewType

    return {
        e.experiment_id: e.name
        for e in _pages(lambda token: client.search_experiments(ViewType.ALL, PAGE, page_token=token))
    }


def _search_runs(client: "MlflowClient", experiments: list[str]) -> Iterator["Run"]:
    from mlflow.entities import ViewType

    seen: set[str] = set()
    for start in range(0, len(experiments), _EXPERIMENTS_A_SEARCH):
        some = experiments[start : start + _EXPERIMENTS_A_SEARCH]
        for run in _pages(
            lambda token, some=some: client.search_runs(
                some, run_view_type=ViewType.ACTIVE_ONLY, max_results=PAGE, page_token=token
            )
        ):
            # Pages are counted from the newest run: one that begins meanwhile moves the last of a page to the next.
            if run.info.run_id not in seen:
                seen.add(run.info.run_id)
                yield run


def _registrations(client: "MlflowClient") -> dict[str, list[Registration]]:
    """Registered versions by run id, in order of model and version."""
    aliases: dict[tuple[str, str], list[str]] = {}
    for model in _pages(lambda token: client.search_registered_models(max_results=PAGE, page_token=token)):
        for alias, version in model.aliases.items():
            aliases.setdefault((model.name, str(version)), []).append(alias)
    found: dict[str, list[Registration]] = {}
    versions: Iterable[ModelVersion] = _pages(
        lambda token: client.search_model_versions(max_results=PAGE, page_token=token)
    )
    for v in versions:
        if v.run_id:
            names = tuple(sorted(aliases.get((v.name, str(v.version)), ())))
            found.setdefault(v.run_id, []).append(Registration(v.name, str(v.version), names))
    for registrations in found.values():
        registrations.sort(key=lambda r: (r.model, int(r.version)))
    return found


def _pages(ask: Any) -> Iterator[Any]:
    """Everything that a paged listing has; a last page has no token."""
    token = None
    while True:
        page = ask(token)
        yield from page
        token = page.token
        if not token:
            return


def _as_run(run: "Run", experiment: str, registrations: Sequence[Registration]) -> MLflowRun:
    info, tags, params = run.info, dict(run.data.tags), run.data.params
    datasets = [
        _dataset(each.dataset, next((t.value for t in each.tags if t.key == "mlflow.data.context"), None))
        for each in (run.inputs.dataset_inputs if run.inputs else ())
    ]
    datasets.sort(key=lambda d: (d["context"] not in ("train", "training"), d["name"], d["digest"]))
    kept: dict[str, Any] = dict(tags)
    if datasets:
        kept[DATASETS_TAG] = datasets
    if run.outputs and run.outputs.model_outputs:
        # Their files lie beside those of the run.
        kept[LOGGED_MODELS] = sorted({output.model_id for output in run.outputs.model_outputs})
    if registrations:
        kept["mlflow.registered_models"] = [
            {"name": r.model, "version": r.version, "aliases": list(r.aliases)} for r in registrations
        ]
    latest = registrations[-1] if registrations else None

    def told(*names: str) -> str | None:
        return next((v for n in names for v in (tags.get(n), params.get(n)) if v), None)

    row = {
        "run_id": info.run_id,
        "parent_run_id": tags.get("mlflow.parentRunId"),
        "experiment": experiment,
        "name": info.run_name or tags.get("mlflow.runName"),
        "model_name": latest.model if latest else told("model_name"),
        "model_version": latest.version if latest else told("model_version"),
        "model_type": told("model_type", "estimator_name"),
        "dataset": datasets[0]["name"] if datasets else told("dataset"),
        "status": STATUSES.get(info.status, info.status),
        "parameters": _json(params),
        "metrics": _json({key: _number(value) for key, value in run.data.metrics.items()}),
        "tags": _json(kept),
        "notes": tags.get("mlflow.note.content"),
        "error": tags.get("error"),
        "artifact_uri": info.artifact_uri,
        "created_at": info.start_time,
        "completed_at": info.end_time,
    }
    return MLflowRun(info.run_id, _row_hash(row), row)


def with_files(run: MLflowRun, files: Iterable[RunFile]) -> MLflowRun:
    """The run with the list of its files in its tags, as another content."""
    tags = {**orjson.loads(run.row["tags"]), FILES_TAG: kept_entries(files)}
    row = {**run.row, "tags": _json(tags)}
    return MLflowRun(run.run_id, _row_hash(row), row)


def _row_hash(row: Mapping[str, Any]) -> str:
    return hashlib.sha256(orjson.dumps(row, option=orjson.OPT_SORT_KEYS)).hexdigest()


def _dataset(dataset: "Dataset", context: str | None) -> dict[str, Any]:
    """A dataset input as it stands in the tags; its profile is JSON that may tell rows and features."""
    profile, schema, source = (_object(text) for text in (dataset.profile, dataset.schema, dataset.source))
    columns = schema.get("mlflow_colspec")
    shape = profile.get("features_shape")
    shape = shape if isinstance(shape, list) else []
    more = {
        "source": str(source.get("uri") or source.get("url") or source.get("path") or dataset.source_type),
        "row_count": profile.get("num_rows") or (shape[0] if shape else None),
        "feature_count": len(columns)
        if isinstance(columns, list) and columns
        else profile.get("num_features") or (shape[1] if len(shape) > 1 else None),
    }
    known = {name: value for name, value in more.items() if value is not None}
    return {"name": dataset.name, "digest": dataset.digest, "context": context, **known}


def _object(text: str | None) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}  # free text is lawful there; it just tells no numbers
    return value if isinstance(value, dict) else {}


def _json(value: Mapping[str, Any]) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()


def _number(value: float) -> float | str:
    """JSON has no NaN and no infinities: they stand as strings."""
    value = _restored(value)
    return value if math.isfinite(value) else {math.inf: "Infinity", -math.inf: "-Infinity"}.get(value, "NaN")


def _restored(value: float) -> float:
    """MLflow stores the largest double where an infinity was logged."""
    return math.copysign(math.inf, value) if abs(value) >= _LARGEST else value


# --- metrics ----------------------------------------------------------------------------------------


def history_marks(client: "MlflowClient") -> dict[str, str]:
    """A mark for the metric history of every run that is not deleted and has one.

    In a SQLite store the mark sees every point. A server tells the last value of each metric only, so
    there a point that is logged late with a step before the last one is seen when a later one follows.
    """
    if _is_sql(client):
        return _counted_histories(client)
    found = {}
    for run in _search_runs(client, list(_experiments(client))):
        latest = sorted((m.key, m.step, m.timestamp, repr(m.value)) for m in run.data._metric_objs)
        if latest:
            found[run.info.run_id] = hashlib.sha256(orjson.dumps(latest)).hexdigest()
    return found


def read_histories(client: "MlflowClient", run_ids: Sequence[str]) -> Iterator[History]:
    """Full metric histories of these runs; a run without metrics gives an empty one."""
    if _is_sql(client):
        yield from _sql_histories(client, run_ids)
    else:
        yield from _asked_histories(client, run_ids)


def history_batch(history: History) -> pa.RecordBatch:
    """A history as one batch of `METRIC_SCHEMA`."""
    count = len(history.keys)
    columns = [
        pa.array([history.run_id] * count, pa.string()),
        pa.array([history.content_hash] * count, pa.string()),
        pa.array(range(1, count + 1), pa.int64()),
        pa.array([history.run_id] * count, pa.string()),
        pa.array(history.keys, pa.string()),
        pa.array(history.steps, pa.int64()),
        pa.array(history.values, pa.float64()),
        pa.array(history.timestamps_ms, pa.int64()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=METRIC_SCHEMA)


def _history(run_id: str, points: Sequence[tuple[str, int, float, int]]) -> History:
    keys, steps, values, timestamps = zip(*points, strict=True) if points else ((), (), (), ())
    # As bits: JSON would write NaN and the infinities alike.
    hashed = (
        orjson.dumps([run_id, keys, steps, timestamps])
        + pa.array(values, pa.float64()).buffers()[1].to_pybytes()
    )
    return History(run_id, hashlib.sha256(hashed).hexdigest(), keys, steps, values, timestamps)


def _is_sql(client: "MlflowClient") -> bool:
    return not client.tracking_uri.startswith("http")


def _session(client: "MlflowClient") -> Any:
    return client._tracking_client.store.ManagedSessionMaker()  # type: ignore[attr-defined]


def _counted_histories(client: "MlflowClient") -> dict[str, str]:
    from mlflow.store.tracking.dbmodels.models import SqlMetric, SqlRun
    from sqlalchemy import func, select

    statement = (
        select(SqlMetric.run_uuid, func.count(), func.max(SqlMetric.timestamp))
        .join(SqlRun, SqlRun.run_uuid == SqlMetric.run_uuid)
        .where(SqlRun.lifecycle_stage == "active")
        .group_by(SqlMetric.run_uuid)
    )
    with _session(client) as session:
        return {run_id: f"{count}:{last}" for run_id, count, last in session.execute(statement)}


def _sql_histories(client: "MlflowClient", run_ids: Sequence[str]) -> Iterator[History]:
    with _session(client) as session:
        # The driver's own cursor: SQLAlchemy's rows cost five times as much, and there may be millions.
        cursor = session.connection().connection.cursor()
        for run_id in run_ids:
            cursor.execute(
                "SELECT key, step, value, is_nan, timestamp FROM metrics WHERE run_uuid = ? "
                "ORDER BY key, step, timestamp, is_nan, value",
                (run_id,),
            )
            points = [
                (key, step, math.nan if is_nan else _restored(value), timestamp)
                for key, step, value, is_nan, timestamp in cursor
            ]
            yield _history(run_id, points)


def _asked_histories(client: "MlflowClient", run_ids: Sequence[str]) -> Iterator[History]:
    """Histories from a server: of a hundred runs and one metric with each request."""
    keys = _metric_keys(client, run_ids)
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        for start in range(0, len(run_ids), _RUNS_A_HISTORY):
            some = run_ids[start : start + _RUNS_A_HISTORY]
            runs_by_key: dict[str, list[str]] = {}
            for run_id in some:
                for key in keys.get(run_id, ()):
                    runs_by_key.setdefault(key, []).append(run_id)
            points: dict[str, list[tuple[str, int, float, int]]] = {run_id: [] for run_id in some}
            for found in pool.map(lambda item: _asked(client, *item), runs_by_key.items()):
                for run_id, point in found:
                    points[run_id].append(point)
            for run_id, of_run in points.items():
                # As the database orders them: NaN after the numbers.
                of_run.sort(key=lambda p: (p[0], p[1], p[3], math.isnan(p[2]), p[2]))
                yield _history(run_id, of_run)


def _metric_keys(client: "MlflowClient", run_ids: Sequence[str]) -> dict[str, list[str]]:
    """Names of the metrics of runs."""
    many = len(run_ids) > _FEW_RUNS
    runs = _search_runs(client, list(_experiments(client))) if many else _get_runs(client, run_ids)
    return {run.info.run_id: list(run.data.metrics) for run in runs}


def _asked(
    client: "MlflowClient", key: str, run_ids: Sequence[str]
) -> list[tuple[str, tuple[str, int, float, int]]]:
    """All values of one metric of some runs. An answer that is full is asked for again in halves."""
    from mlflow.utils.rest_utils import http_request, verify_rest_response

    if len(run_ids) == 1:
        history = client.get_metric_history(run_ids[0], key)
        return [(run_ids[0], (m.key, m.step, _restored(m.value), m.timestamp)) for m in history]
    endpoint = "/ajax-api/2.0/mlflow/metrics/get-history-bulk"
    answer = http_request(
        client._tracking_client.store.get_host_creds(),  # type: ignore[attr-defined]
        endpoint,
        "GET",
        params={"run_id": list(run_ids), "metric_key": key, "max_results": _POINTS_A_HISTORY},
    )
    found = verify_rest_response(answer, endpoint).json()["metrics"]
    if len(found) < _POINTS_A_HISTORY:
        return [
            (m["run_id"], (key, int(m["step"]), _restored(float(m["value"])), int(m["timestamp"])))
            for m in found
        ]
    half = len(run_ids) // 2
    return _asked(client, key, run_ids[:half]) + _asked(client, key, run_ids[half:])
