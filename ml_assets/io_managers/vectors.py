"""What IO managers of stores of vectors have in common: a search, and what a collection needs of a table."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ml_assets.contracts import Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.stores.vectors import VectorStore
from ml_assets.stores.vectors.port import Similar

if TYPE_CHECKING:
    from dagster import OutputContext


class VectorIOManager(TableIOManager):
    """Base of the IO managers of Chroma and Qdrant."""

    def query_similar(
        self, asset: str, vector: Sequence[float], top_k: int = 10, where: Mapping[str, Any] | None = None
    ) -> list[Similar]:
        """The rows of an asset whose vectors are nearest to the given one; see `VectorStore.query_similar`.

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
            has = f"the key {', '.join(contract.key)}" if contract.key else "no key"
            raise ContractViolation(
                f"{contract.asset} has {has} and {len(vectors)} columns with vectors, but a collection of "
                f"{self.table_store().title} needs a key and one such column: "
                "name the metadata 'key' and return one column with lists of floats. Nothing was written."
            )
        return contract

    @abstractmethod
    def table_store(self) -> VectorStore:
        """The store over this manager's resources."""
