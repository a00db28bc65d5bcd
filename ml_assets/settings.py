"""Settings: where the stores are, where files lie, limits. The only module that reads the environment.

Every field is set by the environment variable `ML_ASSETS_<FIELD>`, or in the `.env` that names the home (home.py), or by
a file of that name in the folder ML_ASSETS_SECRETS_DIR (docs/servers.md), or, but for URLs, in the `ml_assets.toml` that
lies in the home (docs/metrics.md). A store's URL left unset means the embedded server under `home`; set means that server
(ARCHITECTURE, decision 1).
"""

import json
import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import date
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import unquote

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from ml_assets.errors import Refusal
from ml_assets.home import Found, find_home, is_home, no_home
from ml_assets.lib.metric_rules import Direction, MetricRules, PrimaryMetric

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = None if (_PACKAGE / "project").is_dir() else _PACKAGE.parent
PROJECT_ROOT = _CHECKOUT or _PACKAGE / "project"
"""Where sql/, dagster.yaml and workspace.yaml lie: in an installed wheel, or in a checkout."""

SQL_DIR = PROJECT_ROOT / "sql"
"""All SQL of the project, one statement of purpose per file."""

HOME_FILE = "ml_assets.toml"
"""Name of the file of settings in a home."""

LONGEST_HOME = 400
"""Bytes. The longest path below it, a run's history with SQLite's journal, takes 69 more of SQLite's 511."""

MINILM_DIMENSION = 384
"""Length of the vectors of all-MiniLM-L6-v2, the default embedding model."""

DAGSTER_EVENTS = {
    # One planned event for an asset's range of days, not one for each day: it halves the events, and on two years of
    # scattered days that is minutes. A day of a failed run is then not shown as failed, but as missing or as it was;
    # what is due is decided by the ledger anyway.
    "DAGSTER_EMIT_PARTITION_SUBSET_IN_PLANNED_EVENTS": "true",
    # The materializations of an asset's days by the thousand, each thousand in one statement of PostgreSQL.
    "DAGSTER_EVENT_BATCH_SIZE": "1000",
}
"""How Dagster writes its history, which its configuration has no word for. Whoever sets them otherwise has their way."""

_NO_SETTINGS = ("ML_ASSETS_SESSION", "ML_ASSETS_TEST_")
"""Variables of `up`, and of the tests."""

STORES = ("postgres", "duckdb", "clickhouse", "chroma", "sqlite", "redis", "mlflow")


StreamName = Literal["runs", "metrics", "performance", "predictions", "documents", "judgments"]
"""The streams of contracts/streams.py, which stands above this room."""

_USERINFO = re.compile(r"^([\w+.-]*://[^:]*:)(.*)@", re.DOTALL)
"""Up to the last @: a password in which somebody forgot to encode a slash, say, is a password all the same."""

_LONE = re.compile(r"^(https?://)([^:/?#]*):?@", re.IGNORECASE)
"""A web server's token, given without a password. Of a database it would be the user's name, which is told."""

_PARAMETER = re.compile(
    r"([\w.-]*(?:passw|pwd|secret|token|access_?key|api_?key|credential)[\w.-]*\s*=\s*)(?!\*\*\*)('[^']*'|[^\s&]+)",
    re.IGNORECASE,
)
"""A secret in a URL's query, and as libpq writes it."""


def redact_url(url: str) -> str:
    """The URL without its passwords, for logs, metadata and `ml-assets status`; of any text, however broken."""
    parameter = _PARAMETER.search(url)
    head = url[: parameter.start()] if parameter else url
    tail = url[len(head) :]
    if "@" in tail and "@" not in head and ":" in head.partition("://")[2]:
        # Either a password that looks like a parameter, or a parameter with an @ in it: neither is shown.
        scheme, _, rest = head.partition("://")
        return f"{scheme}://{rest.partition(':')[0]}:***"
    head = _USERINFO.sub(r"\1***@", _LONE.sub(r"\1***@", head))
    return head + _PARAMETER.sub(r"\1***", tail)


def without_passwords(text: str, urls: Iterable[str]) -> str:
    """Text, such as a driver's message, with the passwords of the URLs masked."""
    secrets = {secret for url in urls for secret in _passwords(url)}
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _PARAMETER.sub(r"\1***", text)


