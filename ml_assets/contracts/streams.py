"""Streams: what comes in, from landing files and from MLflow."""

from dataclasses import dataclass

from ml_assets.contracts.columns import (
    INDEXED_BYTES,
    count,
    json_column,
    need,
    number,
    share,
    text,
    time,
)
from ml_assets.contracts.model import Column

RUN_STAGES = (("created",), ("running",), ("completed", "failed", "cancelled"))
"""The states of a run from early to late; in one of the last tuple it has ended."""

RUN_STATUSES = tuple(status for stage in RUN_STAGES for status in stage)


def may_become(status: str, later: str) -> bool:
    """Whether a run of one status may have another one later, or the same: it never goes back, and an end is final."""
    stages = {each: place for place, stage in enumerate(RUN_STAGES) for each in stage}
    return status == later or (status not in RUN_STAGES[-1] and stages[later] > stages[status])


EVENT_KINDS = ("evaluation", "inference")


@dataclass(frozen=True)
class Version:
    """What tells which of two rows of a key is the later state. A row that tells nothing is the earlier one.

    Args:
        columns: the first of them that has a value counts; the greater value is later.
        stages: values from early to late, those of one tuple equally late, in place of greater and smaller.
        known: whether there is a value is all that counts.
    """

    columns: tuple[str, ...]
    stages: tuple[tuple[str, ...], ...] = ()
    known: bool = False


@dataclass(frozen=True)
class Stream:
    """One kind of input row: landing/<name>/*.{jsonl,csv,parquet}, and for some of them MLflow.

    Args:
        name: folder name, and suffix of the tables `intake_<name>` and `raw_<name>`.
        description: what one row is.
        columns: the columns a row may have; whatever is not nullable must be there.
        key: natural key; the latest update of a key wins.
        mlflow_key: columns that MLflow's own key has besides. Its rows that differ in them are different rows,
            while a landed row takes the place of whatever else has its key.
        day_column: timestamp whose UTC day is the row's partition; None if the stream has no event time.
        versions: compared in this order to find the latest update of a key. Of equally late rows the one with
            more values wins, then the greater content hash, so the result does not depend on the order of arrival.
        extras_column: JSON column that keeps unknown columns.
        from_mlflow: whether MLflow has such rows too.
        whole_files: whether a Markdown or text file is a row as well.
    """

    name: str
    description: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    day_column: str | None
    versions: tuple[Version, ...]
    extras_column: str
    from_mlflow: bool = False
    mlflow_key: tuple[str, ...] = ()
    whole_files: bool = False

    @property
    def unique_across_days(self) -> bool:
        """Runs, documents and judgments exist once; measurements are identified within their day."""
        return self.name in ("runs", "documents", "judgments")


RUN_COLUMNS = (
    need("run_id", "identifier of the run, unique over all sources", max_bytes=INDEXED_BYTES),
    text("parent_run_id", "run that this one is nested in"),
    need("experiment", "experiment that the run belongs to", max_bytes=INDEXED_BYTES),
    text("name", "name of the run"),
    text("model_name", "registered or logical model that the run trains", max_bytes=INDEXED_BYTES),
    text("model_version", "version of that model"),
    text("model_type", "model family, such as random_forest", max_bytes=INDEXED_BYTES),
    text("dataset", "dataset that the run was trained on", max_bytes=INDEXED_BYTES),
    need("status", "state of the run", choices=RUN_STATUSES),
    json_column("parameters", "hyper-parameters as one JSON object"),
    json_column("metrics", "last value of every metric as one JSON object"),
    json_column("tags", "tags, and whatever unknown columns the source had"),
    text("notes", "free text"),
    text("error", "why a failed run failed"),
    text("artifact_uri", "where the run's files lie"),
    time("created_at", "start of the run, UTC; its day is the partition"),
    time("completed_at", "end of the run, UTC", nullable=True),
)


METRIC_COLUMNS = (
    need("run_id", "run that logged the value"),
    need("key", "name of the metric"),
    Column("step", "int64", nullable=False, description="training step, 0 where none was given"),
    number("value", "value; NaN and infinities are lawful here"),
    time("timestamp", "when it was logged, UTC; its day is the partition"),
)


