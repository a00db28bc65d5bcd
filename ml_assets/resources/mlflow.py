"""MLflow: the tracking store that runs are read from. `MLFLOW_TRACKING_URI` is not looked at."""

import math
import os
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, cast

from pydantic import Field

from ml_assets.errors import StoreUnavailable
from ml_assets.lib.artifact_uris import artifact_root
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    CONNECT_TRIES,
    StoreResource,
    check_health,
    connecting,
    plain,
    require_scheme,
    unavailable,
)
from ml_assets.tables.store import StoreHealth

if TYPE_CHECKING:
    from mlflow import MlflowClient

_SCHEMES = ("http", "https", "sqlite")


class MLflowResource(StoreResource):
    """An MLflow tracking store.

    Args:
        home: folder of the embedded store, `mlflow/mlflow.db` there, used if `url` is empty.
        url: `http://host:5000`, `https://host` or `sqlite:////absolute/mlflow.db`.
        query_timeout_s: how long one request to a server may take.
    """

    home: str
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0

    def tracking_uri(self) -> str:
        """The tracking store's URI, for MLflow's API.

        Raises:
            StoreUnavailable: the configured URL is none that MLflow's tracking can have here.
        """
        url = plain(self.url)
        if not url:
            return f"sqlite:///{Path(self.home) / 'mlflow' / 'mlflow.db'}"
        return require_scheme("MLflow", url, _SCHEMES, "ML_ASSETS_MLFLOW_URL")

    @property
    def database(self) -> Path | None:
        """The tracking store's SQLite file, None for a server.

        Raises:
            StoreUnavailable: the configured file does not exist. The embedded one is made by the first run.
        """
        uri = self.tracking_uri()
        if not uri.startswith("sqlite:"):
            return None
        path = Path(os.path.abspath(uri.removeprefix("sqlite:///")))
        if plain(self.url) and not path.exists():
            raise StoreUnavailable(
                f"MLflow's file {path} does not exist: set ML_ASSETS_MLFLOW_URL to the tracking store that your "
                "runs are logged to, or unset it to use the embedded one."
            )
        return path

    @property
    def is_made(self) -> bool:
        """Whether a reader may open the store: a server, or a file that MLflow has made to the end.

        MLflow makes a file's tables wherever one is missing, without a lock. A reader that opens the file while
        somebody's first run is making it would do the same steps beside it, and both would fail. The last step
        is the experiment 'Default'; before it nothing has been logged.

        Raises:
            StoreUnavailable: the file cannot be read, is not MLflow's, or is set and does not exist.
        """
        path = self.database
        return path is None or (path.exists() and _made(path))

    def client(self) -> "MlflowClient":
        """MLflow's client on this store, whatever `MLFLOW_TRACKING_URI` says.

        Raises:
            StoreUnavailable: a server does not answer after three tries, or the file is not MLflow's.
        """
        self._probe()
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.tracking_uri(), registry_uri=self.tracking_uri())
        return client if self.database else cast("MlflowClient", _Limited(client, self.query_timeout_s))

    def artifact_root(self) -> Path | None:
        """The folder on this machine below which a store in a file keeps artifacts; None if it cannot be told."""
        try:
            path = self.database
            if path is None or not path.exists():
                return None
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                found = connection.execute(
                    "SELECT artifact_location FROM experiments WHERE experiment_id = 0"
                ).fetchone()
        except (StoreUnavailable, sqlite3.Error):
            return None  # what is wrong is told by whoever reads runs, and stops nobody else
        return artifact_root(found[0]) if found else None

    def location(self) -> str:
        """The URL of the store, as status shows it (without its password)."""
        return self.tracking_uri()

    def health(self) -> StoreHealth:
        """Whether the store answers, with its version. Never raises, and does not import mlflow."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        path = self.database
        return self._probe_server() if path is None else self._probe_file(path)

    def _probe_file(self, path: Path) -> StoreHealth:
        installed = version("mlflow-skinny")
        if not path.exists() or not _made(path):
            return StoreHealth(
                "healthy",
                installed,
                "nothing has been logged yet: the file is made by the first run",
            )
        return StoreHealth("healthy", installed)

    def _probe_server(self) -> StoreHealth:
        import httpx

        url = self.tracking_uri().rstrip("/")
        try:
            answer = connecting(httpx.TransportError)(httpx.get, f"{url}/version", timeout=CONNECT_TIMEOUT_S)
            answer.raise_for_status()
        except httpx.HTTPError as fault:
            raise unavailable(
                "MLflow",
                url,
                fault,
                "check that it runs and that ML_ASSETS_MLFLOW_URL is right",
            ) from None
        return StoreHealth("healthy", answer.text.strip())


_ANY = "SELECT 1 FROM experiments LIMIT 1"


def _made(path: Path) -> bool:
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
            connection.execute("BEGIN")  # one state for all that is asked, while somebody makes it
            tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            begun = not tables or not tables.isdisjoint(("alembic_version", "experiments"))
            if begun and ("experiments" not in tables or not connection.execute(_ANY).fetchone()):
                return False
            connection.execute("SELECT version_num FROM alembic_version").fetchone()
    except sqlite3.Error as fault:
        raise StoreUnavailable(
            f"MLflow's file {path} cannot be read ({fault}): set ML_ASSETS_MLFLOW_URL to a tracking store."
        ) from fault
    return True


class _Limited:
    """MLflow's client with our time-out and number of tries, unless the environment says others.

    MLflow reads both from the environment at each request and nowhere else. They stand there for the time of a
    call, so that what else this process does with MLflow, and the processes that it starts, keep their own.
    """

    _turn: ClassVar[threading.RLock] = threading.RLock()

    def __init__(self, client: "MlflowClient", timeout_s: float) -> None:
        self._client = client
        self._limits = {
            "MLFLOW_HTTP_REQUEST_TIMEOUT": str(max(1, math.ceil(timeout_s))),
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": str(CONNECT_TRIES - 1),
        }

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        return partial(self._call, found) if callable(found) else found

    def _call(self, method: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        with self._turn:
            ours = self._limits.keys() - os.environ.keys()
            os.environ.update({name: self._limits[name] for name in ours})
            try:
                return method(*args, **kwargs)
            finally:
                for name in ours:
                    del os.environ[name]
