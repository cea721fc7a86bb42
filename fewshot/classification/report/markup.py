"""The templates beside this file, into which text is brought so that it stays text: names may hold anything."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

# What HTML does not allow, or shows as something else: control characters; those that turn the direction of writing, by
# which "gpj.exe" looks like "exe.jpg"; halves of surrogate pairs, which a name that is not UTF-8 has; noncharacters.
_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")


SCRIPTS = ("elements.js", "filters.js", "larger.js", "dialog.js", "map.js", "labels.js", "saving.js", "start.js")


def printable(text: str) -> str:
    """The text with a replacement character for each one that a page cannot hold."""
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", text)


def written(name: str) -> str:
    """A name as predictions.csv has it, which holds no halves of surrogate pairs."""
    return name.encode("utf-8", "backslashreplace").decode("utf-8")


def rendered(template: str, **content: Any) -> str:
    """A template with its content: all that is put in is printable and escaped, and nothing may be missing."""
    return _environment().get_template(template).render(content)


@functools.cache
def _environment() -> Environment:
    """What reads the templates, and keeps them translated."""
    environment = Environment(
        loader=PackageLoader("fewshot.classification.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_output,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.policies["json.dumps_kwargs"] = {"separators": (",", ":"), "allow_nan": False}
    environment.filters |= {"breakable": _breakable, "digest": _digest, "thousands": "{:,}".format}
    return environment


def asset(file_name: str) -> Markup:
    """The text of a style or script beside this file, which goes into the page as it is."""
    return Markup(resources.files("fewshot.classification.report").joinpath(file_name).read_text(encoding="utf-8"))


def style() -> Markup:
    """The style of the page."""
    return asset("report.css") + asset("labelling.css")


def script(parts: Sequence[str] = SCRIPTS) -> Markup:
    """The script of a page, whose parts are in files by subject and share their names and nothing else's."""
    return Markup('"use strict";\n(() => {\n') + Markup("\n").join(map(asset, parts)) + Markup("})();\n")


def _output(value: object) -> object:
    """What is put in, as text: a number without needless digits, a name as far as a page can hold it."""
    if isinstance(value, Markup):
        return value
    return f"{value:g}" if isinstance(value, float) else printable(str(value))


def _breakable(path: object) -> Markup:
    """A path: a line of it ends after a slash, a dash or an underscore, if need be."""
    return Markup(re.sub("([/_-])", r"\1<wbr>", str(escape(printable(str(path))))))


def _digest(text: str) -> str:
    """By which a Content-Security-Policy allows this text alone."""
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
