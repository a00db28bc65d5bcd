"""Alerts, pure: episodes of drift, which finding is which alert, severity, messages, and what of a URL is secret."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from ml_assets.lib.alerts import (
    DriftDay,
    Drifted,
    Finding,
    Identity,
    Known,
    drift_findings,
    merged,
    message,
    regression,
)
from ml_assets.operations.alert_messages import check_urls
from ml_assets.settings import Settings, without_alert_urls

DAY = timedelta(days=1)
START = datetime(2026, 11, 1, tzinfo=UTC)
ACCURACY = Identity("regression", "forest", "accuracy", "dataset", "digits", "down")


def finding(first: float, last: float, closed: bool = False, identity: Identity = ACCURACY) -> Finding:
    """An episode from one day of the month to another."""
    return Finding(
        identity,
        kind="quality",
        severity="error",
        began_at=START + first * DAY,
        opened_at=START + first * DAY,
        last_seen_at=START + last * DAY,
        closed_at=START + (last + 1) * DAY if closed else None,
        before=0.97,
        after=0.60,
        change=-0.38,
        confidence=0.9999,
        description="The accuracy fell.",
    )


def known(
    alert_id: str, first: float, last: float, is_open: bool = True, identity: Identity = ACCURACY
) -> Known:
    return Known(alert_id, identity, START + first * DAY, START + last * DAY, is_open)


BOTH = {"regression", "drift"}


def test_an_episode_that_goes_on_is_the_same_alert():
    (first,) = merged([finding(10, 11)], [], BOTH).alerts
    for later in (finding(10, 14), finding(10, 14, closed=True), finding(8, 14), finding(12, 14)):
        found = merged([later], [known(first, 10, 12)], BOTH)
        assert found.alerts == {first: later}
        assert found.gone == []


def test_a_home_that_is_built_anew_has_the_same_alerts():
    again = [list(merged([finding(10, last)], [], BOTH).alerts) for last in (11, 14)]
    assert again[0] == again[1]


@pytest.mark.parametrize(
    "other",
    [
        ACCURACY._replace(model_name="tree"),
        ACCURACY._replace(metric="f1_score"),
        ACCURACY._replace(slice="all", slice_value=""),
        ACCURACY._replace(direction="up"),
        ACCURACY._replace(source="drift"),
    ],
)
def test_another_model_metric_slice_or_direction_is_another_alert(other: Identity):
    found = merged([finding(10, 12, identity=other)], [known("a", 10, 12)], BOTH)
    assert "a" not in found.alerts
    assert found.gone == ["a"]


def test_once_a_model_is_judged_by_dataset_what_was_known_of_it_goes_on():
    whole = ACCURACY._replace(slice="all", slice_value="")
    letters = ACCURACY._replace(slice_value="letters")
    digits, other = finding(10, 13), finding(12, 13, identity=letters)
    found = merged([digits, other], [known("a", 10, 12, identity=whole)], BOTH)
    assert found.alerts["a"] == digits and len(found.alerts) == 2 and found.gone == []
    # It is nobody else's once it is that of a dataset, nor while the model itself has an episode.
    found = merged([digits], [known("a", 10, 12, identity=whole), known("b", 12, 13)], BOTH)
    assert found.alerts == {"b": digits} and found.gone == ["a"]
    found = merged([digits, finding(10, 12, identity=whole)], [known("a", 10, 12, identity=whole)], BOTH)
    assert found.alerts["a"].identity == whole and len(found.alerts) == 2


def test_an_episode_that_comes_again_is_a_new_alert():
    before, again = finding(3, 5, closed=True), finding(6.5, 7)
    found = merged([before, again], [known("a", 3, 5, is_open=False)], BOTH)
    assert found.alerts["a"] == before
    assert len(found.alerts) == 2
    assert found.gone == []


def test_of_several_that_overlap_those_with_most_in_common_belong_together():
    long, short = finding(1, 9, closed=True), finding(9.5, 14)
    found = merged([short, long], [known("a", 1, 8), known("b", 9, 13)], BOTH)
    assert found.alerts == {"a": long, "b": short}
    joined = merged([finding(1, 14)], [known("a", 1, 8, is_open=False), known("b", 9.5, 10)], BOTH)
    assert list(joined.alerts) == ["a"]
    assert joined.gone == ["b"]


def test_what_is_not_found_any_more_is_gone_but_not_where_nobody_looked():
    assert merged([], [known("a", 1, 2), known("b", 1, 2, is_open=False)], BOTH).gone == ["a"]
    assert merged([], [known("a", 1, 2)], {"drift"}).gone == []


def row(**changes: Any) -> dict[str, Any]:
    """A row of performance_regressions."""
    times = {"began_at": START, "opened_at": START, "last_seen_at": START, "closed_at": None}
    numbers = {"before": 0.9, "after": 0.7, "change": -0.2, "deviations": -5.0, "confidence": 0.9999}
    said = {"kind": "quality", "direction": "down", "description": "It fell."}
    name = {"model_name": "m", "metric": "accuracy", "slice": "all", "slice_value": ""}
    return {**name, **times, **numbers, **said, **changes}


@pytest.mark.parametrize(
    ("changes", "severity"),
    [
        ({}, "error"),
        ({"change": -0.05}, "warn"),
        ({"confidence": 0.99}, "warn"),
        ({"confidence": None}, "warn"),
        ({"change": float("nan")}, "error"),
        ({"change": None, "deviations": 1.0}, "warn"),
        ({"change": None, "deviations": None}, "warn"),
    ],
)
def test_an_error_is_certain_and_large(changes: dict[str, Any], severity: str):
    assert regression(row(**changes)).severity == severity


def test_what_is_no_number_is_none():
    found = regression(row(change=float("inf"), before=float("nan")))
    assert (found.change, found.before, found.after) == (None, None, 0.7)


def days(pattern: str, slice_value: str = "", model: str = "m", psi: float = 0.3) -> list[DriftDay]:
    """A day a letter: `d` drifts, `.` does not, a blank was not judged."""
    far = [
        Drifted("input", "a", "PSI", psi, 0.1, 1e-6),
        Drifted("confidence", "confidence", "KS", 0.2, 0.1, 1e-5),
    ]
    return [
        DriftDay(
            model,
            "version" if slice_value else "all",
            slice_value,
            date(2026, 11, 1) + n * DAY,
            far if letter == "d" else (),
            2 if letter == "d" else 0,
        )
        for n, letter in enumerate(pattern)
        if letter != " "
    ]


def spans(found: Sequence[Finding]) -> list[tuple[int, int, int | None]]:
    """Day of the month: first, last, closed."""
    return [
        (each.began_at.day, each.last_seen_at.day, each.closed_at and each.closed_at.day) for each in found
    ]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", []),
        ("....", []),
        ("..d", [(3, 3, None)]),
        ("..dd.", [(3, 4, None)]),
        ("..d.d.", [(3, 5, None)]),
        ("..dd..", [(3, 4, 6)]),
        ("dd....d", [(1, 2, 4), (7, 7, None)]),
        # Days without a verdict say nothing.
        ("d      .", [(1, 1, None)]),
        ("d   d  ..", [(1, 5, 9)]),
    ],
)
def test_drift_opens_on_its_first_day_and_is_over_after_two_calm_ones(
    pattern: str, expected: list[tuple[int, int, int | None]]
):
    assert spans(drift_findings(reversed(days(pattern)))) == expected


def test_drift_of_a_model_names_its_features_and_takes_in_its_slices():
    found = drift_findings(
        [*days("..ddd", "v1"), *days("..ddd"), *days(".dd", "v2"), *days("d", model="other")]
    )
    assert [(each.identity.model_name, each.identity.slice_value) for each in found] == [
        ("m", ""),
        ("other", ""),
        ("m", "v2"),  # it drifted a day before the model as a whole did
    ]
    whole = found[0]
    assert whole.description == (
        "m differs from its baseline since 2026-11-03 in input a (PSI 0.30), confidence (KS 0.20)."
    )
    assert (whole.severity, whole.change, whole.confidence) == ("error", 0.3, pytest.approx(1 - 1e-6))
    assert drift_findings(days("d", psi=0.24))[0].severity == "warn"


def sent(event: str = "open", **changes: Any) -> dict[str, Any]:
    found = regression(row(slice="dataset", slice_value="digits"))
    return {
        **found.identity._asdict(),
        **vars(found),
        "alert_id": "3f2a",
        "event": event,
        "withdrawn": False,
        **changes,
    }


def test_a_message_names_model_metric_change_and_since_when():
    title, body = message([sent()])
    assert title == "ml-assets: 1 alert: m, dataset digits: accuracy"
    assert body == "[error] m, dataset digits: accuracy -20.0 % since 2026-11-01 (id 3f2a)\nIt fell."
    title, body = message([sent(), sent("over"), sent("over", withdrawn=True)])
    assert title == "ml-assets: 1 alert, 2 over"
    assert [line[: line.index("]") + 1] for line in body.split("\n\n")] == [
        "[error]",
        "[over]",
        "[withdrawn]",
    ]
    _, body = message([sent()] * 60)
    assert body.endswith("and 10 more: 'ml-assets alerts' lists them.")


def test_alert_urls_are_told_apart_and_shown_nowhere():
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    mail = "mailto://me:s3cr%2Ft@example.com?to=a@x.org,b@x.org"
    settings = Settings(alert_urls=f" {slack}, {mail}\n{slack} json://localhost:8080/hook")
    assert settings.alert_url_list == [slack, mail, "json://localhost:8080/hook"]
    assert not any(word in repr(settings) for word in ("s3cr", "T1JJ3T3L2", "hook"))
    told = settings.masked(
        f"{slack} failed: s3cr/t, s3cr%2Ft, host T1JJ3T3L2, path /TIiajkdnlazkcOXrIdevi7FQ"
    )
    assert told == "*** failed: ***, ***, host ***, path /***"
    assert settings.masked("ClickHouse at localhost:8123 is down") == "ClickHouse at localhost:8123 is down"
    assert Settings(alert_urls=" , ").alert_url_list == []
    assert without_alert_urls("nothing to hide", []) == "nothing to hide"


def test_of_what_is_no_url_nothing_is_told():
    told = check_urls(["T1JJ3T3L2/TIiajkdnlazkcOXrIdevi7FQ", "mailto:me:s3cret@host", "slak://s3cret"])
    assert [line.partition(" is none")[0] for line in told] == [
        "The 1st URL of ML_ASSETS_ALERT_URLS (***)",
        "The 2nd URL of ML_ASSETS_ALERT_URLS (***)",
        "The 3rd URL of ML_ASSETS_ALERT_URLS (slak://***)",
    ]


def test_a_finding_of_the_same_time_has_an_id_of_its_own():
    found = merged([finding(1, 2), replace(finding(1, 2), kind="mean")], [], BOTH)
    assert len(found.alerts) == 2
