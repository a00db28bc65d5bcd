"""Reading feature views of entities, for requests that wait: any number of both in one round trip.

What belongs here: the plan of a request, which is made once, the way through it, which is short, and PostgreSQL where
Redis does not answer. What does not: names as people give them, and what becomes of what was served.
"""

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import orjson

from ml_assets.contracts import Contract
from ml_assets.errors import StoreUnavailable
from ml_assets.stores import postgres_table
from ml_assets.stores.redis import entities
from ml_assets.stores.redis.background import Background
from ml_assets.stores.redis.pointer import ask, pointer_of
from ml_assets.stores.redis.served import Line

if TYPE_CHECKING:
    from redis import ConnectionPool

    from ml_assets.stores.postgres_table.server import PostgresServer
    from ml_assets.stores.redis import RedisServer

_ANSWER_S = 1.0
"""How long Redis may take before PostgreSQL is asked."""

_AWAY_S = 1.0
"""How long Redis is not asked after it did not answer."""

_REFILL_S = 5.0
"""How often a view whose copy does not count is brought up to date, at most."""


class Served(NamedTuple):
    """What is known of one view's row of one entity.

    Args:
        served_from: `redis`, `postgres`, or `none` if there is no row, or only one that is too old.
        event_timestamp: from when the row holds.
        age_s: seconds since then.
    """

    served_from: Literal["redis", "postgres", "none"]
    event_timestamp: datetime | None
    age_s: float | None


class OnlineRow(NamedTuple):
    """What is known of one entity.

    Args:
        entity: as it was asked for.
        values: of the features, None where there is none.
        views: by view, where the values come from and how old they are.
    """

    entity: Mapping[str, Any]
    values: dict[str, Any]
    views: dict[str, Served]


@dataclass(frozen=True)
class _Slot:
    """One view of a request."""

    contract: Contract
    view: str
    group: int
    place: int
    wanted: tuple[tuple[str, str, Callable[[Any], Any] | None], ...]
    event_time: str
    ttl_s: float | None


class Plan:
    """A request that was made ready: which views, and which features under which names.

    Args:
        wanted: by view's contract, its features and their names in the answer.
    """

    def __init__(self, wanted: Sequence[tuple[Contract, Mapping[str, str]]]) -> None:
        groups: dict[tuple[tuple[str, str], ...], list[Contract]] = {}
        self.slots: list[_Slot] = []
        for contract, features in wanted:
            # Views share an entity's hash if they call it by the same columns; and one key serves them if those are
            # read alike.
            same = tuple(sorted((name, contract.by_name[name].type) for name in contract.key))
            group = groups.setdefault(same, [])
            self.slots.append(
                _Slot(
                    contract,
                    contract.table,
                    list(groups).index(same),
                    len(group),
                    tuple(
                        (name, shown, _READERS.get(contract.by_name[name].type))
                        for name, shown in features.items()
                    ),
                    contract.event_time or "",
                    contract.ttl_s,
                )
            )
            group.append(contract)
        self.groups = [
            _Group(views[0], tuple(view.table.encode() for view in views)) for views in groups.values()
        ]
        self.features = {slot.view: tuple(shown for _, shown, _ in slot.wanted) for slot in self.slots}
        self.pointers = [pointer_of(slot.contract) for slot in self.slots]

    def lines(self, rows: Sequence[OnlineRow], served_at: float) -> Iterator[Line]:
        """What was served, for the log: a line a row and view.

        Args:
            served_at: seconds since 1970.
        """
        for row in rows:
            keys = [group.key(row.entity) for group in self.groups]
            for slot in self.slots:
                served = row.views[slot.view]
                features = {name: row.values[shown] for name, shown, _ in slot.wanted}
                yield Line(
                    served_at,
                    slot.view,
                    keys[slot.group],
                    features,
                    served.served_from,
                    served.event_timestamp,
                )


