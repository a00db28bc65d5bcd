"""Recording performance events from a program, many a second, so that none is lost and none counts twice.

What belongs here: which rows are accepted, and their ids. How they come to rest is told in tables/spool.py; whether they
keep their whole contract is judged when they are taken in, as with everybody's files.
"""

import hashlib
import threading
import weakref
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from ml_assets.contracts.streams import EVENT_KINDS
from ml_assets.errors import Refusal
from ml_assets.tables.land import json_value, land
from ml_assets.tables.spool import Spool
from ml_assets.tables.validation import shown_value

STREAM = "performance"
MAX_EVENTS = 100_000
MAX_SECONDS = 30.0

SKEW = timedelta(days=1)
"""How far ahead of this machine's clock an event's may be. Beyond it, a unit or a zone is wrong."""

_SMALL = 10_000
"""Arrow rows below which they are spooled; more make a landing file of their own."""

_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE


class Recorder:
    """Takes events and lands them: when they are many or old enough, when it is closed, and when the process ends.

    Any number of threads may share one. A forked child has a spool of its own.

    Args:
        landing: folder of the streams' folders.
        max_events: events at which they are landed.
        max_seconds: seconds after which they are landed, counted from the first one.
    """

    def __init__(self, landing: Path, max_events: int = MAX_EVENTS, max_seconds: float = MAX_SECONDS) -> None:
        if max_events < 1 or not 0 < max_seconds <= threading.TIMEOUT_MAX:  # a NaN is not, either
            raise Refusal(
                f"Events are landed after at least one of them and some time: {max_events} events and {max_seconds:g} s "
                "are none."
            )
        self._landing = landing
        self._spool = Spool(landing / STREAM, max_events, max_seconds)
        # Called when nobody has the recorder any more, and when the process ends.
        self.close = weakref.finalize(self, self._spool.land)

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self.flush()

    def record(self, events: Any) -> int:
        """Accept events, all of them or none; returns how many. See `Performance.record`."""
        if isinstance(events, Mapping):
            events = [events]
        if not hasattr(events, "__arrow_c_stream__"):
            if isinstance(events, str | bytes) or not isinstance(events, Iterable):
                raise Refusal(
                    f"Events are mappings of columns to values, or anything Arrow, and not {shown_value(events)}."
                )
            return self._record_rows(events)
        reader = pa.RecordBatchReader.from_stream(events)
        # A table, a batch or a data frame has a length, and a reader of what is still to come has none.
        if hasattr(events, "__len__") and len(events) < _SMALL:
            return self._record_rows(reader.read_all().to_pylist())
        return self._record_arrow(reader)

    def flush(self) -> Path | None:
        """Land what was recorded by now; the landing file, or None if there is nothing."""
        return self._spool.land()

    def _record_rows(self, events: Iterable[Mapping[str, Any]]) -> int:
        lines, count = bytearray(), 0
        for line in _lines(events):
            lines += line
            count += 1
        if count:
            self._spool.append(lines, count)
        return count

    def _record_arrow(self, reader: pa.RecordBatchReader) -> int:
        schema, counted = reader.schema, 0
        own, place = pa.field("event_id", pa.string()), schema.get_field_index("event_id")
        if place < 0:
            schema = schema.append(own)
        else:
            _refuse_ids(schema.field(place).type)
            schema = schema.set(place, own)

        def judged() -> Iterator[pa.RecordBatch]:
            nonlocal counted
            seen = dict[str, int]()
            for batch in reader:
                _refuse_bad(batch, counted)
                yield _with_ids(batch, schema, seen)
                counted += batch.num_rows

        land(self._landing, STREAM, pa.RecordBatchReader.from_batches(schema, judged()))
        return counted


def _lines(events: Iterable[Mapping[str, Any]]) -> Iterator[bytes]:
    """Events as JSON lines, each with an id."""
    latest, seen = datetime.now(UTC) + SKEW, dict[str, int]()
    for number, event in enumerate(events, 1):
        if not isinstance(event, Mapping):
            raise Refusal(
                f"Event {number} is {shown_value(event)}: give a mapping of columns to values. {_NONE}"
            )
        # A value that is null is as one that is not there: both are the same event.
        row = {name: value for name, value in event.items() if value is not None}
        row["timestamp"] = _time(number, row.get("timestamp"), latest)
        if row.get("kind") not in EVENT_KINDS:
            raise _refused(number, "kind", row.get("kind"), f"give {' or '.join(EVENT_KINDS)}")
        if not row.get("model_name") or not isinstance(row["model_name"], str):
            raise _refused(number, "model_name", row.get("model_name"), "name the model that was asked")
        try:
            for name, value in row.items():
                if type(value) is float:  # most values, and `json_value` is a call
                    if value - value != 0:
                        row[name] = json_value(name, value)
                elif type(value) not in _AS_THEY_ARE:
                    row[name] = json_value(name, value)
            given = row.get("event_id")
            if given is None or given == "":
                row.pop("event_id", None)
                content = orjson.dumps(row, default=_number, option=_SORTED)
                yield b'{"event_id":"%b",%b' % (_identity(content, seen).encode(), content[1:])
            elif isinstance(given, str):
                yield orjson.dumps(row, default=_number, option=orjson.OPT_APPEND_NEWLINE)
            else:
                raise _refused(number, "event_id", given, "give text, or none and it gets one")
        except (TypeError, ValueError) as fault:
            raise Refusal(
                f"Event {number} has a value that is no JSON ({fault}): mend it. {_NONE}"
            ) from fault


