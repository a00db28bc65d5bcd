"""`ml-assets maintenance`: the nightly round of maintenance at once, and what it did."""

import json
from dataclasses import asdict

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.cli.report import byte_size
from ml_assets.settings import Settings


def maintenance(settings: Settings, as_json: bool) -> bool:
    """Make a round of maintenance and tell what was done; whether all of it could be.

    Raises:
        Refusal: there is no home, and no store is a server.
    """
    from ml_assets.cli.instance import open_instance
    from ml_assets.operations.upkeep import keep_small
    from ml_assets.resources import store_resources

    settings.require_home()
    with open_instance(settings) as instance:
        found = keep_small(settings, store_resources(settings), instance)
    told = [asdict(each) for each in found]
    if as_json:
        print(json.dumps({"parts": told}))
    else:
        table = Table("part", "before", "after", "what", title="Kept small")
        for column in table.columns[1:3]:
            column.justify = "right"
        for each in told:
            done = Text(" ".join(filter(None, (*each["done"], each["fault"]))))
            table.add_row(
                each["store"], byte_size(each["bytes_before"]), byte_size(each["bytes_after"]), done
            )
        Console().print(table)
    return not any(each["fault"] for each in told)
