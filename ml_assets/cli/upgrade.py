"""What `ml-assets upgrade` prints."""

import json
from dataclasses import asdict

from ml_assets.lib.home_format import FORMAT, DoneStep
from ml_assets.maintenance.upgrade import Step, done_steps, due_steps, open_home
from ml_assets.services.home import read_format
from ml_assets.settings import Settings


def upgrade(settings: Settings, dry_run: bool, as_json: bool) -> None:
    """Do the steps that are due, unless none is to be done, and tell of all."""
    settings.require_home()
    due = due_steps(settings.home)
    if due and not dry_run:
        open_home(settings)
        due = due_steps(settings.home)
    number, done = read_format(settings.home).number, done_steps(settings.home)
    if as_json:
        left = [{"number": step.number, "title": step.title} for step in due]
        print(json.dumps({"format": number, "newest": FORMAT, "done": list(map(asdict, done)), "due": left}))
        return
    print("\n".join([f"{settings.home} has format {number}; this release's is {FORMAT}.", *_told(done, due)]))


def _told(done: tuple[DoneStep, ...], due: list[Step]) -> list[str]:
    if not done and not due:
        return ["It was made so: no step was ever needed, and none is due."]
    return [
        *(
            f"Step {each.number}: {each.title}. Done {each.done_at} by release {each.version}."
            for each in done
        ),
        *(f"Step {each.number}: {each.title}. Due: 'ml-assets upgrade' does it." for each in due),
    ]
