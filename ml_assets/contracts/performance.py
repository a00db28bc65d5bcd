"""Performance: events and rollups in ClickHouse."""

from ml_assets.contracts.columns import count, json_column, need, number, share, text, time
from ml_assets.contracts.model import Column, Contract


def tables(events: tuple[Column, ...]) -> tuple[Contract, ...]:
    """The tables of the room.

    Args:
        events: columns of an event with what is known of the run behind it, as duckdb/model_performance_events has them.
    """
    return (
        Contract(
            "clickhouse/ml_model_performance",
            "one performance event",
            events,
            key=("event_id",),
            partition_column="timestamp",
            order_by=("model_name", "timestamp", "event_id"),
        ),
        Contract(
            "clickhouse/performance_hourly",
            "one hour of one model: quality, latency, memory, exact quantiles",
            (
                time("hour", "start of the hour, UTC; its day is the partition"),
                *_rollup_columns(),
            ),
            key=("hour", "model_name"),
            partition_column="hour",
            order_by=("model_name", "hour"),
            unique_across_days=True,
        ),
        *rollups(),
        *trends(),
        *regressions(),
        *estimates(),
        *alerts(),
    )


def rollups() -> tuple[Contract, ...]:
    """Events by the day, and states that can be added up over any hours."""
    return (
        Contract(
            "clickhouse/performance_daily",
            "one day of one model: quality, latency, memory, exact quantiles",
            (
                Column("day", "date", nullable=False, description="the day, UTC; it is the partition"),
                *_rollup_columns(),
            ),
            key=("day", "model_name"),
            partition_column="day",
            order_by=("model_name", "day"),
            unique_across_days=True,
            stored_by_month=True,
        ),
        Contract(
            "clickhouse/performance_sketches",
            "one hour of one version of a model on one dataset, as counts, sums and a histogram that add up",
            (
                time("hour", "start of the hour, UTC; its day is the partition"),
                need("model_name"),
                need("model_version", "its version; empty where unknown"),
                need("dataset", "dataset of the run behind the events; empty where unknown"),
                count("evaluation_count", "events of kind evaluation"),
                count("request_count", "events of kind inference"),
                count("accuracy_count", "events with an accuracy"),
                number("accuracy_sum", "of their accuracies", nullable=False),
                number(
                    "accuracy_squares",
                    "sum of their squared deviations from their mean",
                    nullable=False,
                    minimum=0.0,
                ),
                count("f1_score_count", "events with an F1"),
                number("f1_score_sum", "of their F1 scores", nullable=False),
                number(
                    "f1_score_squares",
                    "sum of their squared deviations from their mean",
                    nullable=False,
                    minimum=0.0,
                ),
                count("latency_count", "events with a wall time"),
                number("latency_sum_ms", "of their wall times in milliseconds", nullable=False),
                number("latency_squares", "sum of their squared deviations from their mean", nullable=False),
                number("latency_min_ms", "shortest wall time in milliseconds", minimum=0.0),
                number("latency_max_ms", "longest wall time in milliseconds", minimum=0.0),
                Column(
                    "latency_bins",
                    "json",
                    nullable=False,
                    description="bins of the wall times, in order: a time of x ms is in the bin ceil(100 ln x)",
                ),
                Column(
                    "latency_counts",
                    "json",
                    nullable=False,
                    description="how many wall times each of these bins holds",
                ),
                number("max_memory_usage_mb", minimum=0.0),
                time("last_event_at", "time of the newest event in the row, UTC", nullable=True),
            ),
            key=("hour", "model_name", "model_version", "dataset"),
            partition_column="hour",
            order_by=("model_name", "hour", "model_version", "dataset"),
            unique_across_days=True,
        ),
    )


TREND_METRICS = (
    "accuracy",
    "f1_score",
    "p50_inference_time_ms",
    "p95_inference_time_ms",
    "p99_inference_time_ms",
    "request_count",
)
"""What performance_trends follows of a model."""


