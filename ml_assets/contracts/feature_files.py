"""The feature files that there are: `NAME.sql`, and beside it `NAME.contract.json` once its table was made.

What belongs here: finding and reading them. What a header says is in lib/feature_header.py, what a SELECT reads in
stores/duckdb/select_file.py.
"""

import os
import re
import uuid
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from ml_assets.contracts.model import Contract
from ml_assets.contracts.text import pinned_contract, pinned_text
from ml_assets.lib.feature_header import FeatureHeader, parse_header
from ml_assets.lib.sql_text import column_comments
from ml_assets.settings import SQL_DIR, Settings

SHIPPED = SQL_DIR / "duckdb" / "features"
"""The folder of the files that come with the package."""

_NAME = re.compile(r"(?!raw_|intake_)[a-z][a-z0-9_]*")
"""Of a file: `raw_` and `intake_` would put its table into another schema of the lake."""


@dataclass(frozen=True)
class FeatureFile:
    """One file.

    Args:
        name: the file's name without its ending; the table that it makes.
        path: where it lies.
        text: what it holds.
        header: what its first comment says; None if that cannot be read.
        contract: what its table promises; None until the first run has pinned it.
        fault: a sentence if the file cannot be used.
        is_taken: whether another file before it has the name, or no feature table can have it.
    """

    name: str
    path: Path
    text: str
    header: FeatureHeader | None
    contract: Contract | None
    fault: str = ""
    is_taken: bool = False

    @property
    def asset(self) -> str:
        """Key of the table's asset."""
        return f"duckdb/{self.name}"

    @property
    def is_view(self) -> bool:
        """Whether its rows can be joined to an entity at a time."""
        return self.header is not None and self.header.is_view


def pin_of(path: Path) -> Path:
    """Where the contract of a file's table lies."""
    return path.with_suffix(".contract.json")


def pin(path: Path, contract: Contract) -> Path:
    """Write a table's contract beside its file, all of it or nothing.

    Raises:
        OSError: the folder cannot be written.
    """
    target = pin_of(path)
    draft = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        with draft.open("x", encoding="utf-8") as file:
            file.write(pinned_text(contract))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return target


def with_comments(contract: Contract, text: str) -> Contract:
    """The contract with what the file says of its columns, in comments behind them."""
    said = column_comments(text)
    columns = tuple(
        replace(column, description=said.get(column.name.lower(), column.description))
        for column in contract.columns
    )
    return replace(contract, columns=columns)


def feature_files(settings: Settings) -> tuple[FeatureFile, ...]:
    """All feature files, each with a name of its own: those that are shipped first, each folder's by name."""
    return tuple(file for file in every_file(settings) if not file.is_taken)


def every_file(settings: Settings) -> tuple[FeatureFile, ...]:
    """The feature files, and those that cannot have the name that they have."""
    folders = (SHIPPED, *settings.feature_folders)
    return read_files(path for folder in folders for path in sorted(folder.glob("*.sql")))


def read_files(paths: Iterable[Path]) -> tuple[FeatureFile, ...]:
    """Feature files; of those with one name the first has it. Hidden ones, as editors leave them, are none."""
    return tuple(_each_once(_read(path) for path in paths if not path.name.startswith(".")))


def _each_once(files: Iterable[FeatureFile]) -> Iterator[FeatureFile]:
    first: dict[str, Path] = {}
    for file in files:
        if not _NAME.fullmatch(file.name):
            fault = (
                f"{file.path.name}: a table cannot have this name; use small letters, digits and _, and neither raw_ nor "
                "intake_ in front"
            )
        elif (path := first.get(file.name)) == file.path:
            continue  # a folder that is named twice
        elif path is not None:
            fault = f"{file.path.name} lies in {path.parent} and in {file.path.parent}; give one of the files a new name"
        else:
            first[file.name] = file.path
            yield file
            continue
        yield replace(file, header=None, contract=None, fault=fault, is_taken=True)


def _read(path: Path) -> FeatureFile:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as fault:
        told = f"{path.name} cannot be read ({fault.strerror}); mend its mode, or remove it"
        return FeatureFile(path.stem, path, "", None, None, told)
    except UnicodeDecodeError as fault:
        line = fault.object[: fault.start].count(b"\n") + 1
        told = f"{path.name}, line {line}: byte {fault.object[fault.start]:#04x} is no UTF-8; save the file as UTF-8"
        return FeatureFile(path.stem, path, "", None, None, told)
    header, contract, faults = None, None, []
    try:
        header = parse_header(path.stem, text)
    except ValueError as fault:
        faults.append(str(fault))
    pinned = pin_of(path)
    try:
        if pinned.exists():
            found = pinned_contract(f"duckdb/{path.stem}", pinned.read_text(encoding="utf-8"))
            contract = with_comments(found, text)
    except (OSError, ValueError) as fault:
        faults.append(f"{pinned} cannot be read: {fault}; correct it, or delete it and build the table again")
    return FeatureFile(path.stem, path, text, header, contract, "; ".join(faults))
