"""Restoring a backup into a home that does not exist yet.

The home is made beside its place, in a folder called `<home>.restoring`, and gets its name when it holds what the backup
held: rows and content hashes of every table are counted anew. A restore that was killed leaves that folder alone, with a
file that says what it is; it can be removed, or the same command run again.
"""

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ml_assets import services
from ml_assets.contracts import tables
from ml_assets.errors import Refusal
from ml_assets.lib import backup as manifests
from ml_assets.lib import home_format
from ml_assets.lib.backup import Manifest
from ml_assets.lib.home_format import HomeFormat
from ml_assets.lib.words import counted
from ml_assets.maintenance.backup import facts, places, postgres
from ml_assets.maintenance.backup.folder import BackupFolder, Progress, hold
from ml_assets.maintenance.backup.take import COPIES
from ml_assets.maintenance.recovery import recover_all
from ml_assets.maintenance.status import stores_status
from ml_assets.maintenance.upgrade import open_home
from ml_assets.resources import store_resources
from ml_assets.services.home import write_format
from ml_assets.settings import HOME_FILE, Settings, read_settings
from ml_assets.stores.registry import stores

_SUFFIX = ".restoring"
_MARK = "UNFINISHED-RESTORE.txt"
_ALSO = "And here: "
_ROLES = "roles.sql"
_SHOWN = 5
_SERVERS = ("clickhouse", "chroma", "redis")
"""Stores that hold nothing of a backup where they are servers."""


@dataclass(frozen=True)
class Restored:
    """A backup that was restored.

    Args:
        id: of the backup.
        manifest: all that is known of it.
        home: where it is now.
        tables: how many tables were counted and hashed anew, and are what they were.
        seconds: wall time.
    """

    id: str
    manifest: Manifest
    home: Path
    tables: int
    seconds: float


def restore(
    settings: Settings, folder: BackupFolder, progress: Progress, wanted: str | None = None
) -> Restored:
    """Make a home out of a backup.

    Args:
        settings: of the home that is made; its stores lie where they say.
        folder: of backups.
        wanted: how the id of the backup begins; None for the newest.

    Raises:
        Refusal: there is no such backup, it is damaged or of a newer release, or the home is not empty; nothing was
            written. Or what was restored is not what was backed up; the home was not put into its place.
        ServiceError: an embedded server does not start.
    """
    began = time.perf_counter()
    folder.require()
    backup_id = manifests.chosen(folder.ids(), wanted, folder.path)
    manifest = folder.read(backup_id)
    home_format.refuse_newer(
        f"Backup {backup_id} of {manifest.home}", manifest.home_format, manifest.versions.get("ml-assets", "")
    )
    _refuse_what_is_there(settings, manifest)
    if damage := folder.damage(manifest, progress):
        more = f" And {counted(len(damage) - _SHOWN, 'other')}." if len(damage) > _SHOWN else ""
        raise Refusal(
            f"Backup {backup_id} is damaged, and nothing was written. {' '.join(damage[:_SHOWN])}{more} Choose another "
            "one with --at, or bring these files back from a copy."
        )
    with _draft(settings.home, backup_id) as home:
        draft = _Draft(home, settings, folder, manifest, progress)
        try:
            draft.write_files()
            draft.restore_postgres()
            draft.upgrade()
            count = draft.verify()
        finally:
            services.stop_all(home)
        draft.put_in_place()
    took = round(time.perf_counter() - began, 2)
    return Restored(backup_id, manifest, settings.home, count, took)


