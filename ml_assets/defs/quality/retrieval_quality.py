"""`quality/retrieval_quality`: how well searches find what was judged, and whether hybrid is worth its vectors."""

import dagster as dg

from ml_assets import automation
from ml_assets.contracts import Tables
from ml_assets.defs.options import OWNERS, code_version, key
from ml_assets.operations.search_quality import Quality, quality
from ml_assets.operations.search_texts import DOCUMENTS, Searcher
from ml_assets.settings import Settings

RETRIEVAL_QUALITY = "quality/retrieval_quality"
JUDGMENTS = "duckdb/raw_judgments"


def build(settings: Settings, tables: Tables) -> dg.Definitions:
    """The asset and its check."""
    resources = {"postgres", "lake", "embedder"}

    @dg.asset(
        key=key(RETRIEVAL_QUALITY),
        group_name="quality",
        owners=OWNERS,
        kinds={"pgvector"},
        description=(
            "Asks the judged questions by words (BM25), by vectors and by both, and measures nDCG@10, recall@10 and the "
            "mean reciprocal rank of what is found; and the share of the nearest passages that the index finds.\n\n"
            "It writes no table: the measures are the metadata of its materialization."
        ),
        code_version=code_version("retrieval quality 1"),
        deps=[key(JUDGMENTS), key(DOCUMENTS.asset)],
        required_resource_keys=resources,
        check_specs=[
            dg.AssetCheckSpec(
                "hybrid_is_not_worse",
                asset=key(RETRIEVAL_QUALITY),
                description=(
                    "Words and vectors together are not shown to find less than the better of the two, by the paired "
                    "interval of nDCG@10."
                ),
            )
        ],
        backfill_policy=dg.BackfillPolicy.single_run(),
        automation_condition=automation.WHOLE,
    )
    def retrieval_quality(context: dg.AssetExecutionContext):
        held = {name: getattr(context.resources, name) for name in resources}
        searcher = Searcher(settings, held)
        found = quality(searcher, held["lake"])
        yield dg.AssetCheckResult(
            asset_key=key(RETRIEVAL_QUALITY),
            check_name="hybrid_is_not_worse",
            passed=not found.hybrid_is_worse,
            severity=dg.AssetCheckSeverity.WARN,
            description=str(found.verdict) if found.verdict else "No question was judged.",
        )
        yield dg.MaterializeResult(metadata=_told(found))

    return dg.Definitions(assets=[retrieval_quality])


def _told(found: Quality) -> dict[str, dg.MetadataValue]:
    records = [
        dg.TableRecord({name: round(v, 4) if isinstance(v, float) else v for name, v in row.items()})
        for row in found.rows()
    ]
    told: dict[str, dg.MetadataValue] = {"questions": dg.MetadataValue.int(len(found.questions))}
    if records:
        told["measures"] = dg.MetadataValue.table(records)
    if found.index_recall is not None:
        told["index_recall"] = dg.MetadataValue.float(found.index_recall)
    if found.left_out:
        told["left_out"] = dg.MetadataValue.text(" ".join(found.left_out))
    return told
