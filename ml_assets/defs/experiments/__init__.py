"""Experiments: runs in PostgreSQL, and in SQLite with the files and the data behind them."""

from functools import partial
from typing import Any

import dagster as dg
import pyarrow as pa

from ml_assets import metadata
from ml_assets.contracts import Tables, experiments
from ml_assets.defs.checks import table_checks
from ml_assets.defs.experiments.checks import runs_healthy
from ml_assets.defs.options import key, table_asset
from ml_assets.intake.artifacts import FileRules, artifact_rows, kept_datasets, kept_files, training_data_rows
from ml_assets.lib.metric_rules import VERSION, MetricRules
from ml_assets.operations import run_tables
from ml_assets.operations.leaderboard import leaderboard, write_page
from ml_assets.partitions import run_days
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.sqlite import SQLiteResource
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql

POSTGRES = "postgres/ml_experiments"
SQLITE = "sqlite/ml_experiments"
LEADERBOARD = "postgres/run_leaderboard"

SHOWN_MODELS = 20
"""Rows of the leaderboard that its asset's page shows, the first of each dataset before the second of any."""


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """Runs in both stores, artifacts, training data."""
    return dg.Definitions(
        assets=[
            _postgres_runs(settings, tables),
            *_run_values(settings, tables),
            _leaderboard(settings, tables),
            _sqlite_runs(settings, tables),
            *_run_files(settings, tables),
        ],
        asset_checks=[
            *(table_checks(tables, contract.asset) for contract in experiments.tables()),
            runs_healthy(settings),
        ],
    )


def _postgres_runs(settings: Settings, tables: Tables) -> dg.AssetsDefinition:
    runs_sql = read_sql("duckdb/experiments/ml_experiments.sql")

    @table_asset(
        settings,
        tables[POSTGRES],
        group="experiments",
        description=(
            "The register of training runs. Parameters, metrics and tags are JSONB, so "
            "`metrics->>'accuracy'` can be filtered and indexed; the last value of each metric is filled "
            "up from the metric history. Rows that an application created through the resource's "
            "operations (origin `api`) are left as they are, and are carried on to SQLite like all others."
        ),
        logic=[runs_sql],
        kinds=["sql"],
        deps=[key("duckdb/raw_runs"), key("duckdb/raw_metrics")],
    )
    def ml_experiments(context: dg.AssetExecutionContext, lake: DuckLakeResource) -> pa.RecordBatchReader:
        days = run_days(context)
        return lake.reader(runs_sql, {"start": days.start, "end": days.end})

    return ml_experiments


def _run_values(settings: Settings, tables: Tables) -> list[dg.AssetsDefinition]:
    # Without what judges runs, which decides about no value here.
    rules = MetricRules(settings.metric_directions, settings.metric_synonyms)

    @table_asset(
        settings,
        tables["postgres/ml_run_metrics"],
        group="experiments",
        description=(
            "What a metric came to over a whole run, not in its last step alone: lowest, highest and mean value, the "
            "best of them by the direction that the settings give the metric, and when it was NaN first. Each has "
            "an index, so that runs are found and ordered by it, which JSON has none for."
        ),
        logic=[read_sql(run_tables.METRICS_SQL), VERSION, repr(rules)],
        kinds=["sql"],
        deps=[key("duckdb/raw_runs"), key("duckdb/raw_metrics")],
    )
    def ml_run_metrics(
        context: dg.AssetExecutionContext, lake: DuckLakeResource, postgres: PostgresResource
    ) -> pa.RecordBatchReader:
        days = run_days(context)
        postgres.refresh_recorded_runs(days.start, days.end)
        return run_tables.run_metrics(lake, days, rules)

    @table_asset(
        settings,
        tables["postgres/ml_run_params"],
        group="experiments",
        description=(
            "The hyper-parameters of all runs, one a row: as text, and as a number where the text is one, since MLflow "
            "logs text alone. So `lr > 0.001` compares numbers, and runs that share a value are found by an index."
        ),
        logic=[read_sql(run_tables.PARAMS_SQL), "number 1"],
        kinds=["sql"],
        deps=[key("duckdb/raw_runs")],
    )
    def ml_run_params(context: dg.AssetExecutionContext, lake: DuckLakeResource) -> pa.RecordBatchReader:
        return run_tables.run_params(lake, run_days(context))

    return [ml_run_metrics, ml_run_params]