_AS_THEY_ARE = frozenset({str, int, bool, type(None), datetime})
_NONE = "None of the batch was recorded."


def _time(number: int, value: Any, latest: datetime) -> datetime:
    """An event's time in UTC."""
    moment = value
    if isinstance(value, str):
        try:
            moment = datetime.fromisoformat(value)
        except ValueError:
            moment = None
    if not isinstance(moment, datetime):
        raise _refused(number, "timestamp", value, "give the time at which it happened, with its zone")
    if moment.tzinfo is None:
        raise _refused(number, "timestamp", value, "it has no time zone; give an aware datetime")
    if moment > latest:
        raise _refused(
            number, "timestamp", value, "that is more than a day ahead of this clock; mend one of them"
        )
    return _plain(moment)


def _plain(moment: datetime) -> datetime:
    """A time in UTC, and as Python's own where it is one of pandas', which orjson does not know."""
    if type(moment) is not datetime:
        moment = datetime.combine(moment.date(), moment.timetz())
    return moment if moment.tzinfo is UTC else moment.astimezone(UTC)


def _refused(number: int, column: str, value: Any, remedy: str) -> Refusal:
    return Refusal(f"Event {number} has the {column} {shown_value(value)}: {remedy}. {_NONE}")


def _number(value: Any) -> Any:
    """A scalar of numpy or a time of pandas, which orjson does not know, as one of Python."""
    if isinstance(value, datetime):
        return _plain(json_value("", value))
    if not hasattr(value, "item"):
        raise TypeError(f"{shown_value(value)} is no JSON value")
    return json_value("", value.item())


def _identity(content: bytes, seen: dict[str, int]) -> str:
    """An id made of what an event says: the same for a batch that is sent again, another for its equal beside it."""
    own = hashlib.blake2b(content, digest_size=16).hexdigest()
    seen[own] = before = seen.get(own, -1) + 1
    return hashlib.blake2b(b"%b%d" % (content, before), digest_size=16).hexdigest() if before else own


def _refuse_bad(batch: pa.RecordBatch, before: int) -> None:
    """The rules of `_lines` for columns.

    Args:
        before: events of the batches before.
    """
    for name in ("timestamp", "kind", "model_name"):
        if name not in batch.schema.names:
            raise Refusal(f"The events have no column {name}: add it. {_NONE}")
    kind = batch.schema.field("timestamp").type
    if not (pa.types.is_timestamp(kind) and kind.tz):
        raise Refusal(f"The column timestamp is {kind}: give timestamps with a time zone. {_NONE}")
    latest = pa.scalar(datetime.now(UTC) + SKEW, pa.timestamp("us", "UTC"))
    times = pc.cast(batch["timestamp"], pa.timestamp("us", "UTC"), safe=False)
    call = pc.call_function
    names = call("coalesce", [pc.cast(batch["model_name"], pa.string()), pa.scalar("")])
    kinds = pc.cast(batch["kind"], pa.string())
    known = call("is_in", [kinds], options=pc.SetLookupOptions(pa.array(EVENT_KINDS)))
    bad = (
        ("timestamp", call("is_null", [times]), "give the time at which it happened, with its zone"),
        (
            "timestamp",
            call("coalesce", [call("greater", [times, latest]), pa.scalar(False)]),
            "that is more than a day ahead of this clock; mend one of them",
        ),
        ("kind", call("invert", [known]), f"give {' or '.join(EVENT_KINDS)}"),
        ("model_name", call("equal", [names, pa.scalar("")]), "name the model that was asked"),
    )
    for column, rows, remedy in bad:
        place = pc.index(rows, True).as_py()
        if place >= 0:
            raise _refused(before + place + 1, column, batch[column][place].as_py(), remedy)


def _refuse_ids(kind: pa.DataType) -> None:
    words = kind.value_type if isinstance(kind, pa.DictionaryType) else kind
    if not (pa.types.is_string(words) or pa.types.is_large_string(words) or pa.types.is_null(words)):
        raise Refusal(f"The column event_id is {kind}: give text, or none and each event gets one. {_NONE}")


def _with_ids(batch: pa.RecordBatch, schema: pa.Schema, seen: dict[str, int]) -> pa.RecordBatch:
    """A batch in which each event has an id; empty text is none.

    Args:
        schema: of the batch, in which event_id is text.
        seen: how often each content was met that has got an id.
    """
    columns = {name: batch[name] for name in schema.names if name != "event_id"}
    ids: list[str | None] = [None] * batch.num_rows
    if "event_id" in batch.schema.names:
        given = pc.cast(batch["event_id"], pa.string())
        ids = given.to_pylist()
        if all(ids):
            return pa.RecordBatch.from_pydict({**columns, "event_id": given}, schema)
    rows = pa.RecordBatch.from_pydict(columns).to_pylist()
    for number, row in enumerate(rows):
        if not ids[number]:
            text = {name: json_value(name, value) for name, value in row.items() if value is not None}
            text["timestamp"] = _plain(text["timestamp"])
            ids[number] = _identity(orjson.dumps(text, default=str, option=_SORTED), seen)
    return pa.RecordBatch.from_pydict({**columns, "event_id": pa.array(ids, pa.string())}, schema)
