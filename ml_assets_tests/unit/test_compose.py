"""The server stack as written: docker-compose.yml and what it mounts, builds and names.

No Docker engine is needed. What can run without one is run for real in integration/test_server_stack.py.
"""

import os
import re
import shutil
import stat
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ml_assets.resources.base import require_scheme
from ml_assets.resources.clickhouse import ClickHouseResource
from ml_assets.settings import PROJECT_ROOT, Settings

COMPOSE = PROJECT_ROOT / "docker-compose.yml"
DEPLOY = PROJECT_ROOT / "deploy"
OWN_IMAGE = "ml-assets:0.1.0"
JUPYTER_IMAGE = "ml-assets-jupyter:0.1.0"

# ${NAME:-default} and ${NAME:?sentence}; $$ is a dollar sign.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):(?P<kind>[-?])(?P<rest>[^}]*)\})")

POSTGRES_ROLES = ("WRITER", "READER", "DAGSTER", "MLFLOW")
SECRETS = (
    "POSTGRES_PASSWORD",
    *(f"POSTGRES_{role}_PASSWORD" for role in POSTGRES_ROLES),
    "CLICKHOUSE_PASSWORD",
    "CLICKHOUSE_WRITER_PASSWORD",
    "CLICKHOUSE_READER_PASSWORD",
    "REDIS_PASSWORD",
    "JUPYTER_TOKEN",
)


