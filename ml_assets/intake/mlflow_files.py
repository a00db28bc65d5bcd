"""The files of MLflow's runs, as they are when a run is taken in.

What belongs here: asking the tracking store for a run's files and those of its logged models. Files on this machine
are never listed by way of MLflow, which would look at any folder that somebody named: intake/artifacts.py does that.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, Any

import orjson

from ml_assets.intake.artifacts import FileRules, RunFile, folder_files
from ml_assets.intake.mlflow_reader import LOGGED_MODELS, MLflowRun
from ml_assets.lib.artifact_uris import artifact_root, local_folder
from ml_assets.settings import without_passwords

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

_TRIES = 3
"""Runs in a row whose files a store does not tell, after which it is not asked for those of others."""

_PLACE = re.compile(r"([\w+.-]+):(?://(?:[^/@]*@)?([^/?#]*))?")
"""Scheme and host of a URI, however broken."""

FIRST_EXPERIMENT = "0"
"""Every store makes it at its beginning, and it can be deleted only in name."""


class FileLister:
    """Lists the files of runs, one after the other.

    Args:
        client: of the tracking store.
        rules: which folders of this machine may be looked at, besides the store's own.
    """

    def __init__(self, client: "MlflowClient", rules: FileRules) -> None:
        self._client = client
        self._rules = rules.with_root(artifact_root(_first_location(client)))
        self._failures: Counter[str] = Counter()

    def files_of(self, run: MLflowRun) -> Iterator[RunFile]:
        """The files of a run, then those of its logged models as `models/<id>/...`.

        Raises:
            mlflow.exceptions.MlflowException: the tracking store does not answer.
        """
        if uri := run.row["artifact_uri"]:
            yield from self._files(uri, partial(self._client.list_artifacts, run.run_id))
        for model in self._logged_models(run.row["tags"]):
            uri = model.artifact_location
            folder = local_folder(uri)
            base = str(folder) if folder is not None else uri.rstrip("/")
            for file in self._files(uri, partial(self._client.list_logged_model_artifacts, model.model_id)):
                yield replace(
                    file,
                    path=f"models/{model.model_id}/{file.path}",
                    location=f"{base}/{file.path}".rstrip("/"),
                    model=model.name,
                )

    def _files(self, uri: str, ask: Callable[[str | None], Any]) -> Iterator[RunFile]:
        folder = local_folder(uri)
        if folder is not None:
            return folder_files(folder, self._rules)
        return iter(self._listed(uri, ask))

    def _listed(self, uri: str, ask: Callable[[str | None], Any]) -> list[RunFile]:
        """Files as MLflow lists them. What keeps them is no part of the tracking store, and may not answer."""
        place = _PLACE.match(uri)
        if place is None or place[1].lower() == "file":
            return [RunFile("", reason="not looked at: it is no folder of this machine")]
        store = f"{place[1]}://{place[2] or ''}"
        if self._failures[store] >= _TRIES:
            return [RunFile("", reason=f"not asked for: {store} did not list those of other runs")]
        most = self._rules.max_files
        try:
            found = list(islice(_walked(ask), most + 1))
        except Exception as fault:  # noqa: BLE001 - of whatever library reads that store
            self._client.search_experiments(max_results=1)  # raises if it is the tracking store that is gone
            self._failures[store] += 1
            told = without_passwords(str(fault) or type(fault).__name__, [self._client.tracking_uri, uri])
            told = told.splitlines()[0][:200]
            return [RunFile("", reason=f"cannot be listed ({told})")]
        self._failures.pop(store, None)
        if len(found) > most:
            return [
                *found[:most],
                RunFile("", reason=f"not all are listed: a run has at most {most:,} files"),
            ]
        return found

    def _logged_models(self, tags: str) -> "Iterator[LoggedModel]":
        """The models that a run's tags name, as far as this store has them."""
        from mlflow.exceptions import MlflowException

        named = orjson.loads(tags).get(LOGGED_MODELS)
        for model_id in named if isinstance(named, list) else ():
            try:
                yield self._client.get_logged_model(model_id)
            except MlflowException as fault:
                if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
                    raise


def _first_location(client: "MlflowClient") -> str | None:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_experiment(FIRST_EXPERIMENT).artifact_location
    except MlflowException as fault:
        if fault.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None  # it was deleted for good


def _walked(ask: Callable[[str | None], Any], path: str | None = None) -> Iterator[RunFile]:
    for info in ask(path):
        if info.is_dir:
            yield from _walked(ask, info.path)
        else:
            yield RunFile(info.path, size_bytes=info.file_size)
