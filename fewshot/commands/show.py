"""python -m fewshot show: what a configured training looks at, and what became of it, as pictures in a folder."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jsonargparse
from pytorch_lightning import LightningDataModule, LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI

from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.commands.parser import Parser, add_switch, check_configs
from fewshot.commands.process import quietened, say
from fewshot.commands.run_options import add_run_options, check_seed, checkpoint_file, without_first_weights
from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datasets.base import SPLITS
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.drawings.plots import accuracy_per_step_figure, class_counts_figure, save
from fewshot.drawings.training import batch_picture, episode_picture, feature_map, taken_of_a_class
from fewshot.files import check_place, expanded, run_versions
from fewshot.runs.comparison import silent_trainer
from fewshot.training.checkpoints import check_checkpoint
from fewshot.training.feature_spaces import FeatureSpacesDataModule
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.pretrain_module import PretrainModule

OURS = ("episode_*_*.png", "batch_train.png", "class_counts.*", "accuracy_per_step.*", "features.png")
"""What this command may have written into a folder; nothing else in it is ever touched."""


class ShowCLI(LightningCLI):
    """The parser of fit with options of its own; makes model and data, and a trainer for the device and precision."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Options of show, and those of a run, which its config.yaml holds and which do nothing here."""
        add_run_options(parser)
        parser.add_argument(
            "--ckpt_path", type=str | None, default=None, help="A checkpoint, or the folder of a run or experiment."
        )
        parser.add_argument("--output", type=str | None, default=None, help="The folder that the pictures go to.")
        add_switch(parser, "--overwrite", help="Replace the pictures of an earlier show in that folder.")
        parser.add_argument("--splits", type=list[str], default=list(SPLITS), help="Splits to show.")
        parser.add_argument("--episodes", type=int, default=2, help="Contact sheets of episodes of each split.")
        parser.add_argument(
            "--run",
            type=str | None,
            default=None,
            help="Folder of the run whose accuracies are plotted; null takes that of ckpt_path.",
        )

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse; LightningCLI would warn where a program with arguments of its own hands arguments over."""
        self.config = parser.parse_args(args)
        check_seed(self.config.get("seed_everything"))

    def before_instantiate_classes(self) -> None:
        """Refuse what can be refused before anything is read; leave out what a run has and this has not."""
        config = self.config
        for split in config["splits"]:
            if split not in SPLITS:
                raise ValueError(f"splits: there is no split {split!r}; choose among {', '.join(SPLITS)}")
        if not config["splits"]:
            raise ValueError(f"splits: none to show; choose among {', '.join(SPLITS)}")
        if config["episodes"] < 0:
            raise ValueError(f"episodes={config['episodes']}; it is the number of contact sheets a split, 0 or more")
        self.output = output_folder(config["output"], overwrite=config["overwrite"])
        if config["ckpt_path"]:
            config["ckpt_path"] = checkpoint_file(config["ckpt_path"])
            without_first_weights(config)
        self.results = results_of(config["run"], config["ckpt_path"])
        for name in ("logger", "callbacks", "plugins", "profiler"):
            config["trainer"][name] = None

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """A trainer on one device that writes nothing.

        Raises:
            ValueError: there is no such accelerator or precision.
        """
        config = self.config["trainer"]
        return silent_trainer(config["accelerator"], precision=config["precision"])


def run(arguments: list[str]) -> None:
    """Draw everything and write it into the folder.

    Args:
        arguments: those after `show`.

    Raises:
        Exception: of any kind; `fewshot.commands.refusals.refusal_of` tells those that a person can mend.
    """
    check_configs(arguments)
    jsonargparse.set_parsing_settings(omegaconf_absolute_to_relative_paths=True)
    with quietened(training=False):
        cli = ShowCLI(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            args=arguments,
            run=False,
            subclass_mode_model=True,
            subclass_mode_data=True,
            auto_configure_optimizers=False,
            parser_class=Parser,
            parser_kwargs={"parser_mode": "omegaconf+", "prog": "python -m fewshot show"},
            save_config_callback=None,
            seed_everything_default=0,
        )
        prepared(cli.model, cli.datamodule, cli.trainer, cli.config["ckpt_path"])
        with replaced(cli.output) as folder:
            left_out = list(drawn(cli, folder))
            written = sorted(path.name for path in folder.iterdir())
    for sentence in left_out:
        say(sentence)
    say(f"written to {cli.output}: {', '.join(written)}")


def drawn(cli: ShowCLI, folder: Path) -> Iterator[str]:
    """Draw into the folder; yield a sentence for everything that could not be drawn.

    Args:
        cli: with everything made and prepared.
        folder: exists.
    """
    data, splits = cli.datamodule, [split for split in SPLITS if split in cli.config["splits"]]
    if "train" in splits and not data.trains_on_dataset:
        kind = FeatureSpacesDataModule.__name__
        if splits == ["train"]:
            raise ValueError(f"splits: {kind} trains on features, of which there are no pictures; name val or test too")
        yield f"no pictures of training: {kind} trains on features"
        splits.remove("train")
    for split in splits:
        if split == "train" and isinstance(data, ClassDataModule):
            batch_picture(data).save(folder / "batch_train.png")
            continue
        for number in range(cli.config["episodes"]):
            episode_picture(data, split, number).save(folder / f"episode_{split}_{number}.png")
    counts = class_counts_figure(
        {split: data.images(split) for split in splits},
        data=data.dataset.name,
        taken={split: taken_of_a_class(data, split) for split in splits},
    )
    save(counts, folder / "class_counts", "png", "svg")
    if isinstance(cli.results, str):
        yield f"no accuracy_per_step.png: {cli.results}"
    else:
        save(accuracy_per_step_figure(cli.results), folder / "accuracy_per_step", "png", "svg")
    if "test" in splits:
        model, plugin = cli.model, cli.trainer.precision_plugin
        episode = cli.trainer.strategy.batch_to_device(data.picture_episode("test", 0))
        save(feature_map(model, plugin, plugin.convert_input(episode), data), folder / "features", "png")
    else:
        yield "no features.png: it shows an episode of the test split, which is not among splits"


def prepared(model: LightningModule, data: Any, trainer: Trainer, checkpoint: str | None) -> None:
    """Bring model and data to where a test begins: set up, weights loaded, on the device, in evaluation mode.

    Raises:
        ValueError: they are none of this package's; the checkpoint is of another model.
    """
    for given, accepted in ((model, (FewShotModule, PretrainModule)), (data, (EpisodicDataModule, ClassDataModule))):
        if not isinstance(given, accepted):
            kinds = " or ".join(kind.__name__ for kind in accepted)
            raise ValueError(f"show draws what {kinds} gives, and the config names {type(given).__name__}")
    if checkpoint:
        check_checkpoint(model, Path(checkpoint), training=False)
    trainer.datamodule, data.trainer, model.trainer = data, trainer, trainer  # type: ignore[attr-defined]
    model.setup("test")
    if checkpoint:
        content = read_checkpoint(checkpoint)
        model.on_load_checkpoint(content)
        model.load_state_dict(content["state_dict"])
    trainer.precision_plugin.convert_module(model).to(trainer.strategy.root_device).eval()
    if isinstance(model, FewShotModule):
        model.prepare_method()


def results_of(run: str | None, checkpoint: str | None) -> dict[str, Any] | str:
    """Results.json of a run, or a sentence that says why there is nothing to plot.

    Args:
        run: its folder, or that of an experiment, whose newest version with results is taken; None takes the one that
            the checkpoint lies in.
        checkpoint: a file, or None.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: its results.json is damaged.
    """
    if run is None and checkpoint is None:
        return "name a run by --run or --ckpt_path"
    folder = expanded(run) if run is not None else Path(str(checkpoint)).parent.parent
    if run is not None and not folder.is_dir():
        raise FileNotFoundError(f"run: no folder {run}; give that of a run, runs/<experiment>/version_<n>")
    looked = [folder, *(version for _, version in sorted(run_versions(folder), reverse=True))]
    file = next((file for place in looked if (file := place / "results.json").is_file()), None)
    if file is None:
        return f"{folder} holds no results.json, which a test writes"
    try:
        results = json.loads(file.read_text(encoding="utf-8"))
        per_step = results.get("accuracy_per_step") or []
    except (ValueError, AttributeError) as error:
        raise ValueError(f"run: {file} is damaged ({error}); test the checkpoint again") from error
    return results if len(per_step) > 1 else f"{file} records a method without refinement steps"


def output_folder(given: str | None, *, overwrite: bool) -> Path:
    """The folder that --output names.

    Raises:
        ValueError: none is named; it is no folder; it holds something, and that is not to be replaced.
    """
    if not given:
        raise ValueError("output: required and not given; name a folder for the pictures")
    folder = expanded(given)
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"output: {given} is a file; name a folder for the pictures")
    if folder.is_dir() and any(folder.iterdir()) and not overwrite:
        raise ValueError(f"output: {given} is not empty; name another folder, or add --overwrite")
    check_place(folder.resolve())
    return folder


@contextmanager
def replaced(output: Path) -> Iterator[Path]:
    """A folder to write into, whose files replace those of an earlier show in `output` once all of them are there.

    Where anything fails or is interrupted, `output` stays as it was.
    """
    above = next(place for place in output.resolve().parents if place.exists())
    with tempfile.TemporaryDirectory(dir=above, prefix=f".{output.name}-") as aside:
        yield Path(aside)
        names = {path.name for path in Path(aside).iterdir()}
        output.mkdir(parents=True, exist_ok=True)
        for old in [path for pattern in OURS for path in output.glob(pattern) if path.name not in names]:
            old.unlink()
        for name in names:
            os.replace(Path(aside, name), output / name)
