"""Which feature views there are, and what is in them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import timedelta
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ml_assets.contracts.feature_files import FeatureFile, feature_files
from ml_assets.contracts.model import Contract
from ml_assets.errors import Refusal, missing_table
from ml_assets.lib.point_in_time import View
from ml_assets.lib.sql import qualified
from ml_assets.settings import Settings

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

    from ml_assets.resources.duckdb import DuckLakeResource

_UNITS = (
    ("w", timedelta(weeks=1)),
    ("d", timedelta(days=1)),
    ("h", timedelta(hours=1)),
    ("m", timedelta(minutes=1)),
)


def views(settings: Settings) -> "pa.Table":
    """The files whose rows can be joined to an entity at a time; see `Features.views`."""
    import pyarrow as pa

    names = pa.list_(pa.string())
    schema = pa.schema(
        [
            ("view", pa.string()),
            ("entity", names),
            ("event_time", pa.string()),
            ("known_time", pa.string()),
            ("ttl", pa.string()),
            ("online", pa.bool_()),
            ("owner", pa.string()),
            ("tags", names),
            ("description", pa.string()),
        ]
    )
    rows = [
        {
            "view": file.name,
            "entity": list(header.entity),
            "event_time": header.event_time,
            "known_time": header.known_time or header.event_time,
            "ttl": header.ttl and span_text(header.ttl),
            "online": header.online,
            "owner": header.owner,
            "tags": list(header.tags),
            "description": header.description,
        }
        for file in feature_files(settings)
        if (header := file.header) is not None and header.is_view
    ]
    return pa.Table.from_pylist(rows, schema)


def span_text(span: timedelta) -> str:
    """A length of time as a file's header has it, in the largest unit that is whole."""
    for unit, length in _UNITS:
        if not span % length:
            return f"{span // length}{unit}"
    return f"{span.total_seconds():.0f}s"


def view_file(files: Iterable[FeatureFile], name: str) -> FeatureFile:
    """The file of a view.

    Raises:
        Refusal: there is no such view, its file names no entity and event time, or cannot be used.
    """
    named = {file.name: file for file in files}
    if (file := named.get(name)) is None:
        known = [each.name for each in named.values() if each.is_view]
        raise Refusal(f"There is no view {name!r}{_instead(name, known, 'features list')}")
    if file.fault:
        raise Refusal(f"The view {name!r} cannot be used: {file.fault.rstrip('.')}.")
    if not file.is_view:
        raise Refusal(
            f"{name!r} is a table, but no view that can be looked up by entity and time: let {file.path.name} name them "
            "in the comment at its top, '-- entity: COLUMN' and '-- event_time: COLUMN'."
        )
    return file


def column_of(view: View, name: str) -> str:
    """The column of a view that is meant.

    Raises:
        Refusal: there is none of this name.
    """
    if name not in view.types:
        told = _instead(name, view.types, f"features describe {view.name}")
        raise Refusal(f"The view {view.name!r} has no feature {name!r}{told}")
    return name


def _instead(name: str, known: Iterable[str], command: str) -> str:
    near = get_close_matches(name, list(known), 1)
    return f": do you mean {near[0]!r}?" if near else f": 'ml-assets {command}' lists what there is."


def lake_views(connection: "duckdb.DuckDBPyConnection", files: Sequence[FeatureFile]) -> list[View]:
    """Views as their tables stand in the lake.

    Args:
        connection: to the lake.
        files: of the views.

    Raises:
        StoreUnavailable: a table was never made.
        Refusal: a table does not have a column that the file's header names.
    """
    from ml_assets.stores.duckdb.ddl import columns_of

    places = [_place_of(file.asset) for file in files]
    tables = columns_of(connection, *places)
    found = []
    for file, place, columns in zip(files, places, tables, strict=True):
        if not columns:
            raise missing_table(file.asset)
        found.append(
            _view(file, qualified("lake", *place), {name: kind for name, (kind, _) in columns.items()})
        )
    return found


def _place_of(asset: str) -> tuple[str, str]:
    """Schema and name of an asset's table in the lake."""
    contract = Contract(asset, "", (), ())
    return contract.schema, contract.table


def _view(file: FeatureFile, relation: str, types: Mapping[str, str]) -> View:
    header = file.header
    if header is None or header.event_time is None:
        raise ValueError(f"{file.name} is no view")  # view_file finds views only
    event = header.event_time
    known = header.known_time if header.known_time != event else None
    key = file.contract.key if file.contract else header.key
    for name in (*header.entity, event, *([known] if known else []), *key):
        if name not in types:
            raise Refusal(
                f"The table of {file.asset} has no column {name!r}, which {file.path.name} names in the comment at its "
                "top: correct the name there, or materialize the table again."
            )
    for name in (event, known):
        if name and types[name] not in ("TIMESTAMP WITH TIME ZONE", "DATE"):
            raise Refusal(
                f"{file.path.name} names {name!r} as a time, and that column is {types[name]}: let the SELECT make it a "
                "TIMESTAMPTZ or a DATE."
            )
    # A key stands once, or once on each day that rows are stored by.
    if file.contract:
        day = None if file.contract.unique_across_days else file.contract.partition_column
    else:
        day = None if header.unique else header.partition
    # Without a key nothing tells rows apart but all that they hold.
    told: Iterable[str] = [*key, *([day] if day and day not in key else [])] if key else types
    rest = tuple(name for name in told if name not in {*header.entity, event, known})
    return View(file.name, relation, header.entity, event, known, header.ttl, rest, dict(types))


def features_of(view: View) -> tuple[str, ...]:
    """The columns of a view that `VIEW:*` stands for: all but entity and times."""
    taken = {*view.entity, view.event_time, view.known_time}
    return tuple(name for name in view.types if name not in taken)


def describe(settings: Settings, lake: "DuckLakeResource", name: str) -> "pa.Table":
    """The columns of a view; see `Features.describe`."""
    import pyarrow as pa

    from ml_assets.lib.lineage import Place, sql_origins
    from ml_assets.stores.duckdb.ddl import columns_of
    from ml_assets.stores.duckdb.select_file import parse_feature

    file = view_file(feature_files(settings), name)
    try:
        parsed = parse_feature(file.name, file.text)
    except ValueError as fault:
        raise Refusal(f"The view {name!r} cannot be read: {str(fault).rstrip('.')}.") from fault
    with lake.get_connection() as connection:
        (view,) = lake_views(connection, [file])
        places = [_place_of(parent) for parent in parsed.parents]
        held = columns_of(connection, *places) if places else []
    read = [
        Place(schema, table, parent, list(found))
        for parent, (schema, table), found in zip(parsed.parents, places, held, strict=True)
    ]
    origins = sql_origins(file.text, read, "duckdb")
    told = file.contract.by_name if file.contract else {}
    rows = [
        {
            "column": column,
            "type": kind,
            "role": _role(view, column, file.contract.key if file.contract else ()),
            "description": told[column].description or None if column in told else None,
            "sources": [str(source) for source in origins.columns.get(column, ())],
        }
        for column, kind in view.types.items()
    ]
    text = pa.string()
    fields = [(each, text) for each in ("column", "type", "role", "description")]
    return pa.Table.from_pylist(rows, pa.schema([*fields, ("sources", pa.list_(text))]))


def _role(view: View, column: str, key: Sequence[str]) -> str:
    if column in view.entity:
        return "entity"
    if column == view.event_time:
        return "event time"
    if column == view.known_time:
        return "known time"
    return "key" if column in key else "feature"
