"""python -m fewshot compare: its options, and where it writes."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
from jsonargparse import ActionConfigFile
from pytorch_lightning import seed_everything

import fewshot.data.datasets
import fewshot.methods  # noqa: F401  (imported so that configs may name their classes without the path)
from fewshot.backbones import BackboneConfig
from fewshot.commands.parser import Parser, add_packages, check_configs
from fewshot.commands.process import quietened, say
from fewshot.commands.run_options import check_experiment, check_seed
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.drawings.comparison import KINDS, Row, plot_of_backbones, plot_of_methods, plot_of_sizes
from fewshot.files import WholeFile, expanded, write_json
from fewshot.runs.comparison import Comparison, Contestant, Measured, Setting, rows
from fewshot.runs.folder import new_run_folder, remove_unless_begun
from fewshot.runs.joined_comparisons import joined
from fewshot.runs.tables import csv_table, markdown_table, per_cent, text_table
from fewshot.training.versions import versions


def parser(*, joining: bool = False) -> Parser:
    """The options of compare.

    Args:
        joining: whether earlier comparisons are drawn together, which needs neither data nor methods.
    """
    made = Parser(
        prog="python -m fewshot compare",
        description="Test several methods and checkpoints on the same episodes, one table and one plot for all.",
        parser_mode="omegaconf+",
    )
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file; several are merged in order.")
    made.add_argument("--experiment", type=str, default="comparison", help="Name of the folder.")
    made.add_argument("--runs", type=str, default="runs", help="Where it goes: <runs>/<experiment>/<version>.")
    made.add_argument(
        "--joined",
        type=list[str],
        default=[],
        help="Folders of earlier comparisons on several backbones: they are drawn together, and nothing is measured; "
        "beside it only --experiment and --runs count.",
    )
    if joining:
        return made
    made.add_argument("--seed_everything", type=int, default=0, help="What else is random is drawn from it.")
    made.add_argument("--methods", type=dict[str, Contestant], default={}, help="What to compare, by name.")
    made.add_argument(
        "--reference", type=str | None, default=None, help="The name differences are to; null takes the first."
    )
    made.add_argument("--backbone", type=BackboneConfig, default=BackboneConfig())
    made.add_class_arguments(EpisodicDataModule, "data")
    made.add_argument(
        "--dirichlet",
        type=float | None,
        default=2.0,
        help="Concentration of unbalanced queries, measured beside balanced ones; null measures balanced ones alone.",
    )
    made.add_argument(
        "--long_tail",
        type=float | None,
        default=None,
        help="Queries of the largest class over those of the smallest, measured beside the others; null measures none.",
    )
    made.add_argument("--shots", type=list[int] | None, default=None, help="Several numbers of shots, and a plot.")
    made.add_argument("--queries", type=list[int] | None, default=None, help="Several numbers of queries, and a plot.")
    made.add_argument(
        "--tune",
        type=int,
        default=0,
        help="Trials on validation episodes for every method that has a `search`, and for every setting of the "
        "episodes; 0 takes the options as they are.",
    )
    add_packages(made)
    made.add_argument("--accelerator", type=str, default="auto", help="As of Lightning's Trainer.")
    return made


def run(arguments: list[str]) -> None:
    """Compare, print the table, and write it with its plots into a new folder.

    Args:
        arguments: those after `compare`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    with quietened(training=False):
        joining = any(argument.split("=")[0] == "--joined" for argument in arguments)
        options = parser(joining=joining)
        given = options.parse_args(arguments)
        if joining:
            join(given)
        else:
            check_seed(given.seed_everything)
            seed_everything(given.seed_everything, verbose=False)  # parts of methods may draw their weights
            compare(options.instantiate_classes(given, instantiate_groups=False), options.dump(given))


def join(config: Any) -> None:
    """Draw earlier comparisons together, and write a table of theirs: backbones.md, .png and .svg.

    Raises:
        FileNotFoundError: a folder without a comparison.
        ValueError: one that cannot be read, or comparisons of different numbers of ways.
    """
    found = joined(config.joined)
    if len(ways := {one.n_way for one in found}) > 1:
        raise ValueError(f"joined: the comparisons have {sorted(ways)} ways; join those of one number")
    check_experiment(config.experiment, config.runs)
    folder, begun = new_run_folder(expanded(config.runs) / config.experiment), False
    try:
        lines = []
        for one in found:
            headings, each = cells(one.rows)
            lines += [[one.backbone, one.data, f"{one.n_episodes:,}", *line] for line in each]
        headings = ["backbone", "data", "episodes", *headings]
        if any(len(line) != len(headings) for line in lines):
            raise ValueError("joined: the comparisons measured different sizes or kinds of queries; join those alike")
        write_text(folder / "backbones.md", markdown_table(headings, lines))
        begun = True
        plot_of_backbones(folder, [one.label for one in found], [one.rows for one in found], ways.pop())
    finally:
        remove_unless_begun(folder, begun=begun)
    say(f"{text_table(headings, [lines])}\nwritten to {folder}: backbones.md, backbones.png, backbones.svg")


