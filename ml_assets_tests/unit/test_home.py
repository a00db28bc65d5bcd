"""Which home is found, and that looking for one makes none."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ml_assets
from ml_assets import settings as module
from ml_assets.errors import Refusal
from ml_assets.home import find_home, is_home
from ml_assets.settings import PROJECT_ROOT, Settings, read_settings


@pytest.fixture
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, two folders below `tmp_path`."""
    folder = tmp_path / "one" / "two"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    return folder


def dotenv(folder: Path, *lines: str) -> None:
    (folder / ".env").write_text("".join(f"{line}\n" for line in lines))


def test_the_environment_comes_first(inside, monkeypatch):
    dotenv(inside, "ML_ASSETS_HOME=/of/the/file", "ML_ASSETS_PORT=3007")
    monkeypatch.setenv("ML_ASSETS_HOME", "mine")
    assert Settings().home == inside / "mine"
    assert Settings().port == 3000  # the file is another home's
    monkeypatch.setenv("ML_ASSETS_HOME", " ")
    assert Settings().home == Path("/of/the/file")


def test_the_nearest_dotenv_that_names_a_home_is_taken_whole(inside, tmp_path, monkeypatch):
    dotenv(tmp_path, "ML_ASSETS_HOME=/far")
    dotenv(
        inside.parent,
        "# a home",
        "export ML_ASSETS_HOME='kept here'",
        "ML_ASSETS_POSTGRES_URL=postgresql://u:hush@db/ml_dev",
        'ML_ASSETS_SOURCES={"nab": "nab/*.csv"}',
        "ML_ASSETS_PORT=3007",
        "ML_ASSETS_EMBEDDER=",
        "POSTGRES_PASSWORD=hush",
    )
    dotenv(inside, "ML_ASSETS_PORT=1", "not = what the parser knows")  # names no home, as compose's file
    (inside / "data" / "dagster").mkdir(parents=True)  # a project is looked for afterwards
    monkeypatch.setenv("ML_ASSETS_PORT", "3009")
    settings = Settings()
    assert settings.home == inside.parent / "kept here"
    assert settings.postgres_url == "postgresql://u:hush@db/ml_dev"
    assert settings.sources == {"nab": "nab/*.csv"}
    assert (settings.port, settings.embedder) == (3009, "minilm")
    assert "hush" not in repr(settings)


def test_what_a_dotenv_says_reaches_processes_that_are_started_elsewhere(inside, monkeypatch):
    dotenv(inside, "ML_ASSETS_HOME=kept", "ML_ASSETS_REDIS_URL=redis://:hush@r/0", "ML_ASSETS_PORT=3007")
    monkeypatch.setenv("ML_ASSETS_PORT", "3009")
    settings = Settings()
    child = settings.child_environment()
    assert child["ML_ASSETS_HOME"] == str(inside / "kept")
    assert (child["ML_ASSETS_REDIS_URL"], child["ML_ASSETS_PORT"]) == ("redis://:hush@r/0", "3009")
    assert "ML_ASSETS_REDIS_URL" not in os.environ
    assert settings.secret("redis_url") == "redis://:hush@r/0"
    for name in ("ML_ASSETS_HOME", "ML_ASSETS_REDIS_URL"):  # so that they are taken away again
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    settings.publish()
    assert settings.secret("redis_url").env_var_name == "ML_ASSETS_REDIS_URL"  # type: ignore[union-attr]
    assert os.environ["ML_ASSETS_PORT"] == "3009"


def test_dagster_writes_its_history_in_batches_unless_told_otherwise(inside, monkeypatch):
    assert Settings().child_environment()["DAGSTER_EVENT_BATCH_SIZE"] == "1000"
    monkeypatch.setenv("DAGSTER_EVENT_BATCH_SIZE", "0")
    assert Settings().child_environment()["DAGSTER_EVENT_BATCH_SIZE"] == "0"


def test_settings_with_a_home_of_their_own_read_no_dotenv(inside, tmp_path):
    dotenv(inside, "ML_ASSETS_HOME=kept", "ML_ASSETS_PORT=3007")
    assert Settings(home=tmp_path).port == 3000


@pytest.mark.parametrize("trace", ["data/dagster", "data/landing"])
def test_a_project_is_told_by_its_home(inside, tmp_path, trace):
    (tmp_path / trace).mkdir(parents=True)
    assert Settings().home == tmp_path / "data"
    (inside.parent / trace).mkdir(parents=True)
    assert Settings().home == inside.parent / "data"


