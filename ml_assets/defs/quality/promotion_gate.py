"""`quality/promotion_gate`: whether the newest version of each model may take the place of the one that serves."""

from typing import Any

import dagster as dg

from ml_assets import automation
from ml_assets.contracts import Tables
from ml_assets.defs.options import OWNERS, code_version, key, queue
from ml_assets.errors import Refusal
from ml_assets.lib.promotion import CHECKS, Decision
from ml_assets.operations.performance_gate import ALERTS, DRIFT, PREDICTIONS, REGRESSIONS, TRAINING_SET, Gate
from ml_assets.settings import Settings
from ml_assets.stores.registry import needed_pool, needed_resources

GATE = "quality/promotion_gate"


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The asset, and once an alias is set to move its check, which blocks what follows."""
    in_force = settings.promotion_alias is not None
    promotable = dg.AssetCheckSpec(
        "promotable",
        asset=key(GATE),
        description="The newest version of every model may be promoted.",
        blocking=True,
    )
    read = (PREDICTIONS, TRAINING_SET, DRIFT, REGRESSIONS, ALERTS)

    @dg.asset(
        key=key(GATE),
        group_name="quality",
        owners=OWNERS,
        kinds={"sql"},
        description=(
            "Judges the newest version of every model: no drift of its inputs, no open regression, not worse than the "
            "version with the alias, slices above their floors, a training set that does not leak, and features that are "
            "served as the lake has them. What cannot be judged refuses. A verdict that is new is recorded in "
            "`ml_promotions` with its evidence; on a yes the MLflow alias that ML_ASSETS_PROMOTION_ALIAS names moves."
            "\n\nIt writes no table: the verdicts are the metadata of its materialization."
        ),
        code_version=code_version(repr(CHECKS), "gate 1"),
        deps=[key(asset) for asset in read if asset in tables],
        required_resource_keys=needed_resources() | {"mlflow"},
        # A version that was just trained has answered nothing yet: a warning that is always there warns of nothing.
        check_specs=[promotable] if in_force else [],
        pool=needed_pool(),
        op_tags=queue(needed_pool(), at_home=True),
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=automation.HOURLY,
    )
    def promotion_gate(context: dg.AssetExecutionContext):
        names = needed_resources() | {"mlflow"}
        gate = Gate(settings, {name: getattr(context.resources, name) for name in names})
        decisions, unknown = [], []
        for model in gate.models():
            try:
                decision = gate.judge(model)
                if gate.is_new(decision):
                    decision = gate.record(decision, f"run {context.run_id}")
            except (
                Refusal
            ) as fault:  # it has no version, or somebody moved its alias; the others are judged all the same
                unknown.append(str(fault))
                continue
            decisions.append(decision)
        refused = [str(decision) for decision in decisions if not decision.promotable] + unknown
        if in_force:
            yield dg.AssetCheckResult(
                asset_key=key(GATE),
                check_name=promotable.name,
                passed=not refused,
                description=" ".join(refused) or f"{len(decisions)} newest versions may be promoted.",
            )
        yield dg.MaterializeResult(metadata=_metadata(decisions, unknown))

    return dg.Definitions(assets=[promotion_gate])


def _metadata(decisions: list[Decision], unknown: list[str]) -> dict[str, Any]:
    verdicts = [
        dg.TableRecord(
            {
                "model": decision.model_name,
                "version": decision.version,
                "promotable": decision.promotable,
                "against": decision.alias_version or "",
                "alias_moved": decision.moved,
                **{check.name: _word(check.passed, check.judged) for check in decision.checks},
                "why": " ".join(
                    [*(check.sentence for check in decision.checks if not check.passed), *decision.notes]
                ),
            }
        )
        for decision in decisions
    ]
    return {
        "models": len(decisions),
        "promotable": sum(decision.promotable for decision in decisions),
        **({"verdicts": dg.MetadataValue.table(verdicts)} if verdicts else {}),
        **({"unknown": " ".join(unknown)} if unknown else {}),
    }


def _word(passed: bool, judged: bool) -> str:
    return "passed" if passed else "refused" if judged else "not judged"