class _Group:
    """Views of a request that are looked up by the same columns."""

    def __init__(self, contract: Contract, fields: tuple[bytes, ...]) -> None:
        self.contract = contract
        self.fields = fields
        columns = [contract.by_name[name] for name in contract.key]
        self._text = columns[0].name if len(columns) == 1 and columns[0].type == "string" else None

    def key(self, entity: Mapping[str, Any]) -> bytes:
        """The key of an entity; see `entities.key_of_entity`."""
        name = self._text
        if name is not None and type(value := entity.get(name)) is str:
            try:
                return entities.PREFIX + orjson.dumps({name: value})
            except TypeError:
                pass  # told below
        return entities.key_of_entity(self.contract, entity)


class OnlineReader:
    """Reads views of entities.

    It may be used by any number of threads; connections are kept for each.

    Args:
        redis: has the copies.
        postgres: has the truth.
    """

    def __init__(self, redis: "RedisServer", postgres: "PostgresServer") -> None:
        self._redis = redis
        self._postgres = postgres
        self._pool: ConnectionPool | None = None
        self._away_until = 0.0
        self._refilled: dict[str, float] = {}
        self._refilling: set[str] = set()
        self.background = Background()

    def contracts(self) -> dict[str, Contract]:
        """The views that were written, by name.

        Raises:
            StoreUnavailable: PostgreSQL does not answer.
        """
        with self._postgres.connect() as connection:
            found = postgres_table.contracts_of(connection, "serving")
        return {contract.table: contract for contract in found if contract.event_time}

    def read(self, plan: Plan, asked: Sequence[Mapping[str, Any]]) -> tuple[list[OnlineRow], float]:
        """What the views of a plan know of entities, in their order; and the time by which ages were judged, in seconds
        since 1970.

        Raises:
            ValueError: an entity lacks a column that it is looked up by, or has an impossible value there.
            StoreUnavailable: neither Redis nor PostgreSQL answers.
        """
        keys = [[group.key(entity) for entity in asked] for group in plan.groups]
        found = self._from_redis(plan, keys) if asked else None
        now = time.time()
        rows = [OnlineRow(entity, {}, {}) for entity in asked]
        missing: list[tuple[_Slot, list[int]]] = []
        for number, slot in enumerate(plan.slots):
            cells = found[1][slot.group] if found and found[0][number] else None
            lacking = self._take(slot, cells, rows, now)
            if lacking:
                missing.append((slot, lacking))
        if missing:
            self._from_postgres(missing, keys, rows, now)
        return rows, now

    @staticmethod
    def _take(slot: _Slot, cells: Any, rows: list[OnlineRow], now: float) -> list[int]:
        """Put what Redis has of one view into the rows; returns those that it has nothing for."""
        view, place, wanted, event_time = slot.view, slot.place, slot.wanted, slot.event_time
        ttl_s, loads = slot.ttl_s, orjson.loads
        lacking = []
        for number, (_, values, views) in enumerate(rows):
            text = cells[number][place] if cells is not None else None
            if text is None:
                for _, shown, _ in wanted:  # its place among the others
                    values[shown] = None
                lacking.append(number)
                continue
            try:
                row = loads(text)
            except orjson.JSONDecodeError:
                row = json.loads(text)  # NaN and infinities, which JSON proper has not
            stamp = _moment(row[event_time])
            age_s = now - stamp.timestamp()
            too_old = ttl_s is not None and age_s > ttl_s
            views[view] = _NONE if too_old else Served("redis", stamp, age_s)
            for name, shown, reader in wanted:
                value = None if too_old else row.get(name)
                values[shown] = value if reader is None or value is None else reader(value)
        return lacking

    def _from_redis(self, plan: Plan, keys: list[list[bytes]]) -> tuple[list[bool], list[list[Any]]] | None:
        """Of each view whether its copy counts; of each group and entity the views' rows. None if Redis is away."""
        from redis import RedisError

        if time.monotonic() < self._away_until:
            return None
        try:
            pool = self._pool or self._open()
            if pool is None:
                return None
            connection: Any = pool.get_connection()
            try:
                server = connection.ml_assets_server
                commands: list[tuple[Any, ...]] = [("MGET", *plan.pointers)]
                for group, of_group in zip(plan.groups, keys, strict=True):
                    if server.expires_fields:
                        commands += [("HMGET", key, *group.fields) for key in of_group]
                    else:
                        own = [entities.own_key(key, view) for key in of_group for view in group.fields]
                        commands.append(("MGET", *own))
                connection.send_packed_command(connection.pack_commands(commands))
                answers = [connection.read_response() for _ in commands]
                # The server that answered: a connection that was lost between two requests is opened anew.
                run = connection.ml_assets_server.run + b" "
            except BaseException:
                connection.disconnect()  # answers that nobody has read would be taken for those of the next request
                raise
            finally:
                pool.release(connection)
        except (RedisError, StoreUnavailable):
            self._away_until = time.monotonic() + _AWAY_S
            self._ask_for_refill(plan.slots)
            return None
        counts = [pointer is not None and pointer.startswith(run) for pointer in answers[0]]
        if not all(counts):
            self._ask_for_refill([slot for slot, good in zip(plan.slots, counts, strict=True) if not good])
        return counts, _by_group(plan, keys, answers[1:], server.expires_fields)

    def _open(self) -> "ConnectionPool | None":
        def greet(connection: Any) -> None:
            connection.on_connect()
            connection.ml_assets_server = ask(connection)

        self._pool = self._redis.pool(greet, _ANSWER_S)
        if self._pool is None:
            self._away_until = float("inf")
        return self._pool

    def _from_postgres(
        self,
        missing: list[tuple[_Slot, list[int]]],
        keys: list[list[bytes]],
        rows: list[OnlineRow],
        now: float,
    ) -> None:
        """Complete rows by what PostgreSQL has, which is asked once a view."""
        with self._postgres.connect() as connection:
            for slot, numbers in missing:
                contract = slot.contract
                of_group = keys[slot.group]
                there = entities.rows_of(connection, contract, {of_group[number] for number in numbers})
                for number in numbers:
                    row = there.get(of_group[number])
                    served = _NONE if row is None else _served(contract, row, now)
                    rows[number].views[slot.view] = served
                    if row is not None and served is not _NONE:
                        rows[number].values.update({shown: row[name] for name, shown, _ in slot.wanted})

    def _ask_for_refill(self, slots: Sequence[_Slot]) -> None:
        """Have the copies of views brought up to date that do not count: the server was restarted, or a writer died."""
        now = time.monotonic()
        for slot in slots:
            view = slot.view
            if view in self._refilling and self.background.runs:
                continue
            if now - self._refilled.get(view, -_REFILL_S) >= _REFILL_S:
                self._refilled[view] = now
                self._refilling.add(view)
                if not self.background.leave(partial(self._refill, slot.contract)):
                    self._refilling.discard(view)

    def _refill(self, contract: Contract) -> None:
        from redis import RedisError

        try:
            with suppress(RedisError, StoreUnavailable):  # still away: the next request asks again
                cache = self._redis.client()
                if cache is not None:
                    with cache:
                        entities.refresh(cache, self._postgres, contract)
                    self._away_until = 0.0
        finally:
            self._refilling.discard(contract.table)


_NONE = Served("none", None, None)


def _by_group(
    plan: Plan, keys: list[list[bytes]], answers: list[Any], expires_fields: bool
) -> list[list[Any]]:
    """Rows by group and entity, in each the views' in their order."""
    found, at = [], 0
    for group, of_group in zip(plan.groups, keys, strict=True):
        if expires_fields:
            found.append(answers[at : at + len(of_group)])
            at += len(of_group)
        else:
            width, flat = len(group.fields), answers[at]
            found.append([flat[n * width : (n + 1) * width] for n in range(len(of_group))])
            at += 1
    return found


def _served(contract: Contract, row: Mapping[str, Any], now: float) -> Served:
    moment = row[contract.event_time or ""]
    if not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, tzinfo=UTC)
    age_s = now - moment.timestamp()
    too_old = contract.ttl_s is not None and age_s > contract.ttl_s
    return _NONE if too_old else Served("postgres", moment, age_s)


def _moment(text: str) -> datetime:
    """An event time as it is kept; a date is its midnight in UTC."""
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


_READERS: dict[str, Callable[[Any], Any]] = {
    "timestamp": datetime.fromisoformat,
    "date": date.fromisoformat,
}
"""By type, what makes a value of what JSON has."""