@pytest.mark.parametrize(
    ("text", "ours"),
    [
        ('[project]\nname = "ml-assets"\n', True),
        ('[project]\nname = "theirs"\ndependencies = ["ml-assets"]\n', False),
        ("ml-assets, and no TOML", False),
        ("project = 7\n", False),
    ],
)
def test_a_project_is_told_by_its_name(inside, tmp_path, text, ours):
    (tmp_path / "pyproject.toml").write_text(text)
    assert Settings().home == (tmp_path if ours else PROJECT_ROOT) / "data"


def test_a_folder_called_data_is_no_project(inside):
    (inside / "data").mkdir()
    assert Settings().home == PROJECT_ROOT / "data"


def test_an_installed_package_has_the_user_s_data_folder(inside, monkeypatch):
    monkeypatch.setenv("XDG_DATA_HOME", "/of/a/user")
    assert find_home(inside, None).folder.name == "ml-assets"
    if sys.platform == "linux":
        assert find_home(inside, None).folder == Path("/of/a/user/ml-assets")
    monkeypatch.setattr(module, "_CHECKOUT", None)
    assert Settings().home == find_home(inside, None).folder


def test_files_that_may_not_be_read_are_passed_over(tmp_path, without_root_rights):
    inside = tmp_path / "one" / "two"
    inside.mkdir(parents=True)
    dotenv(tmp_path, "ML_ASSETS_HOME=/hidden")
    (tmp_path / ".env").chmod(0)
    program = "from ml_assets.settings import Settings; print(Settings().home)"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=inside,
        env={**os.environ, "PYTHONPATH": str(PROJECT_ROOT)},
        preexec_fn=without_root_rights,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == str(PROJECT_ROOT / "data"), done.stderr


def test_what_is_wrong_is_told_in_a_sentence(inside):
    dotenv(inside, "ML_ASSETS_HOME=kept", "ML_ASSETS_PORT=http")
    with pytest.raises(Refusal, match=r"ML_ASSETS_PORT is 'http': .*\.$"):
        read_settings()
    dotenv(inside, "ML_ASSETS_HOME=kept", "ML_ASSETS_SOURCES=nab")
    with pytest.raises(Refusal, match="ML_ASSETS_SOURCES cannot be read"):
        ml_assets.connect()


def asked(home: Path) -> list[Refusal]:
    """What a home that is not there answers."""
    stack = ml_assets.connect(home)
    told = []
    for question in (
        stack.tables,
        lambda: stack.sql("postgres", "SELECT 1"),
        lambda: stack.sql("duckdb", "SELECT 1"),
        lambda: stack.sql("clickhouse", "SELECT 1"),
        lambda: stack.sql("sqlite", "SELECT 1"),
        lambda: stack.export("run_features", home.parent / "x.csv"),
        lambda: stack.export("chroma/theirs", home.parent / "x.csv"),
    ):
        with pytest.raises(Refusal) as refused:
            question()
        told.append(refused.value)
    return told


def test_reading_makes_no_home(tmp_path):
    home = tmp_path / "home"
    assert all(str(error).startswith(f"There is no home at {home}, ") for error in asked(home))
    assert list(tmp_path.iterdir()) == []
    home.mkdir()  # a folder of somebody's is none either
    assert not is_home(home)
    asked(home)
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    "command",
    [
        ("sql", "postgres", "SELECT 1"),
        ("export", "run_features", "x.csv"),
        ("quarantine", "list"),
        ("quarantine", "export", "runs", "x.jsonl"),
        ("quarantine", "retry"),
        ("retire", "runs", "a.jsonl"),
    ],
    ids=" ".join,
)
def test_commands_that_read_make_no_home(cli, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    done = cli(tmp_path / "home", *command)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"There is no home at {tmp_path / 'home'}, ")
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_store_is_refused(tmp_path):
    stack = ml_assets.connect(tmp_path)
    with pytest.raises(
        Refusal, match="no store 'mysql' to be asked: name one of postgres, duckdb, clickhouse"
    ):
        stack.sql("mysql", "SELECT 1")
    for store in ("chroma", "redis"):
        with pytest.raises(Refusal, match=f"{store} answers no SQL: .*export"):
            stack.sql(store, "SELECT 1")
    with pytest.raises(Refusal, match="no store 'mysql'"):
        stack.export("mysql/runs", "x.csv")
    with pytest.raises(Refusal, match="either home or settings"):
        ml_assets.connect(tmp_path, Settings(home=tmp_path))


def test_to_begin_imports_nothing_heavy():
    program = "import sys, ml_assets; ml_assets.connect; print({'pydantic', 'pyarrow', 'dagster'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
    assert "ml_assets.connect()" in str(ml_assets.__doc__)
