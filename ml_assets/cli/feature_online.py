"""`ml-assets features online`: what it prints."""

from collections.abc import Sequence

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.errors import Refusal
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def online(settings: Settings, entities: Sequence[str], views: Sequence[str], form: Form) -> None:
    """Print what is served: a row an entity for machines, a line a feature for people."""
    import pyarrow as pa

    rows = Stack(settings).features.online([_entity(text) for text in entities], views)
    if form != "table":
        print_table(rows.to_arrow(), form)
        return
    lines = []
    for row in rows:
        named = ", ".join(f"{name}={value}" for name, value in row.entity.items())
        for view, served in row.views.items():
            age = "" if served.age_s is None else f"{served.age_s:,.0f} s"
            lines += [
                {
                    "entity": named,
                    "view": view,
                    "feature": feature,
                    "value": None if (value := row.values[feature]) is None else str(value),
                    "served from": served.served_from,
                    "age": age,
                }
                for feature in rows.features[view]
            ]
    print_table(pa.Table.from_pylist(lines), form)


def _entity(text: str) -> dict[str, str]:
    """The columns of `model_name=cats,dataset=digits`; a comma that no name follows is a part of the value."""
    entity: dict[str, str] = {}
    last = ""
    for part in text.split(","):
        name, equals, value = part.partition("=")
        if equals and name.strip().isidentifier():
            last = name.strip()
            entity[last] = value
        elif last:
            entity[last] += f",{part}"
        else:
            raise Refusal(f"{text!r} names no entity: write COLUMN=VALUE, such as model_name=cats.")
    return entity
