"""Text brought into a page so that it stays text: names of files and classes may hold anything."""

from __future__ import annotations

import html
import json
import re

# What HTML does not allow, or shows as something else: control characters; those that turn the direction of writing, by
# which "gpj.exe" looks like "exe.jpg"; halves of surrogate pairs, which a name that is not UTF-8 has; noncharacters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


def printable(text: str) -> str:
    """The text with a replacement character for each one that a page cannot hold."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def escaped(text: str) -> str:
    """Printable text for the content of an element, or an attribute in double quotes."""
    return html.escape(printable(text))


def name(text: str) -> str:
    """A name as an element of its own, so that one written from right to left does not turn what stands beside it."""
    return f"<bdi>{escaped(text)}</bdi>"


def path_name(text: str) -> str:
    """The same for the path of a file: a line of it ends after a slash, a dash or an underscore, if need be."""
    breakable = re.sub("([/_-])", r"\1<wbr>", escaped(text))
    return f"<bdi>{breakable}</bdi>"


def json_for_script(content: object) -> str:
    """JSON that can stand inside a script element: ASCII, and no `<` that could end it."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def percent(fraction: float) -> str:
    """Whole per cent as HTML; what is only nearly all or nothing says so."""
    whole = whole_percent(fraction)
    if whole == 100 and fraction < 1 - 1e-9:
        return "&gt;99&nbsp;%"
    return "&lt;1&nbsp;%" if whole == 0 and fraction > 0 else f"{whole}&nbsp;%"


def whole_percent(fraction: float) -> int:
    """The nearest whole per cent, which is also what the confidence filter goes by."""
    return round(100 * float(fraction))


def count(number: int, one: str, many: str) -> str:
    """`1 class` or `1,234 classes`."""
    return f"{number:,} {one if number == 1 else many}"
