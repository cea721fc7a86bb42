"""python -m fewshot suggest: which pictures, or rows, a person should label, first and next."""

from __future__ import annotations

from typing import Any

from jsonargparse import ActionConfigFile

from fewshot.classification.report.suggest_page import write_suggest_page
from fewshot.classification.suggested import suggested, write_suggestions
from fewshot.commands.classify_checks import check_clip, check_inputs, check_sizes
from fewshot.commands.classify_options import add_features, add_folders, add_model
from fewshot.commands.inputs import inputs_of, shown
from fewshot.commands.parser import Parser, check_configs
from fewshot.commands.process import quietened, say
from fewshot.files import check_replaceable, full_path, relative, written_aside

FILES = ("suggestions.csv", "suggestions.html")
AT_MOST = 1000
"""Pictures on a page."""


def parser() -> Parser:
    """The options of suggest."""
    made = Parser(
        prog="python -m fewshot suggest",
        description="Which pictures or rows to label first where none is labelled, and next where some are.",
        parser_mode="omegaconf+",
    )
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file of these options.")
    add_folders(made)
    made.add_argument("--number", type=int, default=10, help="How many to suggest.")
    add_features(made)
    add_model(made)
    return made


def run(arguments: list[str]) -> None:
    """Choose, write the output folder, and say what is in it.

    Args:
        arguments: those after `suggest`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    with quietened(training=False):
        options = parser()
        given = options.parse_args(arguments)
        say(suggest(options.instantiate_classes(given, instantiate_groups=False)))


def suggest(options: Any) -> str:
    """Run what is asked for; returns what to say about it.

    Args:
        options: as of `parser`, with the method made.
    """
    output = full_path(options.output)
    check_replaceable(output, overwrite=options.overwrite, known=FILES)
    check_inputs(options)
    check_sizes(options, "number")
    if options.number > AT_MOST:
        raise ValueError(f"number={options.number}; {AT_MOST} are suggested at most")
    check_clip(options)
    inputs = inputs_of(options)
    task = inputs.task
    found = suggested(inputs.classifier, task, options.number)
    with written_aside(output, overwrite=options.overwrite, known=FILES) as folder:
        write_suggestions(folder / "suggestions.csv", found)
        write_suggest_page(folder / "suggestions.html", found, folder=shown(output), remember=options.store_features)
    known = f"{len(task.support)} labelled of {len(task.class_names)} classes" if len(task.support) else "none labelled"
    lines = [f"{len(found.names)} of {found.n_query} {found.things[1]} to label, the most useful first; {known} so far"]
    lines += [f"skipped: {len(found.skipped)} files that cannot be read"] if found.skipped else []
    lines.append(f"written to {relative(str(output))}: {', '.join(FILES)}")
    page = relative(str(output / FILES[1]))
    lines.append(
        f"next: label them in {page} and save labels.csv; then the options of this run with --labels labels.csv and "
        "another --output, for suggest, or for classify, which classifies the others"
    )
    return "\n".join(lines)