def _leaderboard(settings: Settings, tables: Tables) -> dg.AssetsDefinition:
    rules = settings.metric_rules

    @table_asset(
        settings,
        tables[LEADERBOARD],
        group="experiments",
        description=(
            "Which model is best on each dataset, by the metric that judges its runs, and how sure that is: the mean "
            "of its runs with a 95 % interval. "
            "Where intervals overlap, the order may be luck, and a single run has no interval at all. The page "
            "under *Metadata* compares the best runs side by side: parameters, metrics, learning curves."
        ),
        logic=[
            *(read_sql(f"postgres/{name}.sql") for name in ("run_leaderboard", "judged_runs")),
            repr(rules),
            "leaderboard 2",
        ],
        kinds=["sql"],
        at_home=True,
        deps=[key(POSTGRES)],
    )
    def run_leaderboard(
        context: dg.AssetExecutionContext, postgres: PostgresResource, lake: DuckLakeResource
    ) -> pa.Table:
        board = leaderboard(postgres, rules)
        first = board.sort_by([("rank", "ascending"), ("dataset", "ascending")])
        context.add_output_metadata({"leaders": metadata.preview(first.slice(0, SHOWN_MODELS))})
        if page := write_page(postgres, lake, rules, board, settings.reports):
            context.add_output_metadata({"comparison": dg.MetadataValue.path(page)})
        return board

    return run_leaderboard


def _sqlite_runs(settings: Settings, tables: Tables) -> dg.AssetsDefinition:
    @table_asset(
        settings,
        tables[SQLITE],
        group="experiments",
        description=(
            "The same runs in one SQLite file: to carry around, to open in a notebook on a train, to "
            "hand to somebody who has no server."
        ),
        ins={"runs": _runs_input(*tables[SQLITE].names)},
    )
    def sqlite_experiments(runs: pa.RecordBatchReader) -> pa.RecordBatchReader:
        return runs

    return sqlite_experiments


def _run_files(settings: Settings, tables: Tables) -> list[dg.AssetsDefinition]:
    rules = FileRules(settings.artifact_folders)

    @table_asset(
        settings,
        tables["sqlite/ml_model_artifacts"],
        group="experiments",
        description=(
            "Every file that a run left behind: models, plots, tables. The files stay where they are; "
            "here stand path, size and SHA-256 as they were when the run was taken in, so a model in "
            "production can be traced to its run, and a changed file is noticed. What could not be read "
            "has the reason in its metadata."
        ),
        kinds=["file"],
        logic=["artifacts 3"],
        ins={"runs": _runs_input("id", "artifact_uri", "tags", "created_at")},
        deps=[key(SQLITE)],
    )
    def ml_model_artifacts(runs: pa.RecordBatchReader, sqlite: SQLiteResource) -> pa.RecordBatchReader:
        standing = sqlite.rows_by("ml_model_artifacts", "experiment_id")
        return artifact_rows(runs, partial(kept_files, rules=rules, standing=standing))

    @table_asset(
        settings,
        tables["sqlite/ml_training_data"],
        group="experiments",
        description=(
            "Which data a run was trained and judged on: name, source, fingerprint, rows and features, "
            "as logged through MLflow's dataset inputs. Two runs with the same digest saw the same data."
        ),
        kinds=["file"],
        logic=["training data 2"],
        ins={"runs": _runs_input("id", "dataset", "tags", "created_at")},
        deps=[key(SQLITE)],
    )
    def ml_training_data(runs: pa.RecordBatchReader, sqlite: SQLiteResource) -> pa.RecordBatchReader:
        standing = sqlite.rows_by("ml_training_data", "experiment_id")
        return training_data_rows(runs, partial(kept_datasets, standing=standing))

    return [ml_model_artifacts, ml_training_data]


def _runs_input(*columns: str) -> dg.AssetIn:
    metadata: dict[str, Any] = {"columns": list(columns)}
    return dg.AssetIn(key(POSTGRES), metadata=metadata)
