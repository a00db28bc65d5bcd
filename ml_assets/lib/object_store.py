"""A lake's files in an object store that speaks S3: how DuckDB is told of it, and what its faults mean.

What belongs here: the prefix, the endpoint and the statements made of them, and faults told by the words of DuckDB's
httpfs, which has no codes. What does not: connections; resources/duckdb.py opens them. No key passes through here: the
aws extension finds them itself (environment, profile, single sign-on, role of the machine).
"""

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from ml_assets.lib.faults import chain, one_sentence
from ml_assets.lib.sql import quote_literal

EXTENSIONS = ("httpfs", "aws")
"""Extensions of DuckDB that such a lake takes, in the order in which they are loaded."""

ENVIRONMENT_SETTINGS = ("s3_access_key_id", "s3_secret_access_key", "s3_session_token")
"""Settings into which httpfs copies AWS's variables when it is loaded, and which every query can read."""

TELLS_KEYS = "load_aws_credentials"
"""Function of the aws extension that puts keys there again, and shows a session's token."""

UrlStyle = Literal["auto", "path", "vhost"]

_BUCKET = re.compile(r"[a-z0-9][a-z0-9._-]{1,61}[a-z0-9]")
_IN_PREFIX = re.compile(r"[A-Za-z0-9!_.'()/=+ -]*")
"""Characters that no listing takes for a pattern, and that need no escape as a URL."""

_CONNECTION = re.compile(r"error for HTTP (GET|HEAD|PUT|POST|DELETE)", re.IGNORECASE)
_STATUS = re.compile(
    r"HTTP (?:code )?(\d{3})|HTTP Error.*?\((\d{3})\)|Unable to connect to URL.*?\((\d{3})\)"
)
_NO_CREDENTIALS = "Secret Validation Failure"
_NO_BUCKET = "NoSuchBucket"
_LONGEST = 240


@dataclass(frozen=True)
class ObjectStore:
    """Where an object store answers, and how.

    Args:
        endpoint: URL of a store that is not AWS's own, http:// or https://; "" for AWS.
        region: of the bucket; "" for that of AWS's profile, and for us-east-1 where there is an endpoint.
        url_style: `path` (host/bucket) or `vhost` (bucket.host); `auto` is `path` where there is an endpoint.
        ca_file: certificates to trust instead of the system's; "" for those.
    """

    endpoint: str = ""
    region: str = ""
    url_style: UrlStyle = "auto"
    ca_file: str = ""

    def settings(self) -> list[str]:
        """Statements for an instance that has the extensions, before it reaches the store."""
        # What comes from the environment would be used for every bucket, and shown to whoever may query.
        statements = [f"RESET GLOBAL {name}" for name in ENVIRONMENT_SETTINGS]
        if self.ca_file:
            statements.append(f"SET GLOBAL ca_cert_file = {quote_literal(self.ca_file)}")
        return statements

    def secret(self, name: str, prefix: str, keys_in_environment: bool = False) -> str:
        """The statement that has the aws extension find a key for this prefix, and again when the store refuses it.

        Args:
            name: of the secret, quoted.
            prefix: that it is for.
            keys_in_environment: whether AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are set.

        Raises:
            ValueError: the endpoint is none; a clause that says why.
        """
        host, secure = host_of(self.endpoint) if self.endpoint else ("", True)
        # Signed by no region at all, as the extension would there, a request is refused by some stores.
        region = self.region or ("us-east-1" if host else "")
        options = {
            "ENDPOINT": quote_literal(host) if host else "",
            "USE_SSL": "" if secure else "false",
            "URL_STYLE": quote_literal(self.style),
            "REGION": quote_literal(region) if region else "",
            # Those keys are the first that are looked for. Whoever looks further asks the machine's metadata service
            # for a region besides, which takes 8 s wherever there is no such service and nobody says so.
            "CHAIN": "'env'" if keys_in_environment and region else "",
        }
        told = "".join(f", {option} {value}" for option, value in options.items() if value)
        return (
            f"CREATE OR REPLACE TEMPORARY SECRET {name} (TYPE s3, PROVIDER credential_chain, REFRESH auto, "
            f"SCOPE {quote_literal(f'{prefix}/')}{told})"
        )

    @property
    def style(self) -> str:
        """`path` or `vhost`."""
        if self.url_style != "auto":
            return self.url_style
        return "path" if self.endpoint else "vhost"


