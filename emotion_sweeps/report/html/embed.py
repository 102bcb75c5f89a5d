"""What the page carries inside itself: its scripts with their hashes, plotly.js packed, and data as inert JSON.

plotly.js (MIT; the PyPI package ships the whole bundle alone) is embedded as base64(gzip), 1.9 MiB instead of 4.6: the
page unpacks it with the browser's DecompressionStream once its own text stands there. Content-Security-Policy: no
network at all, and scripts by the sha256 of their text, so that neither a foreign text nor an injected tag can run.
Styles stay 'unsafe-inline', because plotly writes style attributes.
"""

from __future__ import annotations

import base64
import functools
import gzip
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_FOLDER = Path(__file__).parent
# Characters that would end a script element or start a comment; U+2028/9 are line ends to old JavaScript.
_ESCAPES = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}


def asset(name: str) -> str:
    """The text of a file beside this module."""
    return (_FOLDER / name).read_text(encoding="utf-8")


def inert_json(data: Any) -> str:
    """`data` as strict JSON that is safe inside a script element."""
    return json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).translate(_ESCAPES)


@functools.cache
def plotly_js() -> str:
    """plotly.js as the installed plotly package ships it."""
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs()).replace("\r\n", "\n")


@functools.cache
def packed_plotly_js() -> str:
    """plotly.js as base64(gzip); the same bytes every time."""
    return base64.b64encode(gzip.compress(plotly_js().encode("utf-8"), 9, mtime=0)).decode("ascii")


def script_hash(script: str) -> str:
    """The source expression that allows exactly this inline script."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii") + "'"


def content_security_policy(scripts: Iterable[str]) -> str:
    """The policy of a page that runs `scripts` and reaches nothing."""
    allowed = " ".join(script_hash(script) for script in scripts)
    return (
        f"default-src 'none'; script-src {allowed}; style-src 'unsafe-inline'; img-src data: blob:; "
        "base-uri 'none'; form-action 'none'"
    )
