"""Serving: online features."""

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta

from ml_assets.contracts.columns import count, need, number, text, time
from ml_assets.contracts.feature_files import FeatureFile, feature_files
from ml_assets.contracts.model import Column, Contract
from ml_assets.lib.feature_header import FeatureHeader
from ml_assets.settings import Settings


def tables(settings: Settings) -> tuple[Contract, ...]:
    """The tables of the room; those of files that were never built have no contract yet."""
    return (*_own(), *_views(feature_files(settings)))


def online_contract(file: FeatureFile) -> Contract:
    """The contract of what is served of a file whose table has one: the newest row of each entity.

    Raises:
        ValueError: the file cannot be served; says why.
    """
    header, pinned = require_view(file), file.contract
    if pinned is None:
        raise ValueError(f"{file.path} cannot be served: its table was never built")
    for name in (*header.entity, header.event_time, header.known_time):
        if name is not None and name not in pinned.by_name:
            raise ValueError(
                f"{file.path} is online, and its table has no column {name!r}, which the header names"
            )
    columns = tuple(
        replace(column, nullable=column.nullable and column.name not in header.entity)
        for column in pinned.columns
    )
    return Contract(
        f"serving/{file.name}",
        f"the newest row of {file.name} of one {', '.join(header.entity)}, unless it is too old",
        columns,
        key=header.entity,
        mode="upsert_delete",
        event_time=header.event_time,
        ttl_s=None if header.ttl is None else header.ttl // timedelta(seconds=1),
    )


def require_view(file: FeatureFile) -> FeatureHeader:
    """The header of a file whose rows are looked up by an entity.

    Raises:
        ValueError: it is none, or names no entity or no event time.
    """
    header = file.header
    if header is None:
        raise ValueError(file.fault)
    if not header.is_view:
        raise ValueError(
            f"{file.path} is online, and its header names no {'event_time' if header.entity else 'entity'}: add that "
            "line, or take 'online: yes' out"
        )
    return header


def _views(files: Iterable[FeatureFile]) -> tuple[Contract, ...]:
    taken = {contract.asset for contract in _own()}
    found = []
    for file in files:
        if file.header and file.header.online and file.contract and f"serving/{file.name}" not in taken:
            with suppress(ValueError):  # its asset fails with the sentence
                found.append(online_contract(file))
    return tuple(found)


def _own() -> tuple[Contract, ...]:
    return (
        Contract(
            "serving/online_features",
            "the features of one model as they stand now, for lookup by its name",
            (
                need("model_name", "the entity"),
                need("run_id", "latest completed run"),
                text("model_version"),
                text("model_type"),
                text("dataset"),
                text("primary_metric", "canonical name of the metric that judges the run"),
                number("primary_value"),
                Column("primary_higher_is_better", "bool", description="whether a larger one is better"),
                number("previous_best_primary_value"),
                number("primary_change"),
                number("accuracy"),
                number("f1_score"),
                number("previous_best_accuracy"),
                number("accuracy_change"),
                count("previous_runs"),
                number("duration_s"),
                time("event_timestamp", "start of that run, UTC"),
            ),
            key=("model_name",),
            mode="upsert_delete",
        ),
    )
