"""Where the columns of tables come from that no SQL file makes, and why some columns come from nowhere.

What belongs here: for each table that Python fills, its columns and the columns that they are made of. Tables that a
SELECT makes are not here: operations/lineage.py reads their SQL. A test holds both against the contracts, so that a
column that is added is added here as well.
"""

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from ml_assets.contracts.model import Contract
from ml_assets.contracts.streams import STREAMS, Stream
from ml_assets.lib.lineage import ColumnRef, Lineage, Origins

MLFLOW = "mlflow/runs"

_MLFLOW_RUNS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "run_id": ("run_id",),
        "parent_run_id": ("tags",),
        "experiment": ("experiment",),
        "name": ("run_name", "tags"),
        "model_name": ("registered_models", "tags", "params"),
        "model_version": ("registered_models", "tags", "params"),
        "model_type": ("tags", "params"),
        "dataset": ("dataset_inputs", "tags", "params"),
        "status": ("status",),
        "parameters": ("params",),
        "metrics": ("metrics",),
        "tags": ("tags", "dataset_inputs", "registered_models", "model_outputs", "artifacts"),
        "notes": ("tags",),
        "error": ("tags",),
        "artifact_uri": ("artifact_uri",),
        "created_at": ("start_time",),
        "completed_at": ("end_time",),
    }
)
_MLFLOW_METRICS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "run_id": ("run_id",),
        **dict.fromkeys(("key", "step", "value", "timestamp"), ("metric_history",)),
    }
)
_FROM_MLFLOW = {"runs": _MLFLOW_RUNS, "metrics": _MLFLOW_METRICS}
"""What of MLflow a column of a stream is read from."""

_ARRIVAL = MappingProxyType(
    {
        "unit": "Intake notes the file or the MLflow run that the row came in.",
        "unit_hash": "Intake hashes the content that the row came in.",
        "line": "Intake counts the lines of the file.",
        "quarantine_reason": "Intake says why a row breaks its contract.",
        "raw_text": "Intake keeps the whole line of a row in quarantine.",
    }
)
"""Columns that intake itself adds."""

_MODEL = "The settings name the embedding model."

BESIDE: Mapping[str, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "postgres/ml_run_metrics": MappingProxyType({"best": ("key", "max", "min")}),
        "postgres/run_leaderboard": MappingProxyType(
            dict.fromkeys(("low", "high"), ("mean", "deviation", "runs"))
        ),
    }
)
"""Columns that Python adds to the rows of a SELECT, and those of its columns that they are made of."""


def external() -> dict[str, tuple[str, ...]]:
    """The columns of what lies outside: landing folders and MLflow."""
    landing = {f"landing/{stream.name}": tuple(c.name for c in stream.columns) for stream in STREAMS.values()}
    of_mlflow = {
        name for mapping in _FROM_MLFLOW.values() for sources in mapping.values() for name in sources
    }
    return {**landing, MLFLOW: tuple(sorted(of_mlflow))}