class _Draft:
    """A home that is being made.

    Args:
        home: its folder for now.
        final: the settings of the home that it becomes.
    """

    def __init__(
        self, home: Path, final: Settings, folder: BackupFolder, manifest: Manifest, progress: Progress
    ) -> None:
        self._home = home
        self._final = final
        self._folder = folder
        self._manifest = manifest
        self._progress = progress
        if not manifest.home_format:  # or it would be taken for a home that this release makes
            write_format(home, HomeFormat(0))
        for entry in manifest.entries:
            if (entry.place, entry.path) == ("home", HOME_FILE):  # which says where the others belong
                folder.fetch(entry, home / HOME_FILE)
        self._settings, self._moves = _settings_of_draft(home, final)
        for draft in self._moves.keys() - {home}:
            if os.path.lexists(draft):
                raise Refusal(f"{draft} is in the way and is no unfinished restore: move it elsewhere.")
            with (home / _MARK).open("a") as mark:
                mark.write(f"{_ALSO}{draft}\n")
        self._places = places.places(self._settings)
        self._dumps = home / "tmp" / "dumps"

    def write_files(self) -> None:
        """Put every file where it belongs."""
        total = len(self._manifest.entries)
        # Links last: no file is written through one, wherever it leads.
        for number, entry in enumerate(
            sorted(self._manifest.entries, key=lambda each: each.link is not None)
        ):
            self._progress("writing files", number, total)
            target = self._target(entry.place, entry.path)
            if target is None or target == self._home / HOME_FILE:
                continue
            if entry.link is not None:
                target.parent.mkdir(parents=True, exist_ok=True)
                target.symlink_to(entry.link)
            elif not entry.sha256:
                target.mkdir(mode=entry.mode, parents=True, exist_ok=True)
            else:
                target.parent.mkdir(parents=True, exist_ok=True)
                self._folder.fetch(entry, target)
                target.chmod(entry.mode)
                os.utime(target, ns=(entry.mtime_ns, entry.mtime_ns))
        self._progress("writing files", total, total)

    def _target(self, place: str, path: str) -> Path | None:
        """Where a file belongs; None if it is of a store that is a server now."""
        if place == "sqlite":
            return self._places[place]
        if place == "postgres" or place.startswith("postgres/"):
            return self._dumps / place / path
        root = self._places.get(place)
        return root / path if root else None

    def restore_postgres(self) -> None:
        """Make the databases."""
        dumps = {name: self._dumps / place for name, place in self._manifest.databases.items()}
        if not dumps:
            return
        self._progress("restoring PostgreSQL", 0, 1)
        if self._settings.mode("postgres") == "embedded":
            server = store_resources(self._settings)["postgres"]
            roles = self._dumps / "postgres" / _ROLES
            postgres.restore_embedded(
                server.connection_url("postgres"), dumps, roles if roles.exists() else None
            )
            services.SERVERS["postgres"](self._home).initialise(server.connection_url())
        else:
            for name, url in _urls_to_fill(self._settings, self._manifest).items():
                postgres.restore_server(url, dumps[name])
            self._lead_lake(self._settings)
        self._progress("restoring PostgreSQL", 1, 1)
        shutil.rmtree(self._dumps)

    def _lead_lake(self, settings: Settings) -> None:
        """Tell a catalog on a server where the lake's files are: on this machine, or below a prefix that was set."""
        urls = _urls_to_fill(settings, self._manifest)
        if url := urls.get(postgres.CATALOG):
            remote = "lake" not in self._places
            data = settings.lake_data_path
            postgres.lead_to_files(url, data if remote else os.path.abspath(data))

    def upgrade(self) -> None:
        """Bring a home of a former release to this one's format."""
        open_home(self._settings)

    def verify(self) -> int:
        """Fill what is filled from other stores, and hold all of it against the backup; how many tables agree.

        Raises:
            Refusal: something is not what it was.
        """
        manifest, settings = self._manifest, self._settings
        # Of what is a server nothing is in the backup, but for PostgreSQL with the lake's catalog; SQLite is a file.
        absent = {store for store in _SERVERS if manifest.modes.get(store) == "server"} | {"qdrant"}
        now = {store for store in _SERVERS if settings.mode(store) == "server"}
        self._progress("verifying", 0, 2)
        made = store_resources(settings)
        ours = {store.name for store in stores(made)} - absent - now
        recovered = recover_all(made, tables(settings), ours)
        self._progress("verifying", 1, 2)
        status, differences = stores_status(settings, verify=True, start=True)
        # What is filled from PostgreSQL whenever it is there need not be there now.
        absent |= {store for store in COPIES if store in status and status[store]["state"] == "down"}
        told = [
            f"{each.store}/{each.table} does not agree with its ledger."
            for each in differences
            if each.store in ours
        ]
        told += manifests.table_differences(manifest.tables, facts.of_status(status), absent | now)
        told += [
            f"{each.store}: {each.detail}"
            for each in recovered
            if each.state in ("down", "failed") and each.store not in absent
        ]
        self._progress("verifying", 2, 2)
        if told:
            more = f" And {counted(len(told) - _SHOWN, 'other')}." if len(told) > _SHOWN else ""
            raise Refusal(
                f"What was restored is not what was backed up, so it was not put into place; it is in {self._home}. "
                f"{' '.join(told[:_SHOWN])}{more}"
            )
        return len(manifest.tables)

    def put_in_place(self) -> None:
        """Give the home, and what lies elsewhere, its name."""
        with store_resources(self._settings)["clickhouse"].at_rest():
            pass  # it stays open for a while after its last use, and would write to where its files are no more
        self._lead_lake(self._final)
        for draft, final in self._moves.items():
            if draft.exists():
                draft.rename(final)


def _settings_of_draft(home: Path, final: Settings) -> tuple[Settings, dict[Path, Path]]:
    """The settings under which a draft is worked on, and what is renamed when it is done."""
    told = final.model_copy(update={"home": home})
    if (home / HOME_FILE).exists():  # which says what nobody else says
        given = {name: getattr(final, name) for name in final.model_fields_set}
        told = read_settings(**given | {"home": home})
    moved: dict[Path, Path] = {}
    changes: dict[str, str] = {}
    roots = places.places(told)
    for name, field, form in (
        ("lake", "lake_data", "{}"),
        ("sqlite", "sqlite_url", "sqlite:///{}"),
        ("clickhouse", "clickhouse_url", "chdb://{}"),
    ):
        root = roots.get(name)
        if root is not None and not root.is_relative_to(home):
            draft = root.with_name(root.name + _SUFFIX)
            draft.parent.mkdir(parents=True, exist_ok=True)
            moved[draft] = root
            changes[field] = form.format(draft)
    moved[home] = final.home
    return told.model_copy(update=changes), moved


