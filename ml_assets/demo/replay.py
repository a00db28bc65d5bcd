"""The replay: day after day, train, log, judge on the next day, write the landing files.

A day is the unit of work. It ends with its entry in the manifest; whatever stood there before that is made
again by the next call, under the same names.

Imports mlflow and scikit-learn: import it where the demo is made and nowhere else.
"""

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, time, timedelta
from itertools import groupby
from pathlib import Path
from time import perf_counter

from threadpoolctl import threadpool_limits

from ml_assets.demo import landing_files, plain_team
from ml_assets.demo.data import load
from ml_assets.demo.documents import library_documents, note_documents
from ml_assets.demo.judgments import library_judgments, note_judgments
from ml_assets.demo.manifest import LEAVING, Day, Manifest, hash_file, last_day, only_one
from ml_assets.demo.plan import Plan, Trial
from ml_assets.demo.record import RunRecord
from ml_assets.demo.report import DemoReport
from ml_assets.demo.serving import Served, serve
from ml_assets.demo.tracking import Logged, Tracker
from ml_assets.demo.trials import Attempt, attempt, sweep_record
from ml_assets.errors import Refusal
from ml_assets.settings import Settings

Progress = Callable[[str, int, int], None]


def replay(settings: Settings, progress: Progress, plan: Plan) -> DemoReport:
    """Make what is missing of the demo. See `make_demo`."""
    # One thread: the matrices are small, and sums run in the same order on every machine.
    with only_one(settings), threadpool_limits(1):
        return _Replay(settings, progress, plan).run()


