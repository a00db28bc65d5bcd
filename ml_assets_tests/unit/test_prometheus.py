"""Figures for Prometheus: names, labels and values, and that dashboard and alert rules ask only for what is told."""

import json
import re
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from ml_assets.lib.figures import Figures, History, Waiting, families
from ml_assets.settings import PROJECT_ROOT

DASHBOARD = PROJECT_ROOT / "deploy" / "grafana" / "dashboard.json"
RULES = PROJECT_ROOT / "deploy" / "prometheus" / "rules.yml"
NOTHING = Figures("1", {"stores": {}, "quarantined": None})


def store(state: str = "healthy", **tables: Any) -> dict[str, Any]:
    return {"state": state, "latency_ms": 2.5, "tables": tables}


KNOWN = Figures(
    version="0.1.0",
    status={
        "stores": {
            "postgres": store(
                runs={
                    "rows": 3,
                    "bytes": 70,
                    "newest": "2026-01-02T00:00:00+00:00",
                    "written_at": "2026-01-03T00:00:01+00:00",
                },
                notes={"rows": 0, "bytes": 0, "newest": None, "written_at": None},
            ),
            "clickhouse": store("busy"),
        },
        "quarantined": {"runs": 4},
    },
    disk={"postgres": 8_000_000},
    free=10**12,
    waiting={"runs": Waiting(2, 1_700_000_000.5, 1), "metrics": Waiting(0, None, 0)},
    alerts={("drift", "open", "error"): 2},
    history=History(5, {"postgres/runs": ['odd "one"\\', "keys"]}, {"failure": 1, "success": 7}, 1),
    seconds={"stores": 0.25, "alerts": 0.0},
    failed=frozenset({"alerts"}),
    at=1_800_000_000.0,
)


def told(figures: Figures) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """Values by name and labels, after the text was read as Prometheus reads it."""

    class Once(Collector):
        def collect(self):
            return families(figures)

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Once())
    text = generate_latest(registry).decode()
    found = {}
    for family in text_string_to_metric_families(text):
        assert family.type == "gauge" and family.documentation, family
        found[family.name] = {tuple(sorted(s.labels.items())): s.value for s in family.samples}
    return found


def test_values_are_read_back():
    read = told(KNOWN)
    assert read["ml_assets_store_up"][("state", "busy"), ("store", "clickhouse")] == 1
    assert sum(read["ml_assets_store_up"].values()) == 2
    assert read["ml_assets_store_latency_seconds"] == {(("store", "postgres"),): 0.0025}
    assert read["ml_assets_table_rows"][("store", "postgres"), ("table", "runs")] == 3
    assert read["ml_assets_table_newest_timestamp_seconds"] == {
        (("store", "postgres"), ("table", "runs")): 1767312000
    }
    assert read["ml_assets_table_written_timestamp_seconds"] == {
        (("store", "postgres"), ("table", "runs")): 1767398401
    }
    assert read["ml_assets_quarantined_rows"] == {(("stream", "metrics"),): 0, (("stream", "runs"),): 4}
    assert read["ml_assets_intake_oldest_waiting_timestamp_seconds"] == {(("stream", "runs"),): 1700000000.5}
    assert read["ml_assets_checks"] == {(("result", "failed"),): 2, (("result", "other"),): 3}
    assert (("check", 'odd "one"\\'), ("store", "postgres"), ("table", "runs")) in read[
        "ml_assets_check_failed"
    ]
    assert read["ml_assets_runs"][("status", "failure"),] == 1
    assert read["ml_assets_collect_failed"] == {(("part", "alerts"),): 1, (("part", "stores"),): 0}


def test_what_is_not_known_is_left_out_and_its_name_stays():
    read = told(NOTHING)
    assert read.keys() == told(KNOWN).keys()
    assert {name for name, samples in read.items() if samples} == {
        "ml_assets_build_info",
        "ml_assets_collected_timestamp_seconds",
    }


def asked_by_dashboard() -> list[str]:
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [target["expr"] for panel in panels for target in panel["targets"]]


def asked_by_rules() -> list[str]:
    groups = yaml.safe_load(RULES.read_text())["groups"]
    return [rule["expr"] for group in groups for rule in group["rules"]]


@pytest.mark.parametrize("asked", [asked_by_dashboard, asked_by_rules])
def test_dashboard_and_rules_ask_for_what_is_told(asked):
    read = told(KNOWN)
    names = {family.name: set(getattr(family, "_labelnames", ())) for family in families(KNOWN)}
    for query in asked():
        asked_for = re.findall(r"\b(ml_assets_\w+)(?:\{([^}]*)\})?", query)
        assert asked_for, query
        for name, selectors in asked_for:
            assert name in read, query
            assert set(re.findall(r"(\w+)=", selectors)) <= names[name], query


def test_rules_are_whole_and_their_words_name_known_labels():
    names = {family.name: set(getattr(family, "_labelnames", ())) for family in families(KNOWN)}
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    assert len({rule["alert"] for rule in group["rules"]}) == len(group["rules"])
    for rule in group["rules"]:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert rule["labels"]["severity"] in ("warning", "critical")
        known = set().union(*(names[name] for name in re.findall(r"ml_assets_\w+", rule["expr"])))
        assert set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"])) <= known
        assert re.fullmatch(r"\d+[mh]", rule.get("for", "1m"))


def test_panels_have_numbers_and_places_of_their_own():
    panels = json.loads(DASHBOARD.read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for place in (panel["gridPos"] for panel in panels)
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(taken)) == len(taken) and max(x for x, _ in taken) < 24
