"""Contracts as text: as a store remembers by which one a table was made, and as one lies beside a feature file."""

import dataclasses
import json
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ml_assets.contracts.model import Column, Contract, ForeignKey


def contract_text(contract: Contract) -> str:
    """The contract as JSON, the same text for the same contract."""
    return json.dumps(dataclasses.asdict(contract), sort_keys=True)


def contract_of_text(text: str) -> Contract:
    """The contract that `contract_text` wrote."""
    return _contract(json.loads(text))


def pinned_text(contract: Contract) -> str:
    """The contract as JSON to be read and compared by people: what is as usual is left out, and the name, which is
    that of the file."""
    fields = _told(contract)
    fields.pop("asset")
    fields.pop("asset_key", None)
    lines = {
        name: json.dumps(value, ensure_ascii=False) for name, value in fields.items() if name != "columns"
    }
    columns = ",\n".join(
        f"    {json.dumps(_told(column), ensure_ascii=False)}" for column in contract.columns
    )
    lines["columns"] = f"[\n{columns}\n  ]"
    return "{\n" + ",\n".join(f'  "{name}": {value}' for name, value in lines.items()) + "\n}\n"


def pinned_contract(asset: str, text: str) -> Contract:
    """The contract that `pinned_text` wrote.

    Raises:
        ValueError: it is no JSON of a contract, or no lawful contract.
    """
    try:
        fields = {"asset": asset, **json.loads(text)}
        _form().validate_json(json.dumps(fields), strict=True)
        return _contract(fields)
    except ValidationError as fault:
        first = fault.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{where} is {first['input']!r}: {first['msg']}") from None
    except (TypeError, KeyError, AttributeError) as fault:  # another form
        raise ValueError(f"it is not the form of a contract: {fault}") from fault


@cache
def _form() -> TypeAdapter[Contract]:
    return TypeAdapter(Contract)


def _told(value: Any) -> dict[str, Any]:
    """The fields of a dataclass that differ from their defaults."""
    plain = dataclasses.asdict(value)
    return {
        field.name: plain[field.name]
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    }


def _contract(fields: dict[str, Any]) -> Contract:
    columns = tuple(Column(**{**c, "choices": tuple(c.get("choices", ()))}) for c in fields["columns"])
    foreign_keys = tuple(ForeignKey(**key) for key in fields.get("foreign_keys", ()))
    scope = tuple((name, value) for name, value in fields.get("scope", ()))
    names = {name: tuple(fields.get(name, ())) for name in ("key", "order_by", "nullable_key")}
    indexes = tuple(each if isinstance(each, str) else tuple(each) for each in fields.get("indexes", ()))
    given = {"columns": columns, "foreign_keys": foreign_keys, "scope": scope, "indexes": indexes}
    return Contract(**{**fields, **names, **given})
