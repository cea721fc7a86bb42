"""Methods side by side on the same episodes: python -m fewshot compare.

Every method is tested as `python -m fewshot test` would test it, on features that one backbone computes once, so that a
figure here is the figure there; what is added is the difference to a reference method, paired by episode.
"""

from __future__ import annotations

import copy
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_lightning import Trainer, seed_everything
from pytorch_lightning.utilities.exceptions import MisconfigurationException
from torch import Tensor

from fewshot.backbones import BackboneConfig
from fewshot.backbones.checkpoint_file import read_checkpoint
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.files import resolve_weights
from fewshot.methods.base import Method
from fewshot.training.base_classes import base_classes
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.from_file import is_of_few_shot_module, module_from_checkpoint
from fewshot.training.metrics import paired_difference


@dataclass
class Contestant:
    """One line of a comparison: a method that needs no training, or a checkpoint of one that was trained.

    Args:
        method: a method with its options, tested on the comparison's backbone.
        ckpt_path: in its place a checkpoint of FewShotModule, or the folder of its run or experiment; it brings its own
            backbone.
        search: for tuning, by the name of an option of the method, the values to choose among.
    """

    method: Method | None = None
    ckpt_path: str | None = None
    search: dict[str, list[Any]] = field(default_factory=dict)

    def check(self, name: str) -> None:
        """Raise ValueError where it is not one of the two, or searches for what there is not."""
        if (self.method is None) == (self.ckpt_path is None):
            raise ValueError(f"methods.{name}: give either method or ckpt_path")
        if not self.search:
            return
        if self.method is None:
            raise ValueError(f"methods.{name}: search chooses a method's options, and a checkpoint has its own")
        for option, values in self.search.items():
            if not isinstance(values, list) or not values:
                raise ValueError(f"methods.{name}.search.{option}: {values!r} is no list of values to choose among")
            for value in values:
                self.variant({option: value}, name)

    def variant(self, options: Mapping[str, Any], name: str) -> Method:
        """The method anew, with these options changed."""
        assert self.method is not None
        parts = copy.deepcopy(self.method._arguments)
        try:
            made: Method = type(self.method)(**{**parts, **options})
        except (TypeError, ValueError) as error:
            said = ", ".join(f"{option}={value!r}" for option, value in options.items())
            raise ValueError(f"methods.{name}{f'.search: {said}' if said else ''}: {error}") from error
        return made

    def grid(self) -> Iterator[dict[str, Any]]:
        """Every combination of the values that `search` names."""
        for values in itertools.product(*self.search.values()):
            yield dict(zip(self.search, values, strict=True))


class Setting(NamedTuple):
    """Which episodes: what differs from the data as they are configured."""

    n_shot: int
    n_query: int
    dirichlet: float | None
    long_tail: float | None = None

    @property
    def prefix(self) -> str:
        """What the keys of a row begin with: nothing for balanced queries."""
        return "dirichlet_" if self.dirichlet is not None else "tail_" if self.long_tail is not None else ""


class Measured(NamedTuple):
    """What one method did on the test episodes of one setting."""

    name: str
    setting: Setting
    accuracy: float
    ci95: float
    seconds_per_1000: float
    """Of the method alone, on features that are there already."""
    correct: Tensor
    """[n] int64, correct queries of each episode."""
    episodes_sha256: str
    chosen: dict[str, Any]
    """Options that were chosen on validation episodes, with what they reached there as val_accuracy."""


