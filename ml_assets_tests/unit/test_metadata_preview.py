"""What a preview in Dagster's UI makes of what rows hold."""

import pyarrow as pa

from ml_assets import metadata


def test_what_a_cell_holds_is_shown_and_not_rendered():
    held = ["<img src=x onerror=y>", "[a](http://b) | `c`", "**d** _e_ run_id", "f\n&amp; \\"]
    shown = metadata.preview(pa.table({"te|xt": held})).value.splitlines()
    assert shown[0] == r"| te\|xt |"
    assert shown[2:] == [
        "| &lt;img src=x onerror=y&gt; |",
        r"| \[a\](http://b) \| \`c\` |",
        r"| \*\*d\*\* \_e\_ run_id |",
        r"| f &amp;amp; \\ |",
    ]


def test_a_long_cell_is_cut_before_it_is_escaped():
    shown = metadata.preview(pa.table({"t": ["<" * 100]})).value.splitlines()[2]
    assert shown == f"| {'&lt;' * 57}... |"
