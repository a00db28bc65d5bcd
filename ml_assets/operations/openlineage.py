"""Runs of the graph as events of OpenLineage, for a catalog such as Marquez or DataHub that collects them.

What belongs here: what has happened in, an event out, and sending it. When something happens is said in
defs/quality/openlineage.py. A dataset is named by the key of its asset, in one namespace for all stores.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit, urlunsplit

from ml_assets.errors import Refusal
from ml_assets.lib.lineage import ColumnRef
from ml_assets.operations.lineage import ColumnLineage
from ml_assets.resources.base import require_scheme, unavailable

if TYPE_CHECKING:
    from openlineage.client.event_v2 import RunEvent

NAMESPACE = "ml-assets"
_COLLECTOR = "OpenLineage's collector"
_VARIABLE = "ML_ASSETS_OPENLINEAGE_URL"
_PRODUCER = "https://pypi.org/project/ml-assets"

Happened = Literal["START", "COMPLETE", "FAIL", "ABORT"]


@dataclass(frozen=True)
class RunTold:
    """Something that happened to a run.

    Args:
        run_id: Dagster's, a UUID.
        job: name of the job.
        happened: what.
        at: when, UTC.
        tables: what it has written, by asset; the rows where they are known.
        error: why it failed.
    """

    run_id: str
    job: str
    happened: Happened
    at: datetime
    tables: Mapping[str, int | None]
    error: str = ""


def run_event(told: RunTold, graph: ColumnLineage) -> "RunEvent":
    """The event: outputs with their columns, rows and column lineage; inputs are what they are made of.

    Raises:
        Refusal: openlineage-python is not installed.
    """
    _require()
    from openlineage.client.event_v2 import InputDataset, Job, Run, RunEvent, RunState
    from openlineage.client.facet_v2 import error_message_run

    whole = graph.whole()
    above = {parent for asset in told.tables if asset in whole for parent in whole[asset].parents()}
    facets: dict[str, Any] = {}
    if told.error:
        facets["errorMessage"] = error_message_run.ErrorMessageRunFacet(told.error, "Python")
    return RunEvent(
        eventType=RunState[told.happened],
        eventTime=told.at.isoformat(),
        run=Run(told.run_id, facets),
        job=Job(NAMESPACE, told.job),
        producer=_PRODUCER,
        inputs=[InputDataset(NAMESPACE, asset) for asset in sorted(above - set(told.tables))],
        outputs=[_output(asset, rows, graph) for asset, rows in told.tables.items()],
    )


def _output(asset: str, rows: int | None, graph: ColumnLineage) -> Any:
    from openlineage.client.event_v2 import OutputDataset
    from openlineage.client.facet_v2 import (
        column_lineage_dataset,
        output_statistics_output_dataset,
        schema_dataset,
    )

    def inputs(sources: Iterable[ColumnRef], kind: str) -> list[Any]:
        return [
            column_lineage_dataset.InputField(
                NAMESPACE, source.asset, source.column, [column_lineage_dataset.Transformation(kind)]
            )
            for source in sources
        ]

    facets: dict[str, Any] = {}
    if origins := graph.of(asset):
        facets["columnLineage"] = column_lineage_dataset.ColumnLineageDatasetFacet(
            {
                column: column_lineage_dataset.Fields(inputs(sources, "DIRECT"))
                for column, sources in origins.columns.items()
            },
            inputs(origins.rows, "INDIRECT"),
        )
        facets["schema"] = schema_dataset.SchemaDatasetFacet(
            [
                schema_dataset.SchemaDatasetFacetFields(each.name, each.type, each.description)
                for each in graph.shown_columns()[asset]
            ]
        )
    counted: dict[str, Any] = {}
    if rows is not None:
        facet = output_statistics_output_dataset.OutputStatisticsOutputDatasetFacet(rowCount=rows)
        counted["outputStatistics"] = facet
    return OutputDataset(NAMESPACE, asset, facets=facets, outputFacets=counted)


def send(url: str, event: "RunEvent", api_key: str | None = None) -> None:
    """Send an event to a collector.

    Args:
        url: of the collector, with or without a folder; `api/v1/lineage` is added.
        event: what it is told.
        api_key: sent as bearer; a user and a password in the URL are sent in its place.

    Raises:
        StoreUnavailable: it does not take the event, or the URL is none; passwords in it are masked.
    """
    from openlineage.client import OpenLineageClient
    from openlineage.client.transport.http import (
        ApiKeyTokenProvider,
        HttpConfig,
        HttpTransport,
        TokenProvider,
    )
    from requests import RequestException

    require_scheme(_COLLECTOR, url, ("http", "https"), _VARIABLE)
    parts = urlsplit(url)
    # Else the last folder of the URL is taken for a file, in whose place the endpoint comes.
    folder = urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/"))
    auth = ApiKeyTokenProvider({"api_key": api_key}) if api_key else TokenProvider({})
    client = OpenLineageClient(transport=HttpTransport(HttpConfig(url=folder, auth=auth)))
    try:
        client.emit(event)
    except RequestException as fault:
        # Its text quotes the URL, and would stand in Dagster's history.
        raise unavailable(_COLLECTOR, url, fault, f"check {_VARIABLE}") from None
    finally:
        client.close()


def _require() -> None:
    from importlib.util import find_spec

    if find_spec("openlineage") is None:
        raise Refusal(
            "ML_ASSETS_OPENLINEAGE_URL is set, but openlineage-python is not installed: install ml-assets[openlineage], "
            "or unset it."
        )