class _Replay:
    """One call's work on the demo of one home."""

    def __init__(self, settings: Settings, progress: Progress, plan: Plan) -> None:
        self._settings = settings
        self._progress = progress
        self._plan = plan
        self._seconds: dict[str, float] = {}

    def run(self) -> DemoReport:
        manifest = self._manifest()
        unfinished = [day for day in range(1, manifest.days + 1) if day not in manifest.finished]
        if not unfinished:  # another process finished it while this one waited for the lock
            return DemoReport.of(manifest, trained=False)
        self._done = sum(len(self._plan.trials(day)) for day in manifest.finished)
        self._tell()
        with self._phase("loading"):
            self._tracker = Tracker(self._settings)
            if not manifest.finished:
                self._withdraw(manifest)
            names = (*self._plan.datasets, plain_team.DATASET)
            self._datasets = {name: load(name, self._plan) for name in names}
        for day in unfinished:
            manifest.finished[day] = self._day(day, manifest)
            manifest.write(self._settings.home)
        return DemoReport.of(manifest, trained=True)

    def _manifest(self) -> Manifest:
        """The manifest to go on with; a new one if there is none or another fortnight is wanted."""
        known = Manifest.read(self._settings.home)
        if known and known.leaving:
            raise Refusal(LEAVING)
        wanted = self._settings.demo_end
        if known and wanted in (None, known.end):
            return known
        today = datetime.now(UTC).date()
        former = sorted({*known.former, *known.written()}) if known else []
        manifest = Manifest(last_day(self._settings, today), self._plan.days, former=former)
        if manifest.end >= today or manifest.start < self._settings.partitions_start:
            raise Refusal(
                f"The demo cannot be replayed from {manifest.start} to {manifest.end}: set ML_ASSETS_DEMO_END"
                f" to a day before today (UTC) and at least {self._plan.days} days after "
                f"{self._settings.partitions_start}."
            )
        self._refuse_to_overwrite(manifest)
        # The new manifest has no finished day, and such a start withdraws whatever there is of an old demo.
        manifest.write(self._settings.home)
        return manifest

    def _refuse_to_overwrite(self, manifest: Manifest) -> None:
        """Nothing that somebody else put into the landing folders is written over, whatever its name."""
        mine = [name for day in range(1, manifest.days + 1) for name in _files_of(manifest, day)]
        taken = [n for n in mine if n not in manifest.former and (self._settings.landing / n).exists()]
        if taken:
            others = f", and {len(taken) - 1} more" if len(taken) > 1 else ""
            raise Refusal(
                f"The demo writes {self._settings.landing / taken[0]}{others}, and something of that name is "
                "there that it did not write: move or delete it, or set ML_ASSETS_DEMO_END to another day."
            )

    def _withdraw(self, manifest: Manifest) -> None:
        """Remove all that a demo wrote here before: the first day starts with nothing."""
        self._tracker.withdraw()
        for name in manifest.former:
            for path in (self._settings.landing / name, self._settings.landing / f"{name}.partial"):
                path.unlink(missing_ok=True)
        if self._files.exists():
            shutil.rmtree(self._files)

    def _day(self, day: int, manifest: Manifest) -> Day:
        today = manifest.date_of(day)
        midnight = datetime.combine(today, time(), UTC)
        with self._phase("logging"):
            self._tracker.clean(today)
        logged, served = self._train(day, today, midnight)
        with self._phase("training"):
            plain = plain_team.train_day(self._datasets[plain_team.DATASET], day, midnight)
        rows: dict[str, list[dict]] = {
            "runs": [plain_team.run_row(run, self._files / run.run_id) for run in plain],
            "metrics": [row for run in plain for row in plain_team.metric_rows(run)],
        }
        served += [(_served_plain(run), run.record.dataset) for run in plain if run.model is not None]
        if day < manifest.days:
            with self._phase("serving"):
                tomorrow = [
                    serve(model, self._datasets[dataset], day + 1, midnight + timedelta(days=1))
                    for model, dataset in served
                ]
            rows["performance"] = sorted((row for events, _ in tomorrow for row in events), key=_when)
            rows["predictions"] = sorted((row for _, answers in tomorrow for row in answers), key=_when)
        records = [*logged, *((run.run_id, run.record) for run in plain)]
        rows["documents"] = list(note_documents(records))
        if day == 1:
            rows["documents"] += library_documents(midnight)
        rows["judgments"] = list(note_judgments(records))
        if day == 1:
            rows["judgments"] += library_judgments(midnight)
        with self._phase("writing"):
            for run in plain:
                plain_team.write_files(run, self._files / run.run_id)
            files = [self._write(stream, found, day, today) for stream, found in rows.items()]
        counts = {
            "runs": len(records),
            "failed": sum(record.error is not None for _, record in records),
            "events": len(rows.get("performance", ())),
            "predictions": len(rows.get("predictions", ())),
            "documents": len(rows["documents"]),
            "judgments": len(rows["judgments"]),
        }
        seconds, self._seconds = self._seconds, {}
        hashes = {name: hash_file(self._settings.landing / name) for name in files}
        return Day(counts, {name: round(value, 3) for name, value in seconds.items()}, files, hashes)

    def _train(
        self, day: int, today: date, midnight: datetime
    ) -> tuple[list[tuple[str, RunRecord]], list[tuple[Served, str]]]:
        """Train and log a day's trials. Returns all runs, and the retrained models with their datasets."""
        runs: list[tuple[str, RunRecord]] = []
        served: list[tuple[Served, str]] = []
        for sweep, group in groupby(self._plan.trials(day), key=lambda trial: trial.sweep):
            attempts = [self._attempt(trial, day, midnight) for trial in group]
            with self._phase("logging"):
                parent = self._log(sweep_record(attempts), today, runs).run_id if sweep else None
                for made in attempts:
                    made.record.parent_run_id = parent
                    logged = self._log(made.record, today, runs)
                    if made.trial.role == "retraining" and made.model is not None:
                        served.append((self._register(made, logged), made.trial.dataset))
            self._done += len(attempts)
            self._tell()
        return runs, served

    def _attempt(self, trial: Trial, day: int, midnight: datetime) -> Attempt:
        with self._phase("training"):
            return attempt(trial, self._datasets[trial.dataset], day, midnight)

    def _log(self, record: RunRecord, today: date, runs: list[tuple[str, RunRecord]]) -> Logged:
        logged = self._tracker.log(record, today)
        runs.append((logged.run_id, record))
        return logged

    def _register(self, made: Attempt, logged: Logged) -> Served:
        record = made.record
        version = self._tracker.register(record, logged).version
        return Served(made.model, str(record.model_name), version, record.experiment, logged.run_id)

    def _write(self, stream: str, rows: list[dict], day: int, today: date) -> str:
        name, form = landing_files.name_of(today, stream), landing_files.format_of(day, stream)
        return landing_files.write(self._settings.landing, stream, name, rows, form)

    @property
    def _files(self) -> Path:
        """Files of the runs that are not in MLflow."""
        return self._settings.demo_files

    @contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        start = perf_counter()
        yield
        self._seconds[name] = self._seconds.get(name, 0.0) + perf_counter() - start

    def _tell(self) -> None:
        self._progress("training", self._done, self._plan.trial_count)


def _files_of(manifest: Manifest, day: int) -> list[str]:
    return landing_files.files_of(day, manifest.date_of(day), manifest.days)


def _served_plain(run: plain_team.PlainRun) -> Served:
    record = run.record
    version = str(record.created_at.date())
    return Served(run.model, str(record.model_name), version, record.experiment, run.run_id)


def _when(row: dict) -> datetime:
    return row.get("timestamp") or row["created_at"]
