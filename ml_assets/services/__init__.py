"""The embedded servers: PostgreSQL, Chroma and Redis out of wheels, one of each per home.

Any number of processes call `ensure`; the first one starts the server, which is detached and runs on until
`stop_all`. Everything that is kept lies in `home/services/<name>`; sockets lie in a short folder of /tmp.
Nothing happens at import. `server.py` says how a server is found and started, the modules beside it what
is particular to each.
"""

from pathlib import Path

from ml_assets.errors import ServiceError
from ml_assets.services.chroma import Chroma
from ml_assets.services.postgres import Postgres
from ml_assets.services.redis import Redis
from ml_assets.services.server import Server, ServiceState, only_running

__all__ = [
    "SERVERS",
    "ServiceError",
    "ServiceState",
    "available",
    "describe",
    "ensure",
    "only_running",
    "stop_all",
]

SERVERS: dict[str, type[Server]] = {server.name: server for server in (Postgres, Chroma, Redis)}


def ensure(name: str, home: Path) -> str:
    """URL of the embedded server `name` of `home`, which is started if it does not run.

    Raises:
        ServiceError: it cannot be had.
    """
    return SERVERS[name](home).ensure()


def available(name: str) -> bool:
    """Whether the program of the embedded server `name` is installed here."""
    return SERVERS[name].available()


def stop_all(home: Path) -> list[str]:
    """Stop the embedded servers of `home`; the names of those that ran.

    Raises:
        ServiceError: one could not be stopped.
    """
    stopped: list[str] = []
    failed: list[ServiceError] = []
    for name, server in SERVERS.items():
        try:
            if server(home).stop():
                stopped.append(name)
        except ServiceError as error:
            failed.append(error)  # the others are stopped all the same
    if failed:
        raise failed[0]
    return stopped


def describe(home: Path) -> dict[str, ServiceState]:
    """The state of each embedded server of `home`, by name; starts nothing."""
    return {name: server(home).describe() for name, server in SERVERS.items()}
