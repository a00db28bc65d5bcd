"""Tables in the lake, for Dagster. How they are written and read is in stores/duckdb."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ml_assets.contracts import Contract
from ml_assets.io_managers.base import TableIOManager
from ml_assets.lib.query import Query
from ml_assets.resources.duckdb import DuckLakeResource
from ml_assets.stores.duckdb import DuckLakeStore
from ml_assets.tables.validation import Limits, Window

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa


class DuckLakeIOManager(TableIOManager):
    """Writes and reads tables of the lake. Also takes a DuckDB relation or a `Query`, which runs in the lake.

    Args:
        lake: the lake.
    """

    store: ClassVar[str] = DuckLakeStore.prefix
    limits: ClassVar[Limits] = DuckLakeStore.limits

    lake: DuckLakeResource

    def table_store(self) -> DuckLakeStore:
        """The store over this manager's resource."""
        return DuckLakeStore(self.lake)

    def _rows(self, obj: Any) -> Any:
        if isinstance(obj, Query):
            return _query_reader(self.lake, obj)
        if type(obj).__name__ == "DuckDBPyRelation":
            return obj.to_arrow_reader(65_536)
        return obj

    def _brought_contract(self, asset: str, obj: Any) -> Contract | None:
        if asset in (self.contracts or {}) or not isinstance(obj, Query) or obj.contract is None:
            return None
        return replace(obj.contract, asset_key=asset)

    def _committed(self, obj: Any) -> None:
        if isinstance(obj, Query) and obj.committed is not None:
            obj.committed()

    def _load(self, wanted: Any, contract: Contract, columns: Sequence[str], window: Window) -> Any:
        if getattr(wanted, "__name__", "") == "DuckDBPyRelation":
            return self._relation(contract, columns, window)
        return super()._load(wanted, contract, columns, window)

    def _relation(
        self, contract: Contract, columns: Sequence[str], window: Window
    ) -> "duckdb.DuckDBPyRelation":
        """The rows as a lazy relation: what is asked of it is asked of the lake."""
        from ml_assets.stores.duckdb.rows import selected

        # The relation, and whatever is made from it, keeps the connection open.
        return selected(
            self.lake, contract, columns, window, lambda statement: self.lake.open().sql(statement)
        )


def _query_reader(lake: DuckLakeResource, query: Query) -> "pa.RecordBatchReader":
    """A query's rows; its connection is closed when they are exhausted or dropped."""
    import pyarrow as pa

    if not query.tables:
        return lake.reader(query.sql, dict(query.parameters) or None)

    def batches() -> "Iterator[pa.RecordBatch]":
        with lake.get_connection() as connection:
            for name, table in query.tables.items():
                connection.register(name, table)
            stream = connection.execute(query.sql, dict(query.parameters) or None).to_arrow_reader(65_536)
            yield stream.schema  # pyright: ignore[reportReturnType]
            yield from stream

    stream = batches()
    schema: Any = next(stream)
    return pa.RecordBatchReader.from_batches(schema, stream)
