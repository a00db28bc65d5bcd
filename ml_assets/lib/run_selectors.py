"""Runs that are meant by what they have: `model_name=cats, params.lr=0.1`.

What belongs here: the fields that a run has, equality of them, as bound SQL over `ml_experiments`. A parameter is a
number to one client and text to another, so `0.1` is met by 0.1, "0.1" and "0.10".
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from difflib import get_close_matches
from typing import Any

from ml_assets.errors import Refusal

_COLUMNS = {
    "run_id": "id",
    **{
        name: name
        for name in (
            "parent_run_id",
            "experiment",
            "name",
            "model_name",
            "model_version",
            "model_type",
            "dataset",
            "status",
            "origin",
        )
    },
}
_NESTED = {
    "params": "parameters",
    "param": "parameters",
    "parameters": "parameters",
    "tags": "tags",
    "tag": "tags",
}

_QUOTED = r"'[^']*'|\"[^\"]*\"|`[^`]*`"
_WORD = r"[^\s,=<>()'\"`]"
_TERM = re.compile(rf"\s*((?:{_QUOTED}|{_WORD})+)\s*=\s*({_QUOTED}|{_WORD}*)\s*(,|\Z)")
_NUMBER = re.compile(r"[-+]?(?:[0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})(?:[eE][-+]?[0-9]{1,3})?")
_NUMBER_IN_SQL = r"^[-+]?([0-9]{1,40}\.?[0-9]{0,40}|\.[0-9]{1,40})([eE][-+]?[0-9]{1,3})?$"
"""Numbers that are compared as such; longer ones are compared as text, which no cast can fail on."""


@dataclass(frozen=True)
class RunField:
    """Something that a run has.

    Args:
        name: as people write it, `params.lr`.
        column: of `ml_experiments`.
        key: within that column, if it is JSON.
    """

    name: str
    column: str
    key: str | None = None

    def sql(self, bound: dict[str, Any]) -> str:
        """The field's text in SQL; what has to be bound is added to `bound`."""
        if self.key is None:
            return self.column
        return f"({self.column} ->> {_bind(bound, self.key)})"


def run_field(name: str) -> RunField:
    """The field that is meant: `model_name`, `params.lr`, `tags."with spaces"`.

    Raises:
        Refusal: a run has no such field.
    """
    asked = name.strip()
    if asked in _COLUMNS:
        return RunField(asked, _COLUMNS[asked])
    room, dot, key = asked.partition(".")
    if dot and room in _NESTED and (key := _unquoted(key)):
        return RunField(asked, _NESTED[room], require_text(key, "a name"))
    near = get_close_matches(asked, [*_COLUMNS, "params.", "tags."], 1)
    raise Refusal(
        f"A run has no field {asked!r}{f', did you mean {near[0]}' if near else ''}: name one of "
        f"{', '.join(_COLUMNS)}, params.NAME or tags.NAME."
    )


def parse_selector(text: str) -> dict[str, str]:
    """`model_name=cats, params.lr=0.1` as `{"model_name": "cats", "params.lr": "0.1"}`.

    Values may stand in quotes, and have to if there is more than a word in them.

    Raises:
        Refusal: it is none.
    """
    found: dict[str, str] = {}
    at = 0
    while at < len(text) or not found:
        term = _TERM.match(text, at)
        if term is None:
            raise Refusal(
                f"{text!r} cannot be read from {text[at:]!r} on: write FIELD=VALUE, several of them with commas, such as "
                "model_name=cats,params.lr=0.1, and quotes around a value of more than a word."
            )
        name = term[1]
        if name in found:
            raise Refusal(f"{text!r} gives {name} twice, and no run has two of them: give it once.")
        found[name] = _unquoted(term[2])
        at = term.end()
    return found


def is_condition(text: str) -> bool:
    """Whether a text says what runs have, and is no run's id."""
    return re.search(r"[=<>~]|\S\s+\S", text) is not None


def conditions(wanted: Mapping[str, Any], bound: dict[str, Any]) -> str:
    """The condition in SQL over `ml_experiments` that a run has all that is wanted.

    Args:
        wanted: value by field. Text that is a number is met by that number, too; None is met by what has no value.
        bound: the values to bind, which are added to.

    Raises:
        Refusal: a run has no such field, or no field can have such a value.
    """
    return " AND ".join(_condition(run_field(name), value, bound) for name, value in wanted.items()) or "TRUE"


def told(wanted: Mapping[str, Any]) -> str:
    """What is wanted, as people write it."""
    return ", ".join(f"{name}={value}" for name, value in wanted.items())


def label(text: str | None) -> str | None:
    """One text for the values that are one number: `0.1` of `0.10`; any other text as it is."""
    if text is None or not _NUMBER.fullmatch(text):
        return text
    number = Decimal(text)
    if number == number.to_integral() and abs(number) < 1e15:
        return repr(int(number))
    return repr(near) if math.isfinite(near := float(number)) else text


def require_text(value: str, what: str) -> str:
    """A text that can be bound.

    Raises:
        Refusal: it cannot, since it holds a NUL or what is no character.
    """
    if "\0" in value or any("\ud800" <= character <= "\udfff" for character in value):
        raise Refusal(f"{value!r} cannot be {what}: it holds a NUL or half a character.")
    return value


def _condition(field: RunField, value: Any, bound: dict[str, Any]) -> str:
    asked = field.sql(bound)
    if value is None:
        return f"{asked} IS NULL"
    if isinstance(value, bool):
        texts = [str(value), str(value).lower()]
    elif isinstance(value, str | int | float):
        texts = [require_text(str(value), f"the value of {field.name}")]
    else:
        raise Refusal(f"{field.name} cannot be {value!r}: give a text, a number, a boolean or None.")
    if field.key is None:
        return f"{asked} = {_bind(bound, texts[0])}"
    same = f"{asked} = ANY({_bind(bound, texts)})"
    if not _NUMBER.fullmatch(texts[0]):
        return same
    pattern, number = _bind(bound, _NUMBER_IN_SQL), _bind(bound, Decimal(texts[0]))
    return f"({same} OR CASE WHEN {asked} ~ {pattern} THEN {asked}::numeric = {number} END)"


def _bind(bound: dict[str, Any], value: Any) -> str:
    name = f"selected_{len(bound)}"
    bound[name] = value
    return f"%({name})s"


def _unquoted(text: str) -> str:
    return text[1:-1] if re.fullmatch(_QUOTED, text, re.DOTALL) else text
