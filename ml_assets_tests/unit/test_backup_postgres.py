"""What leads PostgreSQL's programs to a database."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from ml_assets.errors import Refusal
from ml_assets.maintenance.backup.postgres import connection_of
from ml_assets.services.postgres import program


def test_no_password_stands_in_a_list_of_processes():
    url = "postgresql://me:one%20word@127.0.0.1:1/team?sslpassword=of%20the%3Dkey&sslmode=disable"
    arguments, environment, secret = connection_of(url)
    told = " ".join(arguments)
    assert "one word" not in told and "the=key" not in told and "dbname=team" in told
    assert environment["PGPASSWORD"] == "one word" and "PGPASSWORD" not in os.environ
    assert secret is not None and stat.S_IMODE(Path(secret.name).stat().st_mode) == 0o600
    # libpq takes what stands in the file for what it is: nothing is missed but the server.
    command = [program("pg_dump") or "pg_dump", *arguments]
    said = subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stderr
    assert "Connection refused" in said
    path = Path(secret.name)
    del secret
    assert not path.exists()


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ("sslpassword=key&service=prod", "put sslpassword into the service's file"),
        ("sslpassword=key%20", "ends in white space"),
        ("sslpassword=key%0Ahost%3Dother", "has a line break"),
    ],
)
def test_a_password_that_cannot_stand_in_the_file_is_refused(more: str, told: str):
    with pytest.raises(Refusal, match=told):
        connection_of(f"postgresql://me@127.0.0.1:1/team?{more}")


def test_without_a_key_there_is_no_file():
    assert connection_of("postgresql://me@127.0.0.1:1/team")[2] is None
