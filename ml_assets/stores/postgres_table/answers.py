"""A person's query: one statement that changes nothing, whatever it says, and its rows as Arrow."""

from typing import TYPE_CHECKING

import pyarrow as pa

from ml_assets.errors import Refusal
from ml_assets.tables.answers import answered, not_answered, only_read
from ml_assets.tables.arrow_types import ARROW_TYPES, vectors_from_text

if TYPE_CHECKING:
    import psycopg

_KINDS: dict[str, pa.DataType | None] = {
    **dict.fromkeys(("int2", "int4", "int8", "oid"), pa.int64()),
    "float4": pa.float32(),
    "float8": pa.float64(),
    "bool": pa.bool_(),
    "date": pa.date32(),
    "timestamp": pa.timestamp("us"),
    "timestamptz": ARROW_TYPES["timestamp"],
    "bytea": pa.binary(),
    # Whose Arrow type depends on the values.
    **dict.fromkeys(("numeric", "interval", "time"), None),
}
"""Arrow's types by the names of PostgreSQL's; arrays are what their values are, and everything else is text."""


def answer(connection: "psycopg.Connection", query: str) -> pa.Table:
    """What a query answers.

    Args:
        connection: in a read-only transaction, and used for nothing else afterwards.

    Raises:
        Refusal: the query is wrong, is no query, or would change something.
    """
    import psycopg
    from psycopg.types.string import TextLoader

    # After its first snapshot no transaction can be made a writing one.
    connection.execute("SELECT 1")
    for name in ("json", "jsonb"):
        connection.adapters.register_loader(name, TextLoader)
    try:
        _require_query(connection, query)
        # Prepared, so that it is one statement: another one could end the transaction and go on without it.
        cursor = connection.execute(query.encode(), prepare=True)
        rows, columns = cursor.fetchall(), cursor.description or ()
        names = connection.execute(
            "SELECT oid::int8, typname FROM pg_type WHERE oid = ANY(%s)", [[c.type_code for c in columns]]
        )
        typnames: dict[int, str] = dict(names.fetchall())
    except psycopg.OperationalError:  # the time-out, or the server is gone
        raise
    except psycopg.errors.ReadOnlySqlTransaction as fault:
        raise only_read("PostgreSQL") from fault
    except psycopg.Error as fault:
        raise not_answered("PostgreSQL", fault) from fault
    kinds = [typnames.get(column.type_code, "") for column in columns]
    table = answered([c.name for c in columns], rows, [_kind(kind) for kind in kinds])
    for place, kind in enumerate(kinds):
        if kind == "vector":
            vectors = vectors_from_text(table.column(place).combine_chunks())
            table = table.set_column(place, table.schema.names[place], vectors)
    return table


def _kind(name: str) -> pa.DataType | None:
    return None if name.startswith("_") else _KINDS.get(name, pa.string())


def _require_query(connection: "psycopg.Connection", query: str) -> None:
    """Refuse what answers with no rows, before it is executed: some of it does things outside of any transaction."""
    import psycopg

    server = connection.pgconn
    for result in (server.prepare(b"", query.encode()), server.describe_prepared(b"")):
        if result.status != psycopg.pq.ExecStatus.COMMAND_OK:
            raise psycopg.errors.error_from_result(result)
    if result.nparams:
        raise Refusal(
            "PostgreSQL cannot answer this: there are no values for $1 and the like, write them out."
        )
    if not result.nfields:
        raise only_read("PostgreSQL")
