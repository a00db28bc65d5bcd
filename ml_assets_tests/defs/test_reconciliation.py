"""Every table of the graph is compared with those that it comes from, or it is said why not."""

from pathlib import Path

import dagster as dg

from ml_assets.build import build_defs
from ml_assets.contracts import tables
from ml_assets.contracts.feature_files import feature_files
from ml_assets.operations.agreements import AGREEMENTS
from ml_assets.operations.carried import CARRIED, MADE, compared_with, shape, why_not
from ml_assets.settings import Settings

SETTINGS = Settings(home=Path("/nowhere"), qdrant_url="edge:///nowhere/qdrant")
TABLES = tables(SETTINGS)


def edges() -> set[tuple[str, str]]:
    """Table and table upstream."""
    graph = build_defs(SETTINGS).resolve_asset_graph()
    return {
        (child.to_user_string(), parent.to_user_string())
        for child in graph.get_all_asset_keys()
        for parent in graph.get(child).parent_keys
        if child.to_user_string() in TABLES and parent.to_user_string() in TABLES
    }


def test_each_pair_of_tables_is_compared_or_has_a_reason():
    views = {file.name for file in feature_files(SETTINGS)}
    found = edges()
    assert len(found) > 35
    silent = {pair for pair in found if pair[1] not in compared_with(pair[0]) and not why_not(*pair, views)}
    assert not silent, "compare them in operations/carried.py, or say there why they are not compared"
    for asset in (*AGREEMENTS, *CARRIED, *MADE):
        # With what lies upstream of it, at whatever distance.
        assert compared_with(asset) <= upstream(asset, found), asset


def upstream(asset: str, found: set[tuple[str, str]]) -> set[str]:
    """All tables that one comes from."""
    parents = {parent for child, parent in found if child == asset}
    return parents.union(*(upstream(parent, found) for parent in parents))


def test_what_is_compared_is_all_that_both_sides_have():
    for asset, carried in CARRIED.items():
        names = set(shape(TABLES, asset).names)
        both = TABLES[asset].by_name.keys() & TABLES[carried.parent].by_name.keys()
        assert names >= both - set(carried.without), asset
        assert set(TABLES[asset].key) <= names, asset
    for asset in ("clickhouse/ml_model_performance", "sqlite/ml_experiments", "chroma/document_index"):
        assert shape(TABLES, asset).names == TABLES[asset].names
    vectors = "postgres/document_embeddings"
    assert set(TABLES[vectors].names) - set(shape(TABLES, vectors).names) == {"embedding", "model_name"}


def test_the_check_blocks_where_that_is_asked_for():
    for blocks in (False, True):
        settings = SETTINGS.model_copy(update={"reconciliation_blocks": blocks})
        graph = build_defs(settings).resolve_asset_graph()
        key = dg.AssetCheckKey(dg.AssetKey(["quality", "reconciliation"]), "stores_agree")
        assert graph.get_check_spec(key).blocking is blocks
