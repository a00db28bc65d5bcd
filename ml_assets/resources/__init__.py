"""Resources: one a store. A resource connects, reports its health and has a few named operations."""

from typing import Any

from ml_assets.settings import Settings


def store_resources(settings: Settings) -> dict[str, Any]:
    """One resource a store, and the embedder. The command line uses the same ones."""
    from ml_assets.resources.chroma import ChromaResource
    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.embedder import EmbedderResource
    from ml_assets.resources.mlflow import MLflowResource
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.resources.redis import RedisResource
    from ml_assets.resources.sqlite import SQLiteResource

    home = str(settings.home)
    limits: dict[str, Any] = {
        "query_timeout_s": settings.query_timeout_s,
        "write_timeout_s": settings.write_timeout_s,
    }
    return {
        "postgres": PostgresResource(
            home=home,
            url=settings.secret("postgres_url"),
            partitions_start=settings.partitions_start.isoformat(),
            metric_directions=dict(settings.metric_directions),
            metric_synonyms=dict(settings.metric_synonyms),
            **limits,
        ),
        "lake": DuckLakeResource(
            home=home,
            catalog_url=settings.secret("lake_url"),
            postgres_url=settings.secret("postgres_url"),
            data_path=settings.lake_data_path,
            **limits,
        ),
        "clickhouse": ClickHouseResource(
            home=home,
            url=settings.secret("clickhouse_url"),
            lock_timeout_s=settings.lock_timeout_s,
            **limits,
        ),
        "chroma": ChromaResource(home=home, url=settings.secret("chroma_url"), **limits),
        "sqlite": SQLiteResource(
            home=home, url=settings.secret("sqlite_url"), lock_timeout_s=settings.lock_timeout_s, **limits
        ),
        "redis": RedisResource(
            home=home, url=settings.secret("redis_url"), query_timeout_s=settings.query_timeout_s
        ),
        "mlflow": MLflowResource(
            home=home, url=settings.secret("mlflow_url"), query_timeout_s=settings.query_timeout_s
        ),
        "embedder": EmbedderResource(
            home=home,
            kind=settings.embedder,
            ollama_url=settings.secret("ollama_url"),
            ollama_model=settings.ollama_model,
            ollama_dimension=settings.ollama_dimension,
        ),
    }