def declared(
    tables: Mapping[str, Contract], known_times: Mapping[str, str] = MappingProxyType({})
) -> Lineage:
    """The origins of the tables that Python fills, and of those that are their parent's rows as they are.

    Args:
        tables: the contracts, by asset.
        known_times: of tables of features, by asset, the column of the time from which a row could be read, where that
            is not the event time.
    """
    found: dict[str, Origins] = {}
    for stream in STREAMS.values():
        intake, raw = f"duckdb/intake_{stream.name}", f"duckdb/raw_{stream.name}"
        found[intake] = intake_origins(stream)
        # The rows that stand in raw are chosen by what intake noted of their arrival.
        rows = [ColumnRef(intake, name) for name in ("unit_hash", "line", "day", "quarantine_reason")]
        found[raw] = Origins(_same(intake, tables[raw].names), rows=rows)
    runs, cards, chunks = "postgres/ml_experiments", "duckdb/experiment_cards", "duckdb/document_chunks"
    for table, parent in (
        ("sqlite/ml_experiments", runs),
        ("clickhouse/ml_model_performance", "duckdb/model_performance_events"),
        ("chroma/experiment_index", "postgres/experiment_embeddings"),
        ("chroma/document_index", "postgres/document_embeddings"),
        ("qdrant/experiment_index", "postgres/experiment_embeddings"),
        ("qdrant/document_index", "postgres/document_embeddings"),
    ):
        if table not in tables:
            continue  # there is no Qdrant
        found[table] = Origins(_same(parent, tables[table].names))
    listed = ("artifact_uri", "tags")
    found["sqlite/ml_model_artifacts"] = _of(
        runs,
        id=("id", *listed),
        experiment_id=("id",),
        **dict.fromkeys(("artifact_type", "file_path", "size_bytes", "sha256", "metadata"), listed),
        day=("created_at",),
        created_at=("created_at",),
    )
    used = ("dataset", "tags")
    found["sqlite/ml_training_data"] = _of(
        runs,
        id=("id", *used),
        experiment_id=("id",),
        **dict.fromkeys(("dataset_name", "file_path"), used),
        **dict.fromkeys(("context", "digest", "row_count", "feature_count"), ("tags",)),
        day=("created_at",),
        created_at=("created_at",),
    )
    # Metadata and source may name the format.
    cut = ("text", "metadata", "source")
    found[chunks] = _of(
        "duckdb/raw_documents",
        {"cut_for": _MODEL},
        document_hash=("document_id", "title", "text", "source", "metadata", "updated_at"),
        chunk_id=("document_id", *cut, "title"),
        document_id=("document_id",),
        **dict.fromkeys(("chunk_index", "text", "token_count", "start_offset", "end_offset", "section"), cut),
        **dict.fromkeys(("content_hash", "context"), ("title", *cut)),
        format=cut,
        title=("title",),
        source=("source",),
        metadata=("metadata", "document_id", "source"),
        updated_at=("updated_at",),
    )
    passage = ("title", "text")
    kept = {name: (name,) for name in ("title", "text", "metadata", "content_hash")}
    found["postgres/experiment_embeddings"] = _of(
        cards,
        {"model_name": _MODEL},
        run_id=("run_id",),
        embedding=passage,
        created_at=("created_at",),
        **kept,
    )
    found["postgres/document_embeddings"] = _of(
        chunks,
        {"model_name": _MODEL},
        id=("chunk_id",),
        document_id=("document_id",),
        embedding=("context", "text"),
        created_at=("updated_at",),
        **{name: (name,) for name in ("chunk_index", "start_offset", "end_offset", "section", "format")},
        **kept,
    )
    for table, parent, id in (
        ("postgres/document_clusters", "postgres/document_embeddings", "document_id"),
        ("postgres/experiment_clusters", "postgres/experiment_embeddings", "run_id"),
    ):
        found[table] = _of(
            parent,
            **{id: (id,)},
            **dict.fromkeys(("cluster", "certainty", "x", "y"), ("embedding",)),
            label=("embedding", "title", "text"),
            title=("title",),
            content_hash=tuple(dict.fromkeys((tables[parent].key[0], "content_hash", "model_name"))),
        )
    found["clickhouse/performance_trends"] = _performance_trends()
    found |= _regressions()
    found["clickhouse/estimated_accuracy"] = _of(
        "duckdb/ml_predictions",
        {"reference_pinned": "Somebody pins a baseline, or nobody does."},
        day=("created_at",),
        model_name=("model_name",),
        slice=("model_version",),
        slice_value=("model_version",),
        prediction_count=("id",),
        labelled_count=("is_correct",),
        measured_accuracy=("is_correct",),
        **dict.fromkeys(("reference_first", "reference_last"), ("created_at",)),
        **dict.fromkeys(
            ("estimated_accuracy", "low", "high", "applicable", "reason", "accuracy", "source"),
            ("confidence", "is_correct"),
        ),
    )
    for view in (each for each in tables.values() if each.store == "serving" and each.event_time):
        parent = f"duckdb/{view.table}"
        # Of an entity's rows that counts which is newest by its times, and then by the rest of the key.
        rest = tables[parent].key if parent in tables else ()
        chosen = dict.fromkeys([*view.key, view.event_time, known_times.get(parent), *rest])
        found[view.asset] = Origins(
            _same(parent, view.names), rows=[ColumnRef(parent, name) for name in chosen if name]
        )
    found["clickhouse/feature_drift"] = _drift(tables["clickhouse/feature_drift"])
    found["clickhouse/alerts"] = _alerts(tables)
    return found


def _performance_trends() -> Origins:
    """The functions of its SELECT are put in by Python."""
    histogram = ("latency_bins", "latency_counts", "latency_min_ms", "latency_max_ms")
    sums = ("accuracy_sum", "accuracy_count", "f1_score_sum", "f1_score_count", "request_count")
    values = (*sums, *histogram)
    counts = ("accuracy_count", "f1_score_count", "latency_counts", "request_count")
    found = _of(
        "clickhouse/performance_sketches",
        {
            "metric": "Each model has a row for each metric.",
            "baseline_pinned": "PostgreSQL holds the pinned baselines.",
        },
        day=("hour",),
        model_name=("model_name",),
        **dict.fromkeys(
            ("value", "previous_value", "baseline_value", "previous_change", "baseline_change"), values
        ),
        **dict.fromkeys(("value_count", "previous_count", "baseline_count"), counts),
    )
    # A model's first day begins the baseline that nobody has pinned.
    first = ColumnRef("clickhouse/performance_daily", "day")
    days = dict.fromkeys(("baseline_first", "baseline_last"), (first,))
    return Origins({**found.columns, **days}, found.made)


