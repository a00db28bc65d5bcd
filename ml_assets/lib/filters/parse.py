"""Text to tree. What is no filter gets a sentence: the place, what was expected there, and the nearest name."""

import math
import re
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from functools import cache
from typing import Any

from ml_assets.errors import Refusal
from ml_assets.lib.filters.fields import (
    RUN,
    STATISTICS,
    Attribute,
    Field,
    Metadata,
    Metric,
    Param,
    Subject,
    Tag,
)
from ml_assets.lib.filters.normal import without_accents
from ml_assets.lib.filters.tree import (
    EVERYTHING,
    And,
    Between,
    Compare,
    Fuzzy,
    In,
    IsNull,
    Like,
    Node,
    Not,
    Or,
    Order,
    Value,
    leaves,
)

LONGEST = 100_000
"""Characters of a filter."""

DEEPEST = 100
"""Parentheses within each other. Stores walk the tree as they walk their own, and overflow on deep ones."""

MOST_LEAVES = 1_000
"""Comparisons in a filter; a list of IN is one, however long."""

MOST_TERMS = 20
"""Terms of an order."""

_GRAMMAR = r"""
filter: disjunction
ordering: term ("," term)*
term: field [DIRECTION]

disjunction: conjunction (_OR conjunction)*
conjunction: _negation (_AND _negation)*
_negation: negation | atom
negation: NOT _negation
atom: "(" disjunction ")" | predicate
?predicate: field OPERATOR value                     -> compare
    | field [NOT] _BETWEEN value _AND value          -> between
    | field [NOT] _IN "(" value ("," value)* ")"     -> is_in
    | field [NOT] LIKE value                         -> like
    | field [NOT] FUZZY value                        -> fuzzy
    | field _IS [NOT] _NULL                          -> is_null
field: FIELD ["(" NUMBER ")"]
value: STRING | TIME | AGO | NOW | NUMBER | WORD

_AND.9: /and\b/i
_OR.9: /or\b/i
NOT.9: /not\b/i
_BETWEEN.9: /between\b/i
_IN.9: /in\b/i
LIKE.9: /i?like\b/i
_IS.9: /is\b/i
_NULL.9: /null\b/i
DIRECTION.9: /(?:asc|desc)\b/i
FUZZY.9: /!?~/
OPERATOR.9: /<=|>=|!=|<>|==|=|<|>/
STRING.8: /'(?:[^']|'')*'|"(?:[^"]|"")*"/
TIME.7: /\d{4}-\d{2}-\d{2}(?:[T ]\d{2}:\d{2}(?::\d{2}(?:\.\d+)?)?(?:Z|[+-]\d{2}:?\d{2})?)?(?![\w.:-])/i
AGO.6: /\d+(?:\.\d+)?\s*[a-z]+\s+ago\b/i
NOW.6: /now\b(?:\(\))?/i
NUMBER.5: /[+-]?(?:\d+(?:\.\d*)?|\.\d+)(?:e[+-]?\d+)?(?![\w.])/i
FIELD.4: /[^\W\d]\w*(?:\.(?:"(?:[^"]|"")*"|`[^`]*`|[\w\/:@+%-]+))*/
WORD.1: /[^\W\d][\w.\-]*/
%ignore /\s+/
"""

_WORDS = {
    "FIELD": "a field such as {example}",
    "OPERATOR": "a comparison (= != < <= > >=)",
    "FUZZY": "~",
    "_BETWEEN": "BETWEEN",
    "_IN": "IN",
    "LIKE": "LIKE",
    "_IS": "IS NULL",
    "_NULL": "NULL",
    "_AND": "AND",
    "_OR": "OR",
    "NOT": "NOT",
    "STRING": "a text in quotes",
    "NUMBER": "a number",
    "TIME": "a time such as 2026-01-31T09:30:00Z or 7d ago",
    "LPAR": "(",
    "RPAR": ")",
    "COMMA": "a comma",
    "DIRECTION": "ASC or DESC",
    "$END": "the end",
}
"""What people call the terminals that may stand at a place, in the order in which they are listed."""

