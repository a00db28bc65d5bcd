"""What `ml-assets search` prints."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.cli.command import Form
from ml_assets.errors import Refusal
from ml_assets.lib.words import counted
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from rich.text import Text

SUBJECTS = ("documents", "runs")

_AROUND = 240
"""Characters of a passage that are shown: around the first words that were asked for."""

_COMMANDS = dict.fromkeys([*range(0x20), *range(0x7F, 0xA0)], " ")
"""Characters that a terminal obeys, and a document may hold."""


def search(settings: Settings, text: str, subject: str, form: Form, **asked: Any) -> None:
    """Print what is found, best first."""
    if subject not in SUBJECTS:
        raise Refusal(f"Nothing can be looked for in {subject!r}: it is one of {', '.join(SUBJECTS)}.")
    if subject == "runs" and asked.pop("passages") != 1:
        raise Refusal("A run has one card: --passages is for documents.")
    found = getattr(Stack(settings).search, subject)(text, **asked)
    if form == "json":
        import orjson

        print(orjson.dumps(found).decode())
    elif form == "csv":
        _print_csv(found, "document_id" if subject == "documents" else "run_id")
    else:
        print_hits(found, "document_id" if subject == "documents" else "run_id")


def _print_csv(found: list[dict[str, Any]], id: str) -> None:
    import pyarrow as pa

    from ml_assets.cli.data import print_table

    schema = pa.schema(
        [
            (id, pa.string()),
            ("score", pa.float64()),
            ("passage", pa.string()),
            ("title", pa.string()),
            ("word_rank", pa.int64()),
            ("meaning_rank", pa.int64()),
        ]
    )
    print_table(pa.Table.from_pylist(found, schema), "csv")


def print_hits(found: list[dict[str, Any]], id: str) -> None:
    """Print hits as people read them: what each is, and its passage, with the words that were asked for marked.

    Args:
        id: the key of its identifier in a hit, such as run_id.
    """
    from rich.console import Console
    from rich.text import Text

    # Text everywhere, since a passage may well hold what looks like markup.
    console = Console()
    for n, hit in enumerate(found, start=1):
        ranks = [
            f"{way} {hit[name]}"
            for way, name in (("words", "word_rank"), ("meaning", "meaning_rank"))
            if hit[name] is not None
        ]
        console.print(
            Text.assemble(
                (f"{n}. ", "dim"),
                ((hit["title"] or hit[id]).translate(_COMMANDS), "bold"),
                (f"  {hit[id].translate(_COMMANDS)}  {hit['score']:.4f}  ({', '.join(ranks)})", "dim"),
            )
        )
        console.print(_passage(hit["passage"].translate(_COMMANDS), hit["places"]), end="\n\n")
    console.print(Text(counted(len(found), "hit")))


def _passage(passage: str, places: list[tuple[int, int]]) -> "Text":
    """The part of a passage around the first words that were asked for, and those marked."""
    from rich.text import Text

    start = max(0, min(places[0][0] - _AROUND // 4, len(passage) - _AROUND)) if places else 0
    end = start + _AROUND
    # A word is not cut in two, if it is none that fills the screen.
    if start and (space := passage.find(" ", start, places[0][0])) > 0:
        start = space + 1
    if end < len(passage) and (space := passage.rfind(" ", start, end)) > start:
        end = space
    told = Text("   " + ("... " if start else ""))
    at = start
    for first, last in places:
        if last > end:
            break
        told.append(passage[at:first])
        told.append(passage[first:last], "bold yellow")
        at = last
    told.append(passage[at:end])
    return told.append(" ..." if end < len(passage) else "")


def draw_map(settings: Settings, subject: str, output: Path | None, show: bool, as_json: bool) -> None:
    """Write the map as a page and tell where it is; open it if asked."""
    import json
    import sys
    import webbrowser

    if subject not in SUBJECTS:
        raise Refusal(f"There is no map of {subject!r}: there is one of {' and one of '.join(SUBJECTS)}.")
    path = Stack(settings).search.map(subject, output).resolve()
    print(json.dumps({"in": subject, "path": str(path)}) if as_json else path)
    if show and not webbrowser.open(path.as_uri()):
        print(f"No browser could be opened: open {path.as_uri()} in one.", file=sys.stderr)