_NEXT_URL = re.compile(r"[\s,]+(?=[\w+.-]+://)")
"""Between two URLs: what may stand within one is told apart by what follows."""


def without_alert_urls(text: str, urls: Iterable[str]) -> str:
    """Text without these URLs of apprise, nor any part of them that may be a secret.

    Of services such as Slack the host and the path are the key; a host with a dot in its name is one.
    """
    secrets = set()
    for url in urls:
        rest = url.partition("://")[2]
        place, _, query = rest.partition("?")
        userinfo, _, path = place.rpartition("@")
        host, *segments = path.split("/")
        values = [part.partition("=")[2] for part in query.split("&")]
        secrets |= {url, rest, userinfo, *userinfo.partition(":")[::2]}
        secrets |= {part for part in (*segments, *values) if len(part) >= _TOKEN}
        if len(host) >= _TOKEN and "." not in host and not host.startswith("localhost"):
            secrets.add(host)
    for secret in sorted(
        {form for each in secrets for form in (each, unquote(each)) if form}, key=len, reverse=True
    ):
        text = text.replace(secret, "***")
    return text


_TOKEN = 8
"""Length from which a part of a URL is taken for a key, and not for a word that stands anywhere."""


def _passwords(url: str) -> set[str]:
    """The secrets in a URL, as they stand there and decoded."""
    userinfo, lone = _USERINFO.match(url), _LONE.match(url)
    found = [userinfo[2]] if userinfo else []
    if lone:
        # A short one may be a word that stands anywhere: it goes where it stands as in the URL.
        found.append(lone[2] if len(lone[2]) >= _TOKEN else f"{lone[2]}@")
    found += [value for _, value in _PARAMETER.findall(url)]
    return {form for secret in found for form in (secret, unquote(secret)) if form}


def _primary_metric(value: Any) -> Any:
    """`"rmse"`, or an object with `metric` and `direction`."""
    if isinstance(value, str):
        return {"metric": value}
    if isinstance(value, dict) and (unknown := sorted(set(value) - {"metric", "direction"})):
        raise ValueError(f"it has {unknown[0]!r}, where only metric and direction are known")
    return value


_Primary = Annotated[PrimaryMetric, BeforeValidator(_primary_metric)]


def _found() -> Found:
    return find_home(Path.cwd(), _CHECKOUT)


class _Dotenv(EnvSettingsSource):
    """The variables of the `.env` that names the home, where nobody else names it."""

    def __call__(self) -> dict[str, Any]:
        if str(self.current_state.get("home") or "").strip():
            return {}
        variables = _found().variables
        self.env_vars = {name.lower(): value for name, value in variables.items()}
        return super().__call__() | ({"dotenv": dict(variables)} if variables else {})


class _SecretFiles(EnvSettingsSource):
    """The files of a folder such as Docker's /run/secrets, each named like the variable that it stands for."""

    def __call__(self) -> dict[str, Any]:
        folder = str(self.current_state.get("secrets_dir") or "").strip()
        if not folder:
            return {}
        variables = _of_files(Path(folder).expanduser())
        self.env_vars = {name.lower(): value for name, value in variables.items()}
        return super().__call__() | ({"dotenv": variables} if variables else {})


_SECRETS_OF_OTHERS = ("DAGSTER_POSTGRES_URL",)
"""Variables that are read by Dagster, whose instance our processes open (deploy/dagster.yaml)."""


def _of_files(folder: Path) -> dict[str, str]:
    """What the files of a folder say, by the names of the environment; others that lie there are not read.

    Raises:
        Refusal: the folder or one of the files cannot be read; names it.
    """
    try:
        files = {file.name.upper(): file for file in sorted(folder.iterdir()) if file.is_file()}
    except OSError as fault:
        raise Refusal(
            f"ML_ASSETS_SECRETS_DIR is {folder}, which cannot be read ({fault.strerror}): name a folder whose files "
            "are named like settings, such as ml_assets_postgres_url, or unset it."
        ) from fault
    found = {}
    for name, file in files.items():
        if name.startswith("ML_ASSETS_") or name in _SECRETS_OF_OTHERS:
            try:
                found[name] = file.read_text(encoding="utf-8").strip()
            except OSError as fault:
                raise Refusal(
                    f"{file} cannot be read ({fault.strerror}): let the user read it that this process runs as."
                ) from fault
            except UnicodeDecodeError as fault:
                raise Refusal(f"{file} is no text in UTF-8: write the value alone into it.") from fault
    return found


