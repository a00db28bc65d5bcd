"""The assets of the raw room: landing folders and MLflow (external), intake, raw."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from ml_assets import metadata
from ml_assets.contracts import STREAMS, Stream, Tables
from ml_assets.contracts.lineage import intake_origins
from ml_assets.defs.options import OWNERS, key, table_asset
from ml_assets.intake import ledger
from ml_assets.intake.artifacts import FileRules
from ml_assets.intake.files import take_in_files
from ml_assets.intake.ingest import IntakeReport, ensure_tables
from ml_assets.intake.judge import Bounds
from ml_assets.intake.raw import RawInputs, following_days, raw_inputs, raw_query, raw_sql, settle, touch
from ml_assets.intake.sources import left_alone, stream_inputs
from ml_assets.intake.tracking import take_in_mlflow
from ml_assets.lib.query import Query
from ml_assets.partitions import run_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.mlflow import MLflowResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.settings import Settings, redact_url
from ml_assets.stores import touched_days
from ml_assets.stores.duckdb import DuckLakeStore

DESCRIPTIONS = {
    "runs": "A run exists once, whatever the number of files that speak of it: the one that ended last wins.",
    "metrics": "Every point of every learning curve; NaN and infinities are kept: a diverging run has them.",
    "performance": "Evaluations and served inferences, each on the day on which it happened.",
    "predictions": "Single answers of models, with the truth where it is known.",
    "documents": "Texts to be asked about. They have no event time, so the table is one piece.",
    "judgments": "What is an answer to which question: searches are judged by it. The table is one piece.",
}

_SHOWN = 100
_PREVIEW_ROWS = 5


def external_assets(settings: Settings) -> list[dg.AssetSpec]:
    """The outside world: folders that people put files into, and MLflow."""
    folders = [
        dg.AssetSpec(
            dg.AssetKey(["landing", stream.name]),
            group_name="raw",
            kinds={"file"},
            owners=OWNERS,
            description=(
                f"Files in `landing/{stream.name}` (JSON lines, CSV, Parquet; plain, gzip or zstd; "
                f"sub-folders allowed). One row is {stream.description}. "
                f"{'A Markdown or text file is one, too. ' if stream.whole_files else ''}A sensor looks here every "
                "few seconds; `ml-assets refresh` does so at once."
            ),
            metadata={"folder": dg.MetadataValue.path(str(settings.landing / stream.name))},
        )
        for stream in STREAMS.values()
    ]
    tracking = dg.AssetSpec(
        dg.AssetKey(["mlflow", "runs"]),
        group_name="raw",
        kinds={"mlflow"},
        owners=OWNERS,
        description=(
            "Runs of an MLflow tracking store: every experiment, nested and failed runs too, parameters, "
            "tags, full metric histories, dataset inputs, registered versions. Deleted runs are withdrawn, "
            "restored ones come back."
        ),
        metadata={"tracking_store": redact_url(settings.mlflow_uri)},
    )
    return [*folders, tracking]


def intake_asset(settings: Settings, tables: Tables, stream: Stream) -> dg.AssetsDefinition:
    """`duckdb/intake_<stream>`: append what is new."""
    # A team without metrics or predictions has these tables too, empty: queries join them.
    joined = [each for each in tables.values() if each.store == "duckdb" and each.schema != "intake"]
    landing = dg.AssetKey(["landing", stream.name])
    origins = intake_origins(stream)

    @table_asset(
        settings,
        tables[f"duckdb/intake_{stream.name}"],
        group="raw",
        description=(
            "Every row as it arrived, appended once and never changed, with file, line and hash of the file. "
            "A row that breaks its contract is kept as text with the reason and the way out, and stops no "
            "other row. The ledger in PostgreSQL (schema `ledger`) knows each file by its content, so a file "
            "that comes again under any name is not read again."
        ),
        logic=["intake 1"],
        automated=False,
        at_home=True,
        deps=[landing, dg.AssetKey(["mlflow", "runs"])] if stream.from_mlflow else [landing],
    )
    def intake(
        lake: DuckLakeResource, postgres: PostgresResource, mlflow: MLflowResource
    ) -> dg.MaterializeResult:
        DuckLakeStore(lake, postgres).make_tables(joined)
        rules = FileRules(settings.artifact_folders).with_root(
            mlflow.artifact_root() if stream.from_mlflow else None
        )
        bounds = Bounds(settings.partitions_start, datetime.now(UTC), rules, settings.naive_times_utc)
        reports = {
            root: take_in_files(stream.name, listing, lake, postgres, bounds, source)
            for root, source, listing in stream_inputs(stream.name, settings.landing, settings.sources)
        }
        if stream.from_mlflow and mlflow.is_made:
            root = redact_url(mlflow.tracking_uri())
            reports[root] = take_in_mlflow(stream.name, mlflow.client(), root, lake, postgres, bounds)
        skipped = left_alone(stream.name, {root: report.skipped for root, report in reports.items()})
        told = _told(list(reports.values()), skipped) | _held(lake, stream, list(reports.values()))
        told |= _totals(postgres, stream)
        told |= metadata.column_lineage(origins)
        return dg.MaterializeResult(metadata=told)

    return intake


def _told(reports: list[IntakeReport], skipped: Mapping[str, str]) -> dict[str, Any]:
    days = sorted({day for report in reports for day in report.days} - {touched_days.WHOLE})
    told: dict[str, Any] = {
        "rows_read": sum(report.rows_read for report in reports),
        "rows_quarantined": sum(report.rows_quarantined for report in reports),
        "contents_read": sum(report.contents for report in reports),
        "withdrawn": sum(report.retired for report in reports),
        "touched_days": len(days),
        "seconds": round(sum(report.seconds for report in reports), 3),
        "ingest_ids": [report.ingest_id for report in reports if report.ingest_id],
    }
    if days:
        told |= {"first_day": days[0].isoformat(), "last_day": days[-1].isoformat()}
    if skipped:
        told |= {"files_left_alone": len(skipped), "left_alone": dict(sorted(skipped.items())[:_SHOWN])}
    return told


def _totals(postgres: PostgresResource, stream: Stream) -> dict[str, Any]:
    """What all files and runs that count at present amount to: the newest event is the one that people look at."""
    touched_days.ensure_schema(postgres)
    with postgres.connect() as connection:
        contents, read, quarantined = ledger.totals(connection, stream.name)
    return {"total_contents": contents, "total_rows_read": read, "total_rows_quarantined": quarantined}


def _held(lake: DuckLakeResource, stream: Stream, reports: list[IntakeReport]) -> dict[str, Any]:
    """How many rows have been appended so far, and some of the newest day that was read."""
    days = {day for report in reports for day in report.days} - {touched_days.WHOLE}
    # Only that day's files are opened, and only until there are rows enough.
    newest = f"WHERE day = '{max(days).isoformat()}'" if days else ""
    with lake.get_connection() as connection:
        table = f"intake.intake_{stream.name}"
        counted = connection.execute(f"SELECT count(*) FROM {table}").fetchone() or (0,)
        rows = connection.execute(f"SELECT * FROM {table} {newest} LIMIT {_PREVIEW_ROWS}").to_arrow_table()
    return {"dagster/row_count": counted[0], "preview": metadata.preview(rows)}


def raw_asset(settings: Settings, tables: Tables, stream: Stream) -> dg.AssetsDefinition:
    """`duckdb/raw_<stream>`: rebuild days, or the whole table, from intake."""

    @table_asset(
        settings,
        tables[f"duckdb/raw_{stream.name}"],
        group="raw",
        description=(
            f"{DESCRIPTIONS[stream.name]} It is rebuilt from intake alone, so a late, doubled, changed or "
            "withdrawn file ends in the same table, whatever the order in which files came. Of the rows "
            "of a key the latest update wins; of equally late ones the fuller, then the greater content hash."
        ),
        logic=[raw_sql(stream)],
        kinds=["sql"],
        automated=False,
        deps=[key(f"duckdb/intake_{stream.name}")],
    )
    def raw(context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource) -> Query:
        days = run_days(context) if stream.day_column else None
        first, last = (days.first, days.last) if days else (touched_days.WHOLE, touched_days.WHOLE)
        ensure_tables(lake)
        inputs = raw_inputs(postgres, stream.name, first, last)
        following = following_days(lake, inputs, settings.metric_rules)
        # Before the write: were this run killed after it, nobody would see a difference any more.
        touch(postgres, "runs", following)

        def committed() -> None:
            settle(postgres, lake, inputs, following)
            # At the last day alone: what is added to the output would be stored again for every day.
            day = {"partition_key": last.isoformat()} if days else {}
            context.add_asset_metadata(_accounts(postgres, inputs), **day)

        return raw_query(inputs, committed)

    return raw


def _accounts(postgres: PostgresResource, inputs: RawInputs) -> dict[str, Any]:
    """Where the rows of these days went, and those of the newest files and runs among them."""
    with postgres.connect() as connection:
        loaded, superseded = ledger.day_counts(connection, inputs.stream, inputs.first, inputs.last)
        newest = ledger.newest_accounts(connection, inputs.stream, inputs.first, inputs.last, _SHOWN)
    told: dict[str, Any] = {"rows_loaded": loaded, "rows_superseded": superseded}
    if newest:
        told["newest_files"] = dg.MetadataValue.table([dg.TableRecord(vars(each)) for each in newest])
    return told
