"""python -m fewshot compare: its options, and where it writes."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import jsonargparse
from jsonargparse import ActionConfigFile

import fewshot.data.datasets
import fewshot.methods  # noqa: F401  (imported so that configs may name their classes without the path)
from fewshot.backbones import BackboneConfig
from fewshot.commands.parser import Parser, add_packages, check_configs
from fewshot.commands.process import quietened
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.files import versions
from fewshot.runs.comparison import Comparison, Contestant, Setting, rows, table, write
from fewshot.runs.folder import new_run_folder, remove_unless_begun


def parser() -> Parser:
    """The options of compare."""
    made = Parser(
        prog="python -m fewshot compare",
        description="Test several methods and checkpoints on the same episodes, one table and one plot for all.",
        parser_mode="omegaconf+",
    )
    made.add_argument("-c", "--config", action=ActionConfigFile, help="A YAML file; several are merged in order.")
    made.add_argument("--experiment", type=str, default="comparison", help="Name of the folder.")
    made.add_argument("--runs", type=str, default="runs", help="Where it goes: <runs>/<experiment>/<version>.")
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
        options = parser()
        given = options.parse_args(arguments)
        config = options.instantiate_classes(given, instantiate_groups=False)
        compare(config, options.dump(given))


def compare(config: Any, text: str) -> None:
    """Run what is configured.

    Args:
        config: the options, with methods and data set made.
        text: the same as YAML, which is written beside the results.
    """
    data, backbone = vars(config.data).copy(), BackboneConfig(**vars(config.backbone))
    if data.pop("dirichlet") is not None:
        raise ValueError("data.dirichlet: compare measures both; set dirichlet (without data.) to the concentration")
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
    kinds = [None] if config.dirichlet is None else [None, config.dirichlet]
    settings = [Setting(*each) for each in itertools.product(shots, queries, kinds)]
    comparison.check(settings)
    folder, begun = new_run_folder(Path(config.runs) / config.experiment), False
    try:
        measured = []
        for setting in settings:
            for one in comparison.measure(setting):
                measured.append(one)
                kind = "balanced" if setting.is_balanced else f"Dirichlet({setting.dirichlet:g})"
                chosen = f", {one.chosen}" if one.chosen else ""
                size = f"{setting.n_shot}-shot, {setting.n_query} queries, {kind}"
                print(f"{size}: {one.name} {100 * one.accuracy:.2f} ± {100 * one.ci95:.2f}{chosen}", flush=True)
        found, begun = rows(measured, reference, data["n_way"]), True
        about = {
            "reference": reference,
            "n_way": data["n_way"],
            "n_episodes": len(measured[0].correct),
            "dirichlet": config.dirichlet,
            "tune": config.tune,
            "seed_everything": config.seed_everything,
            "episodes_sha256": {
                f"{one.n_shot}-shot {one.n_query} queries dirichlet={one.dirichlet}": next(
                    m.episodes_sha256 for m in measured if m.setting == one
                )
                for one in settings
            },
            "versions": versions(),
        }
        (folder / "compare.yaml").write_text(text, encoding="utf-8")
        write(folder, found, about, data["n_way"])
    finally:
        remove_unless_begun(folder, begun=begun)
    print(f"\n{table(found)}\ndifferences: paired by episode, to {reference}; written to {folder}")
