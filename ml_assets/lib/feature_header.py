"""The comment at the top of a feature file: what its table is about, in prose and in a few named lines.

What belongs here: reading that comment. Which tables the SELECT below it reads is told by the engine's parser
(stores/duckdb/select_file.py), and which files there are in contracts/feature_files.py.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

_NAMED = re.compile(r"--\s*([A-Za-z_]+)\s*:\s*(.*)")
_REMARK = re.compile(r"(?:^|\s+)--.*")
"""Behind a value."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


@dataclass(frozen=True)
class FeatureHeader:
    """What a file says of its table.

    Args:
        description: the prose.
        entity: columns that name what the features are of.
        event_time: column of the time from which the values hold.
        known_time: column of the time from which they could be read; None if that is the event time.
        key: columns that identify a row, where they are not the entity, and the event time of a table by day.
        partition: column whose UTC day is the partition of a table by day; None if that is the event time.
        unique: whether a key of a table by day stands on one day only.
        order: columns by which rows are clustered, where that is not the key.
        ttl: how long after the event time a value may be used; None if for ever.
        lookback_days: how many days before a day its rows are made of.
        online: whether the newest row of each entity is served.
        owner: who is asked about the table, such as `team:vision`.
        tags: words to find it by.
    """

    description: str = ""
    entity: tuple[str, ...] = ()
    event_time: str | None = None
    known_time: str | None = None
    key: tuple[str, ...] = ()
    partition: str | None = None
    unique: bool = False
    order: tuple[str, ...] = ()
    ttl: timedelta | None = None
    lookback_days: int = 0
    online: bool = False
    owner: str | None = None
    tags: tuple[str, ...] = ()

    @property
    def is_view(self) -> bool:
        """Whether rows can be joined to an entity at a time."""
        return bool(self.entity and self.event_time)


_LONGEST = timedelta(days=36_500)
"""Longest time to live, with which times can still be reckoned."""

_LONGEST_LOOKBACK = timedelta(days=3_660)
"""Ten years: each late row is followed day by day for as long."""


def parse_header(name: str, text: str) -> FeatureHeader:
    """Read the comment at the top of a file: its `--` lines until the first line of another kind, without blank ones.

    Args:
        name: the file's name without its ending.
        text: what the file holds.

    Raises:
        ValueError: a named line cannot be read, or the comment is between /* and */; the message has the file and the
            line.
    """
    prose: list[str] = []
    given: dict[str, Any] = {}
    for number, line in enumerate(map(str.strip, text.splitlines()), 1):
        if not line:
            continue
        if line.startswith("/*") and not prose and not given:
            raise ValueError(
                f"{name}.sql, line {number}: what a file says of its table is read of lines that begin with --, and this "
                "comment begins with /*; write it in such lines, or write it below the SELECT"
            )
        if not line.startswith("--"):
            break
        named = _NAMED.match(line)
        field = _field(name, number, named[1]) if named else None
        if not named or field is None:
            prose.append(line.removeprefix("--").strip())
            continue
        where = f"{name}.sql, line {number}"
        if field in given:
            raise ValueError(f"{where}: {named[1]} stands twice; leave one of them")
        given[field] = _READERS[field](where, named[1], _REMARK.sub("", named[2]))
    return FeatureHeader(description=" ".join(part for part in prose if part), **given)


def _field(name: str, number: int, word: str) -> str | None:
    """The field of this name; None for a word of the prose, which is like no name.

    Raises:
        ValueError: it is nearly the name of one.
    """
    if (field := _FIELDS.get(word)) is not None:
        return field
    if near := get_close_matches(word.lower(), _FIELDS, 1, cutoff=0.7):
        raise ValueError(
            f"{name}.sql, line {number}: there is no {word!r}, but {near[0]!r}; correct the name"
        )
    return None


def _text(where: str, name: str, value: str) -> str:
    if not value:
        raise ValueError(f"{where}: {name} has no value; give one, or take the line out")
    return value


def _names(where: str, name: str, value: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in _text(where, name, value).split(","))
    if not all(names):
        raise ValueError(f"{where}: {name} is {value!r}; separate names by one comma each")
    if len(set(names)) != len(names):
        raise ValueError(f"{where}: {name} is {value!r}, where a name stands twice")
    return names


def _switch(where: str, name: str, value: str) -> bool:
    if value.lower() not in ("yes", "no"):
        raise ValueError(f"{where}: {name} is {value!r}; write yes or no")
    return value.lower() == "yes"


def _span(where: str, name: str, value: str) -> timedelta:
    found = re.fullmatch(r"(\d+)\s*([smhdw])", value)
    try:
        if found is not None:
            return timedelta(**{_UNITS[found[2]]: int(found[1])})
    except OverflowError:
        pass  # told as any other value that is no length of time
    raise ValueError(f"{where}: {name} is {value!r}; write a whole number and s, m, h, d or w, such as 30d")


def _ttl(where: str, name: str, value: str) -> timedelta:
    span = _span(where, name, value)
    if not span:
        raise ValueError(
            f"{where}: {name} is {value!r}, and no value would ever be young enough; write more, or take the line out "
            "if values never grow too old"
        )
    if span > _LONGEST:
        raise ValueError(
            f"{where}: {name} is {value!r}, more than {_LONGEST.days} days; write less, or take the line out if values "
            "never grow too old"
        )
    return span


def _days(where: str, name: str, value: str) -> int:
    span = _span(where, name, value)
    if span % timedelta(days=1):
        raise ValueError(f"{where}: {name} is {value!r}; tables are built by whole days, so write those")
    if span > _LONGEST_LOOKBACK:
        raise ValueError(
            f"{where}: {name} is {value!r}, and {_LONGEST_LOOKBACK.days}d is the longest; write that or less"
        )
    return span.days


_READERS: dict[str, Callable[[str, str, str], Any]] = {
    "entity": _names,
    "event_time": _text,
    "known_time": _text,
    "key": _names,
    "partition": _text,
    "unique": _switch,
    "order": _names,
    "ttl": _ttl,
    "lookback_days": _days,
    "online": _switch,
    "owner": _text,
    "tags": _names,
}

_FIELDS = {field.name.removesuffix("_days"): field.name for field in fields(FeatureHeader)[1:]}
"""By the name that stands in a file."""
