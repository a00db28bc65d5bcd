"""The gate before a promotion: what is read of a version, how a decision is kept, and how the alias moves.

What belongs here: asking the stores, the evidence of what was asked, the book of decisions. What a figure means is said
in lib/promotion.py.
"""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.feature_files import FeatureFile, feature_files
from ml_assets.errors import Refusal, StoreUnavailable, missing_table
from ml_assets.lib.faults import one_sentence
from ml_assets.lib.promotion import (
    Check,
    CheckName,
    Decision,
    Parity,
    Scored,
    decided,
    drift_check,
    floor_check,
    leakage_check,
    parity_check,
    quality_check,
    regression_check,
    unjudged,
)
from ml_assets.operations.feature_leaks import verify_frame
from ml_assets.operations.feature_online import Online
from ml_assets.operations.missing_tables import missing_is_told
from ml_assets.operations.online_views import newest_rows
from ml_assets.operations.performance_baselines import baselines
from ml_assets.operations.served_features import compare_served
from ml_assets.settings import Settings
from ml_assets.sql_files import read_sql
from ml_assets.stores.clickhouse import ClickHouseStore
from ml_assets.stores.duckdb import DuckLakeStore, pins
from ml_assets.stores.touched_days import ensure_tables

if TYPE_CHECKING:
    import pyarrow as pa

    from ml_assets.contracts import Contract
    from ml_assets.resources.clickhouse import ClickHouseResource
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.mlflow import MLflowResource
    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.tables.store import TableStore

DRIFT, REGRESSIONS, ALERTS = (
    f"clickhouse/{name}" for name in ("feature_drift", "performance_regressions", "alerts")
)
RUNS, PREDICTIONS = "duckdb/raw_runs", "duckdb/ml_predictions"
TRAINING_SET = "duckdb/training_set"

USUAL_ALIAS = "champion"
"""The alias that a version is held against where the settings name none."""

SERVED = timedelta(days=7)
"""How long what was served is compared."""

ENTITIES = 1_000
"""Entities of a view whose values online are compared, at most."""

_NOT_THERE = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""MLflow's word for a model or version that it does not have, and for one whose name is none of its names."""


