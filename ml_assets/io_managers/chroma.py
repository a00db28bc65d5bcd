"""Collections in Chroma, for Dagster. How they are written, read and searched is in stores/chroma."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.resources.chroma import ChromaResource
from ml_assets.resources.postgres import PostgresResource
from ml_assets.stores.chroma import ChromaStore
from ml_assets.stores.chroma.collections import Similar
from ml_assets.tables.validation import Limits

if TYPE_CHECKING:
    from dagster import OutputContext


class ChromaIOManager(TableIOManager):
    """Writes and reads collections of Chroma.

    Args:
        chroma: the server.
        postgres: where the manifest is kept.
    """

    store: ClassVar[str] = ChromaStore.prefix
    limits: ClassVar[Limits] = ChromaStore.limits

    chroma: ChromaResource
    postgres: PostgresResource

    def query_similar(
        self, asset: str, vector: Sequence[float], top_k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[Similar]:
        """The rows of an asset whose vectors are nearest to the given one; see `ChromaStore.query_similar`.

        Args:
            asset: its key, parts separated by slashes.
        """
        from ml_assets.tables.inference import table_asset

        collection = table_asset(asset.split("/"), self.store).rpartition("/")[2]
        return self.table_store().query_similar(collection, vector, top_k, where)

    def _output_contract(self, context: "OutputContext", rows: Any) -> Contract:
        from ml_assets.errors import ContractViolation

        contract = super()._output_contract(context, rows)
        vectors = [column.name for column in contract.columns if column.type == "vector"]
        if len(vectors) != 1 or not contract.key:
            raise ContractViolation(
                f"{contract.asset} has {'the key ' + ', '.join(contract.key) if contract.key else 'no key'} and "
                f"{len(vectors)} columns with vectors, but a collection of Chroma needs a key and one such column: "
                "name the metadata 'key' and return one column with lists of floats. Nothing was written."
            )
        return contract

    def table_store(self) -> ChromaStore:
        """The store over this manager's resources."""
        return ChromaStore(self.chroma, self.postgres)
