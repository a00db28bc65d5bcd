"""What is in quarantine, and the ways out of it: retry after a fix, withdraw a file.

What belongs here: the verbs of `ml-assets quarantine` and `ml-assets retire`. A row leaves quarantine when its
file is delivered again without the fault; nobody has to retry that. A retry is for rows whose file is the same
and whose judgement is not: a day that was in the future, a setting that was changed.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pyarrow as pa

from ml_assets.contracts import STREAMS
from ml_assets.errors import NotTakenIn
from ml_assets.intake import ledger
from ml_assets.intake.ingest import IntakeReport, Lake, ensure_tables, ingesting
from ml_assets.intake.input_files import text_path
from ml_assets.intake.judge import Bounds
from ml_assets.intake.raw import unbalanced_contents
from ml_assets.intake.sources import sources, stream_listings
from ml_assets.lib.sql import quote_identifier, quote_literal
from ml_assets.sql_files import read_sql
from ml_assets.stores import touched_days
from ml_assets.stores.touched_days import Postgres

LANDING_ROOT = ""

_SHOWN_VALUE = r"(?s)^(\w+ (?:is|begins with)) '.{0,60}?'([,;]| and has)"
"""The value in a reason, as judge.py writes it."""

_COUNTED = r"^(has|the line has|the bytes from) [\d,]+ (fields|bytes|on)"
"""The number in a reason, as splitter.py writes it."""

_ANY_SHARE = 1e-9
"""Share of deleted rows of a file: more than none, and no more than one of a file's rows."""

_LIVE = pa.schema(
    {"unit_hash": pa.string(), "origin": pa.string(), "loaded_at": pa.timestamp("us", tz="UTC")}
)


def quarantined(lake: Lake, postgres: Postgres, stream: str, limit: int | None = None) -> pa.Table:
    """Quarantined rows of what counts at present: stream, origin, unit, line, reason, text, time.

    Args:
        limit: rows at most; None for all.
    """
    return _asked(lake, postgres, stream, "quarantined", limit=2**62 if limit is None else limit)


def reasons(lake: Lake, postgres: Postgres, stream: str) -> pa.Table:
    """Why rows of what counts at present are in quarantine, the most frequent reason first.

    A reason leaves out file, line and value, so that what is mended in one go stands in one row.

    Returns:
        stream, reason, rows, files, and unit, line and the beginning of the text of one such row of the newest.
    """
    return _asked(lake, postgres, stream, "quarantine_reasons", shown=_SHOWN_VALUE, counted=_COUNTED)


def counts(postgres: Postgres) -> dict[str, int]:
    """How many rows of what counts at present are in quarantine, by stream, of those that have any.

    The ledger knows; where there is none yet, none is made.
    """
    with postgres.connect() as connection:
        return ledger.quarantine_counts(connection)


def forget_texts(lake: Lake, postgres: Postgres, stream: str, before: datetime) -> int:
    """Let the text go of rows that were put into quarantine before then; returns of how many.

    Reason, file and line stay, so the accounts add up as before, and a retry reads the file again.

    Raises:
        IntakeBusy: the stream is being taken in.
    """
    with postgres.connect() as connection:
        hashes = ledger.quarantined_before(connection, stream, before)
    if not hashes:
        return 0
    table = f"intake_{stream}"
    text = read_sql("duckdb/raw/forget_texts.sql").format(table=quote_identifier(table))
    # A file keeps what its rows were; so those with any such row are written anew, also what a kill has left of that.
    rewrite = (
        f"CALL ducklake_rewrite_data_files('lake', {quote_literal(table)}, schema => 'intake', "
        f"delete_threshold => {_ANY_SHARE})"
    )
    with touched_days.only_one(postgres, stream), lake.get_connection(write=True) as connection:
        found = connection.execute(text, {"hashes": hashes}).fetchone()
        connection.execute(rewrite).fetchall()
    return int(found[0]) if found else 0


def _asked(lake: Lake, postgres: Postgres, stream: str, statement: str, **values: Any) -> pa.Table:
    """What a statement of sql/duckdb/raw tells of a stream's intake and of the contents that hold quarantined rows."""
    touched_days.ensure_schema(postgres)
    ensure_tables(lake)
    with postgres.connect() as connection:
        live = [dict(zip(_LIVE.names, each, strict=True)) for each in ledger.quarantining(connection, stream)]
    text = read_sql(f"duckdb/raw/{statement}.sql").format(table=quote_identifier(f"intake_{stream}"))
    with lake.get_connection() as connection:
        connection.register("live", pa.Table.from_pylist(live, _LIVE))
        return connection.execute(text, {"stream": stream, **values}).to_arrow_table()


