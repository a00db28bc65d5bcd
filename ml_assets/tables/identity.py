"""Which changes of a contract a table survives.

What belongs here: comparing the contract by which a table was made with the one of now. What does not: comparing
columns with the real table; each store looks at its own.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from ml_assets.contracts import Contract
from ml_assets.errors import ContractViolation


def refuse_new_identity(
    old: Contract,
    new: Contract,
    drop: str,
    clustered: bool = False,
    indexed: bool = True,
    stored: Mapping[str, str] | None = None,
) -> None:
    """Refuse a change of what identifies or places a row, or says what a value means.

    Args:
        drop: the statement that makes way for a new table.
        clustered: whether `order_by` places rows in the store, too.
        indexed: whether the store keeps the key as an index. Without one, a key may gain columns: what was unique
            stays so.
        stored: the store's own type of each type, where several are stored alike: the table itself does not show
            such a change, and its values would be taken for what they are not.

    Raises:
        ContractViolation: key, partitions, a vector's dimension or a type differ, or it is another asset's table.
    """
    owners = {old.asset_key, new.asset_key} - {""}
    if len(owners) > 1 and new.mode != "upsert":  # which only adds: several may do so together
        raise ContractViolation(
            f"{new.asset}: the table is that of asset {old.asset_key!r}, and {new.asset_key!r} would replace its rows: "
            f"give one of them another name, or, if the asset was renamed, run {drop} and materialize all of it again. "
            "Nothing was written."
        )
    for (name, was), (_, now) in zip(_identity(old, clustered), _identity(new, clustered), strict=True):
        gained = name == "key" and not indexed and bool(was) and set(was) < set(now)
        if was != now and not gained:
            raise _changed(new, f"{name} was {was!r}", f"{now!r} in the contract", drop)
    if old.partition_us != new.partition_us:
        was, now = (timedelta(microseconds=each.partition_us) for each in (old, new))
        raise _changed(
            new, f"a stored partition was as long as {was}", f"{now} in the asset's definition", drop
        )
    kept = new.partition_column is not None or new.mode == "upsert"  # some rows, with their values of before
    for column in new.columns:
        before = old.by_name.get(column.name, column)
        if stored and kept and column.type != before.type and stored[column.type] == stored[before.type]:
            raise _changed(new, f"{column.name!r} was {before.type}", f"{column.type} in the contract", drop)
        if column.type == before.type == "vector" and column.dimension != before.dimension:
            was = f"the dimension of {column.name!r} was {before.dimension}"
            raise _changed(new, was, f"{column.dimension} in the contract", drop, _REPAIR)


_REPAIR = " ('ml-assets embeddings repair' does, for the texts of this project)"


def _identity(contract: Contract, clustered: bool) -> list[tuple[str, Any]]:
    names = ("key", "partition_column", "unique_across_days")
    order = [("order_by", contract.order_by or contract.key)] if clustered else []
    return [(name, getattr(contract, name)) for name in names] + order


def _changed(contract: Contract, was: str, now: str, drop: str, hint: str = "") -> ContractViolation:
    return ContractViolation(
        f"{contract.asset}: {was} when the table was made and is {now}; run {drop} and materialize all partitions "
        f"again{hint}, or undo the change. Nothing was written."
    )
