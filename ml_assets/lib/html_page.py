"""A page in one file that asks nothing of any network: what every page of ours has around its content.

All that comes from data is text: escaped in the body, and data in a script element that no browser executes. The
page's own policy lets the browser execute the one script that it came with, and load nothing.
"""

import hashlib
from base64 import b64encode
from html import escape
from typing import Any

LONGEST_TEXT = 200
_LESS_THAN = str.maketrans({"<": "\\u003c", ">": "\\u003e", "&": "\\u0026"})


def framed(title: str, body: str, data: Any, style: str, script: str) -> str:
    """The page.

    Args:
        title: plain text.
        body: HTML.
        data: what the script finds as JSON in the element `data`.
        style: CSS.
        script: JavaScript.
    """
    policy = (
        "default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; style-src 'unsafe-inline'; "
        f"script-src 'sha256-{_fingerprint(script)}'"
    )
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(policy)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n"
        f'{body}\n</main>\n<script type="application/json" id="data">{_json(data)}</script>\n'
        f"<script>{script}</script>\n</body>\n</html>\n"
    )


def text(value: object, longest: int = LONGEST_TEXT) -> str:
    """A value as HTML, cut where nobody would read on."""
    told = str(value)
    return escape(told if len(told) <= longest else told[: longest - 1] + "…")


def _fingerprint(script: str) -> str:
    return b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _json(data: Any) -> str:
    """JSON within a script element: without any `<` that could end it."""
    import orjson

    return orjson.dumps(data).decode().translate(_LESS_THAN)