def reopen(
    postgres: Postgres,
    lake: Lake,
    stream: str,
    landing_folder: Path,
    globs: Mapping[str, str],
    tracking_root: str | None = None,
) -> int:
    """Have contents that hold quarantined rows, or whose accounts do not add up, read again; returns how many.

    Their rows count as they are until the next intake has read them. What is gone from its folder, or lies in
    another tracking store, is left as it is: there is nothing to read again.

    Args:
        landing_folder: the folder above the streams' own.
        globs: of sources, from the settings.
        tracking_root: the tracking store's address, as in `take_in_mlflow`; None if there is none.
    """
    touched_days.ensure_schema(postgres)
    listings = stream_listings(stream, landing_folder, globs)
    there = {
        (root, file.item_name, file.fingerprint) for root, each in listings.items() for file in each.files
    }
    with touched_days.only_one(postgres, stream):
        unbalanced = unbalanced_contents(postgres, lake, stream)
        with postgres.connect(write=True) as connection:
            wanted = ledger.quarantining_hashes(connection, stream) | unbalanced.keys()
            chosen = {
                (root, item_name): content_hash
                for root, item_name, fingerprint, content_hash, origin in ledger.content_places(
                    connection, stream, wanted
                )
                if (root == tracking_root if origin == "mlflow" else (root, item_name, fingerprint) in there)
            }
            ledger.mark(connection, stream, sorted(chosen))
            return len(set(chosen.values())) + ledger.abandon_retired(connection, stream, unbalanced)


@dataclass(frozen=True)
class LedgerFile:
    """A file that the ledger knows, in one stream.

    Args:
        stream: the stream that took it in.
        root, item_name: as in `ledger.Place`.
    """

    stream: str
    root: str
    item_name: str


def find_file(
    file: str, postgres: Postgres, landing_folder: Path, globs: Mapping[str, str], streams: Iterable[str]
) -> list[LedgerFile]:
    """What a file is in the ledger: once for each stream that takes something from it.

    Args:
        file: path below the landing folder, with or without the stream's folder, or below the working folder, or
            absolute; also of a file that a source reads. The file itself may be gone.
        landing_folder, globs: as in `reopen`.

    Raises:
        NotTakenIn: no such file was taken in.
    """
    touched_days.ensure_schema(postgres)
    named: list[LedgerFile] = []
    below: list[LedgerFile] = []
    landing_folder = landing_folder.absolute()
    for stream in streams:
        folders: dict[str, Path | None] = {LANDING_ROOT: landing_folder / stream}
        for source in sources(stream, globs)[0]:
            # The item names of files that lie elsewhere are whole paths.
            folders[source.root] = None if Path(source.glob).is_absolute() else landing_folder
        for root, folder in folders.items():
            with postgres.connect() as connection:
                places = ledger.known_places(connection, stream, root)
            for found, paths in (
                (named, (landing_folder / file, Path(file).absolute())),
                (below, (folder / file,) if folder else ()),
            ):
                item_names = [
                    text_path(path.relative_to(folder) if folder else path)
                    for path in paths
                    if folder is None or path.is_relative_to(folder)
                ]
                found += [
                    LedgerFile(stream, root, item_name)
                    for item_name in dict.fromkeys(item_names)
                    if item_name in places
                ]
    if not named and not below:
        raise NotTakenIn(
            f"no file {file!r} was taken in: name it as it lies below {landing_folder}, such as runs/my.csv, or by "
            "its whole path."
        )
    if not named and len(below) > 1:
        raise NotTakenIn(
            f"{file!r} may be a file of {' or '.join(each.stream for each in below)}: "
            f"name the stream as well, such as {below[0].stream}/{file}."
        )
    return named or below


def retire_file(file: LedgerFile, lake: Lake, postgres: Postgres, bounds: Bounds) -> tuple[bool, list[str]]:
    """Withdraw a file's rows; it is not taken in again before it changes.

    Returns:
        Whether it counted until now, and other places where the same content lies, so that its rows stay.
    """
    report = IntakeReport()
    with ingesting(STREAMS[file.stream], lake, postgres, bounds, report) as ingest:
        ingest.withdraw(file.root, [file.item_name])
    with postgres.connect() as connection:
        return report.retired > 0, ledger.lies_elsewhere(connection, file.stream, file.root, file.item_name)


def export_rows(table: pa.Table, path: Path) -> int:
    """Write quarantined rows to a JSON lines file; returns how many."""
    import orjson

    with path.open("wb") as out:
        for batch in table.to_batches(max_chunksize=10_000):
            rows: list[dict[str, Any]] = batch.to_pylist()
            out.writelines(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows)
    return table.num_rows
