"""Runs that are like another one, or like words: nearest neighbours of the vectors of their cards, in PostgreSQL."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.run_selectors import require_text
from ml_assets.operations.run_conditions import missing_relation, wanted
from ml_assets.sql_files import read_sql
from ml_assets.stores.postgres_table.vector_indexes import distance_sql, options_of

if TYPE_CHECKING:
    from psycopg import Connection

    from ml_assets.embedders import Embedder
    from ml_assets.resources.duckdb import DuckLakeResource
    from ml_assets.resources.postgres import PostgresResource

_MOST = 1_000
"""Runs of one answer; pgvector's list of candidates is as long at most."""


def similar(
    postgres: "PostgresResource",
    lake: "Callable[[], DuckLakeResource]",
    embedder: "Callable[[], Embedder]",
    run_id: str | None = None,
    text: str | None = None,
    k: int = 10,
    where: Mapping[str, Any] | str | None = None,
) -> list[dict[str, Any]]:
    """See `Experiments.similar`.

    Args:
        lake: gives the lake, if `where` asks for a metric at a step.
        embedder: gives the model that the settings name; it is loaded for words alone.
    """
    from psycopg.errors import UndefinedTable

    if (run_id is None) == (text is None):
        raise Refusal("Similar to what? Name either a run or a text.")
    if not 1 <= k <= _MOST:
        raise Refusal(f"{k:,} runs cannot be asked for: ask for 1 to {_MOST:,}.")
    bound: dict[str, Any] = {"k": k, "left_out": run_id}
    condition = wanted(where, postgres, lake).sql(bound)
    vector = None if text is None else _embedded(text, embedder)
    try:
        with postgres.connect() as connection:
            bound["vector"], bound["embedder"] = vector or _vector_of(connection, str(run_id))
            return _nearest(connection, condition, bound)
    except UndefinedTable as fault:
        raise missing_relation(fault, "experiment_embeddings") from fault


def _embedded(text: str, embedder: "Callable[[], Embedder]") -> tuple[str, str]:
    """The vector of a text, as text, and the model's name."""
    if not require_text(text, "a text to look for").strip():
        raise Refusal("There is no word in the text: say what the runs should be like.")
    model = embedder()
    vector = model.embed([text])[0]
    return f"[{','.join(map(repr, vector.tolist()))}]", model.name


def _vector_of(connection: "Connection", run_id: str) -> tuple[str, str]:
    """The vector of a run, as text, and the name of the model that made it."""
    bound = {"run_id": require_text(run_id, "the id of a run"), "id": run_id}
    found = connection.execute(read_sql("postgres/embeddings/vector_of_run.sql"), bound).fetchone()
    if found is not None:
        return found[0], found[1]
    if connection.execute(read_sql("postgres/experiments/get.sql"), bound).fetchone() is None:
        raise Refusal(f"There is no run {run_id!r}: 'ml-assets sql postgres' lists them in ml_experiments.")
    raise Refusal(
        f"The run {run_id!r} has no card, and so no vector: cards are made of runs that were landed or logged to MLflow, "
        "by 'ml-assets refresh'. Look by text instead."
    )


def _nearest(connection: "Connection", condition: str, bound: dict[str, Any]) -> list[dict[str, Any]]:
    from psycopg.rows import dict_row

    from ml_assets.resources.postgres import read_large_as_doubles

    options = options_of(connection)
    order = distance_sql("card.embedding", "%(vector)s", bound["vector"].count(",") + 1, options)
    statement = (
        read_sql("postgres/embeddings/similar_runs.sql").format(conditions=condition, order=order).encode()
    )
    # The index finds candidates first and filters then: without going on it gives fewer runs than there are.
    connection.execute("SET LOCAL hnsw.iterative_scan = strict_order")
    candidates = options.candidates(bound["k"], _MOST)
    connection.execute("SELECT set_config('hnsw.ef_search', %s, true)", [str(candidates)])
    with connection.cursor(row_factory=dict_row) as cursor:
        read_large_as_doubles(cursor)
        found = cursor.execute(statement, bound).fetchall()
        if len(found) < bound["k"]:
            # The index gives up after hnsw.max_scan_tuples: what few runs are left is found by comparing them all.
            connection.execute("SET LOCAL enable_indexscan = off")
            found = cursor.execute(statement, bound).fetchall()
    if not found:
        _require_vectors(connection, bound["embedder"])
    return found


def _require_vectors(connection: "Connection", embedder: str) -> None:
    """Raises: StoreUnavailable, Refusal: there are no vectors, or none of this model."""
    models = [name for (name,) in connection.execute(read_sql("postgres/embeddings/models.sql")).fetchall()]
    if not models:
        raise missing_table("postgres/experiment_embeddings")
    if embedder not in models:
        raise Refusal(
            f"The cards were embedded by {', '.join(sorted(models))}, and the settings name {embedder}: run "
            "'ml-assets embeddings repair', which embeds them anew, or set ML_ASSETS_EMBEDDER as it was."
        )