def host_of(endpoint: str) -> tuple[str, bool]:
    """Host and port of an endpoint, and whether it is reached by TLS.

    Raises:
        ValueError: it is no URL of a host alone; a clause that quotes none of it, since a key may stand there.
    """
    try:
        parts = urlsplit(endpoint)
        port = parts.port
    except ValueError:
        raise ValueError("it cannot be read as a URL") from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("it does not begin with http:// or https:// and a host")
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError("keys do not belong into it but into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if parts.path not in ("", "/"):
        raise ValueError("it has a path, where only a host and a port may be")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return (f"{host}:{port}" if port else host), parts.scheme == "https"


def prefix_of(data: str) -> str:
    """A prefix such as `s3://bucket/lake`, without a slash at its end.

    Raises:
        ValueError: it is none; a clause that says why.
    """
    scheme, _, rest = data.partition("://")
    bucket, _, prefix = rest.rstrip("/").partition("/")
    if scheme != "s3":
        raise ValueError(
            "a lake's files lie in a folder or below s3://BUCKET/PREFIX; other object stores have S3, too"
        )
    if not _BUCKET.fullmatch(bucket):
        raise ValueError("what follows s3:// is not the name of a bucket")
    if not _IN_PREFIX.fullmatch(prefix) or "//" in prefix:
        raise ValueError("its prefix may hold letters, digits, blanks and any of !_.'()=+- between slashes")
    return f"s3://{bucket}/{prefix}".rstrip("/")


@dataclass(frozen=True)
class StoreFault:
    """What an object store, or the way to it, answered.

    Args:
        cause: in its words, on one line.
        remedy: as an imperative.
        is_loss: whether it answers, and a file is not there.
    """

    cause: str
    remedy: str
    is_loss: bool = False


def fault_of(error: BaseException) -> StoreFault | None:
    """The fault of an object store among an error and its causes, None if there is none."""
    for cause in chain(error):
        if found := _read(one_sentence(cause)):
            return found
    return None


def _read(words: str) -> StoreFault | None:
    # DuckDB quotes the statement behind its message.
    whole = re.split(r"\s+LINE \d+: ", words)[0].rstrip(". ")
    said = whole if len(whole) <= _LONGEST else f"{whole[:_LONGEST]} ..."
    if _NO_CREDENTIALS in said:
        return StoreFault(
            "no credentials were found",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE, or give this machine a role",
        )
    if _CONNECTION.search(said):
        return StoreFault(
            said, "check ML_ASSETS_S3_ENDPOINT (or AWS_ENDPOINT_URL_S3) and that it can be reached"
        )
    if not (status := _STATUS.search(said)) or not ("HTTP Error" in said or "s3://" in said):
        return None
    number = next(filter(None, status.groups()))
    return StoreFault(said, _remedy(number, whole), number == "404" and _NO_BUCKET not in whole)


def _remedy(status: str, said: str) -> str:
    if status == "403":
        return (
            "check the key (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE), and that it may list, read, "
            "write and delete below the prefix"
        )
    if _NO_BUCKET in said:
        return "make the bucket, or correct ML_ASSETS_LAKE_DATA"
    if status == "404":
        return (
            "the catalog names a file that is not there: see that nothing else removes files below the prefix"
        )
    if status in ("301", "307", "400"):
        return (
            "set ML_ASSETS_S3_REGION to the region of the bucket, and ML_ASSETS_S3_URL_STYLE to path or vhost"
        )
    return "see what keeps the object store from answering, and run this again"
