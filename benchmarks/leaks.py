"""Which leaks are found? The kinds of leak planted in training sets, checked by `features.verify` and by Timefence.

Each training set is the same clean one of 4,000 rows, with 20 rows of one kind of leak in it. All planted rows must be
found and no others (goal). Timefence gets what it takes: the view with the time at which rows were known, and its TTL.
It is installed into an environment of its own, which goes with the run. Repeat with `python -m benchmarks leaks`.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd

from benchmarks.limits import finish, within
from ml_assets.lib.leaks import Kind, View
from ml_assets.operations.feature_leaks import Question, verify

TIMEFENCE = "timefence==0.9.1"

FIRST = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
LAG, TTL = timedelta(hours=25), timedelta(days=7)
MODELS, DAYS, LABELS, PLANTED = 100, 90, 4_000, 20
CUT = FIRST + 70 * DAY
"""When the test begins."""
SILENT = 8
"""Models that have no row from day 30 to day 50."""
FEATURES = ["accuracy", "latency", "load"]

VIEW = View("daily", "daily", ("model_name",), "day", "known_at", TTL)
QUESTION = Question(
    label="label", entity="run_id", split="split", embargo="3d", horizon="1d", features=["daily:*"]
)

Random = np.random.Generator


def main() -> None:
    """Plant, check, and tell who has found what."""
    folder = Path(tempfile.mkdtemp(prefix="mla-bench-"))
    try:
        random = np.random.default_rng(17)
        rows = _view(random)
        connection = duckdb.connect()
        connection.execute("SET TimeZone = 'UTC'")
        connection.register("made", rows)
        connection.execute("CREATE TABLE daily AS FROM made")
        clean = _clean(connection, random)
        frames = {name: plant(clean.copy(), rows, random) for name, (_, plant) in PLANTS.items()}
        started = time.monotonic()
        ours = {
            name: {
                finding.kind: finding.count
                for finding in verify(connection, [VIEW], frame, QUESTION).findings
            }
            for name, frame in frames.items()
        }
        seconds = time.monotonic() - started
        print(f"{len(frames)} sets of {LABELS:,} rows verified in {seconds:.1f} s")
        rows.to_parquet(folder / "daily.parquet", index=False)
        for n, frame in enumerate(frames.values()):
            frame.to_parquet(folder / f"{n}.parquet", index=False)
        theirs = dict(zip(frames, _timefence(folder, len(frames)), strict=True))
    finally:
        shutil.rmtree(folder)
    print(f"{'planted':46} {'rows':>5} {'ours':>6} {TIMEFENCE.replace('==', ' '):>16}")
    for name, (kind, _) in PLANTS.items():
        wanted = {kind: PLANTED} if kind else {}
        print(f"{name:46} {PLANTED if kind else 0:5} {sum(ours[name].values()):6} {theirs[name]:16}")
        within(f"{name}: told wrongly", float(ours[name] != wanted), 0)
    finish()


def _view(random: Random) -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "model_name": np.repeat([f"m{n:02}" for n in range(MODELS)], DAYS),
            "day": np.tile(pd.date_range(FIRST, periods=DAYS, freq="D"), MODELS),
            "accuracy": random.normal(0.9, 0.05, MODELS * DAYS),
            "latency": random.gamma(2.0, 30.0, MODELS * DAYS),
            "load": random.normal(size=MODELS * DAYS),
        }
    )
    rows["day"] = rows["day"].astype("datetime64[us, UTC]")
    rows["known_at"] = rows["day"] + LAG
    number = (rows["day"] - FIRST) // DAY
    silent = rows["model_name"].isin([f"m{n:02}" for n in range(SILENT)]) & number.between(30, 50)
    return rows.loc[~silent].reset_index(drop=True)


def _clean(connection: duckdb.DuckDBPyConnection, random: Random) -> pd.DataFrame:
    """Labels with what was known at their time; split by time, with an embargo of three days after a label is known."""
    labels = pd.DataFrame(
        {
            "run_id": [f"r{n:05}" for n in range(LABELS)],
            "model_name": random.choice([f"m{n:02}" for n in range(MODELS)], LABELS),
            "event_timestamp": [FIRST + DAY * float(at) for at in random.uniform(9, DAYS - 1, LABELS)],
            "label": random.normal(size=LABELS),
        }
    )
    labels["event_timestamp"] = labels["event_timestamp"].dt.floor("s").astype("datetime64[us, UTC]")
    labels = labels[(labels["event_timestamp"] >= CUT) | (labels["event_timestamp"] + 4 * DAY <= CUT)]
    labels["split"] = np.where(labels["event_timestamp"] >= CUT, "test", "train")
    connection.register("labels", labels)
    return (
        connection.execute(
            """
            SELECT labels.*, accuracy, latency, load FROM labels LEFT JOIN LATERAL (
                FROM daily
                WHERE daily.model_name = labels.model_name AND known_at <= event_timestamp
                    AND day >= event_timestamp - INTERVAL 7 DAYS
                ORDER BY day DESC LIMIT 1
            ) AS daily ON TRUE
            ORDER BY run_id
            """
        )
        .to_arrow_table()
        .to_pandas()
    )


def _some(frame: pd.DataFrame, random: Random, which: Any) -> pd.Index:
    return pd.Index(random.choice(frame.index[which], PLANTED, replace=False))


def _give(frame: pd.DataFrame, rows: pd.DataFrame, planted: pd.Index, shift: timedelta) -> pd.DataFrame:
    """Give some rows the values of the model's newest day at another time."""
    for row in planted:
        model, at = frame.at[row, "model_name"], frame.at[row, "event_timestamp"]
        held = rows.loc[(rows["model_name"] == model) & (rows["day"] <= at + shift), FEATURES]
        frame.loc[row, FEATURES] = held.to_numpy()[-1].tolist()
    return frame