class _HomeFile(PydanticBaseSettingsSource):
    """The `ml_assets.toml` of the home, which is read and never executed."""

    def get_field_value(self, field: Any, field_name: str) -> tuple[Any, str, bool]:
        return None, field_name, False  # the file is taken as a whole

    def __call__(self) -> dict[str, Any]:
        named = str(self.current_state.get("home") or "").strip()
        home = Path(os.path.abspath(Path(named).expanduser())) if named else _found().folder
        return {key: self._unsaid(key, value) for key, value in _of_home(home).items()}

    def _unsaid(self, key: str, value: Any) -> Any:
        """Of an object, what nobody has said before; the next step would mix what lies deeper."""
        before = self.current_state.get(key)
        if not isinstance(value, dict) or not isinstance(before, dict):
            return value
        return {name: said for name, said in value.items() if name not in before}


def _of_home(home: Path) -> dict[str, Any]:
    """What the file of a home says, each value checked on its own; nothing if there is none.

    Raises:
        Refusal: it cannot be read, or holds what is no setting or cannot be one; names the file, the key and the value.
    """
    file = home / HOME_FILE
    if not os.path.exists(file):  # noqa: PTH110 - Path's raises where one may not look
        return {}
    try:
        said = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as fault:
        raise Refusal(f"{file} cannot be read ({fault.strerror}): mend its mode or remove it.") from fault
    except ValueError as fault:  # TOMLDecodeError, UnicodeDecodeError
        raise Refusal(f"{file} is no TOML: {fault}.") from fault
    known = [
        name
        for name in Settings.model_fields
        if name not in ("home", "dotenv", "secrets_dir") and not name.endswith(("_url", "_urls", "_api_key"))
    ]
    for key in said:
        if key in known:
            continue
        if key in Settings.model_fields:
            raise Refusal(f"{file}: {key} is not set in this file but as ML_ASSETS_{key.upper()}.")
        nearest = next(iter(get_close_matches(key, known, 1)), "")
        remedy = f"did you mean {nearest}?" if nearest else f"it may have {', '.join(known)}."
        raise Refusal(f"{file}: {key} is no setting; {remedy}")
    try:
        _OnItsOwn(home=home, **said)
    except ValidationError as error:
        raise Refusal(f"{file}: {_told(error)}.") from None
    return said


