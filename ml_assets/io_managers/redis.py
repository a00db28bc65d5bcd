"""Online features, for Dagster: rows that are looked up by their key. How they are kept is in stores/redis."""

from contextlib import nullcontext
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
            ValueError: the key column cannot hold such a value.
        """
        from ml_assets.stores.redis.lookup import lookup
        from ml_assets.tables.arrow_types import never_written
        from ml_assets.tables.inference import table_asset

        name = table_asset(asset.split("/"), self.store)
        contract = (self.contracts or {}).get(asset) or self.table_store().last_contract(name)
        if contract is None:
            raise never_written(asset)
        cache = self.redis.client()
        with cache or nullcontext():
            return lookup(cache, self.postgres, contract, entity)

    def _output_contract(self, context: "OutputContext", rows: Any) -> Contract:
        from ml_assets.errors import ContractViolation

        contract = super()._output_contract(context, rows)
        if contract.partition_column and not contract.unique_across_days:
            raise ContractViolation(
                f"{contract.asset}: a key may stand in several partitions, but a row is looked up by its key alone: "
                "name the metadata 'unique_across_days': True if it stands in one only, or make the asset a table "
                "without partitions. Nothing was written."
            )
        if len(contract.key) != 1:
            raise ContractViolation(
                f"{contract.asset} has {', '.join(contract.key) or 'no column'} as its key, but rows are looked up by "
                "the value of one column: name it in the metadata 'key'. Nothing was written."
            )
        if contract.by_name[contract.key[0]].type == "vector":
            raise ContractViolation(
                f"{contract.asset} has the vector {contract.key[0]!r} as its key, and no row can be looked up by one: "
                "name another column in the metadata 'key'. Nothing was written."
            )
        return contract

    def table_store(self) -> RedisStore:
        """The store over this manager's resources."""
        return RedisStore(self.redis, self.postgres)