def compare(config: Any, text: str) -> None:
    """Run what is configured.

    Args:
        config: the options, with methods and data set made.
        text: the same as YAML, which is written beside the results.
    """
    check_experiment(config.experiment, config.runs)
    data, backbone = vars(config.data).copy(), BackboneConfig(**vars(config.backbone))
    for name in ("dirichlet", "long_tail"):
        if data.pop(name) is not None:
            raise ValueError(f"data.{name}: compare measures it beside balanced queries; set {name} without data.")
    methods, reference = dict(config.methods), config.reference or next(iter(config.methods), "")
    comparison = Comparison(
        methods,
        backbone,
        data,
        tune=config.tune,
        seed=config.seed_everything,
        accelerator=config.accelerator,
        packages=config.packages,
    )
    if reference not in methods:
        raise ValueError(f"reference: no method is named {reference!r}; choose among {', '.join(methods)}")
    shots, queries = config.shots or [data["n_shot"]], config.queries or [data["n_query"]]
    kinds = dict.fromkeys([(None, None), (config.dirichlet, None), (None, config.long_tail)])
    settings = [Setting(*size, *kind) for *size, kind in itertools.product(shots, queries, kinds)]
    comparison.check(settings)
    folder, begun = new_run_folder(expanded(config.runs) / config.experiment), False
    try:
        measured, lines_so_far = [], folder / "measured.txt"
        for setting in settings:
            for one in comparison.measure(setting):
                measured.append(one)
                begun = True
                with lines_so_far.open("a", encoding="utf-8") as file:
                    file.write(f"{line_of(one)}\n")
                say(line_of(one))
        found = rows(measured, reference, data["n_way"])
        about = about_comparison(config, reference, measured)
        write_text(folder / "compare.yaml", text)
        write(folder, found, about, data["n_way"])
        lines_so_far.unlink()
    except BaseException:
        if begun:
            print(f"what was measured is in {lines_so_far}", file=sys.stderr, flush=True)
        raise
    finally:
        remove_unless_begun(folder, begun=begun)
    headings, lines = cells(found)
    say(f"\n{text_table(headings, [lines])}\ndifferences: paired by episode, to {reference}; written to {folder}")


def about_comparison(config: Any, reference: str, measured: Sequence[Measured]) -> dict[str, Any]:
    """What comparison.json says beside the rows."""
    return {
        "reference": reference,
        "backbone": config.backbone.name,
        "data": config.data.dataset.name,
        "n_way": config.data.n_way,
        "n_episodes": len(measured[0].correct),
        "dirichlet": config.dirichlet,
        "long_tail": config.long_tail,
        "tune": config.tune,
        "seed_everything": config.seed_everything,
        "episodes_sha256": {
            "{}-shot {} queries dirichlet={} long_tail={}".format(*one.setting): one.episodes_sha256 for one in measured
        },
        "versions": versions(),
    }


def line_of(one: Measured) -> str:
    """What one method reached at one setting."""
    setting, chosen = one.setting, f", {one.chosen}" if one.chosen else ""
    kind = "balanced" if setting.dirichlet is None else f"Dirichlet({setting.dirichlet:g})"
    kind = kind if setting.long_tail is None else f"long tail {setting.long_tail:g}:1"
    size = f"{setting.n_shot}-shot, {setting.n_query} queries, {kind}"
    return f"{size}: {one.name} {per_cent(one.accuracy, one.ci95, mark='±')}{chosen}"


def cells(rows: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """Headings and rows in per cent: accuracies, paired differences, seconds for 1,000 episodes."""
    sizes = list(dict.fromkeys((row["n_shot"], row["n_query"]) for row in rows))
    headings = ["method", *(["shot", "queries a class"] if len(sizes) > 1 else [])]
    kinds = [prefix for prefix in KINDS if any(f"{prefix}accuracy" in row for row in rows)]
    for prefix in kinds:
        kind = f"{KINDS[prefix].name} " if prefix else ""
        headings += [f"{kind}accuracy %", f"{kind}difference"]
    lines = []
    for row in rows:
        line = [str(row["method"]), *([str(row["n_shot"]), str(row["n_query"])] if len(sizes) > 1 else [])]
        for prefix in kinds:
            line += [
                per_cent(row[f"{prefix}accuracy"], row[f"{prefix}ci95"], mark="±"),
                per_cent(row[f"{prefix}difference"], row[f"{prefix}difference_ci95"], mark="±", signed=True),
            ]
        lines.append([*line, f"{row[f'{kinds[0]}seconds_per_1000']:.3g}"])
    return [*headings, "s per 1,000"], lines


def as_csv(rows: Sequence[Row]) -> str:
    """CSV; accuracies are fractions of one."""
    keys = list(dict.fromkeys(key for row in rows for key in row if not key.endswith("chosen")))
    return csv_table(keys, [[row.get(key, "") for key in keys] for row in rows])


def write_text(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    with WholeFile(path) as file:
        file.write(text)


def write(folder: Path, rows: Sequence[Row], about: Mapping[str, Any], n_way: int) -> list[Path]:
    """Write comparison.md, .csv, .json, .png and .svg into the folder, and .png and .svg against shots or queries.

    Args:
        folder: exists.
        rows: of `fewshot.runs.comparison.rows`.
        about: what else the JSON file is to say.
        n_way: N, which chance follows from.
    """
    write_text(folder / "comparison.md", markdown_table(*cells(rows)))
    write_text(folder / "comparison.csv", as_csv(rows))
    write_json(folder / "comparison.json", {**about, "rows": [dict(row) for row in rows]})
    written = [folder / f"comparison.{ending}" for ending in ("md", "csv", "json")]
    written += plot_of_methods(folder, rows, n_way)
    for key, label in (("n_shot", "shots"), ("n_query", "queries a class")):
        if len({row[key] for row in rows}) > 1:
            written += plot_of_sizes(folder, rows, key, label)
    return written
