"""Features online: the newest values of entities, from Redis or from PostgreSQL, in one round trip.

What belongs here: what people name, and what becomes of what was served. How a request is answered is in
stores/redis/online.py.
"""

import random
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.errors import Refusal, StoreUnavailable
from ml_assets.stores.redis.background import Background
from ml_assets.stores.redis.online import OnlineReader, OnlineRow, Plan
from ml_assets.stores.redis.served import ServedLog

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

    from ml_assets.resources.postgres import PostgresResource
    from ml_assets.resources.redis import RedisResource

_LOOKED_S = 60.0
"""How often it is looked whether a view has other columns or another TTL by now."""

_PLANS = 256
"""Requests that are kept ready. An application asks the same few again and again."""


class OnlineFeatures(list[OnlineRow]):
    """What was asked for, a row an entity, in the order of the entities.

    A row has `.entity`, `.values` by feature, and `.views`: by view `served_from` (`redis`, `postgres` or `none`),
    `event_timestamp` and `age_s`.

    Args:
        rows: of the entities.
        features: by view, the names of its features in the answer.
    """

    def __init__(self, rows: Iterable[OnlineRow], features: Mapping[str, Sequence[str]]) -> None:
        super().__init__(rows)
        self.features = features

    def dicts(self) -> list[dict[str, Any]]:
        """The rows without structure: the entity's columns, the features, and VIEW__served_from, VIEW__event_timestamp
        and VIEW__age_s.

        Raises:
            Refusal: two of these have one name, such as a column that was carried along and a feature.
        """
        return [_flat(row) for row in self]

    def to_arrow(self) -> "pa.Table":
        """The rows of `dicts` as an Arrow table."""
        import pyarrow as pa

        return pa.Table.from_pylist(self.dicts())

    def to_pandas(self) -> "pd.DataFrame":
        """The rows of `dicts` as a DataFrame."""
        return self.to_arrow().to_pandas()


def _flat(row: OnlineRow) -> dict[str, Any]:
    """A row of `OnlineFeatures.dicts`."""
    told = {
        f"{view}__{name}": value
        for view, served in row.views.items()
        for name, value in served._asdict().items()
    }
    flat = {**row.entity, **row.values, **told}
    if len(flat) < len(row.entity) + len(row.values) + len(told):
        [twice, *_] = [
            name for name in flat if (name in row.entity) + (name in row.values) + (name in told) > 1
        ]
        raise Refusal(
            f"The answer has {twice!r} twice, "
            + ("as a column of the entities" if twice in row.entity else "as what is told of a view")
            + (" and as a feature" if twice in row.values else " and as what is told of a view")
            + ": ask without one of them, or read .entity, .values and .views of each row."
        )
    return flat


class Online:
    """Answers requests for features of entities.

    Args:
        redis, postgres: have the rows.
        known: names of the views that are to be served, for sentences.
        log_share: share of the requests that are logged.
    """

    def __init__(
        self,
        redis: "RedisResource",
        postgres: "PostgresResource",
        known: Callable[[], Sequence[str]],
        log_share: float = 0.0,
    ) -> None:
        self._known = known
        self._reader = OnlineReader(redis, postgres)
        self._log_share = log_share
        # Of its own: bringing a copy up to date may take long.
        self._logging = Background()
        self._log = ServedLog(postgres, self._logging)
        self._contracts: dict[str, Contract] = {}
        self._plans: dict[tuple[str, ...], Plan] = {}
        self._looked = time.monotonic()

    def read(self, entities: Any, features: str | Sequence[str]) -> OnlineFeatures:
        """See `Features.online`."""
        names = (features,) if isinstance(features, str) else tuple(features)
        if time.monotonic() - self._looked > _LOOKED_S:
            self._looked = time.monotonic()
            self._reader.background.leave(self._look_again)
        plan = self._plans.get(names) or self._planned(names)
        try:
            rows, now = self._reader.read(plan, _listed(entities))
        except ValueError as fault:
            raise Refusal(str(fault)) from fault
        if self._log_share and random.random() < self._log_share:  # noqa: S311 - which requests are logged is no secret
            self._log.take(plan.lines(rows, now))
        return OnlineFeatures(rows, plan.features)

    def _look_again(self) -> None:
        with suppress(StoreUnavailable):  # what is known is good enough until PostgreSQL answers
            self._learn()

    def _learn(self) -> None:
        """Read the views' contracts anew; requests that were made ready by others are made ready again."""
        contracts = self._reader.contracts()
        if contracts != self._contracts:
            self._contracts, self._plans = contracts, {}

    def settle(self) -> bool:
        """Wait until what requests have left to be done is done; whether it is."""
        return self._reader.background.finish() and self._logging.finish()

    def _planned(self, names: tuple[str, ...]) -> Plan:
        # Before the contracts: where another thread learns new ones meanwhile, this plan goes with the old plans.
        plans = self._plans
        try:
            wanted = list(_wanted(names, self._contracts, self._known))
        except Refusal:
            self._learn()  # written since, perhaps, or with another column
            plans = self._plans
            wanted = list(_wanted(names, self._contracts, self._known))
        if len(plans) >= _PLANS:
            plans.clear()
        plan = plans[names] = Plan(wanted)
        return plan


