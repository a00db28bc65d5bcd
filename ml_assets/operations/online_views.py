"""The rows that are served online: of each entity of a feature view the newest that counts now.

What belongs here: the SELECT, by the same rules as a join at a point in time. How rows are kept is in stores/redis.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.contracts import Contract
from ml_assets.lib.feature_header import FeatureHeader
from ml_assets.lib.sql import first_date, qualified, quote_identifier
from ml_assets.sql_files import read_sql
from ml_assets.tables.arrow_types import stream

if TYPE_CHECKING:
    from ml_assets.resources.duckdb import DuckLakeResource


def newest_rows(
    lake: "DuckLakeResource", contract: Contract, header: FeatureHeader, now: datetime
) -> pa.RecordBatchReader:
    """The rows of a view that count now, one an entity, as a stream.

    Args:
        contract: of the view's table in the lake.
        header: of its file.
        now: aware.
    """
    sql, values = newest_sql(contract, header, now)
    rows = lake.reader(sql, values)
    documents = {column.name for column in contract.columns if column.type == "json"}
    # As DuckDB gives it, JSON is text like any other.
    schema = pa.schema(
        [field.with_type(pa.json_()) if field.name in documents else field for field in rows.schema]
    )

    def batches() -> Iterator[pa.RecordBatch]:
        with rows:
            for batch in rows:
                columns = [
                    pa.ExtensionArray.from_storage(pa.json_(), column) if name in documents else column
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(columns, schema=schema)

    return stream(schema, batches())


def newest_sql(
    contract: Contract, header: FeatureHeader, now: datetime, table: str = ""
) -> tuple[str, dict[str, object]]:
    """The SELECT of `newest_rows` and its bound values.

    Of several rows of one event time that counts which was known last, and of those the greatest by the rest of the key.

    Args:
        table: in SQL; the lake's own if empty.
    """
    event_time = header.event_time or ""
    known_time = header.known_time or event_time
    times = list(dict.fromkeys([event_time, known_time]))
    values: dict[str, object] = {}
    conditions = [f"{quote_identifier(name)} IS NOT NULL" for name in header.entity]
    for number, name in enumerate(times):
        values[f"now_{number}"] = now.date() if _is_date(contract, name) else now
        conditions.append(f"{quote_identifier(name)} <= $now_{number}")
    if header.ttl is not None:
        oldest = now - header.ttl
        values["oldest"] = first_date(oldest) if _is_date(contract, event_time) else oldest
        kind = "DATE" if _is_date(contract, event_time) else "TIMESTAMPTZ"
        conditions.append(f"{quote_identifier(event_time)} >= $oldest::{kind}")
    rest = [name for name in contract.key if name not in (*header.entity, *times)]
    sql = read_sql("duckdb/serving/newest_of_entities.sql").format(
        columns=_listed(contract.names),
        table=table or qualified(contract.schema, contract.table),
        conditions=" AND ".join(conditions),
        entity=_listed(header.entity),
        order=", ".join(f"{quote_identifier(name)} DESC NULLS LAST" for name in (*times, *rest)),
    )
    return sql, values


def _is_date(contract: Contract, name: str) -> bool:
    return contract.by_name[name].type == "date"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(map(quote_identifier, names))
