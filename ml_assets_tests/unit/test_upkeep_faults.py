"""Faults of a round of maintenance, which become metadata that everybody reads."""

import pytest

from ml_assets.maintenance import MaintenanceReport
from ml_assets.operations import upkeep
from ml_assets.settings import Settings


def test_a_fault_has_no_password(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """A driver names the URL, or its password alone, in words of its own."""
    url = "postgresql://u:hush-hush@db/ml_dev"
    said = f"cannot reach {url} as u with hush-hush"
    monkeypatch.setattr(
        upkeep, "maintain", lambda *_, **__: [MaintenanceReport("postgres", 1, None, (), said)]
    )
    monkeypatch.setattr(upkeep, "home_parts", lambda *_: [])
    (found,) = upkeep.keep_small(Settings(home=tmp_path, postgres_url=url), {}, None)
    assert found.fault == "cannot reach postgresql://u:***@db/ml_dev as u with ***"
    assert (found.store, found.bytes_before) == ("postgres", 1)
