"""Pages as files: the style and script that they are made of, and one that is written whole or not at all."""

import os
import uuid
from collections.abc import Callable
from pathlib import Path

from ml_assets.errors import Refusal

_PARTS = Path(__file__).with_name("pages")


def page_part(name: str) -> str:
    """A file of style or script."""
    return (_PARTS / name).read_text(encoding="utf-8")


def write_page(path: Path | str, text: Callable[[], str]) -> Path:
    """Write a page to a file, in place of one that is there, whole or not at all.

    Args:
        path: of the file.
        text: makes the page, once the path is known to be one that can be written.

    Raises:
        Refusal: the file ends in neither .html nor .htm, or there is no such folder.
    """
    path = Path(path)
    if path.suffix.lower() not in (".html", ".htm"):
        raise Refusal(f"{path} is no name of a page: name a file that ends in .html.")
    if not path.parent.is_dir():
        raise Refusal(
            f"There is no folder {path.parent} to write {path.name} to: make it, or name another path."
        )
    if path.is_dir():
        raise Refusal(f"{path} is a folder: name a file that ends in .html.")
    page = text()
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        with draft.open("w", encoding="utf-8") as file:
            file.write(page)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    return path
