"""Automation conditions, each with its why. Sensors bring rows in; these carry them on."""

from datetime import timedelta

import dagster as dg

PARTITIONED = (
    dg.AutomationCondition.eager()
    # Late rows arrive on days long past; eager alone looks at the latest day only.
    .without(dg.AutomationCondition.in_latest_time_window())
    # A day may hold runs and no predictions: a parent without that day must not hold up the others.
    .without(~dg.AutomationCondition.any_deps_missing())
    .with_label("follow every day that a parent rebuilt")
)
"""For daily assets: rebuild the days that a parent rebuilt, however old."""

WINDOWED = PARTITIONED.replace(
    # Of a parent that was rebuilt in the same run, eager believes that this covered all that follows. It covered the
    # same days, and not those after them that look back.
    "newly_updated_without_root",
    dg.AutomationCondition.newly_updated(),
).with_label("follow every day that a parent rebuilt, and the days after it that look back on it")
"""For daily assets whose rows look back on days before their own: which days these are, the partition mapping says."""

WHOLE = (
    dg.AutomationCondition.eager()
    # A partitioned parent always lacks some of its five thousand days.
    .without(~dg.AutomationCondition.any_deps_missing())
    .with_label("follow every change of a parent")
)
"""For unpartitioned assets: rebuild after any parent changed."""

KNOWN_LATER = (
    # Of a row that is there, the time has come from which it is known.
    (WHOLE | dg.AutomationCondition.cron_tick_passed("2 * * * *").since_last_handled()).with_label(
        "follow every change of a parent, and hourly what has become known"
    )
)
"""For unpartitioned assets of rows that count only from a time on."""

FOLLOWING = tuple(each.get_label() for each in (PARTITIONED, WINDOWED, WHOLE, KNOWN_LATER))
"""Labels of the conditions under which a table is rebuilt with what it reads."""

HOURLY = (
    dg.AutomationCondition.cron_tick_passed("20 * * * *").since_last_handled()
    # While tables are being rebuilt, neighbours differ for a moment.
    & ~dg.AutomationCondition.any_deps_in_progress()
).with_label("hourly, when nothing is being rebuilt")
"""For what compares tables with each other."""

FRESH_WITHIN_A_DAY = dg.FreshnessPolicy.time_window(
    fail_window=timedelta(hours=26), warn_window=timedelta(hours=25)
)
"""For what a schedule or daily retraining keeps up to date: a day, and time for the run itself."""