class Gate:
    """Judges versions, all of them by one version of the lake.

    Args:
        settings: floors, alias, and which checks may be missing.
        resources: by store name, as `ml_assets.resources.store_resources` makes them.
    """

    def __init__(self, settings: Settings, resources: Mapping[str, Any]) -> None:
        self._settings = settings
        self._postgres: PostgresResource = resources["postgres"]
        self._clickhouse: ClickHouseResource = resources["clickhouse"]
        self._mlflow: MLflowResource = resources["mlflow"]
        self._redis = resources["redis"]
        self._newest: DuckLakeResource = resources["lake"]
        self._alias = settings.promotion_alias or USUAL_ALIAS

    def models(self) -> list[str]:
        """The models that are judged: those of the settings, or all that have a version."""
        if self._settings.promotion_models:
            return list(self._settings.promotion_models)
        store = DuckLakeStore(self._lake)
        if not all(store.last_contract(asset) for asset in (RUNS, PREDICTIONS)):
            return []  # nothing has a version before both were made
        return list(self._versions(None))

    def judge(self, model_name: str, version: str | None = None) -> Decision:
        """What the gate says of a version; nothing is kept of it.

        Args:
            version: the newest one of the model if None.

        Raises:
            Refusal: the model has no version, or not this one.
            StoreUnavailable: the lake does not answer.
        """
        versions = self._versions([model_name]).get(model_name, {})
        wanted = self._wanted(model_name, version, versions)
        alias_version, alias_fault = self._alias_version(model_name)
        answers = self._answers(model_name, [wanted, *([alias_version] if alias_version else [])])
        mine = answers.get(wanted, {})
        of_day = {day: scored for (slice_, _, day), scored in mine.items() if slice_ == "all"}
        others = {
            day: scored
            for (slice_, _, day), scored in answers.get(alias_version or "", {}).items()
            if slice_ == "all"
        }
        by_slice: dict[tuple[str, str], Scored] = {}
        for (slice_, value, _), scored in mine.items():
            before = by_slice.get((slice_, value), Scored(0, 0))
            by_slice[slice_, value] = Scored(
                before.labelled + scored.labelled, before.correct + scored.correct
            )
        margin, floors = self._settings.promotion_margin, self._settings.promotion_floors
        may_miss = self._settings.promotion_may_miss
        made: list[tuple[CheckName, Callable[[], Check]]] = [
            ("drift", lambda: self._drift(model_name, wanted)),
            ("regression", lambda: self._regression(model_name, min(of_day, default=None))),
            (
                "quality",
                lambda: (
                    unjudged("quality", alias_fault)
                    if alias_fault
                    else quality_check(of_day, others, wanted, self._alias, alias_version, margin)
                ),
            ),
            ("slice_floors", lambda: floor_check(by_slice, model_name, floors)),
            ("leakage", lambda: self._leakage),
            ("parity", lambda: self._parity),
        ]
        promotable, checks = decided([_made(name, check) for name, check in made], may_miss)
        first_days = [each["first_answer"] for each in versions.values() if each["first_answer"]]
        evidence = {
            **self._read,
            "run_id": versions[wanted]["run_id"],
            "baseline": self._baseline(model_name, min(first_days, default=None)),
            "alias_version": alias_version,
            "answers": {
                "version": _summed(of_day),
                "alias_version": _summed(others),
            },
            "settings": {
                "alias": self._settings.promotion_alias,
                "floors": {name: dict(each) for name, each in floors.items()},
                "margin": margin,
                "may_miss": list(may_miss),
            },
        }
        return Decision(model_name, wanted, promotable, checks, evidence, self._alias, alias_version)

    def record(self, decision: Decision, decided_by: str) -> Decision:
        """Keep a decision, and move the alias on a yes if that is enabled: both, or neither where MLflow fails.

        Args:
            decided_by: who.

        Raises:
            Refusal: the alias has moved since the version was judged.
            StoreUnavailable: PostgreSQL or MLflow does not answer; nothing is kept then.
        """
        ensure_schema(self._postgres)
        with self._postgres.connect(write=True) as connection:
            # One at a time, so that two gates do not pass each other.
            connection.execute("LOCK TABLE ml_promotions IN SHARE ROW EXCLUSIVE MODE")
            moves = decision.promotable and self._settings.promotion_alias is not None
            noted, pin = self._to_move(decision) if moves else (decision, None)
            try:
                row = connection.execute(
                    read_sql("postgres/promotions/add.sql"),
                    {
                        "decided_by": decided_by,
                        "model_name": noted.model_name,
                        "model_version": noted.version,
                        "promotable": noted.promotable,
                        "checks": json.dumps([asdict(check) for check in noted.checks]),
                        "evidence": json.dumps({**noted.evidence, "pin": pin}, default=str),
                        "alias": noted.alias if noted.moved else None,
                        "moved_from": noted.alias_version if noted.moved else None,
                        "notes": list(noted.notes),
                    },
                ).fetchone()
                if noted.moved:
                    # The last step: what PostgreSQL refuses to keep moves nothing.
                    self._mlflow.client().set_registered_model_alias(
                        noted.model_name, noted.alias, noted.version
                    )
            except BaseException:
                if pin:
                    pins.unpin(self._newest, pin)
                raise
        return replace(noted, recorded=row[0] if row else None)

    def is_new(self, decision: Decision) -> bool:
        """Whether the last record of the version says something else, or there is none."""
        ensure_schema(self._postgres)
        values = {"model_name": decision.model_name, "model_version": decision.version}
        with self._postgres.connect() as connection:
            row = connection.execute(read_sql("postgres/promotions/last.sql"), values).fetchone()
        if row is None:
            return True
        promotable, checks, alias_version = row
        before = {check["name"]: check["passed"] for check in checks}
        now = {check.name: check.passed for check in decision.checks}
        # A version that was promoted has the alias now, which is no other verdict.
        same_rival = decision.alias_version in (alias_version, decision.version)
        return (promotable, before) != (decision.promotable, now) or not same_rival

    def _to_move(self, decision: Decision) -> tuple[Decision, str | None]:
        """Whether the alias is to move; the version of the lake by which that was decided stays readable by a pin."""
        alias_version, fault = self._alias_version(decision.model_name)
        if fault:
            raise StoreUnavailable(fault)
        if alias_version != decision.alias_version:
            raise Refusal(
                f"Version {decision.version} of {decision.model_name} was judged against version "
                f"{decision.alias_version or 'none'}, and version {alias_version or 'none'} has the alias "
                f"{decision.alias} by now: judge it again."
            )
        if alias_version == decision.version:
            return decision, None
        if not self._has(decision.model_name, decision.version):
            note = (
                f"MLflow has no version {decision.version} of the model {decision.model_name}, so the alias "
                f"{decision.alias} stays: register the version, and ask again with 'ml-assets gate "
                f"{decision.model_name} {decision.version} --record'."
            )
            return replace(decision, notes=(*decision.notes, note)), None
        pin = f"promotion {decision.model_name} {decision.version} {datetime.now(UTC):%Y-%m-%dT%H:%M:%S.%fZ}"
        try:
            pins.pin(self._newest, pin, decision.evidence.get("lake_version"))
        except LookupError as fault:
            raise Refusal(
                f"The version of the lake by which version {decision.version} of {decision.model_name} was judged is no "
                f"more ({fault}) Judge it again."
            ) from fault
        return replace(decision, moved=True), pin

    def _has(self, model_name: str, version: str) -> bool:
        from mlflow.exceptions import MlflowException

        if not self._mlflow.is_made:
            return False
        try:
            self._mlflow.client().get_model_version(model_name, version)
        except MlflowException as fault:
            if fault.error_code in _NOT_THERE:
                return False
            raise
        return True

    def _alias_version(self, model_name: str) -> tuple[str | None, str]:
        """The version that has the alias, None if none has; and why that cannot be told."""
        try:
            if not self._mlflow.is_made:
                return None, ""
            client = self._mlflow.client()
        except StoreUnavailable as fault:
            return None, str(fault)
        from mlflow.exceptions import MlflowException

        try:
            found = client.get_registered_model(model_name).aliases.get(self._alias)
        except MlflowException as fault:
            if fault.error_code in _NOT_THERE:
                return None, ""
            return (
                None,
                f"MLflow does not tell which version has the alias {self._alias} ({one_sentence(fault)}).",
            )
        return (None if found is None else str(found)), ""

    # What is read.

    @cached_property
    def _lake(self) -> "DuckLakeResource":
        """The lake as it stood when the gate was first asked."""
        return self._newest.at(self._lake_version)

    @cached_property
    def _lake_version(self) -> int:
        with self._newest.get_connection() as connection:
            return max(pins.versions(connection))

    def _versions(self, models: Sequence[str] | None) -> dict[str, dict[str, dict[str, Any]]]:
        """By model and version, the oldest first, its run and how many answers there are."""
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for row in self._ask("promotion/versions.sql", {"models": None if models is None else list(models)}):
            found.setdefault(row["model_name"], {})[row["model_version"]] = row
        return found

    def _wanted(self, model_name: str, version: str | None, versions: Mapping[str, Any]) -> str:
        if not versions:
            known = ", ".join(self._versions(None)) or "no model has one"
            raise Refusal(
                f"The model {model_name!r} has no version that could be promoted: a version is known once a run with "
                f"its model_version has completed, or it has answered; models with versions: {known}."
            )
        if version is None:
            return list(versions)[-1]
        if version not in versions:
            newest = ", ".join(list(versions)[:-6:-1])
            raise Refusal(
                f"The model {model_name} has no version {version!r}; its newest are {newest}. One that was just "
                "registered is known after 'ml-assets refresh'."
            )
        return version

    def _answers(
        self, model_name: str, versions: Sequence[str]
    ) -> dict[str, dict[tuple[str, str, date], Scored]]:
        """By version, the scored answers by slice, its value and day."""
        found: dict[str, dict[tuple[str, str, date], Scored]] = {}
        for row in self._ask("promotion/answers.sql", {"model": model_name, "versions": list(versions)}):
            of_version = found.setdefault(row["model_version"], {})
            of_version[row["slice"], row["slice_value"], row["day"]] = Scored(row["labelled"], row["correct"])
        return found

    def _ask(self, file: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        import duckdb

        try:
            return self._lake.reader(read_sql(f"duckdb/{file}"), values).read_all().to_pylist()
        except duckdb.CatalogException as fault:
            raise missing_table(PREDICTIONS) from fault

    def _drift(self, model_name: str, version: str) -> Check:
        values = {"model_name": model_name, "model_version": version}
        rows = self._clickhouse_rows(DRIFT, "promotion/drift.sql", values)
        try:
            episodes = self._clickhouse_rows(ALERTS, "promotion/drift_alerts.sql", values)
        except StoreUnavailable:  # without alerts the verdicts of the last day decide
            episodes = []
        return drift_check(rows, episodes)

    def _regression(self, model_name: str, first_answer: date | None) -> Check:
        values = {"model_name": model_name}
        rows = self._clickhouse_rows(REGRESSIONS, "promotion/regressions.sql", values)
        return regression_check(rows, first_answer)

    def _clickhouse_rows(self, asset: str, file: str, values: Mapping[str, Any]) -> list[dict[str, Any]]:
        with self._clickhouse.client() as client, missing_is_told(asset):
            return list(client.query(read_sql(f"clickhouse/{file}"), dict(values)).named_results())

    @cached_property
    def _leakage(self) -> Check:
        verdict = verify_frame(self._settings, self._lake, "training_set", None, {})
        findings = [f"{each.told} {each.way_out}" for each in verdict.findings]
        return leakage_check(verdict.rows, findings, verdict.headline)

    @cached_property
    def _views(self) -> list[tuple[FeatureFile, "Contract"]]:
        """The views that are served, with the contract of each in the lake."""
        store = DuckLakeStore(self._lake)
        files = [file for file in feature_files(self._settings) if file.header and file.header.online]
        return [(file, contract) for file in files if (contract := store.last_contract(file.asset))]

    @cached_property
    def _parity(self) -> Check:
        return parity_check(self._online_parity(), self._logged_parity())

    def _online_parity(self) -> Parity:
        """What is served now, against the newest rows of the lake."""
        online = Online(self._redis, self._postgres, lambda: [file.name for file, _ in self._views])
        compared = different = views = 0
        example = ""
        for file, contract in self._views:
            header = file.header
            if header is None:
                continue
            # Not of the version of the lake that is judged: what is online may be newer than that.
            rows = _some(newest_rows(self._newest, contract, header, datetime.now(UTC)), ENTITIES)
            if not rows:
                continue
            entities = [{name: row[name] for name in header.entity} for row in rows]
            try:
                served = online.read(entities, [file.name])
            except Refusal:  # it was never brought online, so nobody is served of it
                continue
            views += 1
            for row, answer in zip(rows, served, strict=True):
                for feature in served.features[file.name]:
                    wanted = row[feature if feature in row else feature.removeprefix(f"{file.name}__")]
                    compared += 1
                    if not _same(answer.values[feature], wanted):
                        different += 1
                        entity = ", ".join(f"{name} {row[name]}" for name in header.entity)
                        example = example or (
                            f"{file.name}.{feature} of {entity} is {answer.values[feature]!r} online and {wanted!r} in "
                            "the lake."
                        )
        return Parity(compared, different, example if different else "", views)

    def _logged_parity(self) -> Parity:
        """What was served and logged, against the rows that counted then."""
        compared = different = views = 0
        example = ""
        for file, contract in self._views:
            if file.header is None:
                continue
            since = datetime.now(UTC) - SERVED
            found = compare_served(self._lake, self._postgres, contract, file.header, since, 1)
            compared, different = compared + found.rows, different + found.rows - found.equal
            views += bool(found.rows)
            for one in found.differences[: 0 if example else 1]:
                newer = ", for which a newer row had not been brought online yet" if one.newer else ""
                example = (
                    f"{file.name}.{one.feature} of {one.entity} was served as {one.served!r} at {one.served_at:%F %TZ}, "
                    f"and was {one.expected!r}{newer}."
                )
        return Parity(compared, different, example, views)

    # Evidence.

    @cached_property
    def _read(self) -> dict[str, Any]:
        """What was read: the lake's version, its pins, and rows and content hash of each table; null if there is none."""
        lake, clickhouse = DuckLakeStore(self._lake), ClickHouseStore(self._clickhouse)
        assets = [PREDICTIONS, TRAINING_SET, *(file.asset for file, _ in self._views)]
        with self._newest.get_connection() as connection:
            pinned = pins.pinned(self._newest, connection)
        return {
            "lake_version": self._lake_version,
            "pins": {name: version for name, version in pinned.items() if version == self._lake_version},
            "tables": {
                **{asset: _state(lake, asset) for asset in dict.fromkeys(assets)},
                **{asset: _state(clickhouse, asset) for asset in (DRIFT, REGRESSIONS, ALERTS)},
            },
        }

    def _baseline(self, model_name: str, first_day: date | None) -> dict[str, Any] | None:
        if first_day is None:
            return None
        found = baselines(self._postgres, {model_name: first_day})[model_name]
        return {
            "first": found.days.first.isoformat(),
            "last": found.days.last.isoformat(),
            "pinned_at": found.pinned_at,
            "note": found.note,
        }


def ensure_schema(postgres: "PostgresResource") -> None:
    """Create the book of decisions; one cheap look if it is there."""
    ensure_tables(postgres, "ml_promotions", "postgres/promotions/schema.sql")


def promotions(postgres: "PostgresResource", model_name: str | None, most: int) -> "pa.Table":
    """The book of decisions; see `Performance.promotions`."""
    import pyarrow as pa

    ensure_schema(postgres)
    schema = pa.schema(
        [
            ("id", pa.int64()),
            ("decided_at", pa.timestamp("us", "UTC")),
            *((name, pa.string()) for name in ("decided_by", "model_name", "model_version")),
            ("promotable", pa.bool_()),
            *((name, pa.string()) for name in ("checks", "evidence", "alias", "moved_from", "notes")),
        ]
    )
    with postgres.connect() as connection:
        cursor = connection.execute(
            read_sql("postgres/promotions/all.sql"), {"model_name": model_name, "most": most}
        )
        names = [column.name for column in cursor.description or ()]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    told = [
        {
            **row,
            "checks": json.dumps(row["checks"]),
            "evidence": json.dumps(row["evidence"]),
            "notes": " ".join(row["notes"]),
        }
        for row in rows
    ]
    return pa.Table.from_pylist(told, schema)


def user() -> str:
    """Who decides at a command line or in a notebook."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container may have a number and no name
        return "unknown"


def _made(name: CheckName, check: Callable[[], Check]) -> Check:
    """A check, or that it cannot be made."""
    try:
        return check()
    except (StoreUnavailable, Refusal) as fault:  # what cannot be read refuses, and says so
        return unjudged(name, str(fault))


def _state(store: "TableStore", asset: str) -> dict[str, Any] | None:
    contract = store.last_contract(asset)
    if contract is None:
        return None
    state = store.ledger_state(contract)
    return {"rows": state.rows, "content_hash": state.content_hash}


def _summed(days: Mapping[date, Scored]) -> dict[str, Any]:
    return {
        "first_day": min(days).isoformat() if days else None,
        "last_day": max(days).isoformat() if days else None,
        "labelled": sum(each.labelled for each in days.values()),
        "correct": sum(each.correct for each in days.values()),
    }


def _some(reader: "pa.RecordBatchReader", most: int) -> list[dict[str, Any]]:
    """The first rows; the rest is not read."""
    found: list[dict[str, Any]] = []
    for batch in reader:
        found += batch.slice(0, most - len(found)).to_pylist()
        if len(found) >= most:
            break
    return found


def _same(served: Any, wanted: Any) -> bool:
    if served == wanted:
        return True
    if isinstance(served, float) and isinstance(wanted, float):
        return math.isnan(served) and math.isnan(wanted)
    if isinstance(wanted, str) and not isinstance(served, str) and served is not None:
        try:
            return json.loads(wanted) == served  # a document, which is text in the lake
        except ValueError:
            return False
    return False