class Comparison:
    """Tests every method on the test episodes of any setting.

    Args:
        methods: by name.
        backbone: of all methods that are no checkpoint.
        data: arguments of EpisodicDataModule.
        tune: how many settings of its options every method that has a `search` may try on validation episodes, its
            options as they are among them; 0 or 1 tries no other.
        seed: what weights are drawn from that nothing else gives, the same for every method.
        accelerator: as of Lightning's Trainer; one device.
        packages: of one's own whose classes a checkpoint may name; they are imported.
    """

    def __init__(
        self,
        methods: Mapping[str, Contestant],
        backbone: BackboneConfig,
        data: Mapping[str, Any],
        *,
        tune: int = 0,
        seed: int = 0,
        accelerator: str = "auto",
        packages: Sequence[str] = (),
    ) -> None:
        if not methods:
            raise ValueError("methods: there is none to compare; give at least one by name")
        for name, contestant in methods.items():
            contestant.check(name)
        if tune < 0:
            raise ValueError(f"tune={tune}; it is the number of trials for every method, 0 or more")
        self.methods, self.backbone, self.data, self.tune = dict(methods), backbone.located(), dict(data), tune
        self.seed, self.accelerator, self.packages = seed, accelerator, tuple(packages)
        self._checkpoints = {
            name: str(resolve_weights(contestant.ckpt_path))
            for name, contestant in methods.items()
            if contestant.ckpt_path is not None
        }

    def check(self, settings: Sequence[Setting]) -> None:
        """Find out before anything is measured, each method and each kind of episodes once.

        Raises:
            ValueError: the data have no such episodes, a method does not take them, or there is no such accelerator.
        """
        silent_trainer(self.accelerator)
        for setting in settings:
            data = EpisodicDataModule(**{**self.data, **setting._asdict()})
            data.sampler("test")
        for name in self.methods:
            module = self._module(name, {})
            method = module.method
            if method.n_way not in (None, data.n_way):
                raise ValueError(f"methods.{name} serves n_way={method.n_way} alone, but data.n_way={data.n_way}")
            if not method.is_prepared:
                data.sampler("train")  # whose pictures it asks for
                place, n_features = module.backbone_config.weights, module.backbone.num_features
                method.prepare(base_classes(torch.zeros(1, n_features), torch.zeros(1, dtype=torch.int64), place))
            untrained = not method.comes_trained and any(True for _ in method.parameters())
            if name not in self._checkpoints and untrained:
                print(f"{name} is measured untrained; methods.{name}.ckpt_path takes the folder of its run", flush=True)

    def measure(self, setting: Setting) -> Iterator[Measured]:
        """Test one method after another on the same episodes.

        Raises:
            ValueError: a method cannot take these episodes.
        """
        data = EpisodicDataModule(**{**self.data, **setting._asdict()})
        for name in self.methods:
            options = self._tuned(name, data) if self.tune > 1 else {}
            module = self._module(name, {key: value for key, value in options.items() if key != "val_accuracy"})
            watch = _MethodTime(module)
            silent_trainer(self.accelerator).test(module, data, verbose=False)
            results = module.results["test"]
            yield Measured(
                name,
                setting,
                results["accuracy"],
                results["ci95"],
                1000 * watch.seconds / results["n_episodes"],
                torch.tensor([row[-1] for row in results["episodes"]["rows"]]),
                data.episodes_sha256("test"),
                options,
            )

    def _tuned(self, name: str, data: EpisodicDataModule) -> dict[str, Any]:
        """The options among `tune` trials that are best on the validation episodes; none where nothing is searched."""
        contestant = self.methods[name]
        if not contestant.search:
            return {}
        others = list(contestant.grid())
        order = np.random.default_rng(0).permutation(len(others))
        trials: list[dict[str, Any]] = [{}, *(others[place] for place in order)][: self.tune]
        accuracies = []
        for trial in trials:
            module = self._module(name, trial)
            silent_trainer(self.accelerator).validate(module, data, verbose=False)
            accuracies.append(module.results["val"]["accuracy"])
        best = max(range(len(trials)), key=accuracies.__getitem__)
        return {**trials[best], "val_accuracy": accuracies[best]}

    def _module(self, name: str, options: Mapping[str, Any]) -> FewShotModule:
        seed_everything(self.seed, verbose=False)
        if name not in self._checkpoints:
            return FewShotModule(self.methods[name].variant(options, name), self.backbone)
        file = self._checkpoints[name]
        content = read_checkpoint(file)
        if not is_of_few_shot_module(content):
            raise ValueError(f"methods.{name}.ckpt_path: {file} is no checkpoint of FewShotModule")
        return module_from_checkpoint(content, Path(file), FewShotModule, packages=self.packages)


def silent_trainer(accelerator: str, precision: Any = None) -> Trainer:
    """A trainer on one device that writes and shows nothing; ValueError where there is no such device or precision."""
    try:
        return Trainer(
            accelerator=accelerator,
            precision=precision,
            devices=1,
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            use_distributed_sampler=False,
        )
    except (ValueError, TypeError, MisconfigurationException) as error:
        raise ValueError(f"trainer: {error}") from error


class _MethodTime:
    """Seconds that a module's method takes, its work on the device included."""

    def __init__(self, module: FewShotModule) -> None:
        self.seconds, self._begun = 0.0, 0.0
        self._module = module
        module.method.register_forward_pre_hook(lambda *_: self._begin())
        module.method.register_forward_hook(lambda *_: self._end())

    def _now(self) -> float:
        if self._module.device.type == "cuda":
            torch.cuda.synchronize(self._module.device)
        return time.perf_counter()

    def _begin(self) -> None:
        self._begun = self._now()

    def _end(self) -> None:
        self.seconds += self._now() - self._begun


def rows(measured: Sequence[Measured], reference: str, n_way: int) -> list[dict[str, Any]]:
    """One row for each method and size of the episodes, best balanced accuracy first.

    Accuracies are fractions of one; `difference` is to the reference on the same episodes, with the interval of the
    mean of the differences; the keys of unbalanced queries start with `dirichlet_` or `tail_`.

    Args:
        measured: of all methods and settings.
        reference: name of the method that differences are to.
        n_way: N.
    """
    by_place = {(one.name, one.setting): one for one in measured}
    sizes = dict.fromkeys((one.setting.n_shot, one.setting.n_query) for one in measured)
    found = []
    for n_shot, n_query in sizes:
        of_size = []
        for name in dict.fromkeys(one.name for one in measured):
            row: dict[str, Any] = {"method": name, "n_shot": n_shot, "n_query": n_query}
            for (other, setting), one in by_place.items():
                if other != name or (setting.n_shot, setting.n_query) != (n_shot, n_query):
                    continue
                against = by_place[reference, setting]
                if one.episodes_sha256 != against.episodes_sha256:
                    raise ValueError(f"{name} and {reference} were tested on different episodes")
                gain = paired_difference(one.correct, against.correct, n_way * n_query)
                prefix = setting.prefix
                row |= {f"{prefix}accuracy": one.accuracy, f"{prefix}ci95": one.ci95}
                row |= {f"{prefix}difference": gain.accuracy, f"{prefix}difference_ci95": gain.ci95}
                row |= {f"{prefix}seconds_per_1000": one.seconds_per_1000, f"{prefix}chosen": one.chosen}
            of_size.append(row)
        key = next(key for key in of_size[0] if key.endswith("accuracy"))
        found += sorted(of_size, key=lambda row: -row[key])
    return found