def interpolated(text: str) -> str:
    """The text with every variable replaced as Compose does it; secrets by `secret-of-NAME`."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        return match["rest"] if match["kind"] == "-" else f"secret-of-{match['name']}"

    return VARIABLE.sub(value, text)


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """The command's result, in an environment without anybody's secrets."""
    environment = {name: value for name, value in os.environ.items() if name not in SECRETS}
    return subprocess.run(command, check=False, capture_output=True, text=True, env=environment)


def example_variables() -> dict[str, str]:
    """The variables of .env.example and their values."""
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(interpolated(COMPOSE.read_text()))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


def test_compose_itself_accepts_the_file(tmp_path: Path) -> None:
    docker = shutil.which("docker")
    if not docker or run(docker, "compose", "version").returncode:
        pytest.skip("docker compose is not installed here")
    filled = tmp_path / "env"
    filled.write_text("".join(f"{name}={value or 'x'}\n" for name, value in example_variables().items()))
    command = (docker, "compose", "-f", str(COMPOSE), "--env-file")
    assert run(*command, str(filled), "config", "--quiet").returncode == 0
    empty = run(*command, "/dev/null", "config")
    assert empty.returncode != 0
    assert "run sh deploy/new-env.sh to write .env" in empty.stderr


def test_the_top_level_has_no_version(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {"name", "services", "networks", "volumes"}


def test_every_image_is_pinned(services: dict[str, Any]) -> None:
    assert {name: service["image"] for name, service in services.items()} == {
        "postgres": "pgvector/pgvector:0.8.5-pg18",
        "clickhouse": "clickhouse/clickhouse-server:26.9.6.6",
        "chroma": "chromadb/chroma:1.5.9",
        "redis": "redis:7.4.11-alpine",
        "ollama": "ollama/ollama:0.40.0",
        "mlflow": OWN_IMAGE,
        "dagster-code": OWN_IMAGE,
        "dagster-webserver": OWN_IMAGE,
        "dagster-daemon": OWN_IMAGE,
        "jupyter": JUPYTER_IMAGE,
    }


def test_images_fit_the_clients(services: dict[str, Any]) -> None:
    from importlib.metadata import version

    from ml_assets.resources.clickhouse import OLDEST_SERVER

    assert services["chroma"]["image"].endswith(":" + version("chromadb"))
    server = services["clickhouse"]["image"].partition(":")[2]
    assert tuple(int(part) for part in server.split(".")[:2]) >= OLDEST_SERVER


def test_each_image_is_built_by_one_service_that_its_users_wait_for(services: dict[str, Any]) -> None:
    builders = {name: service["build"] for name, service in services.items() if "build" in service}
    assert builders == {
        "mlflow": {"context": ".", "dockerfile": "deploy/Dockerfile", "target": "dagster"},
        "jupyter": {"context": ".", "dockerfile": "deploy/Dockerfile", "target": "jupyter"},
    }
    own = {name for name, service in services.items() if service["image"] in (OWN_IMAGE, JUPYTER_IMAGE)}
    # Not to be had from any registry.
    assert {name for name, service in services.items() if service.get("pull_policy") == "never"} == own
    assert {name for name in own if "mlflow" in ancestors(services, name)} == own - {"mlflow"}


def ancestors(services: dict[str, Any], name: str) -> set[str]:
    """Every service that must be healthy before `name` starts."""
    direct = set(services[name].get("depends_on", {}))
    return direct.union(*(ancestors(services, parent) for parent in direct))


def test_ports_are_published_on_this_machine_alone(services: dict[str, Any]) -> None:
    published = {name: service["ports"] for name, service in services.items() if "ports" in service}
    assert published == {
        "postgres": ["127.0.0.1:5432:5432"],
        "clickhouse": ["127.0.0.1:8123:8123", "127.0.0.1:9000:9000"],
        "chroma": ["127.0.0.1:8000:8000"],
        "redis": ["127.0.0.1:6379:6379"],
        "mlflow": ["127.0.0.1:5000:5000"],
        "ollama": ["127.0.0.1:11434:11434"],
        "jupyter": ["127.0.0.1:8888:8888"],
        "dagster-webserver": ["127.0.0.1:3000:3000"],
    }
    assert all("network_mode" not in service for service in services.values())


def test_every_service_has_a_health_check_that_its_image_can_run(services: dict[str, Any]) -> None:
    programs = {}
    for name, service in services.items():
        check = service["healthcheck"]
        assert set(check) == {"test", "start_period", "start_interval", "interval", "timeout", "retries"}, (
            name
        )
        kind, *words = check["test"]
        programs[name] = words[0] if kind == "CMD" else words[0].split()[0]
    assert programs == {
        "postgres": "pg_isready",
        "clickhouse": "clickhouse-client",
        "chroma": "bash",  # Debian slim, without curl, wget or Python
        "redis": "redis-cli",
        "ollama": "ollama",
        "mlflow": "python",
        "jupyter": "python",
        "dagster-code": "dagster",
        "dagster-webserver": "python",
        "dagster-daemon": "dagster-daemon",
    }


def test_health_checks_ask_the_right_door(services: dict[str, Any]) -> None:
    tests = {name: " ".join(service["healthcheck"]["test"]) for name, service in services.items()}
    assert "GET /api/v2/heartbeat HTTP/1.0" in tests["chroma"]
    # The servers that run PostgreSQL's and ClickHouse's init scripts listen on the socket and on 127.0.0.1.
    assert "--host 127.0.0.1" in tests["postgres"]
    assert "--host clickhouse" in tests["clickhouse"]
    assert "http://127.0.0.1:5000/health" in tests["mlflow"]
    assert "http://127.0.0.1:8888/api" in tests["jupyter"]
    assert "http://127.0.0.1:3000/server_info" in tests["dagster-webserver"]


def test_whoever_needs_a_service_waits_until_it_is_healthy(services: dict[str, Any]) -> None:
    stores = {"postgres", "clickhouse", "chroma", "redis", "mlflow"}
    needs = {name: service["depends_on"] for name, service in services.items() if "depends_on" in service}
    assert {name: set(needed) for name, needed in needs.items()} == {
        "mlflow": {"postgres"},
        "jupyter": stores,
        "dagster-code": stores,
        "dagster-webserver": {"postgres", "dagster-code"},
        "dagster-daemon": {"postgres", "dagster-code"},
    }
    conditions = {need["condition"] for needed in needs.values() for need in needed.values()}
    assert conditions == {"service_healthy"}


def test_images_get_only_variables_that_they_document(services: dict[str, Any]) -> None:
    names = {name: set(service.get("environment", {})) for name, service in services.items()}
    own = names.pop("dagster-code")
    assert names.pop("dagster-webserver") == names.pop("dagster-daemon") == own
    assert names.pop("jupyter") == own | {"JUPYTER_TOKEN", "ML_ASSETS_READ_ONLY"}
    assert {name for name in own if not name.startswith("ML_ASSETS_")} == {"DAGSTER_POSTGRES_URL"}
    assert names == {
        "postgres": {
            "POSTGRES_DB",
            "POSTGRES_USER",
            "POSTGRES_PASSWORD",
            "POSTGRES_INITDB_ARGS",
            *(f"POSTGRES_{role}_PASSWORD" for role in POSTGRES_ROLES),  # read by postgres-roles.sh
        },
        "clickhouse": {
            "CLICKHOUSE_DB",
            "CLICKHOUSE_USER",
            "CLICKHOUSE_PASSWORD",
            "CLICKHOUSE_WRITER_PASSWORD",  # read by clickhouse-users.xml
            "CLICKHOUSE_READER_PASSWORD",
        },
        "chroma": set(),
        "redis": {"REDISCLI_AUTH"},
        "ollama": set(),
        "mlflow": {
            "MLFLOW_BACKEND_STORE_URI",
            "MLFLOW_ARTIFACTS_DESTINATION",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
            "MLFLOW_SERVER_ALLOWED_HOSTS",
        },
    }


def test_settings_read_every_variable_of_ours(
    services: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = services["dagster-code"]["environment"]
    ours = {name: value for name, value in environment.items() if name.startswith("ML_ASSETS_")}
    dockerfile = re.findall(r"\b(ML_ASSETS_\w+)=", (DEPLOY / "Dockerfile").read_text())
    fields = {name.removeprefix("ML_ASSETS_").lower() for name in [*ours, *dockerfile]}
    assert fields <= set(Settings.model_fields)

    for name, value in ours.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.executor_kind == "multiprocess"
    modes = {store: settings.mode(store) for store in ("postgres", "duckdb", "clickhouse", "chroma", "redis")}
    assert set(modes.values()) == {"server"}
    assert settings.lake_data_path == "/lake"
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.ollama_url == "http://ollama:11434"


def test_urls_name_the_services_with_the_servers_users_and_databases(services: dict[str, Any]) -> None:
    environment = services["dagster-code"]["environment"]
    server = services["postgres"]["environment"]

    def of(role: str, database: str) -> str:
        password = server[f"POSTGRES_{role.upper()}_PASSWORD"]
        return f"postgresql://ml_{role}:{password}@postgres:5432/{database}"

    assert server["POSTGRES_DB"] == "ml_dev"
    assert environment["ML_ASSETS_POSTGRES_URL"] == of("writer", "ml_dev")
    assert environment["ML_ASSETS_LAKE_URL"] == of("writer", "lake")
    assert environment["DAGSTER_POSTGRES_URL"] == of("dagster", "dagster")
    assert services["mlflow"]["environment"]["MLFLOW_BACKEND_STORE_URI"] == of("mlflow", "mlflow")
    notebooks = services["jupyter"]["environment"]
    assert notebooks["ML_ASSETS_POSTGRES_URL"] == of("reader", "ml_dev")
    assert notebooks["ML_ASSETS_LAKE_URL"] == of("reader", "lake")
    assert notebooks["DAGSTER_POSTGRES_URL"] == ""

    server = services["clickhouse"]["environment"]
    for role, its in (("writer", environment), ("reader", notebooks)):
        password = server[f"CLICKHOUSE_{role.upper()}_PASSWORD"]
        url = its["ML_ASSETS_CLICKHOUSE_URL"]
        assert url == f"clickhouse://ml_{role}:{password}@clickhouse:8123/{server['CLICKHOUSE_DB']}"
        assert require_scheme("ClickHouse", url, ("clickhouse",), "") == url
    assert server["CLICKHOUSE_DB"] == "ml_metrics"

    password = services["redis"]["environment"]["REDISCLI_AUTH"]
    assert environment["ML_ASSETS_REDIS_URL"] == f"redis://:{password}@redis:6379/0"


def test_redis_reads_its_password_from_standard_input(services: dict[str, Any], tmp_path: Path) -> None:
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "$@"\ncat\n')
    entrypoint.chmod(0o755)
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "REDISCLI_AUTH": "s3cret"}
    command = services["redis"]["command"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "redis-server -\nappendonly yes\nrequirepass s3cret\n"


def test_no_secret_stands_on_a_command_line(services: dict[str, Any]) -> None:
    told = {
        name: str(service.get("command")) + str(service["healthcheck"]) for name, service in services.items()
    }
    assert {name for name, text in told.items() if "secret-of-" in text} == set()


def test_secrets_come_from_the_environment_alone(services: dict[str, Any]) -> None:
    text = COMPOSE.read_text()
    demanded = {match["name"] for match in VARIABLE.finditer(text) if match["kind"] == "?"}
    assert demanded == set(SECRETS)
    assert {match["rest"] for match in VARIABLE.finditer(text) if match["kind"] == "?"} == {
        "run sh deploy/new-env.sh to write .env"
    }
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|_AUTH$", name):
                assert re.fullmatch(r"secret-of-\w+", value), name
            for password in re.findall(r"//\w*:([^@/]+)@", str(value)):
                assert password.startswith("secret-of-"), name


def test_env_example_holds_every_variable_and_no_secret() -> None:
    variables = {match["name"]: match for match in VARIABLE.finditer(COMPOSE.read_text()) if match["name"]}
    # A default stands in both files, and there it is the same.
    assert example_variables() == {
        name: match["rest"] if match["kind"] == "-" else "" for name, match in variables.items()
    }


def test_new_env_writes_fresh_secrets_once(tmp_path: Path) -> None:
    (tmp_path / "deploy").mkdir()
    shutil.copy(DEPLOY / "new-env.sh", tmp_path / "deploy")
    shutil.copy(PROJECT_ROOT / ".env.example", tmp_path)
    script = ("sh", str(tmp_path / "deploy" / "new-env.sh"))
    assert run(*script).returncode == 0

    env = tmp_path / ".env"
    assert stat.S_IMODE(env.stat().st_mode) == 0o600
    written = env.read_text()
    values = dict(line.split("=", 1) for line in written.splitlines() if line and not line.startswith("#"))
    assert {name for name, value in values.items() if re.fullmatch("[0-9a-f]{48}", value)} == set(SECRETS)
    assert len({values[name] for name in SECRETS}) == len(SECRETS)
    example = example_variables()
    assert {name: value for name, value in values.items() if name not in SECRETS} == {
        name: value for name, value in example.items() if name not in SECRETS
    }

    again = run(*script)
    assert again.returncode == 1
    assert again.stderr.startswith(".env is there already")
    assert env.read_text() == written


def test_git_and_the_image_do_not_take_env() -> None:
    assert ".env" in (PROJECT_ROOT / ".gitignore").read_text().splitlines()
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not [line for line in ignored if line.startswith("!.")]


def test_data_lies_on_named_volumes_where_the_images_keep_it(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    kept = {
        name: [volume for volume in service.get("volumes", []) if not volume.startswith(".")]
        for name, service in services.items()
    }
    assert kept == {
        "postgres": [
            "postgres:/var/lib/postgresql"
        ],  # not .../data: the image's volume moved with release 18
        "clickhouse": ["clickhouse:/var/lib/clickhouse"],
        "chroma": ["chroma:/data"],
        "redis": ["redis:/data"],
        "mlflow": ["mlflow:/mlflow"],
        "ollama": ["ollama:/root/.ollama"],
        "jupyter": ["home:/data", "lake:/lake"],
        "dagster-code": ["home:/data", "lake:/lake"],
        "dagster-webserver": ["home:/data", "lake:/lake"],
        "dagster-daemon": ["home:/data", "lake:/lake"],
    }
    assert set(compose["volumes"]) == {volume.split(":")[0] for kind in kept.values() for volume in kind}


def test_what_is_mounted_from_the_repository_exists(services: dict[str, Any]) -> None:
    mounted = {
        volume.split(":")[0]: volume.split(":", 1)[1]
        for service in services.values()
        for volume in service.get("volumes", [])
        if volume.startswith(".")
    }
    assert mounted == {
        "./deploy/postgres-init.sh": "/docker-entrypoint-initdb.d/postgres-init.sh:ro",
        "./deploy/postgres-roles.sh": "/docker-entrypoint-initdb.d/postgres-roles.sh:ro",
        "./deploy/clickhouse-users.xml": "/etc/clickhouse-server/users.d/ml-assets.xml:ro",
        "./deploy/clickhouse-logs.xml": "/etc/clickhouse-server/config.d/ml-assets-logs.xml:ro",
        "./sql/postgres/init": "/sql/postgres/init:ro",
        "./deploy/dagster.yaml": "/data/dagster/dagster.yaml:ro",
        "./notebooks": "/notebooks",
    }
    assert [source for source in mounted if not (PROJECT_ROOT / source).exists()] == []
    assert list((PROJECT_ROOT / "sql/postgres/init").glob("*.sql"))


def test_postgres_preloads_what_its_extensions_need(services: dict[str, Any]) -> None:
    program, *words = services["postgres"]["command"]
    assert (program, set(words[::2])) == ("postgres", {"-c"})
    settings = dict(word.split("=", 1) for word in words[1::2])
    assert settings["shared_preload_libraries"] == "pg_stat_statements"
    assert settings["timezone"] == "UTC"
    assert services["postgres"]["shm_size"] == "1gb"


def test_clickhouse_may_open_as_many_files_as_it_needs(services: dict[str, Any]) -> None:
    assert services["clickhouse"]["ulimits"] == {"nofile": {"soft": 262144, "hard": 262144}}


def test_mlflow_is_one_small_server_that_answers_to_its_name(services: dict[str, Any]) -> None:
    mlflow = services["mlflow"]
    assert mlflow["environment"]["MLFLOW_SERVER_ENABLE_JOB_EXECUTION"] == "false"
    hosts = mlflow["environment"]["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")

    from mlflow.server.security_utils import is_allowed_host_header

    for host in ("mlflow:5000", "localhost:5000", "127.0.0.1:5001"):
        assert is_allowed_host_header(hosts, host)
    assert not is_allowed_host_header(hosts, "mlflow.example:5000")


@pytest.mark.parametrize("name", ["mlflow", "dagster-code", "dagster-webserver", "dagster-daemon"])
def test_commands_are_what_the_programs_accept(services: dict[str, Any], name: str) -> None:
    from dagster._cli import cli as dagster
    from dagster._daemon.cli import cli as dagster_daemon
    from dagster_webserver.cli import dagster_webserver
    from mlflow.cli import cli as mlflow

    program, *words = (word.replace("/app/", f"{PROJECT_ROOT}/") for word in services[name]["command"])
    programs = {
        "mlflow": mlflow,
        "dagster": dagster,
        "dagster-daemon": dagster_daemon,
        "dagster-webserver": dagster_webserver,
    }
    command: Any = programs[program]
    while hasattr(command, "get_command"):
        command = command.get_command(None, words.pop(0))
    parsed = command.make_context(program, words).params  # refuses what it does not know
    assert "workspace" in parsed or parsed["host"] == "0.0.0.0"  # noqa: S104 the container's own network


def test_the_workspace_points_to_the_code_server(services: dict[str, Any]) -> None:
    from dagster._core.remote_origin import GrpcServerCodeLocationOrigin
    from dagster._core.workspace.load import location_origins_from_yaml_paths

    (origin,) = location_origins_from_yaml_paths([str(DEPLOY / "workspace.yaml")])
    assert isinstance(origin, GrpcServerCodeLocationOrigin)
    command = services["dagster-code"]["command"]
    assert (origin.host, str(origin.port)) == ("dagster-code", command[command.index("--port") + 1])
    assert origin.location_name == "ml_assets"
    root = yaml.safe_load((PROJECT_ROOT / "workspace.yaml").read_text())["load_from"][0]["python_module"]
    assert root == {"module_name": command[command.index("--module-name") + 1], "location_name": "ml_assets"}
    dg = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert (dg["code_location_target_module"], dg["code_location_name"]) == (root["module_name"], "ml_assets")


def test_the_instance_differs_from_the_embedded_one_in_storage_and_runs_alone() -> None:
    embedded = yaml.safe_load((PROJECT_ROOT / "dagster.yaml").read_text())
    server = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    assert set(server) - set(embedded) == {"storage"}
    assert set(embedded) - set(server) == set()
    assert embedded["concurrency"].pop("runs") == {"max_concurrent_runs": 1}
    assert server["concurrency"].pop("runs") == {"max_concurrent_runs": 2}
    assert {key for key in embedded if embedded[key] != server[key]} == set()


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile's instructions in order, continued lines joined."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_image_is_pinned_hash_locked_and_not_run_as_root() -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.split()
            stages[name] = [("FROM", base)]
        else:
            stages[list(stages)[-1]].append((word, rest))
    assert [(name, stage[0][1]) for name, stage in stages.items()] == [
        ("dagster", "python:3.13.15-slim-bookworm"),
        ("jupyter", "dagster"),
    ]
    for stage in stages.values():
        assert [rest for word, rest in stage if word == "USER"][-1] == "ml"
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    assert installs == [
        "pip install --no-deps --require-hashes --only-binary :all: -r requirements.txt",
        "pip install --no-deps --require-hashes --only-binary :all: -r deploy/mlflow.txt",
        "pip install --no-deps --no-build-isolation --editable . && python -m compileall -q ml_assets",
        "pip install --no-deps --require-hashes --only-binary :all: -r deploy/jupyter.txt",
    ]


def test_the_image_owns_the_folders_that_volumes_are_mounted_on(services: dict[str, Any]) -> None:
    (made,) = [rest for word, rest in instructions() if word == "RUN" and "install --directory" in rest]
    folders = set(made.split("--group ml ")[1].split())
    mounts = {
        volume.split(":")[1]
        for service in services.values()
        if service["image"] in (OWN_IMAGE, JUPYTER_IMAGE)
        for volume in service["volumes"]
        if not volume.endswith(":ro")
    }
    assert folders == mounts | {"/data/dagster"}


def test_what_the_image_copies_exists_and_is_let_in() -> None:
    copied = [path for word, rest in instructions() if word == "COPY" for path in rest.split()[:-1]]
    let_in = [
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    assert sorted(copied) == sorted(let_in)
    assert [path for path in copied if not (PROJECT_ROOT / path).exists()] == []


@pytest.mark.parametrize(
    ("lock", "has"),
    [
        ("deploy/jupyter.txt", {"jupyterlab", "ipykernel"}),
        ("deploy/mlflow.txt", {"mlflow", "flask"}),
        ("requirements-test.txt", {"pytest", "ruff", "mlflow", "flask"}),
    ],
)
def test_the_locks_agree_with_the_projects(lock: str, has: set[str]) -> None:
    def pins(path: Path) -> dict[str, str]:
        return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE))

    project, more = pins(PROJECT_ROOT / "requirements.txt"), pins(PROJECT_ROOT / lock)
    assert has <= set(more) - set(project)
    assert {name: version for name, version in more.items() if project.get(name, version) != version} == {}


def test_clickhouse_has_a_user_who_writes_and_one_who_reads() -> None:
    from xml.etree import ElementTree

    root = ElementTree.parse(DEPLOY / "clickhouse-users.xml").getroot()  # noqa: S314 our own file
    users = {user.tag: user for user in root.iterfind("users/*")}
    assert set(users) == {"ml_writer", "ml_reader"}
    for name, user in users.items():
        password = user.find("password")
        assert password is not None and password.text is None
        assert password.attrib == {"from_env": f"CLICKHOUSE_{name.removeprefix('ml_').upper()}_PASSWORD"}
        for kind, own in (("profile", "profiles"), ("quota", "quotas")):
            named = user.findtext(kind)
            assert named == "default" or root.find(f"{own}/{named}") is not None
    grants = {name: [each.text for each in user.iterfind("grants/query")] for name, user in users.items()}
    assert grants["ml_reader"] == ["GRANT SELECT ON ml_metrics.*", "GRANT SELECT ON system.*"]
    assert "GRANT ALL ON ml_metrics.*" in grants["ml_writer"]
    assert not [grant for grant in grants["ml_writer"] if "OPTION" in str(grant)]
    assert root.findtext("profiles/ml_reader/readonly") == "2"
    # A client may ask for as long as it waits when it reads a whole table.
    longest = root.findtext("profiles/ml_reader/constraints/max_execution_time/max")
    asked = [
        ClickHouseResource(read_only=True)._settings(write)["max_execution_time"] for write in (False, True)
    ]
    assert max(map(float, asked)) <= float(str(longest))
