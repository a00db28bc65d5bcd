"""Performance: events and rollups in ClickHouse."""

from ml_assets.contracts.columns import count, need, number, share, time
from ml_assets.contracts.features import EVENT_COLUMNS
from ml_assets.contracts.model import Contract


def tables() -> tuple[Contract, ...]:
    """The tables of the room."""
    return (
        Contract(
            "clickhouse/ml_model_performance",
            "one performance event",
            EVENT_COLUMNS,
            key=("event_id",),
            partition_column="timestamp",
            order_by=("model_name", "timestamp", "event_id"),
        ),
        Contract(
            "clickhouse/performance_hourly",
            "one hour of one model: quality, latency, memory, exact quantiles",
            (
                time("hour", "start of the hour, UTC; its day is the partition"),
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
            ),
            key=("hour", "model_name"),
            partition_column="hour",
            order_by=("model_name", "hour"),
            unique_across_days=True,
        ),
    )