def _plant_future(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    inner = frame["event_timestamp"] < FIRST + 28 * DAY
    return _give(frame, rows, _some(frame, random, inner), DAY)


def _plant_not_yet_known(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    inner = frame["event_timestamp"] < FIRST + 28 * DAY
    return _give(frame, rows, _some(frame, random, inner), timedelta())


def _plant_expired(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    silent = frame["latency"].isna()
    return _give(frame, rows, _some(frame, random, silent), timedelta())


def _plant_outdated(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    inner = frame["event_timestamp"].between(FIRST + 20 * DAY, FIRST + 28 * DAY)
    return _give(frame, rows, _some(frame, random, inner), -10 * DAY)


def _plant_entity(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    train, test = (_some(frame, random, frame["split"] == side) for side in ("train", "test"))
    frame.loc[test, "run_id"] = frame.loc[train, "run_id"].to_list()
    return frame


def _plant_copies(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    """Rows of test that are rows of train but for noise, in features of the frame's own: no view has other values."""
    own = [f"own_{n}" for n in range(4)]
    frame = frame.drop(columns=FEATURES)
    frame[own] = random.normal(size=(len(frame), len(own)))
    train, test = (_some(frame, random, frame["split"] == side) for side in ("train", "test"))
    frame.loc[test, own] = frame.loc[train, own].to_numpy() + random.normal(0, 1e-4, (PLANTED, len(own)))
    frame.loc[test, "model_name"] = frame.loc[train, "model_name"].to_list()
    return frame


def _plant_no_embargo(frame: pd.DataFrame, rows: pd.DataFrame, random: Random) -> pd.DataFrame:
    """Rows of train within the embargo, without rows of test of the same days, which would have the same values."""
    test = frame.loc[frame["split"] == "test"].sort_values("event_timestamp")
    frame.loc[test.index[:PLANTED], "split"] = "train"
    rest = test.iloc[PLANTED:]
    return frame.drop(index=rest.index[rest["event_timestamp"] < CUT + 2 * DAY])


PLANTS: dict[str, tuple[Kind | None, Callable[[pd.DataFrame, pd.DataFrame, Random], pd.DataFrame]]] = {
    "nothing": (None, lambda frame, rows, random: frame),
    "future: values of the next day": ("future", _plant_future),
    "future: values of a day that is not over": ("future", _plant_not_yet_known),
    "expired: where there is nothing younger": ("expired", _plant_expired),
    "expired: in place of younger ones": ("expired", _plant_outdated),
    "shared entity": ("shared entity", _plant_entity),
    "near duplicate": ("near duplicate", _plant_copies),
    "no embargo": ("no embargo", _plant_no_embargo),
}

_ASK = """
import json, sys
import timefence
folder, count, staleness = sys.argv[1], int(sys.argv[2]), sys.argv[3]
view = timefence.Source(f"{folder}/daily.parquet", keys=["model_name"], timestamp="known_at")
daily = timefence.Feature(source=view, columns=["accuracy", "latency", "load"], name="daily")
found = []
for n in range(count):
    report = timefence.audit(
        f"{folder}/{n}.parquet", [daily], keys=["model_name"], label_time="event_timestamp",
        max_staleness=staleness, join="inclusive",
    )
    found.append(sum(each.leaky_row_count for each in report.features.values()))
print(json.dumps(found))
"""


def _timefence(folder: Path, count: int) -> list[int]:
    """By set, how many rows it reports."""
    place = folder / "env"
    venv.create(place, with_pip=True)
    python = str(place / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "-q", TIMEFENCE], check=True, stderr=subprocess.DEVNULL)
    # All rows are known a fixed time after their day began, from which the TTL counts; Timefence has one time a row.
    staleness = f"{(TTL - LAG) // timedelta(hours=1)}h"
    started = time.monotonic()
    done = subprocess.run(
        [python, "-c", _ASK, str(folder), str(count), staleness], check=True, capture_output=True, text=True
    )
    print(f"{TIMEFENCE} took {time.monotonic() - started:.1f} s")
    return json.loads(done.stdout)


if __name__ == "__main__":
    sys.exit(main())