def _told(error: ValidationError) -> str:
    """Key, value and fault of the first that is wrong."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    return f"{key} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"


def _floors(value: Any) -> Any:
    """Floors of every model stand beside objects of those of one."""
    if not isinstance(value, dict):
        return value
    found: dict[str, dict[str, Any]] = {}
    for name, said in value.items():
        if isinstance(said, dict):
            found[name] = {**found.get(name, {}), **said}
        else:
            found.setdefault("*", {})[name] = said
    for model, floors in found.items():
        for slice_, floor in floors.items():
            if slice_ != "all" and not re.fullmatch(r"confidence=\d\.\d-\d\.\d", slice_):
                raise ValueError(
                    f"{slice_!r} is no slice that a floor holds for: write all, or confidence= with a band of "
                    "prediction_quality such as confidence=0.9-1.0"
                )
            if isinstance(floor, bool) or not isinstance(floor, int | float) or not 0 <= floor <= 1:
                raise ValueError(f"the floor of {slice_} ({model}) is {floor!r}: give a share from 0 to 1")
    return found


PromotionCheck = Literal["drift", "regression", "quality", "slice_floors", "leakage", "parity"]
"""Checks of the gate, as lib/promotion.py makes them."""


class Settings(BaseSettings):
    """All settings with their defaults: everything embedded, nothing to configure."""

    reconciliation_blocks: bool = Field(
        default=False,
        description="whether stores that differ stop what is downstream of quality/reconciliation in a run",
    )

    promotion_alias: str | None = Field(
        default=None,
        description="alias of MLflow's that moves to a version that the gate lets pass; never if unset",
    )
    promotion_floors: Annotated[dict[str, dict[str, float]], BeforeValidator(_floors)] = Field(
        default={},
        description="least accuracy of a version by slice, as a JSON object: all, or confidence=0.9-1.0; for one model "
        "alone in an object under its name",
    )
    promotion_margin: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="loss of accuracy that may be left open against the version with the alias; if unset, only a "
        "version that is shown to be worse is refused",
    )
    promotion_may_miss: Annotated[tuple[PromotionCheck, ...], NoDecode] = Field(
        default=(),
        description="checks of the gate that let a version pass where they cannot be made, separated by commas",
    )
    promotion_models: Annotated[tuple[str, ...], NoDecode] = Field(
        default=(),
        description="models that the gate judges, separated by commas; all with a version if unset",
    )

    @field_validator("promotion_may_miss", "promotion_models", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        return cls._streams(value)

    model_config = SettingsConfigDict(
        env_prefix="ML_ASSETS_", env_ignore_empty=True, frozen=True, extra="ignore"
    )

    home: Path = Field(
        default_factory=lambda: _found().folder, description="folder of everything that is kept: see home.py"
    )
    dotenv: dict[str, str] = Field(
        default={},
        repr=False,
        exclude=True,
        description="variables of the .env that names the home, and of secrets_dir",
    )
    secrets_dir: Path | None = Field(
        default=None,
        repr=False,
        description="folder of files that are named like settings and hold their values, such as /run/secrets",
    )

    postgres_url: str | None = Field(default=None, repr=False)
    lake_url: str | None = Field(
        default=None, repr=False, description="PostgreSQL URL of the DuckLake catalog"
    )
    lake_data: str | None = Field(
        default=None, description="folder of the lake's files, or s3://BUCKET/PREFIX (docs/servers.md)"
    )
    s3_endpoint: str | None = Field(
        default=None,
        description="URL of an object store that is not AWS's; AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL if unset",
    )
    s3_region: str | None = Field(
        default=None, description="region of the lake's bucket; AWS_REGION or AWS_DEFAULT_REGION if unset"
    )
    s3_url_style: Literal["auto", "path", "vhost"] = Field(
        default="auto",
        description="whether a bucket is named in the path; auto: path where an endpoint is set",
    )
    s3_ca_file: str | None = Field(
        default=None, description="certificates that the object store's is signed by; AWS_CA_BUNDLE if unset"
    )
    clickhouse_url: str | None = Field(default=None, repr=False)
    chroma_url: str | None = Field(default=None, repr=False)
    redis_url: str | None = Field(default=None, repr=False)
    qdrant_url: str | None = Field(
        default=None,
        repr=False,
        description="Qdrant, in which the vectors lie as well if this is set (docs/search.md)",
    )
    sqlite_url: str | None = Field(default=None, repr=False)
    mlflow_url: str | None = Field(default=None, repr=False)
    ollama_url: str | None = Field(default=None, repr=False)
    openlineage_url: str | None = Field(
        default=None,
        repr=False,
        description="collector of OpenLineage events, which are sent if this is set (docs/lineage.md)",
    )
    openlineage_api_key: str | None = Field(
        default=None, repr=False, description="key that the collector of OpenLineage events asks for"
    )

    host: str = "127.0.0.1"
    port: int = Field(default=3000, ge=1, le=65535, description="of the Dagster UI")
    partitions_start: date = Field(default=date(2014, 1, 1), description="first daily partition, UTC")
    query_timeout_s: float = Field(default=30.0, gt=0, description="statement time-out of queries")
    write_timeout_s: float = Field(default=600.0, gt=0, description="of bulk loads and index builds")
    lock_timeout_s: float = Field(default=60.0, gt=0, description="how long to wait for another process")
    retention_days: float = Field(
        default=7.0, ge=0, description="how far back the lake's versions can be read, days"
    )
    history_days: int = Field(
        default=90,
        ge=1,
        description="days for which Dagster's runs are kept with their events and logs; the newest materialization of "
        "each partition stays (docs/maintenance.md)",
    )
    server_log_mb: int = Field(
        default=8, ge=1, description="MB of an embedded server's log from which the older part of it goes"
    )
    mlflow_trace_days: int | None = Field(
        default=None,
        ge=1,
        description="days for which MLflow's traces are kept, of all experiments; for ever if unset",
    )
    quarantine_text_days: int | None = Field(
        default=None,
        ge=1,
        description="days for which the text of rows in quarantine is kept; for ever if unset (docs/maintenance.md)",
    )
    executor: Literal["auto", "in_process", "multiprocess", "celery", "kubernetes"] = Field(
        default="auto",
        description="auto: in-process on embedded ClickHouse, multiprocess on servers; celery and kubernetes: steps on "
        "several machines (docs/servers.md)",
    )
    celery_broker_url: str | None = Field(
        default=None, repr=False, description="Redis or another broker by which Celery hands out steps"
    )
    celery_backend_url: str | None = Field(
        default=None,
        repr=False,
        description="where Celery keeps what came of steps; the broker if that is Redis",
    )
    celery_lost_after_s: float = Field(
        default=30.0,
        ge=2,
        description="how long a worker of Celery may be silent before its steps are given to another one",
    )
    embedder: Literal["minilm", "minilm-int8", "ollama", "openai"] = "minilm"
    ollama_model: str = Field(default="all-minilm", description="the model that Ollama embeds with")
    ollama_dimension: int = Field(
        default=MINILM_DIMENSION, ge=1, le=16_000, description="length of that model's vectors"
    )
    ollama_chat_model: str | None = Field(
        default=None,
        description="model of Ollama that writes a summary beside the facts of `ml-assets why`; none if unset",
    )
    sources: dict[str, str] = Field(
        default={}, description="glob by source (sql/duckdb/sources), in place of the one in its header"
    )
    artifact_roots: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="folders, separated by a colon, whose files may be listed as those of runs; besides the landing "
        "folder and MLflow's artifacts",
    )
    feature_folders: Annotated[tuple[Path, ...], NoDecode] = Field(
        default=(),
        description="folders, separated by a colon, of feature files besides those that are shipped; from the home if "
        "they are relative (docs/features.md)",
    )
    naive_times_utc: Annotated[tuple[StreamName, ...], NoDecode] = Field(
        default=(),
        description="streams whose times are UTC where they name no zone, as a JSON list or separated by commas",
    )
    metric_directions: dict[str, Direction] = Field(
        default={},
        description="by metric key, whether the largest (max) or the smallest (min) value is best, as a JSON object; "
        "other keys with loss, error, perplexity, mae, mse, rmse, time, latency, memory, ms or mb as a word fall, and "
        "the rest rise",
    )
    metric_synonyms: dict[str, str] = Field(
        default={},
        description="by metric key, the name under which it is compared, beside those of docs/metrics.md",
    )
    primary_metric_of_dataset: dict[str, _Primary] = Field(
        default={},
        description="by dataset, the metric that its runs are judged by: its name, or an object with `metric` and "
        "`direction`",
    )
    primary_metric_of_experiment: dict[str, _Primary] = Field(
        default={}, description="by experiment, the same for runs whose dataset has none"
    )
    serving_log_share: float = Field(
        default=0.01, ge=0, le=1, description="share of the requests for online features that are logged"
    )
    demo_end: date | None = Field(default=None, description="last replayed day of the demo, UTC")
    alert_urls: str | None = Field(
        default=None,
        repr=False,
        description="URLs of apprise, with white space or commas between them, that are told of alerts "
        "(docs/performance.md)",
    )
    clickhouse_cluster: str | None = Field(
        default=None,
        description="cluster of the ClickHouse server, on all of whose replicas tables are made (docs/servers.md)",
    )
    performance_ttl_days: int | None = Field(
        default=None,
        ge=1,
        description="days for which single performance events are kept in ClickHouse; for ever if unset "
        "(docs/performance.md)",
    )

    rerank_url: str | None = Field(
        default=None,
        repr=False,
        description="where a cross-encoder puts the best hits of a search in order, such as "
        "http://127.0.0.1:8080/rerank; none if unset (docs/search.md)",
    )
    rerank_model: str | None = Field(
        default=None, description="its name there, which all but TEI ask for; TEI's form of requests if unset"
    )
    rerank_api_key: str | None = Field(default=None, repr=False, description="bearer token that it asks for")
    ollama_max_tokens: int = Field(
        default=256,
        ge=32,
        description="tokens of a text that Ollama's embedding model reads; 256 are those of all-minilm",
    )
    openai_url: str | None = Field(
        default=None,
        repr=False,
        description="what /embeddings stands below, such as https://api.openai.com/v1, with ML_ASSETS_EMBEDDER=openai "
        "(docs/search.md)",
    )
    openai_api_key: str | None = Field(default=None, repr=False, description="bearer token that it asks for")
    openai_model: str = Field(default="text-embedding-3-small", description="the model that it embeds with")
    openai_dimension: int = Field(
        default=1_536, ge=1, le=16_000, description="length of that model's vectors"
    )
    openai_max_tokens: int = Field(default=8_191, ge=32, description="tokens of a text that it reads")

    read_only: bool = Field(
        default=False, description="open PostgreSQL, the lake, ClickHouse and SQLite for reading alone"
    )
    postgres_reader_url: str | None = Field(
        default=None, repr=False, description="PostgreSQL URL of a user who reads, used with read_only"
    )
    lake_reader_url: str | None = Field(
        default=None, repr=False, description="the same of the lake's catalog"
    )
    clickhouse_reader_url: str | None = Field(default=None, repr=False, description="the same of ClickHouse")

    @field_validator("home", mode="after")
    @classmethod
    def _absolute(cls, home: Path) -> Path:
        # Not resolve(): a symlinked home keeps the name that its owner gave it.
        return Path(os.path.abspath(home.expanduser()))

    @field_validator("artifact_roots", mode="before")
    @classmethod
    def _folders(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [os.path.abspath(Path(folder).expanduser()) for folder in value.split(os.pathsep) if folder]

    @field_validator("feature_folders", mode="before")
    @classmethod
    def _feature_folders(cls, value: Any) -> Any:
        return [part for part in value.split(os.pathsep) if part] if isinstance(value, str) else value

    @field_validator("feature_folders", mode="after")
    @classmethod
    def _below_home(cls, value: tuple[Path, ...], info: ValidationInfo) -> tuple[Path, ...]:
        # Not there if the home itself cannot be read, which is told already.
        home = Path(os.path.abspath(Path(info.data.get("home", Path.cwd())).expanduser()))
        return tuple(Path(os.path.abspath(home / folder.expanduser())) for folder in value)

    @field_validator("naive_times_utc", mode="before")
    @classmethod
    def _streams(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        if value.lstrip().startswith("["):
            return json.loads(value)  # what is no JSON raises a ValueError, which pydantic tells of
        return [name.strip() for name in value.split(",") if name.strip()]

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_unset(cls, value: Any, info: Any) -> Any:
        if isinstance(value, str) and not value.strip():
            return cls.model_fields[info.field_name].get_default(call_default_factory=True, validated_data={})
        return value

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """What was given comes first, then the environment, the `.env` that names the home, secrets, and the home's file.

        Of objects, such as synonyms, each key is looked for in this order.
        """
        return (
            init_settings,
            env_settings,
            _Dotenv(settings_cls),
            _SecretFiles(settings_cls),
            _HomeFile(settings_cls),
        )

    def require_home(self, *stores: str) -> None:
        """Refuse to read a home that does not exist, before anything is started or made there.

        Args:
            stores: those of `STORES` that are to be read; all of them if none is named.

        Raises:
            Refusal: there is no home, and one of the stores lies in it.
        """
        if not is_home(self.home) and any(self._is_in_home(store) for store in stores or STORES):
            raise no_home(self.home)

    def _is_in_home(self, store: str) -> bool:
        return self.mode(store) == "embedded" or (store == "duckdb" and self.lake_data is None)

    @property
    def metric_rules(self) -> MetricRules:
        """What is said of metrics beyond their values."""
        return MetricRules(
            self.metric_directions,
            self.metric_synonyms,
            self.primary_metric_of_dataset,
            self.primary_metric_of_experiment,
        )

    @property
    def dagster_home(self) -> Path:
        """Dagster's history, logs and the link to dagster.yaml."""
        return self.home / "dagster"

    @property
    def landing(self) -> Path:
        """Landing folders, one per stream."""
        return self.home / "landing"

    @property
    def lake_data_path(self) -> str:
        """Folder or prefix of the lake's Parquet files."""
        return self.lake_data or str(self.home / "lake")

    @property
    def object_store(self) -> dict[str, str]:
        """How the object store of the lake's files is reached, by ours or else AWS's variables; "" where none is set.

        Keys are no setting: DuckDB's aws extension finds them by AWS's rules.
        """
        said = self._said()
        of_aws = {
            "s3_endpoint": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
            "s3_region": ("AWS_REGION", "AWS_DEFAULT_REGION"),
            "s3_ca_file": ("AWS_CA_BUNDLE",),
        }
        found = {
            field: getattr(self, field) or next((said[name] for name in names if said.get(name)), "")
            for field, names in of_aws.items()
        }
        return {**found, "s3_url_style": self.s3_url_style}

    @property
    def sqlite_path(self) -> Path:
        """The SQLite file; `sqlite:///relative` and `sqlite:////absolute` as SQLAlchemy reads them."""
        if self.sqlite_url is None:
            return self.home / "sqlite" / "ml_dev.db"
        path = self.sqlite_url.removeprefix("sqlite:///")
        return Path(os.path.abspath(path))

    @property
    def mlflow_uri(self) -> str:
        """The tracking store to read from."""
        return self.mlflow_url or self.embedded_mlflow_uri

    @property
    def embedded_mlflow_uri(self) -> str:
        """The embedded tracking store, which the demo writes whatever else is configured."""
        return f"sqlite:///{self.home / 'mlflow' / 'mlflow.db'}"

    @property
    def embedded_mlflow_artifacts(self) -> Path:
        """Artifacts of the embedded tracking store."""
        return self.home / "mlflow" / "artifacts"

    @property
    def demo_files(self) -> Path:
        """Files of those runs of the demo that are not in MLflow."""
        return self.home / "demo" / "files"

    @property
    def reports(self) -> Path:
        """Pages that the graph writes for people."""
        return self.home / "reports"

    @property
    def artifacts(self) -> Path:
        """Files of the light registry's runs, by content, and below `runs` under their names."""
        return self.home / "artifacts"

    @property
    def artifact_folders(self) -> tuple[Path, ...]:
        """Folders of this machine that the files of runs may lie in; the artifacts of another MLflow come to them."""
        ours = (self.landing, self.embedded_mlflow_artifacts, self.demo_files, self.artifacts)
        return (*ours, *self.artifact_roots)

    @property
    def embedding_dimension(self) -> int:
        """Length of the vectors of the embedder in use."""
        return self.embedding_server.get("dimension", MINILM_DIMENSION)

    @property
    def embedding_server(self) -> dict[str, Any]:
        """Where the embedder in use is asked and what for, as `create` of embedders/ takes it; {} for a local one."""
        if self.embedder not in ("ollama", "openai"):
            return {}
        names = ("url", "model", "dimension", "max_tokens", "api_key")
        given = {name: getattr(self, f"{self.embedder}_{name}", None) for name in names}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def alert_url_list(self) -> list[str]:
        """The URLs that are told of alerts, each once."""
        given = _NEXT_URL.split((self.alert_urls or "").strip(" \t\r\n,"))
        return [url for url in dict.fromkeys(given) if url]

    @cached_property
    def executor_kind(self) -> Literal["in_process", "multiprocess", "celery", "kubernetes"]:
        """The executor that the settings lead to (decision 9)."""
        if self.executor != "auto":
            return self.executor
        return "in_process" if self.mode("clickhouse") == "embedded" else "multiprocess"

    @property
    def celery_results_url(self) -> str | None:
        """Where Celery keeps results: what is set, or the broker if it can."""
        broker = self.celery_broker_url or ""
        return self.celery_backend_url or (broker if broker.startswith(("redis://", "rediss://")) else None)

    def url_of(self, store: str) -> str:
        """The URL that is set for a store of `STORES`; "" if none is."""
        # The catalog follows PostgreSQL unless it has a URL of its own.
        urls = (
            (self.lake_url, self.postgres_url) if store == "duckdb" else (getattr(self, f"{store}_url", ""),)
        )
        return next((url for url in urls if url), "")

    def mode(self, store: str) -> Literal["embedded", "server"]:
        """Whether a store of `STORES` is embedded here or a server that somebody else runs."""
        url = self.url_of(store)
        # A folder for the engine in this process is a place to keep the data, and no server.
        return "server" if url and not url.startswith(("chdb:", "edge:")) else "embedded"

    def masked(self, text: str) -> str:
        """Text with the passwords of all configured URLs masked, keys of other services, and alert URLs."""
        fields = (name for name in type(self).model_fields if name.endswith("_url"))
        text = without_alert_urls(text, self.alert_url_list)
        said = self._said()
        of_aws = [said.get(name) for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
        for key in (self.openlineage_api_key, self.rerank_api_key, self.openai_api_key, *of_aws):
            if key:
                text = text.replace(key, "***")
        return without_passwords(text, [url for name in fields if (url := getattr(self, name))])

    def for_reading(self) -> "Settings":
        """The same stores, opened for reading alone, as the users who read where there are such."""
        names = ("postgres", "lake", "clickhouse")
        given = {name: getattr(self, f"{name}_reader_url") for name in names}
        readers = {f"{name}_url": url for name, url in given.items() if url}
        return self.model_copy(update={"read_only": True, **readers})

    def secret(self, field: str) -> Any:
        """A store's URL for a resource's configuration, "" if embedded.

        What stands in the environment is passed as `EnvVar`, so that Dagster's UI shows the variable's
        name and never a password.
        """
        value = getattr(self, field)
        if not value:
            return ""
        name = f"ML_ASSETS_{field.upper()}"
        if os.environ.get(name) == value:
            from dagster import EnvVar

            return EnvVar(name)
        return value

    def unknown_variables(self) -> dict[str, str]:
        """Variables that are named like settings and are none, each with the nearest that is one, or ""."""
        known = [f"ML_ASSETS_{field.upper()}" for field in type(self).model_fields if field != "dotenv"]
        given = sorted(
            name for name in {**self.dotenv, **os.environ} if name.upper().startswith("ML_ASSETS_")
        )
        return {
            name: next(iter(get_close_matches(name.upper(), known, 1)), "")
            for name in given
            if name.upper() not in known and not name.startswith(_NO_SETTINGS)
        }

    def publish(self) -> None:
        """Put what a `.env` or a secret's file said into the environment of this process, where `secret` looks.

        For processes that have one home; elsewhere the next settings would take it for theirs.
        """
        said = self._said()
        os.environ.update({name: said[name] for name in self.dotenv})

    def _said(self) -> dict[str, str]:
        """The environment, and what a `.env` or a secret's file says where it says nothing, as an empty variable does."""
        unsaid = {name: value for name, value in self.dotenv.items() if not os.environ.get(name, "").strip()}
        return {**os.environ, **unsaid}

    def child_environment(self) -> dict[str, str]:
        """Environment for processes that we start: the same home and Dagster's home, made absolute."""
        return {
            **DAGSTER_EVENTS,
            **self._said(),
            "ML_ASSETS_HOME": str(self.home),
            "DAGSTER_HOME": str(self.dagster_home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "GIT_PYTHON_REFRESH": "quiet",  # a machine without git is nothing to warn of
        }


class _OnItsOwn(Settings):
    """Settings of what is given alone."""

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        *others: Any,
        **more: Any,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)


def read_settings(**given: Any) -> Settings:
    """The settings, or in one sentence what is wrong with them.

    Args:
        given: fields that are not read from the environment.

    Raises:
        Refusal: a value cannot be read.
    """
    try:
        return Settings(**given)
    except ValidationError as error:
        first = error.errors()[0]
        name = f"ML_ASSETS_{str(first['loc'][0]).upper()}"
        raise Refusal(f"{name} is {first['input']!r}: {first['msg']}.") from None
    except SettingsError as error:
        name = next((name for name in _EXAMPLES if f'"{name}"' in str(error)), "sources")
        raise Refusal(
            f"ML_ASSETS_{name.upper()} cannot be read: it has to be a JSON object such as {_EXAMPLES[name]}."
        ) from None


_EXAMPLES: Mapping[str, str] = {
    "sources": '{"nab": "nab/*.csv"}',
    "metric_directions": '{"regret": "min"}',
    "metric_synonyms": '{"acc": "accuracy"}',
    "primary_metric_of_dataset": '{"diabetes": "rmse"}',
    "primary_metric_of_experiment": '{"mine": {"metric": "bleu", "direction": "max"}}',
    "promotion_floors": '{"all": 0.9, "digits-forest": {"confidence=0.9-1.0": 0.97}}',
}
"""By each setting that is a JSON object, one."""