def trends() -> tuple[Contract, ...]:
    """Each model's week beside the week before and beside its baseline."""
    return (
        Contract(
            "clickhouse/performance_trends",
            "one metric of one model over the 7 days up to a day, beside the 7 days before and its baseline",
            (
                Column(
                    "day",
                    "date",
                    nullable=False,
                    description="last day of the window, UTC; it is the partition",
                ),
                need("model_name"),
                need(
                    "metric",
                    "what is followed; request_count is requests a day, and quantiles are of the sketches",
                    choices=TREND_METRICS,
                ),
                number("value", "of the 7 days up to the day"),
                number("previous_value", "of the 7 days before those"),
                number("baseline_value", "of the baseline's days; null until they are over"),
                number("previous_change", "from the previous value, as a share of it"),
                number("baseline_change", "from the baseline's value, as a share of it"),
                count("value_count", "measurements or requests behind the value"),
                count("previous_count", "the same of the previous value"),
                count("baseline_count", "the same of the baseline's value"),
                Column(
                    "baseline_first", "date", nullable=False, description="first day of the baseline, UTC"
                ),
                Column("baseline_last", "date", nullable=False, description="its last day, UTC"),
                Column(
                    "baseline_pinned",
                    "bool",
                    nullable=False,
                    description="whether somebody pinned these days; the model's first ones if not",
                ),
            ),
            key=("day", "model_name", "metric"),
            partition_column="day",
            order_by=("model_name", "metric", "day"),
            unique_across_days=True,
        ),
    )


def _rollup_columns() -> tuple[Column, ...]:
    """What a rollup says of a model, after the hour or day."""
    return (
        need("model_name"),
        count("evaluation_count", "events of kind evaluation"),
        count("request_count", "events of kind inference"),
        count("run_count", "different runs behind the events"),
        share("avg_accuracy"),
        number("std_accuracy", "sample standard deviation; null for fewer than two values"),
        share("avg_f1_score"),
        number("avg_inference_time_ms", minimum=0.0),
        number("p50_inference_time_ms", minimum=0.0),
        number("p95_inference_time_ms", minimum=0.0),
        number("p99_inference_time_ms", minimum=0.0),
        number("max_memory_usage_mb", minimum=0.0),
        time("last_event_at", "time of the newest event in the row, UTC", nullable=True),
    )


def regressions() -> tuple[Contract, ...]:
    """What became worse: episodes of quality, latency and memory."""
    return (
        Contract(
            "clickhouse/performance_regressions",
            "one episode in which one metric of one model was worse than before",
            (
                need("model_name"),
                need(
                    "metric", "what became worse, by its name in ml_model_performance or performance_hourly"
                ),
                need("slice", "all, or dataset where the model has several"),
                need("slice_value", "the dataset; empty of all, and where it is not known"),
                time("opened_at", "start of the day or hour, UTC, with which it was believed"),
                need("kind", "of the metric", choices=("quality", "latency", "memory")),
                need("direction", "whether the metric rose or fell", choices=("up", "down")),
                time("began_at", "start of the first day or hour, UTC, that belongs to it"),
                time("last_seen_at", "start of the last day or hour, UTC, that was as bad"),
                time(
                    "closed_at",
                    "start of the day or hour, UTC, with which it was over; null while it goes on",
                    True,
                ),
                number("before", "level of the normal days or hours before it"),
                number("after", "level within it"),
                number("change", "after minus before as a share of before; null where that is 0"),
                number("low", "lower end of the 95 % interval of after minus before"),
                number("high", "upper end of it"),
                number("deviations", "after minus before, in standard deviations of one day or hour"),
                share("confidence", "1 minus the p value of the shift, corrected for nothing"),
                share(
                    "corrected_p",
                    "of the day on which it was believed, over all series that were judged on it",
                ),
                count("value_count", "evaluations or hours within it"),
                json_column(
                    "runs_before", "the last runs before it: run_id, model_version, first_at, last_at, events"
                ),
                json_column("runs_after", "the first runs within it, as runs_before"),
                text("description", "what happened, in a sentence"),
            ),
            key=("model_name", "metric", "slice", "slice_value", "opened_at"),
        ),
    )


def estimates() -> tuple[Contract, ...]:
    """Accuracy where labels are missing."""
    return (
        Contract(
            "clickhouse/estimated_accuracy",
            "one day of one model, or of one of its versions: its accuracy, measured or estimated",
            (
                time("day", "start of the day of the answers, UTC; it is the partition"),
                need("model_name"),
                need("slice", "what the answers are divided by: all (not at all) or model_version"),
                need("slice_value", "the version; empty for all, and where none is known"),
                count("prediction_count", "answers"),
                count("labelled_count", "those of them whose truth is known"),
                share("estimated_accuracy", "what their confidence says; null where that is not applicable"),
                share("low", "lower end of the estimate's 95 % interval"),
                share("high", "upper end of it"),
                Column("applicable", "bool", nullable=False, description="whether there is an estimate"),
                need("reason", "why the estimate can be believed or not, in a sentence"),
                share("measured_accuracy", "share of right answers among the labelled"),
                share("accuracy", "the measured one if 90 % of the answers are labelled, else the estimated"),
                text("source", "which of them", choices=("estimated", "measured")),
                Column("reference_first", "date", description="first day of the answers that calibrate it"),
                Column("reference_last", "date", description="last day of them"),
                Column("reference_pinned", "bool", description="whether somebody has pinned these days"),
            ),
            key=("day", "model_name", "slice", "slice_value"),
            partition_column="day",
            order_by=("model_name", "slice", "slice_value", "day"),
            unique_across_days=True,
        ),
        *drift(),
    )


