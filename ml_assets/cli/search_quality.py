"""What `ml-assets search-quality` prints."""

from typing import TYPE_CHECKING

from ml_assets.cli.command import Form
from ml_assets.lib.retrieval import MEASURES
from ml_assets.settings import Settings
from ml_assets.stack import Stack

if TYPE_CHECKING:
    from ml_assets.operations.search_quality import Quality

_HEADINGS = ("nDCG@10", "recall@10", "MRR@10")


def search_quality(settings: Settings, judged_set: str | None, form: Form) -> bool:
    """Print how well documents are found; whether hybrid is no worse than the better of words and dense."""
    found = Stack(settings).search.quality(judged_set)
    if form == "json":
        import orjson

        print(orjson.dumps(found.as_json()).decode())
    elif form == "csv":
        import pyarrow as pa

        from ml_assets.cli.data import print_table

        print_table(pa.Table.from_pylist(found.rows()), "csv")
    else:
        _print(found)
    return not found.hybrid_is_worse


def _print(found: "Quality") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console()
    if not found.questions:
        console.print(
            Text("No question can be judged: land some in landing/judgments (docs/landing.md), and refresh.")
        )
    else:
        table = Table("set", "questions", "way", *_HEADINGS, box=None)
        for row in found.rows():
            numbers = [f"{row[name]:.3f}" for name in MEASURES]
            table.add_row(Text(row["set"]), f"{row['questions']:,}", row["way"], *numbers)
        console.print(table)
        console.print(Text(str(found.verdict)))
        console.print(
            Text(
                f"The index finds {found.index_recall:.4f} of the ten nearest passages ({found.indexed} questions)."
            )
        )
    for sentence in found.left_out:
        console.print(Text(f"Left out: {sentence}"))