def _wanted(
    names: Sequence[str], contracts: Mapping[str, Contract], known: Callable[[], Sequence[str]]
) -> Iterator[tuple[Contract, dict[str, str]]]:
    """Views and their features, each with its name in the answer: `view__feature` where two views have one of the name,
    or a view is looked up by a column of the name.

    Raises:
        Refusal: there is no such view or feature, or none is named.
    """
    asked: dict[str, list[str]] = {}
    for name in names:
        view, colon, feature = name.partition(":")
        if not view or (colon and not feature):
            raise Refusal(
                f"{name!r} names no feature: write VIEW:FEATURE, or VIEW:* or VIEW for all of a view."
            )
        if view not in contracts:
            raise Refusal(_no_view(view, contracts, known))
        have = [each for each in contracts[view].names if each not in contracts[view].key]
        if feature not in ("", "*", *have):
            raise Refusal(f"The view {view} has no feature {feature!r}: {_nearest(feature, have)}")
        every = [each for each in have if each != contracts[view].event_time]
        asked.setdefault(view, []).extend(every if feature in ("", "*") else [feature])
    if not asked:
        raise Refusal(
            "No feature is asked for: name at least one as VIEW:FEATURE, or VIEW for all of a view."
        )
    counts: dict[str, int] = {}
    for features in asked.values():
        for feature in dict.fromkeys(features):
            counts[feature] = counts.get(feature, 0) + 1
    keys = {name for view in asked for name in contracts[view].key}
    for view, features in asked.items():
        yield (
            contracts[view],
            {
                feature: feature if counts[feature] == 1 and feature not in keys else f"{view}__{feature}"
                for feature in dict.fromkeys(features)
            },
        )


def _no_view(view: str, contracts: Mapping[str, Contract], known: Callable[[], Sequence[str]]) -> str:
    there = known()
    if view in there:
        return (
            f"The view {view} was not brought online yet: materialize serving/{view}, in the UI or by "
            "'ml-assets refresh'."
        )
    return f"There is no view {view!r} online: {_nearest(view, sorted({*contracts, *there}))}"


def _nearest(name: str, there: Sequence[str]) -> str:
    if near := get_close_matches(name, there, 1):
        return f"did you mean {near[0]}?"
    if there:
        return f"there are {', '.join(there)}."
    return "a file of features is served if its header says 'online: yes'."


def _listed(entities: Any) -> Sequence[Mapping[str, Any]]:
    """Entities as a list of dicts, whatever they were given as."""
    if isinstance(entities, list):
        given = entities
    elif isinstance(entities, Mapping):
        given = _of_columns(entities)
    elif hasattr(entities, "to_pylist"):  # an Arrow table
        given = entities.to_pylist()
    elif hasattr(entities, "to_dict"):  # a DataFrame
        given = entities.to_dict("records")
    else:
        given = list(entities)
    for number, entity in enumerate(given):
        if not isinstance(entity, Mapping):
            raise Refusal(
                f"Entity {number} is {entity!r}: give each as a dict of its columns, such as {{'model_name': 'cats'}}."
            )
    return given


def _of_columns(entities: Mapping[str, Any]) -> list[dict[str, Any]]:
    columns = {
        name: [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)
        for name, value in entities.items()
    }
    lengths = {name: len(values) for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        told = ", ".join(f"{name} has {length}" for name, length in lengths.items())
        raise Refusal(f"Columns of entities are equally long, and {told}.")
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