_KEYWORDS = ("AND", "OR", "NOT", "BETWEEN", "IN", "LIKE", "ILIKE", "IS", "NULL", "ASC", "DESC")

_PART = re.compile(r'\.(?:"((?:[^"]|"")*)"|`([^`]*)`|([^."`]+))')
_OPENING = re.compile(r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`[^`]*`|[()]""")
_AGO = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([a-z]+)\s+ago\s*", re.IGNORECASE)
_UNITS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), 1),
    **dict.fromkeys(("m", "min", "minute", "minutes"), 60),
    **dict.fromkeys(("h", "hour", "hours"), 3600),
    **dict.fromkeys(("d", "day", "days"), 86_400),
    **dict.fromkeys(("w", "week", "weeks"), 604_800),
}
_SHOWN = 100
"""Characters of a long filter that are shown around the fault."""

_now: ContextVar[datetime] = ContextVar("now")
"""What the times of the filter that is being parsed are counted from."""

_subject: ContextVar[Subject] = ContextVar("subject", default=RUN)
"""What the filter that is being parsed is asked of."""


@dataclass(frozen=True)
class _Literal:
    """A value as it stands in the text."""

    kind: str
    value: str | float
    text: str
    place: int


@dataclass(frozen=True)
class _Placed:
    """A field, and where it stands."""

    field: Field
    place: int


class _Fault(Exception):
    """Something is wrong at a place."""

    def __init__(self, place: int, told: str) -> None:
        super().__init__(told)
        self.place = place


def parse_filter(text: str, now: datetime, subject: Subject = RUN) -> Node:
    """The tree of a filter; that of an empty one lets everything through.

    Args:
        text: the filter.
        now: what `now` and `7d ago` are counted from, with a time zone.
        subject: what it is asked of.

    Raises:
        Refusal: it is no filter. The sentence shows the place, what was expected and the nearest name.
    """
    if not text.strip():
        return EVERYTHING
    asked_of = _subject.set(subject)
    try:
        tree: Node = _parsed("filter", text, now)
    finally:
        _subject.reset(asked_of)
    if (count := sum(1 for _ in leaves(tree))) > MOST_LEAVES:
        raise Refusal(
            f"The filter has {count:,} comparisons, and {MOST_LEAVES:,} are the most: ask for many values of one "
            "field with IN, or search several times."
        )
    return tree


def parse_order(terms: str | Iterable[str]) -> tuple[Order, ...]:
    """The terms of an order, `metrics.loss.best` or `created_at DESC`; in one text, with commas, or in several.

    Raises:
        Refusal: one of them is none.
    """
    given = [terms] if isinstance(terms, str) else list(terms)
    found = [each for text in given if text.strip() for each in _parsed("ordering", text, datetime.now(UTC))]
    if len(found) > MOST_TERMS:
        raise Refusal(f"The order has {len(found)} terms, and {MOST_TERMS} are the most: leave out the last.")
    unique = {each.field: each for each in reversed(found)}  # of two terms of one field the first one rules
    return tuple(each for each in found if unique[each.field] is each)


def _parsed(start: str, text: str, now: datetime) -> Any:
    from lark.exceptions import UnexpectedCharacters, UnexpectedInput, UnexpectedToken

    what = "filter" if start == "filter" else "order"
    if len(text) > LONGEST:
        raise Refusal(
            f"The {what} has {len(text):,} characters, and {LONGEST:,} are the most: shorten it, or search several times."
        )
    try:
        _judge_characters(text)
        token = _now.set(now)
        try:
            return _parser(start)(text)
        finally:
            _now.reset(token)
    except _Fault as fault:
        place, told = fault.place, str(fault)
    except UnexpectedCharacters as fault:
        place = fault.pos_in_stream or 0
        told = _unexpected(text, place, fault.allowed or ())
    except UnexpectedToken as fault:
        place = len(text.rstrip()) if fault.token.type == "$END" else fault.token.start_pos or 0
        told = _unexpected(text, place, fault.accepts or fault.expected)
    except UnexpectedInput as fault:  # the kinds above are all that lark has; another one is told, too
        place = fault.pos_in_stream or 0
        told = _unexpected(text, place, ())
    raise Refusal(f"The {what} is wrong at character {place + 1}: {told}\n{_shown(text, place)}")


def _judge_characters(text: str) -> None:
    if (place := text.find("\0")) >= 0:
        raise _Fault(place, "here is a NUL, which no store can hold. Take it out.")
    if lone := re.search("[\ud800-\udfff]", text):
        raise _Fault(lone.start(), "here is half a character (a lone surrogate). Take it out.")
    depth = 0
    for found in _OPENING.finditer(text):
        depth += {"(": 1, ")": -1}.get(found.group(), 0)
        if depth > DEEPEST:
            raise _Fault(
                found.start(),
                f"this is parenthesis {depth} within others, and {DEEPEST} are the most. Write a OR b OR c "
                "flat, and many values of one field with IN.",
            )


@cache
def _parser(start: str) -> Callable[[str], Any]:
    """Parses one of the two languages. Building it takes longer than most filters take."""
    from lark import Lark

    # The tree is built as the text is read: walking another one afterwards would be a recursion as deep as the text.
    return Lark(
        _GRAMMAR,
        parser="lalr",
        start=start,
        maybe_placeholders=True,
        transformer=_Builder(),  # pyright: ignore[reportArgumentType] - any object with a method for each rule
    ).parse


class _Builder:
    """A method for each rule of the grammar: from what its parts have become to what it is."""

    def filter(self, parts: list[Any]) -> Node:
        return parts[0]

    def ordering(self, parts: list[Any]) -> tuple[Order, ...]:
        return tuple(parts)

    def term(self, parts: list[Any]) -> Order:
        placed, direction = parts
        return Order(placed.field, direction is not None and direction.upper() == "DESC")

    def disjunction(self, parts: list[Any]) -> Node:
        return parts[0] if len(parts) == 1 else Or(_flat(Or, parts))

    def conjunction(self, parts: list[Any]) -> Node:
        return parts[0] if len(parts) == 1 else And(_flat(And, parts))

    def negation(self, parts: list[Any]) -> Node:
        return parts[1].part if isinstance(parts[1], Not) else Not(parts[1])

    def atom(self, parts: list[Any]) -> Node:
        return parts[0]

    def compare(self, parts: list[Any]) -> Node:
        placed, operator, literal = parts
        (value,) = _comparable(placed, [literal])
        return Compare(placed.field, {"<>": "!=", "==": "="}.get(operator, str(operator)), value)  # pyright: ignore[reportArgumentType]

    def between(self, parts: list[Any]) -> Node:
        placed, negation, *literals = parts
        low, high = _comparable(placed, literals)
        return Between(placed.field, low, high, negation is not None)

    def is_in(self, parts: list[Any]) -> Node:
        placed, negation, *literals = parts
        return In(placed.field, tuple(dict.fromkeys(_comparable(placed, literals))), negation is not None)

    def like(self, parts: list[Any]) -> Node:
        placed, negation, word, literal = parts
        pattern = _text(placed, literal, word.upper())
        if (len(pattern) - len(pattern.rstrip("\\"))) % 2:
            raise _Fault(
                literal.place,
                "the pattern ends in a backslash, which takes the next character as it is, and there is none. Double it.",
            )
        return Like(placed.field, pattern, word.upper() == "ILIKE", negation is not None)

    def fuzzy(self, parts: list[Any]) -> Node:
        placed, negation, sign, literal = parts
        words = tuple(dict.fromkeys(without_accents(_text(placed, literal, "~")).split()))
        if not words:
            raise _Fault(literal.place, "~ looks for words, and here is none.")
        return Fuzzy(placed.field, words, (negation is not None) != (sign == "!~"))

    def is_null(self, parts: list[Any]) -> Node:
        placed, negation = parts
        null = IsNull(placed.field)
        return null if negation is None else Not(null)

    def field(self, parts: list[Any]) -> _Placed:
        name, step = parts
        return _Placed(_field(name, step), name.start_pos)

    def value(self, parts: list[Any]) -> _Literal:
        (token,) = parts
        kind, text, place = token.type, str(token), token.start_pos
        if kind == "WORD":
            raise _Fault(place, f"a text stands in quotes, '{text}'.")
        if kind == "NUMBER":
            number = float(text)
            if math.isinf(number):
                raise _Fault(place, "this number is beyond 1.8e308, the greatest that 64 bits hold.")
            return _Literal(kind, number, text, place)
        if kind == "STRING":
            quote = text[0]
            text = text[1:-1].replace(quote * 2, quote)
        return _Literal(kind, text, text, place)


def _flat(kind: type[And] | type[Or], parts: list[Node]) -> tuple[Node, ...]:
    """The parts, and in place of one of the same kind its own."""
    return tuple(each for part in parts for each in (part.parts if isinstance(part, kind) else (part,)))


def _field(name: Any, step: Any) -> Field:
    """The field of a name.

    Args:
        name: the token: a prefix and a key, or an attribute.
        step: the token in the parentheses after it, None without any.
    """
    place = name.start_pos
    first, dot, rest = name.partition(".")
    if not dot:
        attribute = _attribute(first, place)
        if step is not None:
            raise _Fault(step.start_pos - 1, f"only metrics have values at steps, {attribute.name} has not.")
        return attribute
    parts = [
        (doubled.replace('""', '"') or ticked or bare, not bare)
        for doubled, ticked, bare in _PART.findall("." + rest)
    ]
    key = ".".join(part for part, _ in parts)
    subject = _subject.get()
    prefix = subject.prefixes.get(first.lower())
    if prefix is None:
        rooms = "metrics, params, tags and attributes" if subject is RUN else "metadata and attributes"
        raise _Fault(
            place,
            f"there is nothing called {_short(first)}, only {rooms}{_nearest(first, subject.prefixes)}.",
        )
    if not key:
        raise _Fault(place, f"{first} has no name in the quotes.")
    if step is not None and (prefix != "metrics" or parts[-1] != ("at", False) or len(parts) == 1):
        raise _Fault(step.start_pos, "a step stands after at, as in metrics.loss.at(100).")
    if prefix == "attributes":
        return _attribute(key, place + len(first) + 1)
    if prefix == "metadata":
        return Metadata(key)
    if prefix != "metrics":
        return Param(key) if prefix == "params" else Tag(key)
    last, quoted = parts[-1]
    whole = ".".join(part for part, _ in parts[:-1])
    if step is not None:
        return Metric(whole, step=_step(step))
    if whole and not quoted and last.lower() in STATISTICS:
        return Metric(whole, last.lower())
    return Metric(key)


def _attribute(name: str, place: int) -> Attribute:
    subject = _subject.get()
    wanted = subject.aliases.get(name.lower(), name.lower())
    if wanted in subject.attributes:
        return Attribute(wanted)
    if room := subject.prefixes.get(wanted):
        example = {"metrics": "loss", "metadata": "language"}.get(room, "lr")
        raise _Fault(place, f"after {name} comes a dot and a name, as in {name}.{example}.")
    names = {**subject.attributes, **subject.aliases, **subject.prefixes}
    raise _Fault(
        place,
        f"{subject.name} has no attribute {_short(name)}{_nearest(wanted, names)}; there are "
        f"{', '.join(subject.attributes)}. {subject.rest}",
    )


def _step(token: Any) -> int:
    digits = token.lstrip("+-")
    if not (digits.isascii() and digits.isdigit() and len(digits) < 19):
        raise _Fault(token.start_pos, "a step is a whole number of at most 18 digits.")
    return int(token)


def _comparable(placed: _Placed, literals: list[_Literal]) -> list[Value]:
    """The values that a field is compared with, all of one kind that it has."""
    kind = placed.field.kind
    if kind == "time":
        return [_moment(each) for each in literals]
    for each in literals:
        if kind == "number" and each.kind != "NUMBER":
            raise _Fault(each.place, f"{placed.field} is a number, and this is none.")
        if each.kind not in ("STRING", "NUMBER"):
            raise _Fault(
                each.place,
                f"{placed.field} is a text: put quotes around it, or compare a time such as "
                f"{_time_of(_subject.get())}.",
            )
        if each.kind != literals[0].kind:
            raise _Fault(
                each.place,
                "this is a number and the value before a text, or the other way round: ask for each with OR.",
            )
    return [each.value for each in literals]


def _time_of(subject: Subject) -> str:
    """An attribute that is a time."""
    return next(
        (name for name, kind in subject.attributes.items() if kind == "time"), "that of another field"
    )


def _text(placed: _Placed, literal: _Literal, word: str) -> str:
    if placed.field.kind != "text":
        raise _Fault(placed.place, f"{word} looks into texts, and {placed.field} is a {placed.field.kind}.")
    if literal.kind != "STRING":
        raise _Fault(literal.place, f"after {word} comes a text in quotes.")
    return str(literal.value)


def _moment(literal: _Literal) -> datetime:
    """The moment that is meant; a number is one of milliseconds since 1970, as in MLflow."""
    now = _now.get()
    try:
        if not isinstance(literal.value, str):
            return datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=literal.value)
        if literal.value.strip().lower() in ("now", "now()"):
            return now
        if ago := _AGO.fullmatch(literal.value):
            count, unit = ago.groups()
            if (seconds := _UNITS.get(unit.lower())) is None:
                raise _Fault(literal.place, f"{unit} is no unit of time: it is one of s, min, h, d and w.")
            return now - timedelta(seconds=float(count) * seconds)
        moment = datetime.fromisoformat(literal.value.strip())
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except OverflowError:
        told = "this time is before the year 1 or after 9999."
    except ValueError as fault:
        told = f"this is no time ({fault}): write 2026-01-31, 2026-01-31T09:30:00Z, now or 7d ago."
    raise _Fault(literal.place, told)


def _unexpected(text: str, place: int, expected: Iterable[str]) -> str:
    """What is told where the text goes on as no filter does."""
    rest = text[place:]
    if rest.startswith("."):
        return "after this dot comes a name: of letters, digits and _ / : @ + % -, or anything in quotes that are closed."
    if not rest.strip():
        found = "here the text ends"
    elif rest[0] in "'\"`" and text.count(rest[0]) % 2:
        return f"the quote {rest[0]} is opened here and never closed. A quote within a text is doubled."
    else:
        word = re.match(r"[\w.]+|\S", rest)
        found = f"{_short(word.group() if word else rest[0])} cannot stand here"
    names = set(expected)
    if "OPERATOR" in names:  # the parenthesis of a step, which is none of its own
        names -= {"LPAR"}
    example = _subject.get().example
    wanted = [words.format(example=example) for name, words in _WORDS.items() if name in names]
    hint = ""
    if (word := re.match(r"[^\W\d]\w*", rest)) and word.group().upper() not in _KEYWORDS:
        hint = _nearest(word.group().upper(), _KEYWORDS)
    return f"{found}{hint}{'; expected is ' + _listed(wanted) if wanted else ''}."


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} or {words[-1]}"


def _nearest(name: str, names: Iterable[str]) -> str:
    close = get_close_matches(name, list(names), n=1)
    return f" (do you mean {close[0]}?)" if close else ""


def _short(text: str) -> str:
    return repr(f"{text[:37]}..." if len(text) > 40 else str(text))


def _shown(text: str, place: int) -> str:
    """The text around a place, and a caret below it."""
    plain = "".join(each if each.isprintable() else " " for each in text)
    start = max(0, min(place - _SHOWN // 2, len(plain) - _SHOWN))
    before, after = "..." if start else "", "..." if start + _SHOWN < len(plain) else ""
    return f"  {before}{plain[start : start + _SHOWN]}{after}\n  {' ' * (len(before) + place - start)}^"
