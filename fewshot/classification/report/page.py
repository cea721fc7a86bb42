"""The page: what is read out of `Classified`, put into report.html together with report.css and report.js."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from string import Template

import numpy as np

from fewshot.classification.classified import Classified
from fewshot.classification.report.drawing import Plane, plane, scatter, swatch
from fewshot.classification.report.feature_map import feature_map
from fewshot.classification.report.markup import (
    count,
    escaped,
    json_for_script,
    name,
    path_name,
    percent,
    printable,
    whole_percent,
)
from fewshot.classification.report.selection import shown_queries, shown_support
from fewshot.classification.report.thumbnails import SIDE, thumbnails
from fewshot.files import WholeFile

MAX_SUPPORT_PICTURES = 400
CLASSES_WITH_BARS = 10
"""In the larger view; the others of a picture are summed up in one row."""
CLASSES_UNFOLDED = 20
"""Up to so many classes their list is open from the start."""


def write_report(
    file: Path,
    classified: Classified,
    *,
    title: str = "Classified pictures",
    max_pictures: int = 2000,
    table: str = "predictions.csv",
) -> None:
    """Write one HTML page that needs nothing else: no network, no file beside it.

    It is written aside and renamed, so that nobody sees half of it. The same input gives the same bytes.

    Args:
        file: such as OUT/report.html; replaced if it is there, its folder made if it is not.
        classified: one query or more.
        title: the heading.
        max_pictures: queries shown, at most; of more, those that changed class or are flagged, the least confident
            ones and a spread of the others are shown, and the page says how many are not.
        table: the file that lists all queries, named where the page does not show all of them.

    Raises:
        ValueError: no queries, or `max_pictures` below 1.
    """
    if max_pictures < 1:
        raise ValueError(f"max_pictures={max_pictures}; a report shows one picture or more")
    if not classified.query:
        raise ValueError("there are no query pictures to report on; name a folder that holds some")
    content = page(classified, title=title, max_pictures=max_pictures, table=table)
    with WholeFile(file) as opened:
        opened.write(content)


def page(classified: Classified, *, title: str, max_pictures: int, table: str) -> str:
    """The text of the page; arguments as for `write_report`."""
    shown = shown_queries(classified, max_pictures)
    support = shown_support(classified, MAX_SUPPORT_PICTURES)
    support_shown = np.concatenate(support)
    positions = feature_map(classified)
    where = plane(positions, support=support_shown, query=shown)
    pictures = thumbnails([classified.query[i] for i in shown] + [classified.support[i] for i in support_shown])
    of_support = dict(zip(support_shown.tolist(), pictures[len(shown) :], strict=True))
    style, script = asset("report.css"), asset("report.js")
    return Template(asset("report.html")).substitute(
        policy=_policy(style, script),
        style=style,
        script=script,
        title=escaped(title),
        summary="\n".join(f"<li>{line}</li>" for line in summary(classified, len(shown), table)),
        classes_open=" open" if len(classified.class_names) <= CLASSES_UNFOLDED else "",
        classes="\n".join(_class_rows(classified, support, of_support)),
        class_options="\n".join(
            f'<option value="{label + 1}">{label + 1}. {escaped(text)} ({n:,})</option>'
            for label, (text, n) in enumerate(zip(classified.class_names, _counts(classified, shown), strict=True))
        ),
        flag_control=FLAG_CONTROL if _has_novelty(classified) else "",
        flag_order='<option value="novelty">least like any class first</option>' if _has_novelty(classified) else "",
        flag_ring=", a dashed ring one that is flagged" if _has_novelty(classified) else "",
        shown=f"Showing all {len(shown):,} pictures." if len(shown) > 1 else "Showing the only picture.",
        cards="\n".join(_card(classified, i, uri) for i, uri in zip(shown, pictures, strict=False)),
        share=percent(positions.share),
        map_before=_scatter(classified, where, support_shown, shown, after=False),
        map_after=_scatter(classified, where, support_shown, shown, after=True),
        legend="\n".join(
            f"<li>{swatch(label)} {label + 1}. {name(text)}</li>" for label, text in enumerate(classified.class_names)
        ),
        skipped=_skipped(classified),
        settings="\n".join(
            f'<tr><th scope="row">{escaped(key)}</th><td>{name(value)}</td></tr>'
            for key, value in classified.settings.items()
        ),
        data=json_for_script(_data(classified, where, support_shown, shown)),
    )


def summary(classified: Classified, n_shown: int, table: str) -> list[str]:
    """Sentences that say what was done and what came of it, as HTML.

    Args:
        classified: all of it.
        n_shown: queries that the page shows.
        table: the file that lists all queries.
    """
    n_queries, n_support = len(classified.query), len(classified.support)
    lines = [
        f"<strong>{count(n_queries, 'picture', 'pictures')}</strong> put into "
        f"<strong>{count(len(classified.class_names), 'class', 'classes')}</strong>, "
        f"by {count(n_support, 'labelled picture', 'labelled pictures')} (the support)."
    ]
    n_changed = int((classified.predicted != classified.predicted_before).sum())
    lines.append(
        f"<strong>{n_changed:,}</strong> changed class through refinement ({percent(n_changed / n_queries)} of them)."
        if n_changed
        else "None changed class through refinement."
    )
    if _has_novelty(classified):
        n_flagged = int(classified.flagged.sum())
        lines.append(
            f"<strong>{n_flagged:,}</strong> flagged as none of the classes: more unlike all of them than the "
            f"threshold of {classified.novelty_threshold:.4g}."
            if n_flagged
            else "None flagged as none of the classes."
        )
    if classified.skipped:
        n_skipped = count(len(classified.skipped), "picture", "pictures")
        lines.append(f'<strong>{n_skipped}</strong> could not be read: <a href="#skipped">which and why</a>.')
    if n_shown < n_queries:
        lines.append(
            f"This page shows <strong>{n_shown:,}</strong> of the {n_queries:,} pictures; {n_queries - n_shown:,} are "
            "not shown. As far as there is room, it shows those that changed class or are flagged, the least confident "
            f"ones, and an even spread of the others. {name(table)} lists all of them."
        )
    return lines


def asset(file_name: str) -> str:
    """The text of a file beside this one."""
    return resources.files("fewshot.classification.report").joinpath(file_name).read_text(encoding="utf-8")


FLAG_CONTROL = '<label class="check"><input type="checkbox" name="flagged"> None of the classes only</label>'


def _has_novelty(classified: Classified) -> bool:
    return classified.novelty is not None and classified.novelty_threshold is not None


def _policy(style: str, script: str) -> str:
    """Content-Security-Policy: pictures from within the page, this style and this script; nothing else."""

    def digest(text: str) -> str:
        return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")

    return (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest(style)}'; "
        f"script-src 'sha256-{digest(script)}'; base-uri 'none'; form-action 'none'"
    )


def _counts(classified: Classified, shown: np.ndarray) -> list[int]:
    return np.bincount(classified.predicted[shown], minlength=len(classified.class_names)).tolist()


def _class_rows(
    classified: Classified, support: Sequence[np.ndarray], pictures: dict[int, str | None]
) -> list[str]:  # fmt: skip
    """One row of the table of classes for each: marker, name, support pictures, queries before and after."""
    n_classes = len(classified.class_names)
    before = np.bincount(classified.predicted_before, minlength=n_classes)
    after = np.bincount(classified.predicted, minlength=n_classes)
    of_class = np.bincount(classified.support_labels, minlength=n_classes)
    rows = []
    for label, numbers in enumerate(support):
        items = [
            f'<li><button type="button" disabled>{_image(pictures[i])}'
            f'<span class="hidden">{name(classified.support[i].name)}</span></button></li>'
            for i in numbers.tolist()
        ]
        left = int(of_class[label]) - len(numbers)
        if left:
            items.append(f'<li class="more">and {left:,} more</li>')
        rows.append(
            f'<tr><th scope="row">{swatch(label)} {label + 1}. {name(classified.class_names[label])}</th>'
            f'<td class="support-pictures"><ul>{"".join(items)}</ul></td>'
            f'<td class="number" data-label="Before">{before[label]:,}</td>'
            f'<td class="number" data-label="After">{after[label]:,}</td></tr>'
        )
    return rows


def _image(uri: str | None) -> str:
    if uri is None:
        return '<span class="gone">no picture: the file is gone or cannot be read</span>'
    return f'<img src="{uri}" alt="" width="{SIDE}" height="{SIDE}" loading="lazy" decoding="async">'


def _card(classified: Classified, i: int, uri: str | None) -> str:
    """One query of the grid."""
    new, old = int(classified.predicted[i]), int(classified.predicted_before[i])
    marks = ""
    if new != old:
        marks += (
            '<span class="mark changed"><span class="hidden">changed from </span>'
            f'{name(classified.class_names[old])} <span aria-hidden="true">→</span><span class="hidden">to</span> '
            f"{name(classified.class_names[new])}</span>"
        )
    if classified.flagged[i]:
        marks += '<span class="mark flagged">none of the classes?</span>'
    return (
        f'<li><button type="button" disabled>{_image(uri)}<span class="verdict">{name(classified.class_names[new])} '
        f'<span class="sure">{percent(classified.probabilities[i, new])}</span></span>{marks}'
        f'<span class="name">{path_name(classified.query_names[i])}</span></button></li>'
    )


def _scatter(classified: Classified, where: Plane, support: np.ndarray, shown: np.ndarray, *, after: bool) -> str:
    predicted = classified.predicted if after else classified.predicted_before
    return scatter(
        where,
        after=after,
        support_labels=classified.support_labels[support].tolist(),
        query_labels=predicted[shown].tolist(),
        changed=(classified.predicted != classified.predicted_before)[shown].tolist(),
        flagged=classified.flagged[shown].tolist(),
        class_names=[printable(text) for text in classified.class_names],
    )


def _skipped(classified: Classified) -> str:
    """The section of pictures that were left out; empty where there are none."""
    if not classified.skipped:
        return ""
    rows = "\n".join(
        f'<tr><th scope="row">{path_name(str(path))}</th><td>{name(reason)}</td></tr>'
        for path, reason in classified.skipped
    )
    return (
        '<section id="skipped" aria-labelledby="skipped-heading"><h2 id="skipped-heading">Pictures left out</h2>\n'
        '<table class="pairs"><thead><tr><th scope="col">Picture</th><th scope="col">Why</th></tr></thead>\n'
        f"<tbody>{rows}</tbody></table></section>"
    )


def _data(classified: Classified, where: Plane, support: np.ndarray, shown: np.ndarray) -> dict[str, object]:
    """What the script needs of the pictures shown, in the order of the cards; probabilities in thousandths."""
    before, after = classified.before[shown], classified.probabilities[shown]
    bars = []
    for old, new in zip(before, after, strict=True):
        chosen = np.argsort(-np.maximum(old, new), kind="stable")[:CLASSES_WITH_BARS]
        chosen = chosen[np.argsort(-new[chosen], kind="stable")]
        bars.append([[int(c), round(1000 * float(old[c])), round(1000 * float(new[c]))] for c in chosen])
    return {
        "classes": [printable(text) for text in classified.class_names],
        "total": len(classified.query),
        "number": (shown + 1).tolist(),
        "predicted": classified.predicted[shown].tolist(),
        "before": classified.predicted_before[shown].tolist(),
        "confidence": [whole_percent(value) for value in after.max(1)],
        "margin": [round(1000 * float(value)) for value in classified.margins[shown]],
        "moved": [round(1000 * float(value)) for value in np.abs(after - before).sum(1) / 2],
        "flagged": classified.flagged[shown].astype(int).tolist(),
        "novelty": [float(f"{value:.4g}") for value in classified.novelty[shown]]
        if classified.novelty is not None and _has_novelty(classified)
        else None,
        "threshold": float(f"{classified.novelty_threshold:.4g}")
        if classified.novelty_threshold is not None and _has_novelty(classified)
        else None,
        "bars": bars,
        "query": where.query.tolist(),
        "support": where.support.tolist(),
        "supportLabels": classified.support_labels[support].tolist(),
    }
