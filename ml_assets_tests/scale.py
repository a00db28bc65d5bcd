"""How much a run of the tests takes on: enough for each change (`make test`), or ten times as much (`make test-all`).

What belongs here: numbers that only make a test look longer at the same thing. What does not: what it looks at.
"""

import os

LONG = os.environ.get("ML_ASSETS_TEST_SCALE") == "long"
"""Set by `make test-all` and `make faults`."""

KILLS = 100 if LONG else 8
"""Writers that are killed in each store."""

KILLED_INTAKES = 20 if LONG else 6

ROUNDS = 200 if LONG else 40
"""Rounds of maintenance of the lake beside writers."""

CYCLES = 1_000 if LONG else 10
"""Rounds of writes and maintenance that pinned versions of the lake have to survive."""


def examples(count: int) -> int:
    """Examples of a property: as many as given, or ten times as many."""
    return 10 * count if LONG else count


BACKUPS = 20 if LONG else 2
"""Backups under constant writes, each of which is restored."""

BACKFILLED_DAYS = 60 if LONG else 4
"""Days of the backfill that several machines share."""
