"""`nothing_leaks`: what a model learns from may not tell it the future, nor the test."""

import dagster as dg

from ml_assets.defs.options import key
from ml_assets.lib.leaks import KINDS, Verdict, example_text
from ml_assets.operations.feature_leaks import verify_frame
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.settings import Settings

TRAINING_SET = "duckdb/training_set"


def nothing_leaks(settings: Settings) -> dg.AssetChecksDefinition:
    """The check of the training set; what is built of it waits for the verdict."""

    @dg.asset_check(
        asset=key(TRAINING_SET),
        name="nothing_leaks",
        blocking=True,
        description=(
            "No feature was known only after its label's time or was older than its view's TTL then, no run or copy of "
            "one is in both train and test, no label of train reaches into the time of test, and no feature is the label."
        ),
    )
    def check(lake: DuckLakeResource) -> dg.AssetCheckResult:
        return check_result(verify_frame(settings, lake, "training_set", None, {}))

    return check


def check_result(verdict: Verdict) -> dg.AssetCheckResult:
    """A verdict as the UI shows it: what was examined, and each finding with its rows."""
    kinds = [
        dg.TableRecord(
            {
                "leak": meaning,
                "examined": verdict.examined.get(kind, "no"),
                "rows": sum(finding.count for finding in verdict.findings if finding.kind == kind),
            }
        )
        for kind, meaning in KINDS.items()
    ]
    rows = [
        dg.TableRecord({"leak": finding.kind, "where": finding.where, "row": example_text(example)})
        for finding in verdict.findings
        for example in finding.examples
    ]
    return dg.AssetCheckResult(
        passed=verdict.ok,
        metadata={
            "rows": verdict.rows,
            "features": len(verdict.features),
            **{f"rows_of_{side}": count for side, count in verdict.splits.items()},
            "leaking_rows": sum(finding.count for finding in verdict.findings),
            "examined": dg.MetadataValue.table(kinds),
            **({"findings": dg.MetadataValue.table(rows)} if rows else {}),
            **(
                {"notes": dg.MetadataValue.md("\n".join(f"- {note}" for note in verdict.notes))}
                if verdict.notes
                else {}
            ),
        },
        description=" ".join(
            [verdict.headline, *(f"{each.told} {each.way_out}" for each in verdict.findings)]
        ),
    )
