"""The page of `suggest`: pictures or rows to label, with the report's way of giving labels and saving them."""

from __future__ import annotations

import hashlib
import json
import shlex
from pathlib import Path
from typing import Any

from fewshot.classification.class_order import natural_order
from fewshot.classification.report.markup import printable, rendered, script, style, written
from fewshot.classification.report.thumbnails import SIDE, thumbnails
from fewshot.classification.suggested import Suggested
from fewshot.files import WholeFile

SCRIPTS = ("elements.js", "suggest.js", "dialog.js", "labels.js", "saving.js", "suggest_start.js")


def write_suggest_page(file: Path, found: Suggested, *, folder: str | None = None, remember: bool = False) -> None:
    """Write one HTML page that needs nothing else; the same input gives the same bytes.

    Args:
        file: such as OUT/suggestions.html; replaced if it is there.
        found: one suggestion or more.
        folder: its folder, as a command has to call it, which the page says; None takes the name of the file's.
        remember: whether its small pictures are remembered in the cache folder, by the content of their files.
    """
    files = [one for one in found.files if isinstance(one, Path)]
    uris = thumbnails(files, remember=remember) or [None] * len(found.files)
    names = [found.class_names[place] for place in natural_order(found.class_names)]
    data: dict[str, Any] = {
        "classes": [printable(name) for name in names],
        "labels": [written(name) for name in names],
        "column": found.column,
        "paths": {place: written(name) for place, name in enumerate(found.names) if printable(name) != name},
        "next": [],
        "contradicted": [],
        "earlier": [[written(name), None if label is None else written(label)] for name, label in found.given_labels],
        "things": found.things,
        "number": list(range(1, len(found.names) + 1)),
        "why": [printable(reason) for reason in found.reasons],
        "predicted": None if found.predicted is None else [names.index(found.class_names[c]) for c in found.predicted],
    }
    data["digest"] = hashlib.sha256(json.dumps([data, list(found.names)]).encode()).hexdigest()[:32]
    content = rendered(
        "suggest.html",
        title=f"{found.things[1].capitalize()} to label",
        style=style(),
        script=script(SCRIPTS),
        side=SIDE,
        folder=shlex.quote(file.absolute().parent.name if folder is None else folder),
        found=found,
        classes=[{"name": name} for name in names],
        cards=[
            {"name": name, "reason": reason, "uri": uri}
            for name, reason, uri in zip(found.names, found.reasons, uris, strict=True)
        ],
        data=data,
    )
    with WholeFile(file) as opened:
        opened.write(content)
