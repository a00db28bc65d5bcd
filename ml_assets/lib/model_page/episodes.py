"""Episodes: when the model became worse, by how much, and what became of it."""

from ml_assets.lib.day_chart import shown
from ml_assets.lib.model_page.facts import ModelFacts, Row
from ml_assets.lib.model_page.parts import moment, never_made, sentence, table
from ml_assets.lib.model_page.quality import metric, sign
from ml_assets.lib.words import counted

_MOST_EPISODES = 50


def is_open(row: Row) -> bool:
    """Whether an episode goes on."""
    return row["closed_at"] is None


def episodes_part(facts: ModelFacts) -> str:
    """The section of episodes, the open ones first."""
    if facts.episodes is None:
        return never_made("clickhouse/performance_regressions", "Whether the model became worse")
    if not facts.episodes:
        return sentence(
            "No episode: neither quality nor latency became worse by more than chance would have it."
        )
    rows = sorted(facts.episodes, key=lambda row: (is_open(row), row["opened_at"]), reverse=True)
    heads = ["what", "state", "told", "change", "95 % interval", "confidence"]
    heads += ["began", "opened", "last seen", "ended"]
    cells = []
    for row in rows[:_MOST_EPISODES]:
        what = metric(str(row["metric"]))
        if row["slice"] != "all":
            what += f" of {row['slice']} {row['slice_value']}"
        low, high = row.get("low"), row.get("high")
        state = row.get("state") or ("open" if is_open(row) else "closed")
        if state == "snoozed" and row.get("snoozed_until"):
            state += f" until {row['snoozed_until']:%Y-%m-%d}"
        cells.append(
            [
                what,
                state,
                row.get("description") or None,
                shown(row["change"]) if row["kind"] == "drift" else sign(row["change"]) or None,
                f"{shown(low)} to {shown(high)}" if low is not None and high is not None else None,
                None if row["confidence"] is None else _confidence(row["confidence"]),
                moment(row.get("began_at") or row["opened_at"]),
                moment(row["opened_at"]),
                moment(row["last_seen_at"]),
                moment(row["closed_at"]),
            ]
        )
    left = len(rows) - _MOST_EPISODES
    more = f"<p>{counted(left, 'older one is', 'older ones are')} left out.</p>" if left > 0 else ""
    lead = (
        "An episode is one finding: it opens when the change is more than chance would have it, and ends when all is as "
        "before. The interval is of the difference, in the metric's own unit; of drift, the change is the largest "
        "distance. Times are UTC."
    )
    return f"<p>{lead}</p>{table('episode-rows', 'Episodes', heads, cells)}{more}"


def _confidence(value: float) -> str:
    return ">0.999" if value > 0.999 else f"{value:.3f}"