@contextmanager
def _draft(home: Path, backup_id: str) -> Iterator[Path]:
    """The folder in which a home is made; that of a killed restore is removed.

    Raises:
        Refusal: it is somebody else's, or another process restores there.
    """
    folder = home.with_name(home.name + _SUFFIX)
    mark = folder / _MARK
    if folder.is_dir() and any(folder.iterdir()) and not mark.exists():
        raise Refusal(f"{folder} is in the way and is no unfinished restore: move it elsewhere.")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with mark.open("a") as lock:
        hold(lock, f"restoring to {home}: wait for it")
        services.stop_all(folder)
        elsewhere = [
            line.removeprefix(_ALSO) for line in mark.read_text().splitlines() if line.startswith(_ALSO)
        ]
        for left in (*folder.iterdir(), *map(Path, elsewhere)):
            if left == mark:
                continue
            if left.is_dir() and not left.is_symlink():
                shutil.rmtree(left)
            else:
                left.unlink(missing_ok=True)
        lock.truncate(0)
        lock.write(
            f"Backup {backup_id} is being restored here, to become {home}.\nIf no process does so any more, remove this "
            "folder, or run the same 'ml-assets restore' again.\n"
        )
        lock.flush()
        yield folder
        (home / _MARK).unlink()


def _refuse_what_is_there(settings: Settings, manifest: Manifest) -> None:
    """Refuse to write over anything."""
    home = settings.home
    if home.is_dir() and any(home.iterdir()):
        raise Refusal(
            f"{home} is not empty, and a restore writes over nothing: name a folder that is not there yet in "
            "ML_ASSETS_HOME, or move this one away."
        )
    if home.exists() and not home.is_dir():
        raise Refusal(f"{home} is not a folder: name one that does not exist yet in ML_ASSETS_HOME.")
    if os.path.ismount(home):
        raise Refusal(
            f"{home} is the root of a file system, which cannot be put in place as a whole: name a folder in it, such as "
            f"{home / 'ml'}, in ML_ASSETS_HOME."
        )
    _refuse_other_modes(settings, manifest)
    for name, root in places.places(settings).items():
        if root.is_relative_to(home) or not root.exists():
            continue
        if not root.is_dir() or any(root.iterdir()):
            raise Refusal(
                f"{root}, where {name} is to lie, is not empty: move it away, or name another place."
            )
    for url in _urls_to_fill(settings, manifest).values():
        if held := postgres.tables_in(url):
            some = f"{counted(len(held), 'table')} ({', '.join(held[:_SHOWN])})"
            raise Refusal(
                f"PostgreSQL's database {postgres.name_of(url)} holds {some}, and a restore writes over nothing: name "
                "empty databases in ML_ASSETS_POSTGRES_URL and ML_ASSETS_LAKE_URL."
            )


def _urls_to_fill(settings: Settings, manifest: Manifest) -> Mapping[str, str]:
    """URL of each database on somebody's server that is filled; none where PostgreSQL is embedded.

    Raises:
        Refusal: the backup holds a database for which there is no URL.
    """
    if settings.mode("postgres") == "embedded" or not manifest.databases:
        return {}
    urls = postgres.databases(settings)
    if missing := sorted(set(manifest.databases) - set(urls)):
        raise Refusal(
            f"The backup holds the databases {', '.join(sorted(manifest.databases))}, and there is no URL for "
            f"{', '.join(missing)}: restore to the embedded PostgreSQL (unset ML_ASSETS_POSTGRES_URL), or set "
            "ML_ASSETS_LAKE_URL to a database of its own."
        )
    return {name: urls[name] for name in manifest.databases}


def _refuse_other_modes(settings: Settings, manifest: Manifest) -> None:
    """Refuse to leave out what the backup holds because its store is a server now."""
    held = {entry.place for entry in manifest.entries}
    for place in sorted(held & {"clickhouse", "chroma", "lake"} - places.places(settings).keys()):
        name = "ML_ASSETS_LAKE_DATA" if place == "lake" else f"ML_ASSETS_{place.upper()}_URL"
        raise Refusal(
            f"The backup holds the files of {place}, and {name} leads to a server, into which they cannot be put: unset "
            "it for the restore."
        )
    if manifest.databases and settings.mode("postgres") == "embedded" and settings.mode("duckdb") == "server":
        raise Refusal(
            "The backup's databases are restored into the embedded PostgreSQL, and ML_ASSETS_LAKE_URL leads to a server, "
            "whose catalog is another one: unset it for the restore, or name an empty database in "
            "ML_ASSETS_POSTGRES_URL, too."
        )
