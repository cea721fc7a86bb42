"""python -m fewshot classify: pictures, or rows of features, after a few labelled ones."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from fewshot.classification.classified import Classified, run_record, summary, write_predictions
from fewshot.classification.continued import FOLDER, ROWS, keep, row_names
from fewshot.classification.decided import method_options
from fewshot.classification.former import compared, former_answer
from fewshot.classification.notes import of_answer
from fewshot.classification.report.page import write_report
from fewshot.classification.sorted_pictures import check_sorted, of_classes, write_sorted
from fewshot.classification.task import classified_task
from fewshot.commands.classify_checks import check_options
from fewshot.commands.classify_options import parser
from fewshot.commands.inputs import Inputs, inputs_of, roots_of, shown
from fewshot.commands.parser import check_configs
from fewshot.commands.process import quietened, say
from fewshot.files import check_replaceable, expanded, full_path, relative, write_json, written_aside
from fewshot.training.versions import versions

__all__ = ["parser", "run"]

FILES = ("predictions.csv", "report.html", "run.json")
KEPT = (FOLDER, ROWS)
"""What --keep_classifier adds."""


def run(arguments: list[str]) -> None:
    """Classify, write the output folder, and say what was found.

    Args:
        arguments: those after `classify`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    with quietened(training=False):
        options = parser()
        given = options.parse_args(arguments)
        made = options.instantiate_classes(given, instantiate_groups=False)
        say(classify(made))


def classify(options: Any) -> str:
    """Run what is asked for; returns what to say about it.

    Args:
        options: as of `parser`, with the method made.
    """
    output = full_path(options.output)
    check_replaceable(output, overwrite=options.overwrite, known=(*FILES, *KEPT))
    check_options(options)
    target = sorted_target(options, output)
    former = former_of(options, output)
    inputs = inputs_of(options)
    classified = answered(options, inputs)
    classified = classified if former is None else compared(classified, former)
    classified = replace(
        classified,
        settings={**classified.settings, **versions()},
        notes=(*classified.notes, *of_answer(classified, options.none_share)),
    )
    lines = summary(classified, options.query_labels)
    with ExitStack() as whole:
        folder = whole.enter_context(written_aside(output, overwrite=options.overwrite, known=(*FILES, *KEPT)))
        write_predictions(folder / "predictions.csv", classified)
        report = folder / "report.html"
        write_report(
            report,
            classified,
            max_pictures=options.report_pictures,
            folder=shown(output),
            remember=options.store_features,
        )
        write_json(folder / "run.json", run_record(classified))
        if options.keep_classifier:
            keep(folder, inputs.classifier, inputs.task, row_names(inputs.task, roots_of(options)), inputs.columns)
        if target is not None:
            place = whole.enter_context(written_aside(target, overwrite=False, known=()))
            pictures = of_classes(classified, options.query)
            count = write_sorted(place, pictures, link=options.link)
            how = "linked" if options.link else "copied"
            lines.append(f"{len(pictures)} pictures {how} into {count} folders in {relative(str(target))}")
    written = ", ".join((*FILES, *(KEPT if options.keep_classifier else ())))
    return "\n".join([*lines, f"written to {relative(str(output))}: {written}"])


def sorted_target(options: Any, output: Path) -> Path | None:
    """The folder that pictures are sorted into, if any; ValueError where nothing may be written there."""
    if options.sorted is None:
        return None
    target = full_path(options.sorted)
    if target.is_dir() and any(target.iterdir()):
        raise ValueError(
            f"sorted: {target} is there already; name a folder that is not there (--overwrite replaces --output alone)"
        )
    check_replaceable(target, overwrite=False, known=())
    folders = [(name, getattr(options, name)) for name in ("query", "support", "output")]
    check_sorted(target, [(name, full_path(given)) for name, given in folders if given is not None])
    return target


def former_of(options: Any, output: Path) -> dict[str, str] | None:
    """The answer of the run that is named, or of the one that is replaced; None where there is none.

    Raises:
        FileNotFoundError: the run that is named holds none.
        ValueError: it cannot be read; one that is replaced is then left alone.
    """
    for option in ("previous", "continue"):
        if options.get(option) is not None:
            return former_answer(expanded(options.get(option)), option)
    try:
        return former_answer(output)
    except (FileNotFoundError, ValueError):
        return None


def answered(options: Any, inputs: Inputs) -> Classified:
    """The task's answer, with what was asked for among its settings."""
    task, asked = inputs.task, inputs.asked
    things = "pictures" if task.texts is None else "rows"
    classified = classified_task(inputs.classifier, task, measure=options.none_of_these, share=options.none_share)
    method, most = inputs.classifier.method_, len(task.query)
    together = min(most, inputs.classifier.chunk_size or most, method.most_together or most)
    asked = {
        **asked,
        "method": type(method).__name__,
        "options of the method": method_options(method),
        "looked at together": f"{together} {things} at most",
    }
    return replace(
        classified,
        settings={**asked, **classified.settings},
        skipped=(*classified.skipped, *inputs.left_out),
        notes=inputs.notes,
    )