PERFORMANCE_COLUMNS = (
    need("event_id", "identifier of the event within its day"),
    need("kind", "a scored evaluation or a served inference", choices=EVENT_KINDS),
    time("timestamp", "when it happened, UTC; its day is the partition"),
    need("model_name", "model that was evaluated or asked"),
    text("model_version", "its version"),
    text("experiment", "experiment that the model came from"),
    text("run_id", "run that trained it"),
    share("accuracy", "share of right answers"),
    share("precision", "macro precision"),
    share("recall", "macro recall"),
    share("f1_score", "macro F1"),
    number("inference_time_ms", "wall time of the batch in milliseconds", minimum=0.0),
    number("memory_usage_mb", "memory in use in megabytes", minimum=0.0),
    count("batch_size", "rows in the batch", nullable=True),
)


PREDICTION_COLUMNS = (
    need("prediction_id", "identifier of the prediction within its day"),
    text("run_id", "run that trained the model"),
    need("model_name", "model that predicted"),
    text("model_version", "its version"),
    json_column("input_features", "the input as one JSON object"),
    json_column("prediction", "the answer, any JSON"),
    share("confidence", "probability that the model gave its answer"),
    text("label", "the truth, once known"),
    time("created_at", "when it was predicted, UTC; its day is the partition"),
)


EXTRAS = json_column("extras", "whatever unknown columns the source had, as one JSON object")


DOCUMENT_COLUMNS = (
    need("document_id", "identifier of the document", max_bytes=INDEXED_BYTES),
    text("title"),
    need("text", "the whole text"),
    text("source", "where it came from"),
    json_column("metadata", "whatever else is known"),
    time("updated_at", "last change, UTC"),
)


JUDGMENT_COLUMNS = (
    need("set_name", "the judged set that the question belongs to", max_bytes=INDEXED_BYTES),
    need("query_id", "identifier of the question within its set", max_bytes=INDEXED_BYTES),
    need("query", "the question, as somebody would type it"),
    need("document_id", "document that was judged for it", max_bytes=INDEXED_BYTES),
    Column(
        "relevance",
        "int64",
        nullable=False,
        minimum=0,
        maximum=3,
        description="from 0, no answer, to 3, the very answer",
    ),
    time("judged_at", "when it was judged, UTC"),
)


STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        Stream(
            "runs",
            "a training run",
            RUN_COLUMNS,
            ("run_id",),
            "created_at",
            (
                Version(("completed_at", "created_at")),
                Version(("status",), stages=RUN_STAGES),
                Version(("created_at",)),
            ),
            "tags",
            from_mlflow=True,
        ),
        Stream(
            "metrics",
            "one value of one metric of one run at one step",
            (*METRIC_COLUMNS, EXTRAS),
            ("run_id", "key", "step", "timestamp"),
            "timestamp",
            (),
            "extras",
            from_mlflow=True,
            mlflow_key=("value",),
        ),
        Stream(
            "performance",
            "an evaluation or an inference of a model, with its quality and cost",
            (*PERFORMANCE_COLUMNS, EXTRAS),
            ("event_id",),
            "timestamp",
            (Version(("timestamp",)),),
            "extras",
        ),
        Stream(
            "predictions",
            "one prediction of a model",
            (*PREDICTION_COLUMNS, EXTRAS),
            ("prediction_id",),
            "created_at",
            (Version(("created_at",)), Version(("label",), known=True)),
            "extras",
        ),
        Stream(
            "documents",
            "a text that people ask questions about",
            DOCUMENT_COLUMNS,
            ("document_id",),
            None,
            (Version(("updated_at",)),),
            "metadata",
            whole_files=True,
        ),
        Stream(
            "judgments",
            "how well one document answers one question",
            (*JUDGMENT_COLUMNS, EXTRAS),
            ("set_name", "query_id", "document_id"),
            None,
            (Version(("judged_at",)),),
            "extras",
        ),
    )
}

INHERITED = {column.name: column.description for stream in STREAMS.values() for column in stream.columns}
"""What a column means that a table carries on from a stream, unless its contract says more."""
