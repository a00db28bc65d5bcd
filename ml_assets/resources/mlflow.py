"""MLflow: the tracking store that runs are read from. `MLFLOW_TRACKING_URI` is not looked at."""

import math
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

import dagster as dg
import orjson
from pydantic import Field, PrivateAttr

from ml_assets.lib.artifacts import RunDataset, RunFile, local_files, local_folder
from ml_assets.lib.intake.mlflow_reader import LOGGED_MODELS
from ml_assets.resources.base import (
    CONNECT_TIMEOUT_S,
    CONNECT_TRIES,
    StoreHealth,
    StoreUnavailable,
    check_health,
    connecting,
    plain,
    require_scheme,
    unavailable,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

T = TypeVar("T")

_SCHEMES = ("http", "https", "sqlite")


class MLflowResource(dg.ConfigurableResource):
    """An MLflow tracking store.

    Args:
        home: folder of the embedded store, `mlflow/mlflow.db` there, used if `url` is empty.
        url: `http://host:5000`, `https://host` or `sqlite:////absolute/mlflow.db`.
        query_timeout_s: how long one request to a server may take.
    """

    home: str
    url: str = Field(default="", repr=False)
    query_timeout_s: float = 30.0

    _client: Any = PrivateAttr(default=None)

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

    def client(self) -> "MlflowClient":
        """MLflow's client on this store, whatever `MLFLOW_TRACKING_URI` says.

        Raises:
            StoreUnavailable: a server does not answer after three tries, or the file is not MLflow's.
        """
        self._probe()
        from mlflow import MlflowClient

        client = MlflowClient(tracking_uri=self.tracking_uri(), registry_uri=self.tracking_uri())
        return client if self.database else cast("MlflowClient", _Limited(client, self.query_timeout_s))

    def run_files(self, run: Mapping[str, Any]) -> Iterator[RunFile]:
        """Files of a run of `id`, `artifact_uri` and `tags`: read where they lie, else as MLflow lists them.

        Those of its logged models are among them, as `models/<id>/...`.

        Raises:
            StoreUnavailable: as `client`.
        """
        folder = local_folder(run["artifact_uri"])
        if folder is not None:
            yield from local_files(folder)
        elif run["artifact_uri"] and self.run(run["id"]) is not None:
            yield from _listed_files(
                partial(self._client_once().list_artifacts, run["id"]), run["artifact_uri"]
            )
        for model in self._logged_models(run["tags"]):
            uri = model.artifact_location
            folder = local_folder(uri)
            files = (
                local_files(folder)
                if folder is not None
                else _listed_files(
                    partial(self._client_once().list_logged_model_artifacts, model.model_id), uri
                )
            )
            for file in files:
                yield replace(
                    file, path=f"models/{model.model_id}/{file.path}", metadata={"model": model.name}
                )

    def _logged_models(self, tags: str | None) -> "Iterator[LoggedModel]":
        """The models that a run's tags name, as far as this store has them."""
        named = _json(tags).get(LOGGED_MODELS)
        for model_id in named if isinstance(named, list) else []:
            model = self._ask(lambda client, model_id=model_id: client.get_logged_model(str(model_id)))
            if model is not None:
                yield model

    def run_datasets(self, run: Mapping[str, Any]) -> Iterator[RunDataset]:
        """Datasets of a run of `id` and `dataset`: MLflow's dataset inputs, else the name that the run has.

        Raises:
            StoreUnavailable: as `client`.
        """
        found = self.run(run["id"])
        inputs = found.inputs.dataset_inputs if found is not None and found.inputs else []
        for each in inputs:
            tags = {tag.key: tag.value for tag in each.tags}
            yield _dataset(each.dataset, tags.get("mlflow.data.context"))
        if not inputs and run["dataset"]:
            yield RunDataset(run["dataset"], source=run["dataset"])

    def run(self, run_id: str) -> "Run | None":
        """A run with its inputs; None if this store does not have it.

        Raises:
            StoreUnavailable: as `client`.
        """
        return self._ask(lambda client: client.get_run(run_id))

    def _ask(self, question: "Callable[[MlflowClient], T]") -> "T | None":
        """An answer of MLflow; None if this store does not have what is asked for."""
        if self.database is not None and not self.database.exists():
            return None
        from mlflow.exceptions import MlflowException
        from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST, ErrorCode

        try:
            return question(self._client_once())
        except MlflowException as fault:
            # An id that MLflow could not have made is refused instead of not found.
            unknown = (RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE)
            if fault.error_code in [ErrorCode.Name(code) for code in unknown]:
                return None
            raise

    def _client_once(self) -> "MlflowClient":
        if self._client is None:
            self._client = self.client()
        return self._client

    def health(self) -> StoreHealth:
        """Whether the store answers, with its version. Never raises, and does not import mlflow."""
        return check_health(self._probe)

    def _probe(self) -> StoreHealth:
        path = self.database
        return self._probe_server() if path is None else self._probe_file(path)

    def _probe_file(self, path: Path) -> StoreHealth:
        installed = version("mlflow")
        if not path.exists():
            return StoreHealth(
                "healthy",
                installed,
                "nothing has been logged yet: the file is made by the first run",
            )
        try:
            with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as connection:
                connection.execute("SELECT version_num FROM alembic_version").fetchone()
        except sqlite3.Error as fault:
            raise StoreUnavailable(
                f"MLflow's file {path} cannot be read ({fault}): "
                "set ML_ASSETS_MLFLOW_URL to a tracking store."
            ) from fault
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


def _listed_files(ask: Callable[[str | None], Any], uri: str, path: str | None = None) -> Iterator[RunFile]:
    """Files below a path as MLflow lists them.

    Args:
        ask: lists what lies at a path.
    """
    for info in ask(path):
        if info.is_dir:
            yield from _listed_files(ask, uri, info.path)
        else:
            yield RunFile(info.path, f"{uri.rstrip('/')}/{info.path}", info.file_size)


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


def _dataset(dataset: Any, context: str | None) -> RunDataset:
    """A dataset input as a row; its profile is JSON that may tell rows and features."""
    profile = _json(dataset.profile)
    schema = _json(dataset.schema)
    source = _json(dataset.source)
    columns = schema.get("mlflow_colspec")
    features = profile.get("features_shape") or []
    return RunDataset(
        name=dataset.name,
        source=str(source.get("uri") or source.get("url") or source.get("path") or dataset.source_type),
        context=context,
        digest=dataset.digest,
        row_count=profile.get("num_rows") or (features[0] if features else None),
        feature_count=len(columns)
        if columns
        else profile.get("num_features") or (features[1] if len(features) > 1 else None),
    )


def _json(text: str | None) -> dict[str, Any]:
    try:
        value = orjson.loads(text or "{}")
    except orjson.JSONDecodeError:
        return {}  # free text is lawful there; it just tells no numbers
    return value if isinstance(value, dict) else {}