def _drift(contract: Contract) -> Origins:
    """Of what is measured of a model's predictions; the baseline is part of them, too."""
    asked = ("input_features", "prediction", "confidence")
    made = {
        "subject": "A prediction has input, answer and confidence.",
        "threshold": "lib/drift.py says what counts as drift.",
        "reference_pinned": "Somebody pins the days of a baseline.",
    }
    known = {
        "day": ("created_at",),
        "model_name": ("model_name",),
        "slice": ("model_version",),
        "slice_value": ("model_version",),
        "reference_first": ("created_at",),
        "reference_last": ("created_at",),
    }
    columns = {name: known.get(name, asked) for name in contract.names if name not in made}
    return _of("duckdb/ml_predictions", made, **columns)


def intake_origins(stream: Stream) -> Origins:
    """Where the columns of a stream's intake come from."""
    landing = f"landing/{stream.name}"
    of_mlflow = _FROM_MLFLOW[stream.name] if stream.from_mlflow else {}
    columns = {
        column.name: (
            ColumnRef(landing, column.name),
            *(ColumnRef(MLFLOW, name) for name in of_mlflow.get(column.name, ())),
        )
        for column in stream.columns
    }
    made = dict(_ARRIVAL)
    if stream.day_column:
        columns["day"] = columns[stream.day_column]
    else:
        made["day"] = "Rows of this stream have no day."
    return Origins(columns, made)


def _same(parent: str, names: Iterable[str]) -> dict[str, tuple[ColumnRef, ...]]:
    return {name: (ColumnRef(parent, name),) for name in names}


def _of(parent: str, made: Mapping[str, str] = MappingProxyType({}), **columns: tuple[str, ...]) -> Origins:
    return Origins(
        {name: tuple(ColumnRef(parent, each) for each in sources) for name, sources in columns.items()}, made
    )


def _regressions() -> dict[str, Origins]:
    """Episodes of quality come from events, those of latency and memory from hours."""
    events, hours = "clickhouse/ml_model_performance", "clickhouse/performance_hourly"
    quality = [
        ColumnRef(events, name) for name in ("accuracy", "precision", "recall", "f1_score", "batch_size")
    ]
    cost = [
        ColumnRef(hours, name)
        for name in (
            "avg_inference_time_ms",
            "p50_inference_time_ms",
            "p95_inference_time_ms",
            "p99_inference_time_ms",
            "max_memory_usage_mb",
        )
    ]
    values = (*quality, *cost)
    times = (ColumnRef(events, "timestamp"), ColumnRef(hours, "hour"))
    model = (ColumnRef(events, "model_name"), ColumnRef(hours, "model_name"))
    runs = tuple(ColumnRef(events, name) for name in ("run_id", "model_version", "timestamp"))
    columns = {
        "model_name": model,
        "slice_value": (ColumnRef(events, "dataset"),),
        **dict.fromkeys(("opened_at", "began_at", "last_seen_at", "closed_at"), (*values, *times)),
        **dict.fromkeys(("direction", "before", "after", "change", "low", "high", "deviations"), values),
        **dict.fromkeys(("confidence", "corrected_p", "value_count"), values),
        **dict.fromkeys(("runs_before", "runs_after"), runs),
        "description": tuple(dict.fromkeys((*model, *values, *times, *runs))),
    }
    made = {
        "metric": "The search for regressions names the metric.",
        "slice": "A model with several datasets is judged on each.",
        "kind": "The search for regressions knows the kind of each metric.",
    }
    rows = [ColumnRef(events, "kind"), ColumnRef(hours, "request_count")]
    return {"clickhouse/performance_regressions": Origins(columns, made, rows=rows)}


def _alerts(tables: Mapping[str, Contract]) -> Origins:
    """Alerts are the episodes of two tables, and what people have said of them."""
    regressions, drift = "clickhouse/performance_regressions", "clickhouse/feature_drift"
    same = (
        "kind",
        "direction",
        "began_at",
        "opened_at",
        "last_seen_at",
        "closed_at",
        "before",
        "after",
        "description",
    )
    days = ("began_at", "opened_at", "last_seen_at", "closed_at")
    distances = ("ks", "psi", "threshold")
    sources = {
        regressions: {
            **{name: (name,) for name in ("model_name", "metric", "slice", "slice_value", *same)},
            "change": ("change",),
            "confidence": ("confidence",),
            "severity": ("change", "deviations", "confidence"),
        },
        drift: {
            **{name: (name,) for name in ("model_name", "slice", "slice_value")},
            **dict.fromkeys(days, ("day", "state")),
            "change": distances,
            "confidence": ("corrected_p",),
            "severity": (*distances, "corrected_p"),
            "description": ("subject", "feature", *distances),
        },
    }
    columns: dict[str, tuple[ColumnRef, ...]] = {}
    for parent, of in sources.items():
        for name, parents in of.items():
            columns[name] = (*columns.get(name, ()), *(ColumnRef(parent, each) for each in parents))
    told = "The book of alerts says: an id for each episode, and what people have said of it."
    return Origins(columns, {name: told for name in tables["clickhouse/alerts"].names if name not in columns})
