"""Clusters of documents and runs, as the graph writes them and `stack.search` tells them, and their map as a page.

What belongs here: reading vectors and texts, and what was found before. What does not: how clusters are found
(lib/clusters.py), how the page is made (lib/map_page.py).
"""

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.contracts.embeddings import CLUSTERS
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.clusters import NOISE, VERSION, Former, find_clusters, name_clusters
from ml_assets.lib.sql import quote_identifier
from ml_assets.operations.page_file import page_part, write_page
from ml_assets.operations.search_texts import DOCUMENTS, RUNS, Subject
from ml_assets.sql_files import read_sql

if TYPE_CHECKING:
    import psycopg
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource

SUBJECTS = {"documents": DOCUMENTS, "runs": RUNS}
_AT_ONCE = 1_000


def cluster_rows(postgres: "PostgresResource", subject: Subject) -> "pa.Table":
    """The rows of a table of clusters, made anew; as they are if no vector has changed since.

    All vectors are in memory meanwhile: 1.5 KB for each document or run.

    Raises:
        Refusal: they are of several models, which cannot be compared.
    """
    import numpy as np
    import pyarrow as pa

    from ml_assets.tables.arrow_types import arrow_schema

    contract = CLUSTERS[subject.table]
    with postgres.connect() as connection:
        # Vectors and texts are of one state.
        connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        former = _former(connection, subject) or []
        models = sorted(name for (name,) in connection.execute(subject.sql("models")).fetchall())
        if len(models) > 1:
            raise Refusal(
                f"{subject.asset} holds vectors of {' and '.join(models)}, which cannot be compared: run 'ml-assets "
                "embeddings repair'."
            )
        ids, titles, vectors, hashes = _owners(connection, subject)
        if dict(zip(ids, hashes, strict=True)) == {row[subject.id]: row["content_hash"] for row in former}:
            return pa.Table.from_pylist(former, arrow_schema(contract))
        before = None
        if former:
            place = np.array([(row["x"], row["y"]) for row in former])
            cluster = np.array([row["cluster"] for row in former])
            before = Former([row[subject.id] for row in former], cluster, place)
        found = find_clusters(ids, vectors, before)
        del vectors
        clusters = found.cluster.tolist()
        labels = name_clusters(_texts(connection, subject, dict(zip(ids, clusters, strict=True))))
    columns = {
        subject.id: ids,
        "cluster": clusters,
        "label": [labels.get(cluster) for cluster in clusters],
        "title": titles,
        "certainty": found.certainty,
        "x": found.place[:, 0],
        "y": found.place[:, 1],
        "content_hash": hashes,
    }
    return pa.table(columns, arrow_schema(contract))


def clusters(postgres: "PostgresResource", subject: str) -> list[dict[str, Any]]:
    """The answer of `Search.clusters`."""
    found: dict[int, dict[str, Any]] = {}
    rows = _standing(postgres, subject)
    for row in sorted(rows, key=lambda row: -row["certainty"]):
        told = {"cluster": row["cluster"], "label": row["label"], "size": 0, "examples": []}
        told = found.setdefault(row["cluster"], told)
        told["size"] += 1
        if len(told["examples"]) < 3:
            told["examples"].append(row["title"] or row[SUBJECTS[subject].id])
    return sorted(found.values(), key=lambda told: (told["cluster"] == NOISE, -told["size"], told["cluster"]))


def write_map(postgres: "PostgresResource", subject: str, path: Path | str | None, folder: Path) -> Path:
    """The answer of `Search.map`."""
    from ml_assets.lib.map_page import map_page

    rows = _standing(postgres, subject)
    if path is None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"map-{subject}.html"
    id = SUBJECTS[subject].id
    style, script = page_part("map.css"), page_part("map.js")
    return write_page(
        path, lambda: map_page(subject, [{**row, "id": row[id]} for row in rows], style, script)
    )


def _standing(postgres: "PostgresResource", subject: str) -> list[dict[str, Any]]:
    if subject not in SUBJECTS:
        raise Refusal(f"There are no clusters of {subject!r}: it is one of {', '.join(SUBJECTS)}.")
    with postgres.connect() as connection:
        if (rows := _former(connection, SUBJECTS[subject])) is None:
            raise missing_table(CLUSTERS[SUBJECTS[subject].table].asset)
        return rows


def _former(connection: "psycopg.Connection", subject: Subject) -> list[dict[str, Any]] | None:
    """The rows of the table of clusters; None if there is no such table yet."""
    from psycopg.rows import dict_row

    contract = CLUSTERS[subject.table]
    if connection.execute("SELECT to_regclass(%s)", [contract.table]).fetchone() == (None,):
        return None
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(_sql("former", id=subject.id, table=contract.table)).fetchall()


def _owners(
    connection: "psycopg.Connection", subject: Subject
) -> "tuple[list[str], list[str], Any, list[str]]":
    """Ids, titles, vectors and content hashes."""
    import numpy as np
    from pgvector.psycopg import register_vector

    ids, titles, parts, hashes = list[str](), list[str](), [], list[str]()
    register_vector(connection)
    with connection.cursor("owners") as cursor:
        cursor.execute(_sql("owners", table=subject.table, key=subject.key, owner=subject.owner))
        while rows := cursor.fetchmany(_AT_ONCE):
            parts.append(np.array([vector.to_numpy() for _, _, vector, _ in rows], np.float32))
            for id, title, _, content in rows:
                ids.append(id)
                titles.append(title)
                hashes.append(f"{VERSION} {content}")
    return ids, titles, np.vstack(parts) if parts else np.empty((0, 1), np.float32), hashes


def _texts(
    connection: "psycopg.Connection", subject: Subject, clusters: dict[str, int]
) -> Iterator[tuple[int, str]]:
    with connection.cursor("texts") as cursor:
        cursor.itersize = _AT_ONCE
        cursor.execute(_sql("texts", table=subject.table, key=subject.key, owner=subject.owner))
        for owner, rows in groupby(cursor, key=lambda row: row[0]):
            texts = list(rows)
            yield clusters[owner], "\n".join([texts[0][1] or "", *(text for _, _, text in texts)])


def _sql(name: str, **identifiers: str) -> bytes:
    quoted = {each: quote_identifier(value) for each, value in identifiers.items()}
    return read_sql(f"postgres/clusters/{name}.sql").format(**quoted).encode()
