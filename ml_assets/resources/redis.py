"""Redis: the online store's cache. Where no Redis can be had, the online store is PostgreSQL alone."""

from typing import TYPE_CHECKING

from pydantic import Field

from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    HOME,
    StoreResource,
    check_health,
    connecting,
    embedded_url,
    plain,
    require_scheme,
    unavailable,
)
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import ConnectionPool, Redis
    from redis.connection import AbstractConnection

_SCHEMES = ("redis", "rediss", "unix")

_UNBOUNDED = 2**31 - 1
"""Connections of a pool. At the driver's own 100, the next thread gets an error that is one of a server gone away."""


class RedisResource(StoreResource):
    """A Redis server, or none.

    Args:
        home: folder of the embedded server, used if `url` is empty.
        url: `redis://user:password@host:port/0`, `rediss://` (TLS) or `unix:///path/of/socket?db=0`.
        query_timeout_s: how long one command may take.
    """

    home: str = HOME
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0

    def server_url(self) -> str | None:
        """URL of the server; None where none is configured and the embedded one is not installed.

        Raises:
            StoreUnavailable: the configured URL is none of Redis', or the embedded server cannot start.
        """
        url = plain(self.url)
        if url:
            return require_scheme("Redis", url, _SCHEMES, "ML_ASSETS_REDIS_URL")
        from ml_assets import services

        return embedded_url("redis", self.home) if services.available("redis") else None

    def client(self) -> "Redis | None":
        """A client that has answered a PING; keys and values are bytes. None where no Redis is to be had.

        Raises:
            StoreUnavailable: the server does not answer after three tries.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        url = self.server_url()
        if url is None:
            return None
        client = None
        try:
            client = redis.Redis.from_url(
                url,
                socket_connect_timeout=CONNECT_TIMEOUT_S,
                socket_timeout=self.query_timeout_s,
                # A command is never repeated: nobody can tell whether it was done.
                retry=Retry(NoBackoff(), 0),
            )
            connecting(redis.ConnectionError)(client.ping)
        except (redis.RedisError, ValueError) as fault:
            if client is not None:
                client.close()
            # Without `from`: the driver's message may hold the password.
            raise unavailable(
                "Redis",
                url,
                fault,
                "check that it runs and that ML_ASSETS_REDIS_URL is right",
            ) from None
        return client

    def pool(
        self, greet: "Callable[[AbstractConnection], None]", timeout_s: float
    ) -> "ConnectionPool | None":
        """Connections for whoever reads at every request; None where no Redis is to be had.

        None is opened by that: one that cannot be opened raises `redis.ConnectionError` when it is asked for. There are
        as many as threads that read at the same time, since nobody waits for another's.

        Args:
            greet: called with each connection that was just opened.
            timeout_s: how long an answer may take.

        Raises:
            StoreUnavailable: the configured URL is none of Redis', or the embedded server cannot start.
        """
        import redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        url = self.server_url()
        if url is None:
            return None
        try:
            return redis.ConnectionPool.from_url(
                url,
                protocol=2,  # an answer of its own form needs no negotiation, and is parsed in less time
                socket_connect_timeout=timeout_s,
                socket_timeout=timeout_s,
                retry=Retry(NoBackoff(), 0),
                redis_connect_func=greet,
                max_connections=_UNBOUNDED,
            )
        except ValueError as fault:
            raise unavailable("Redis", url, fault, "check that ML_ASSETS_REDIS_URL is right") from None

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.server_url() or ""

    def health(self) -> StoreHealth:
        """Whether the server answers, with its version. Never raises."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        client = self.client()
        if client is None:
            return StoreHealth(
                "healthy",
                detail="no Redis is installed here: the online store is PostgreSQL alone",
            )
        with client:
            told = client.info("server")
            # Valkey says there which Redis it is compatible with.
            return StoreHealth("healthy", str(told.get("valkey_version") or told["redis_version"]))