DRIFT = Contract(
    "clickhouse/feature_drift",
    "one feature of one model on one day, held against the model's baseline",
    (
        time("day", "start of the day, UTC; the day is the partition"),
        need("model_name"),
        need("subject", "what the feature is of", choices=("input", "prediction", "confidence")),
        need("feature", "name in the input, by its path where objects lie in it; prediction; confidence"),
        need("slice", "what the day's predictions are divided by", choices=("all", "model_version")),
        need("slice_value", "the version; empty of all, and where it is not known"),
        need("kind", "what most of the reference's values are", choices=("number", "category", "list")),
        count("reference_count", "values of the reference"),
        count("current_count", "values of the day"),
        count("reference_lacking", "predictions of the reference that have no such value"),
        count("current_lacking", "predictions of the day that have no such value"),
        share("ks", "Kolmogorov-Smirnov distance of numbers"),
        number("wasserstein", "Wasserstein distance of numbers, in their unit", minimum=0.0),
        number("psi", "population stability index over bins of the reference, or categories", minimum=0.0),
        number("jensen_shannon", "Jensen-Shannon distance over the same, 0 to 0.8326", minimum=0.0),
        number("chi_squared", "Pearson's statistic of categories", minimum=0.0),
        share("p", "p value of Kolmogorov-Smirnov or chi-squared"),
        share("corrected_p", "after Benjamini and Hochberg, for all of the day; null if not judged"),
        number("threshold", "least KS of numbers, or PSI of categories, that counts"),
        need("state", "the verdict", choices=("drift", "none", "too few", "not judged")),
        need("reason", "the verdict in a sentence"),
        Column("reference_first", "date", nullable=False, description="first day of the baseline, UTC"),
        Column("reference_last", "date", nullable=False, description="last day of the baseline, UTC"),
        Column("reference_pinned", "bool", nullable=False, description="whether somebody pinned it"),
        need("reference_content", "tells other content of the baseline; empty if the day is in it"),
    ),
    key=("day", "model_name", "subject", "feature", "slice", "slice_value"),
    partition_column="day",
    order_by=("model_name", "subject", "feature", "slice", "slice_value", "day"),
    unique_across_days=True,
)


def drift() -> tuple[Contract, ...]:
    """Drift of what models are asked and answer."""
    return (DRIFT,)


def alerts() -> tuple[Contract, ...]:
    """What is wrong with models, each episode once."""
    return (
        Contract(
            "clickhouse/alerts",
            "one alert: an episode in which a model was not what it was",
            (
                need(
                    "alert_id", "the same for as long as the episode is the same, however late data move it"
                ),
                need("source", "where it was found", choices=("regression", "drift")),
                need("model_name"),
                need("metric", "what changed; `drift` where the data did"),
                need("kind", "which sort of change"),
                need("slice", "`all`, or the column whose value the alert is of"),
                need("slice_value"),
                need("direction", "up or down; empty of drift"),
                need("severity", "error where it is certain to 99.9 % and large", choices=("warn", "error")),
                need(
                    "state",
                    "when the table was written",
                    choices=("open", "snoozed", "acknowledged", "closed"),
                ),
                time("began_at", "the first time that belongs to it, UTC"),
                time("opened_at", "when it was believed, UTC"),
                time("last_seen_at", "the last time at which it was seen, UTC"),
                time("closed_at", "when it was over, UTC; null while it goes on", nullable=True),
                Column("withdrawn", "bool", False, "whether later data show that there was nothing"),
                number("before", "of the metric; null of drift"),
                number("after", "of the metric; null of drift"),
                number("change", "as a share of before; of drift, the largest distance of a feature"),
                share("confidence", "that it is no chance: 1 minus its p value"),
                need("description", "a sentence or two for people"),
                time("acknowledged_at", "when somebody said that they know of it, UTC", nullable=True),
                text("acknowledged_note"),
                time("snoozed_until", "until when it is let be, UTC", nullable=True),
                time("notified_at", "when somebody was first told of it, UTC", nullable=True),
            ),
            key=("alert_id",),
            order_by=("model_name", "opened_at", "alert_id"),
        ),
    )
