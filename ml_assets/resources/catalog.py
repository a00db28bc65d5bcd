"""The lake's catalog as what it is besides: a database of PostgreSQL, opened as the project's own is.

What belongs here: which resource opens it. What does not: DuckLake, which opens it by itself.
"""

from functools import cache

from ml_assets.resources.postgres import PostgresResource

__all__ = ["PostgresResource", "database"]


@cache  # to make a resource takes longer than to lend one of its connections
def database(url: str, query_timeout_s: float, write_timeout_s: float) -> PostgresResource:
    """The resource over a catalog's URL; one and the same for whoever asks again."""
    return PostgresResource(url=url, query_timeout_s=query_timeout_s, write_timeout_s=write_timeout_s)
