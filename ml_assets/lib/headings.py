"""The title that a Markdown text gives itself."""

import re
from io import StringIO

_HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.*?)(?:[ \t]+#+)?[ \t]*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_UNDERLINE = re.compile(r" {0,3}=+[ \t]*$")
_MATTER = re.compile(r"---[ \t]*\n(?=\S).*?\n(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)


def first_heading(text: str) -> str | None:
    """The text of the first heading: a line of `#`, or one underlined with `=`. None if there is none.

    Front matter and what stands in a fence hold no heading, whatever their lines begin with.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    lines = StringIO(text)
    if matter := _MATTER.match(text):
        lines.seek(matter.end())
    fence, before = "", ""
    for whole in lines:
        line = whole.rstrip("\n")
        opening = _FENCE.match(line)
        if fence:
            if opening and opening[1].startswith(fence) and line.strip() == opening[1]:
                fence = ""
            continue
        if opening:
            fence = opening[1]
        elif (found := _HEADING.match(line)) and found[1]:
            return found[1]
        elif _UNDERLINE.match(line) and before:
            return before
        before = line.strip()
    return None
