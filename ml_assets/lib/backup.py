"""What a backup is, as a text: its manifest, the name that guards it, and which backups are kept.

A backup is a file `backups/<id>.json`, the manifest, and the contents that it names, each in a file of its own called by
its SHA-256 (`objects/ab/ab12...`). The id holds the SHA-256 of the manifest's bytes, so that a manifest that was changed
is known by its name. Nothing here opens a file.
"""

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from ml_assets.errors import Refusal

FORMAT = 2
"""Of the manifest. A newer one is refused; it rises with every field, which a release before does not know. 2 has
`home_format`."""

_ID = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{12}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Entry:
    """A file, an empty folder or a link.

    Args:
        place: which root it lies below; see `maintenance/backup/places.py`.
        path: below the root, with slashes.
        sha256: of the content; "" for a folder or a link.
        bytes: of the content.
        mode: permissions, without the kind of file.
        mtime_ns: when a file was last changed, in nanoseconds since 1970.
        link: where a symbolic link leads; None for anything else.
    """

    place: str
    path: str
    sha256: str = ""
    bytes: int = 0
    mode: int = 0o600
    mtime_ns: int = 0
    link: str | None = None


@dataclass(frozen=True)
class TableFact:
    """Rows and content hash of a table, as its ledger had them when the backup was made."""

    rows: int
    content_hash: str


@dataclass(frozen=True)
class LeftOut:
    """What a backup does not hold.

    Args:
        what: a store or a folder.
        why: a sentence.
        command: of the vendor, that keeps it; "" if nothing needs to be kept.
    """

    what: str
    why: str
    command: str = ""

    def __str__(self) -> str:
        return f"{self.what}: {self.why}" + (f" Keep it by: {self.command}" if self.command else "")


@dataclass(frozen=True)
class Manifest:
    """All that is known of one backup.

    Args:
        made_at: the moment whose state it holds, UTC, ISO.
        home: from which it was made.
        versions: of the programs and packages that wrote the data, by name.
        modes: of each store, `embedded` or `server`.
        databases: of PostgreSQL, each with the name under which its dump lies.
        tables: by `store/table`.
        left_out: what is not in it.
        under_way: sentences about what was being done; a restored home finishes or repeats it.
        paused_s: how long writers waited, in seconds.
        entries: its files.
        format: of the manifest.
        home_format: of the home (home_format.py); 0 for a home of before there were formats.
    """

    made_at: str
    home: str
    versions: Mapping[str, str] = field(default_factory=dict)
    modes: Mapping[str, str] = field(default_factory=dict)
    databases: Mapping[str, str] = field(default_factory=dict)
    tables: Mapping[str, TableFact] = field(default_factory=dict)
    left_out: Sequence[LeftOut] = ()
    under_way: Sequence[str] = ()
    paused_s: float = 0.0
    entries: Sequence[Entry] = ()
    format: int = FORMAT
    home_format: int = 0

    @property
    def bytes(self) -> int:
        """Of all files."""
        return sum(entry.bytes for entry in self.entries)

    @property
    def files(self) -> int:
        """How many files."""
        return sum(1 for entry in self.entries if entry.sha256)

    @property
    def objects(self) -> dict[str, int]:
        """Bytes by SHA-256 of the contents that it names."""
        return {entry.sha256: entry.bytes for entry in self.entries if entry.sha256}


def to_bytes(manifest: Manifest) -> bytes:
    """The manifest's file; the same for the same manifest."""
    return json.dumps(asdict(manifest), indent=1, sort_keys=True).encode()


def new_id(manifest: Manifest) -> str:
    """The id by which the manifest is kept: its moment, and the hash of its bytes."""
    moment = datetime.fromisoformat(manifest.made_at).astimezone(UTC)
    return f"{moment:%Y%m%dT%H%M%SZ}-{_digest(to_bytes(manifest))}"


def is_id(name: str) -> bool:
    """Whether a name is that of a backup."""
    return _ID.fullmatch(name) is not None


