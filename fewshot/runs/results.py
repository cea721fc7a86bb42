"""What a test found, on screen and in the run folder's results.json."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from pytorch_lightning import Callback, LightningModule, Trainer

from fewshot.data.interface import data_of
from fewshot.data.picture_datamodule import PictureDataModule
from fewshot.files import WholeFile, csv_line, relative, write_json
from fewshot.runs.tables import per_cent
from fewshot.training.metrics import BOUND, is_bound
from fewshot.training.versions import versions

KEYS = {
    "accuracy": "mean accuracy over the episodes after the last refinement step, a fraction of one",
    "ci95": "half-width of its 95 % interval over episodes; null for a single one",
    "n_episodes": "how many episodes were measured",
    "accuracy_per_step": "mean accuracy before refinement and after each of the K steps, K + 1 numbers",
    "ci95_per_step": "their intervals",
    "n_undefined": "episodes with a query whose logits are NaN, which counts as wrong, or infinite; temperature and "
    "ece leave it out; absent where there is none",
    "accuracy_nearest_mean": "of nearest class mean on the same features and episodes; absent where the method does "
    "not work on features",
    "ci95_nearest_mean": "its interval",
    "gain_over": "by nearest_mean and step_0: mean difference of the last step from it, paired by episode, and ci95",
    "temperature": "what the checkpoint's logits are divided by for calibrated probabilities, fitted on validation "
    "episodes; null where nothing was validated",
    "ece": "expected calibration error of those probabilities after the last step, a fraction of one",
    "ece_uncalibrated": "the same without the temperature",
    "data": "name of the data set",
    "split": "which split",
    "n_classes": "classes of the split",
    "image_size": "side of the pictures in pixels",
    "n_way": "classes of an episode",
    "n_shot": "labelled pictures of a class",
    "n_query": "queries of a class, their mean where they are not balanced",
    "query_distribution": "balanced, dirichlet(concentration) or tail(ratio)",
    "seed": "data.seed, which the episodes were drawn from",
    "episodes_sha256": "hash of the pictures, by name, and labels of the measured episodes in order: accuracies "
    "compare where it is the same",
    "preprocessing": "how pictures became tensors",
    "backbone": "options of the backbone, among them its name; weights is null where a checkpoint held them",
    "method": "class and options of the method; of a pre-training 'nearest class mean'",
    "checkpoint": "the checkpoint that was measured, relative to the working directory where it lies below it",
    "training_seed": "what seed_everything was given; null where nothing was seeded",
    "versions": "of Python and of the packages that decide a result",
}
"""What every key of results.json means. How and where the run was made is in run.json beside it."""


class ResultsWriter(Callback):
    """Writes results.json and episodes.csv into the run folder after a test, and keeps the accuracies as a table.

    The file holds accuracies as fractions of one, and with them everything needed to repeat the test: the episodes'
    sizes, seed and hash, the data set, the backbone, the method, the checkpoint and the versions of the packages. KEYS
    says what each entry means.
    episodes.csv has the number of correct queries of every single episode, for paired comparisons of two runs.
    """

    def __init__(self) -> None:
        self.table = ""

    def on_test_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Collect and write, on the first rank."""
        folder = trainer.log_dir  # asks all ranks
        if not trainer.is_global_zero:
            return
        measured = getattr(pl_module, "results", {}).get("test")
        data = data_of(trainer)
        if measured is None or data is None:
            return
        described = data.describe("test")
        if measured["n_episodes"] != described["n_episodes"] and isinstance(data, PictureDataModule):
            described["episodes_sha256"] = data.episodes_sha256("test", measured["n_episodes"])  # limit_test_batches
        results = {
            **measured,
            **described,
            "n_episodes": measured["n_episodes"],
            "backbone": pl_module.hparams.get("backbone"),
            "method": pl_module.hparams.get("method", "nearest class mean"),
            "checkpoint": relative(str(trainer.ckpt_path)) if trainer.ckpt_path else None,
            "training_seed": int(os.environ["PL_GLOBAL_SEED"]) if "PL_GLOBAL_SEED" in os.environ else None,
            "versions": versions(),
        }
        episodes = results.pop("episodes", None)
        self.table = results_table(results)
        if folder is not None:
            write_json(Path(folder) / "results.json", results)
            if episodes is not None:
                write_episodes(Path(folder) / "episodes.csv", episodes)


def write_episodes(path: Path, episodes: dict[str, Any]) -> None:
    """One line an episode: its number, and its correct queries under each predictor."""
    with WholeFile(path) as file:
        file.writelines(map(csv_line, (episodes["columns"], *episodes["rows"])))


def results_table(results: dict[str, Any]) -> str:
    """The accuracies of a test in per cent, one line for each refinement step and for the yardstick."""
    episodes = "1 episode" if results["n_episodes"] == 1 else f"{results['n_episodes']} episodes"
    lines = [
        f"{results['n_way']}-way {results['n_shot']}-shot, {results['n_query']} queries a class, "
        f"{episodes} of {results['data']} ({results['split']})"
    ]
    if "accuracy_nearest_mean" in results:
        value = per_cent(results["accuracy_nearest_mean"], results["ci95_nearest_mean"])
        lines.append(f"  nearest class mean  {value} %")
    per_step, intervals = results["accuracy_per_step"], results.get("ci95_per_step")
    if len(per_step) == 1 or intervals is None:
        lines.append(f"  accuracy            {per_cent(results['accuracy'], results['ci95'])} %")
    else:
        for step, (accuracy, ci95) in enumerate(zip(per_step, intervals, strict=True)):
            lines.append(f"  K = {step:<16}{per_cent(accuracy, ci95)} %")
    if undefined := results.get("n_undefined"):
        lines.append(f"  {undefined} episodes have queries whose logits are NaN or infinite")
    for name, gain in results.get("gain_over", {}).items() if len(per_step) > 1 else ():
        other = "nearest class mean" if name == "nearest_mean" else "K = 0"
        difference = per_cent(gain["difference"], gain["ci95"], signed=True)
        lines.append(f"  gain of K = {len(per_step) - 1} over {other}: {difference} points (paired by episode)")
    if "ece" in results:
        temperature = results["temperature"]
        how = "no temperature fitted" if temperature is None else f"temperature {temperature:.3g}"
        how += f", {BOUND}" if temperature is not None and is_bound(temperature) else ""
        lines.append(f"  expected calibration error  {100 * results['ece']:.2f} % ({how})")
    return "\n".join(lines)
