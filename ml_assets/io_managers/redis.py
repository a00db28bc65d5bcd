"""Online features, for Dagster: rows that are looked up by their key. How they are kept is in stores/redis."""

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.postgres import PostgresResource
from ml_assets.resources.redis import RedisResource
from ml_assets.stores.redis import RedisStore
from ml_assets.tables.validation import Limits

if TYPE_CHECKING:
    from dagster import OutputContext


class RedisIOManager(TableIOManager):
    """Writes feature tables for lookup by key.

    Args:
        redis: the cache; nothing is cached where no Redis is to be had.
        postgres: the truth.
    """

    store: ClassVar[str] = RedisStore.prefix
    limits: ClassVar[Limits] = RedisStore.limits

    redis: RedisResource
    postgres: PostgresResource

    def lookup(self, asset: str, entity: Any) -> dict[str, Any] | None:
        """The row of one entity of an asset that this IO manager has written; None if there is none.

        Opens its connections anew. A server that answers many requests keeps a client and a contract and
        calls `lookup` of stores/redis/lookup.py.

        Args:
            asset: its key, parts separated by slashes.
            entity: value of its key column, or that value as text.

        Raises:
            LookupError: the asset was never written.
            StoreUnavailable: PostgreSQL does not answer, and is needed. A Redis that does not is no reason not to.
            ValueError: the key column cannot hold such a value.
        """
        from ml_assets.errors import StoreUnavailable
        from ml_assets.stores.redis.lookup import lookup
        from ml_assets.tables.arrow_types import never_written
        from ml_assets.tables.inference import table_asset

        name = table_asset(asset.split("/"), self.store)
        contract = (self.contracts or {}).get(asset) or self.table_store().last_contract(name)
        if contract is None:
            raise never_written(asset)
        try:
            cache = self.redis.client()
        except StoreUnavailable:
            cache = None  # PostgreSQL has the row, too
        with cache or nullcontext():
            return lookup(cache, self.postgres, contract, entity)

    def _output_contract(self, context: "OutputContext", rows: Any) -> Contract:
        from ml_assets.errors import ContractViolation

        contract = _as_view(super()._output_contract(context, rows), context.definition_metadata or {})
        if contract.partition_column and not contract.unique_across_days:
            raise ContractViolation(
                f"{contract.asset}: a key may stand in several partitions, but a row is looked up by its key alone: "
                "name the metadata 'unique_across_days': True if it stands in one only, or make the asset a table "
                "without partitions. Nothing was written."
            )
        if len(contract.key) != 1 and not (contract.key and contract.event_time):
            raise ContractViolation(
                f"{contract.asset} has {', '.join(contract.key) or 'no column'} as its key, but rows are looked up by "
                "the value of one column: name it in the metadata 'key'. Nothing was written."
            )
        for vector in (name for name in contract.key if contract.by_name[name].type == "vector"):
            raise ContractViolation(
                f"{contract.asset} has the vector {vector!r} as its key, and no row can be looked up by one: "
                "name another column in the metadata 'key'. Nothing was written."
            )
        return contract

    def table_store(self) -> RedisStore:
        """The store over this manager's resources."""
        return RedisStore(self.redis, self.postgres)


def _as_view(contract: Contract, metadata: Mapping[str, Any]) -> Contract:
    """The contract of a feature view, where the asset's metadata name an event time; the contract as it is elsewhere.

    Raises:
        ContractViolation: there is no such column, or it or the TTL cannot be one.
    """
    from ml_assets.errors import ContractViolation
    from ml_assets.tables.inference import plain_value

    event_time, ttl_s = (plain_value(metadata.get(name)) for name in ("event_time", "ttl_s"))
    if event_time is None or contract.event_time:
        return contract
    try:
        return replace(contract, event_time=event_time, ttl_s=ttl_s)
    except (ValueError, TypeError) as fault:
        raise ContractViolation(f"{fault}; correct the asset's metadata. Nothing was written.") from fault