def from_bytes(content: bytes, name: str) -> Manifest:
    """The manifest of a file.

    Args:
        content: of the file.
        name: its id, which says what the content has to be.

    Raises:
        Refusal: it was changed, or a newer release has written it.
    """
    if _digest(content) != name.rpartition("-")[2]:
        raise Refusal(
            f"The manifest of backup {name} is not what was written: it was changed or damaged. Choose another backup "
            "with --at, bring the file back from a copy, or remove it, which gives this backup up."
        )
    told = json.loads(content)
    if told["format"] > FORMAT:
        raise Refusal(
            f"Backup {name} was made by a newer release (format {told['format']}, this one reads {FORMAT}): install that "
            "one to restore it."
        )
    told["tables"] = {asset: TableFact(**fact) for asset, fact in told["tables"].items()}
    told["left_out"] = tuple(LeftOut(**each) for each in told["left_out"])
    told["under_way"] = tuple(told["under_way"])
    told["entries"] = tuple(Entry(**each) for each in told["entries"])
    manifest = Manifest(**told)
    _refuse_ways_out(manifest, name)
    return manifest


def _refuse_ways_out(manifest: Manifest, name: str) -> None:
    """Refuse paths that lead out of the folder that is restored: a backup may come from anywhere."""
    for entry in manifest.entries:
        if not {"", ".", ".."}.isdisjoint((*entry.place.split("/"), *entry.path.split("/"))) or (
            entry.sha256 and not _SHA256.fullmatch(entry.sha256)
        ):
            where = f"{entry.place}/{entry.path}"
            raise Refusal(
                f"Backup {name} names {where!r}, which lies outside of the home: it was not made by us."
            )


def chosen(ids: Iterable[str], wanted: str | None, folder: object) -> str:
    """The backup that is meant: the newest, or the one whose id begins so.

    Raises:
        Refusal: there is none, or more than one.
    """
    held = sorted(filter(is_id, ids))
    if not held:
        raise Refusal(f"There is no backup in {folder}: 'ml-assets backup {folder}' makes one.")
    if wanted is None:
        return held[-1]
    found = [each for each in held if each.startswith(wanted)] if wanted else []
    if len(found) == 1:
        return found[0]
    some = ", ".join((found or held)[-5:])
    raise Refusal(
        f"{len(found)} backups in {folder} begin with {wanted!r}: name one of {some}."
        if found
        else f"There is no backup {wanted!r} in {folder}: the newest are {some}."
    )


def outdated(ids: Iterable[str], keep: int) -> list[str]:
    """The backups that go where only the newest are kept.

    Args:
        keep: how many stay, at least one.

    Raises:
        Refusal: none is to stay.
    """
    if keep < 1:
        raise Refusal(f"--keep {keep} would keep no backup: keep at least 1.")
    return sorted(filter(is_id, ids))[:-keep]


def unnamed(held: Iterable[str], manifests: Iterable[Manifest]) -> set[str]:
    """The contents that no manifest names."""
    named = {sha256 for manifest in manifests for sha256 in manifest.objects}
    return set(held) - named


def table_differences(
    wanted: Mapping[str, TableFact], found: Mapping[str, TableFact], left_out: Collection[str] = ()
) -> list[str]:
    """In which tables a restored home differs from its backup, a sentence each.

    Args:
        left_out: stores that are not in the backup.
    """
    told = []
    for asset, fact in sorted(wanted.items()):
        if asset.partition("/")[0] in left_out:
            continue
        now = found.get(asset)
        if now is None:
            told.append(f"{asset} had {fact.rows:,} rows and is not there.")
        elif now.rows != fact.rows:
            told.append(f"{asset} had {fact.rows:,} rows and has {now.rows:,}.")
        # What a former release hashed in another way has no hash in status.
        elif now.content_hash and now.content_hash != fact.content_hash:
            told.append(f"{asset} has other values than it had: {now.content_hash}, not {fact.content_hash}.")
    return told


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
