"""Versions of the lake by time: which one was current at a moment, and which ones nobody needs any more.

What belongs here: arithmetic on numbers and times. What does not: the lake, which tells its versions.

The lake numbers its versions 0, 1, 2 ... without gaps. A number that is missing between two others was cleaned up, and
its time with it: then nobody can tell until when the one before it was current.
"""

from collections.abc import Collection, Mapping
from datetime import UTC, datetime


def version_at(versions: Mapping[int, datetime], moment: datetime, pins: Mapping[str, int]) -> int:
    """The number of the version that was current at a moment.

    Args:
        versions: number and time of writing of those that are there; not empty.
        moment: aware.
        pins: versions that are kept, by name, for the sentence.

    Raises:
        LookupError: it was cleaned up, or the lake is younger than that; says which times can be read.
    """
    before = [number for number, written_at in versions.items() if written_at <= moment]
    if not before:
        if 0 in versions:
            raise LookupError(
                f"There was no lake yet at {shown(moment)}: it was made at {shown(versions[0])}; name a later time."
            )
        raise LookupError(_gone(versions, moment, pins))
    found = max(before)
    followed = found == max(versions) or found + 1 in versions or versions[found] == moment
    if not followed:
        raise LookupError(_gone(versions, moment, pins))
    return found


def _gone(versions: Mapping[int, datetime], moment: datetime, pins: Mapping[str, int]) -> str:
    first = oldest_of_all_later(versions)
    kept = ", ".join(
        f"{name} ({shown(versions[number])})"
        for name, number in sorted(pins.items())
        if number < first and number in versions
    )
    older = f"; older ones are there as the pins {kept}" if kept else ""
    return (
        f"The lake as it stood at {shown(moment)} was cleaned up: every time from {shown(versions[first])} on can be "
        f"read{older}. Versions stay for ML_ASSETS_RETENTION_DAYS; 'ml-assets features pin NAME' (stack.features.pin) "
        "keeps the one of today for good."
    )


def oldest_of_all_later(versions: Mapping[int, datetime]) -> int:
    """The oldest version since which none is missing."""
    number = max(versions)
    while number - 1 in versions:
        number -= 1
    return number


def outlived(versions: Mapping[int, datetime], kept: Collection[int], since: datetime) -> list[int]:
    """Versions that may go, in order: neither current at any moment from `since` on, nor to be kept.

    Args:
        versions: number and time of writing of those that are there; not empty.
        kept: numbers of those that stay whatever their age.
        since: aware.
    """
    current = max((number for number, at in versions.items() if at <= since), default=min(versions))
    return sorted(number for number in versions if number < current and number not in kept)


def shown(moment: datetime) -> str:
    """A moment in UTC as people write it, such as `2026-11-29T13:00:00Z`, with what it has of a second."""
    text = moment.astimezone(UTC).replace(tzinfo=None).isoformat()
    return f"{text.rstrip('0') if '.' in text else text}Z"
