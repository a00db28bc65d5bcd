"""What `ml-assets runs check` prints."""

from ml_assets.cli.command import Form
from ml_assets.cli.data import print_table
from ml_assets.settings import Settings
from ml_assets.stack import Stack


def check(settings: Settings, everything: bool, form: Form) -> bool:
    """Print what is wrong with runs.

    Args:
        settings: whose.
        everything: also what was told before.
        form: of the answer.

    Returns:
        whether there is something new.
    """
    from ml_assets.operations.run_watch import counts

    found = Stack(settings).experiments.check("cli")
    shown = found if everything else found.filter(found["new"])
    if form != "table":
        print_table(shown, form)
    else:
        if shown.num_rows:
            print_table(shown, form)
        print(counts(found.to_pylist()))
    return any(found["new"].to_pylist())
