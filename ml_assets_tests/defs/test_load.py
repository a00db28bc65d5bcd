"""Loading the definitions in a fresh interpreter opens nothing and imports nothing heavy."""

import json
import os
import subprocess
import sys
import textwrap

from ml_assets.settings import PROJECT_ROOT

HEAVY = (
    "mlflow",
    "sklearn",
    "chromadb",
    "onnxruntime",
    "chdb",
    "clickhouse_connect",
    "matplotlib",
    "tokenizers",
)

WATCH = """
import json, os, sys
import dagster, dagster_duckdb
seen = {"written": [], "read": [], "connected": [], "started": []}
def watch(event, args):
    if event == "open" and isinstance(args[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(args[0]))
        write = isinstance(args[1], str) and set(args[1]) & set("wax+")
        write = write or (isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))
        seen["written" if write else "read"].append(path)
    elif event in ("socket.connect", "socket.bind", "sqlite3.connect"):
        seen["connected"].append(repr(args))
    elif event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        seen["started"].append(repr(args))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.symlink"):
        seen["written"].append(repr(args))
sys.addaudithook(watch)
sys.dont_write_bytecode = True
from ml_assets.definitions import defs
keys = len(list(defs().resolve_asset_graph().get_all_asset_keys()))
print(json.dumps({**seen, "assets": keys, "modules": sorted(sys.modules)}))
"""


def load(home) -> dict:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("ML_ASSETS_", "DAGSTER_"))}
    environment["ML_ASSETS_HOME"] = str(home)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(WATCH)],
        cwd=PROJECT_ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


def test_definitions_load_without_touching_anything(tmp_path):
    home = tmp_path / "home"
    seen = load(home)
    assert seen["assets"] >= 25
    assert seen["written"] == []
    assert seen["connected"] == []
    assert seen["started"] == []
    assert not home.exists()
    installed = (sys.prefix, sys.base_prefix, str(PROJECT_ROOT / "ml_assets"), str(PROJECT_ROOT / "sql"))
    system = ("/usr", "/lib", "/etc", "/dev", "/proc", "/sys")
    strangers = [path for path in seen["read"] if not path.startswith((*installed, *system))]
    assert strangers == []


def test_definitions_import_nothing_heavy(tmp_path):
    modules = load(tmp_path / "home")["modules"]
    assert [name for name in HEAVY if name in modules] == []
