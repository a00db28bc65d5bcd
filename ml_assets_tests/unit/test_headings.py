"""The title that a Markdown text gives itself."""

import pytest

from ml_assets.lib.headings import first_heading


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("# One\n## Two", "One"),
        ("text\n\n   ### C# and F# ##  \n", "C# and F#"),
        ("One\n===\n", "One"),
        ("#\n#no\n    # code\n# yes", "yes"),
        ("```sh\n# no\n~~~\n```\r\n# yes\r\n", "yes"),
        ("---\n# no\na: b\n---\n# yes", "yes"),
        ("---\n\n# yes\n\n---\n", "yes"),
        ("no heading", None),
        ("```\n# never closed", None),
        ("", None),
    ],
)
def test_the_first_heading(text, title):
    assert first_heading(text) == title
