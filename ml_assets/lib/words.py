"""Words for what people read."""


def counted(count: int, one: str, many: str = "") -> str:
    """`1 file`, `2,000 files`; `many` where that is not the singular with an s."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
