"""Which changes are found, and how many that are none? lib/episodes.py beside Apache Otava, on the same series.

Series: those of the Numenta Anomaly Benchmark that lie in ../shared/data/nab, by their labelled windows, and simulated
ones of a value an hour, stationary for 30 days and shifted by one standard deviation for two more. Ours sees one value
after the other and is judged by when it opened an episode. Otava sees a series as a whole and is judged by where it
puts a change point: of labelled series in hindsight, of simulated ones after the two days. Both with what they come
with, nothing is tuned. It is installed into an environment of its own, which goes with the run.

    python -m benchmarks regressions
"""

import csv
import json
import subprocess
import sys
import tempfile
import time
import venv
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ml_assets.lib.episodes import episodes

OTAVA = "apache-otava==0.8.0"

NAB = Path(__file__).parents[2] / "shared" / "data" / "nab"

PROBATION = 0.15
"""Share of a labelled series in which nothing is judged, as its benchmark has it."""

START = datetime(2026, 1, 1, tzinfo=UTC)
STATIONARY_DAYS, SHIFTED_DAYS, COPIES = 30, 2, 10

PEER = """
import json, sys, time
from otava.analysis import compute_change_points
found = []
for values in json.load(sys.stdin):
    started = time.process_time()
    points, _ = compute_change_points(values, window_len=50, max_pvalue=0.001, min_magnitude=0.0)
    found.append([[int(point.index) for point in points], time.process_time() - started])
json.dump(found, sys.stdout)
"""


class Series(NamedTuple):
    """A series and the windows in which something is to be found."""

    name: str
    times: list[datetime]
    values: list[float]
    windows: list[tuple[datetime, datetime]]
    judged: datetime


def main() -> None:
    """Make the series, ask both, print a table."""
    every = [*labelled(), *simulated()]
    ours = []
    for series in every:
        started = time.process_time()
        found = [each.opened_at for each in episodes(series.times, series.values)]
        ours.append((found, time.process_time() - started))
    theirs = [
        ([series.times[at] for at in places], seconds)
        for series, (places, seconds) in zip(every, peer(every), strict=True)
    ]
    names = list(dict.fromkeys(series.name for series in every))
    print(
        "| series | windows | ours: precision | recall | delay | s | Otava: precision | recall | delay | s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name in names:
        at = [place for place, series in enumerate(every) if series.name == name]
        cells = [
            judge([every[place] for place in at], [side[place] for place in at]) for side in (ours, theirs)
        ]
        windows = sum(len(every[place].windows) for place in at)
        print(f"| {name} | {windows} | {' | '.join(cells)} |", flush=True)


def judge(of: list[Series], found: list[tuple[list[datetime], float]]) -> str:
    """Precision, recall, mean delay in hours and processor seconds a series."""
    hit = false = windows = 0
    delays: list[float] = []
    for series, (times, _) in zip(of, found, strict=True):
        told = [moment for moment in times if moment >= series.judged]
        windows += len(series.windows)
        for first, last in series.windows:
            inside = [moment for moment in told if first <= moment <= last]
            hit += bool(inside)
            delays += [(min(inside) - first) / timedelta(hours=1)] if inside else []
        false += sum(not any(first <= moment <= last for first, last in series.windows) for moment in told)
    precision = f"{hit / (hit + false):.2f}" if hit + false else "-"
    delay = f"{np.mean(delays):.1f} h" if delays else "-"
    seconds = np.mean([each for _, each in found])
    return f"{precision} ({false} false) | {hit / windows:.2f} | {delay} | {seconds:.2f}"


def labelled() -> list[Series]:
    """Series of servers, with windows in which people saw something."""
    labels = json.loads((NAB / "windows.json").read_text()) if NAB.is_dir() else {}
    found = []
    for file in sorted(NAB.glob("*.csv")):
        with file.open() as rows:
            values = {_time(row["timestamp"]): float(row["value"]) for row in csv.DictReader(rows)}
        times = sorted(values)
        windows = [
            (_time(first), _time(last))
            for name, spans in labels.items()
            if name.endswith(file.name)
            for first, last in spans
        ]
        judged = times[int(PROBATION * min(len(times), 5000))]
        found.append(Series(file.stem, times, [values[moment] for moment in times], windows, judged))
    return found


def simulated() -> list[Series]:
    """Series whose level rises by one standard deviation of a value."""
    rng = np.random.default_rng(18)
    hours, shifted = (STATIONARY_DAYS + SHIFTED_DAYS) * 24, STATIONARY_DAYS * 24
    times = [START + timedelta(hours=hour) for hour in range(hours)]
    rhythm = 5 * np.sin(np.arange(hours) * 2 * np.pi / 24)
    found = []
    for _ in range(COPIES):
        for name, values, deviation in (
            ("normal", 10 + rng.normal(size=hours), 1.0),
            ("skewed", np.exp(rng.normal(size=hours)), 2.16),
            ("heavy tails", 5 + rng.standard_t(3, hours), 3**0.5),
            ("daily rhythm", 20 + rhythm + rng.normal(size=hours), 1.0),
        ):
            values[shifted:] += deviation
            found.append(
                Series(f"simulated: {name}", times, values.tolist(), [(times[shifted], times[-1])], times[0])
            )
    return found


def peer(every: list[Series]) -> list[Any]:
    """Where Otava puts change points in each series, and its processor seconds."""
    with tempfile.TemporaryDirectory(prefix="mla-bench-") as folder:
        venv.create(folder, with_pip=True)
        python = Path(folder) / "bin" / "python"
        subprocess.run([python, "-m", "pip", "install", "-q", OTAVA], check=True, stderr=subprocess.DEVNULL)
        asked = json.dumps([series.values for series in every])
        done = subprocess.run(
            [python, "-c", PEER], input=asked, stdout=subprocess.PIPE, text=True, check=True
        )
    return json.loads(done.stdout)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


if __name__ == "__main__":
    sys.exit(main())
