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
    from ml_assets.resources.qdrant import QdrantResource
    from ml_assets.resources.redis import RedisResource
    from ml_assets.resources.sqlite import SQLiteResource

    if settings.read_only:
        settings = settings.for_reading()
    home, reading = str(settings.home), {"read_only": settings.read_only}
    limits: dict[str, Any] = {
        "query_timeout_s": settings.query_timeout_s,
        "write_timeout_s": settings.write_timeout_s,
    }
    asked = settings.embedding_server
    hidden = {
        name: settings.secret(f"{settings.embedder}_{name}") for name in ("url", "api_key") if name in asked
    }
    return {
        "postgres": PostgresResource(
            home=home,
            url=settings.secret("postgres_url"),
            partitions_start=settings.partitions_start.isoformat(),
            metric_directions=dict(settings.metric_directions),
            metric_synonyms=dict(settings.metric_synonyms),
            **reading,
            **limits,
        ),
        "lake": DuckLakeResource(
            home=home,
            catalog_url=settings.secret("lake_url"),
            postgres_url=settings.secret("postgres_url"),
            data_path=settings.lake_data_path,
            **(settings.object_store if "://" in settings.lake_data_path else {}),
            **reading,
            **limits,
        ),
        "clickhouse": ClickHouseResource(
            home=home,
            url=settings.secret("clickhouse_url"),
            lock_timeout_s=settings.lock_timeout_s,
            cluster=settings.clickhouse_cluster or "",
            **reading,
            **limits,
        ),
        "chroma": ChromaResource(home=home, url=settings.secret("chroma_url"), **limits),
        "sqlite": SQLiteResource(
            home=home,
            url=settings.secret("sqlite_url"),
            lock_timeout_s=settings.lock_timeout_s,
            **reading,
            **limits,
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
            follows_alias=True,
            postgres_url=settings.secret("postgres_url"),
            **{**asked, **hidden},
        ),
        "qdrant": QdrantResource(
            url=settings.secret("qdrant_url"), lock_timeout_s=settings.lock_timeout_s, **limits
        ),
    }
