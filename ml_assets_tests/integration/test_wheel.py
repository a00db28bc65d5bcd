"""The wheel holds all that a run needs: a small graph from it, in an empty folder, without the checkout."""

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

from ml_assets.settings import PROJECT_ROOT

RUN = {
    "run_id": "r1",
    "experiment": "mine",
    "model_name": "cats",
    "dataset": "pets",
    "status": "completed",
    "created_at": "2026-03-01T10:00:00Z",
    "metrics": {"accuracy": 0.93},
}


def test_a_graph_from_the_wheel(tmp_path: Path, environment: dict[str, str]):
    wheels, site, folder = (tmp_path / name for name in ("wheels", "site", "empty"))
    build = ["pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", str(wheels)]
    subprocess.run([sys.executable, "-m", *build, str(PROJECT_ROOT)], check=True)
    [wheel] = wheels.iterdir()
    zipfile.ZipFile(wheel).extractall(site)
    folder.mkdir()
    landing = Path(environment["ML_ASSETS_HOME"]) / "landing" / "runs"
    landing.mkdir(parents=True)
    (landing / "r1.jsonl").write_text(json.dumps(RUN) + "\n")

    def command(*arguments: str) -> str:
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=folder,
            env={**inherited, **environment, "PYTHONPATH": str(site)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = "import ml_assets, ml_assets.settings as s; print(ml_assets.__file__); print(s.PROJECT_ROOT)"
    assert all(line.startswith(str(site)) for line in command("-c", where).splitlines())
    unnamed = "import os; del os.environ['ML_ASSETS_HOME']; os.environ['XDG_DATA_HOME'] = '/of/a/user'; "
    found = command("-c", f"{unnamed}from ml_assets.settings import Settings; print(Settings().home)")
    assert found.strip().endswith("ml-assets")
    assert str(PROJECT_ROOT) not in found
    assert json.loads(command("-m", "ml_assets.cli", "refresh", "--json"))["streams"]["runs"]["loaded"] == 1
    told = json.loads(command("-m", "ml_assets.cli", "status", "--json", "--verify"))
    assert told["differences"] == []
    assert told["stores"]["chroma"]["tables"]["experiment_index"]["rows"] == 1
    # Its style and script are no modules.
    page = (Path(environment["ML_ASSETS_HOME"]) / "reports" / "leaderboard.html").read_text()
    assert ":root {" in page
    assert "use strict" in page
    assert list(folder.iterdir()) == []
