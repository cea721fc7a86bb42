"""The checkpoints of a run: which are kept, and that they are found again wherever its folder has gone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pytorch_lightning.callbacks import ModelCheckpoint

from fewshot.files import LAST


class RunCheckpoint(ModelCheckpoint):
    """Lightning's, but for its state, which names files without their folder: a run is its folder, wherever it lies.

    Lightning keeps absolute paths. Where a run was moved, copied or mounted elsewhere, it would forget which checkpoint
    is the best, overwrite it by the next one however bad, or test that of the folder it came from.
    """

    def state_dict(self) -> dict[str, Any]:
        """Lightning's, without folders."""
        return {**_with_paths(super().state_dict(), lambda path: Path(path).name), "dirpath": ""}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over a state, of this class or of Lightning's, with its files in this run's folder.

        Where its best file does not lie there, another run's checkpoint begins this one: the best is sought anew.
        """
        folder = Path(str(self.dirpath))
        here = _with_paths(state_dict, lambda path: str(folder / Path(path).name))
        if not Path(here.get("best_model_path") or "").is_file():
            return
        super().load_state_dict({**here, "dirpath": self.dirpath})


def with_present_keys(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """A checkpoint whose run kept its checkpoints under Lightning's name, as earlier versions did, under this one's.

    A ModelCheckpoint of a person's own beside a run's may follow the same figure: each needs a name of its own.
    """
    states = checkpoint.get("callbacks") or {}
    former, present = ModelCheckpoint.__qualname__ + "{", RunCheckpoint.__qualname__ + "{"
    if not any(key.startswith(present) for key in states):
        states = {key.replace(former, present, 1) if key.startswith(former) else key: states[key] for key in states}
    return {**checkpoint, "callbacks": states}


def _with_paths(state: dict[str, Any], changed: Callable[[str], str]) -> dict[str, Any]:
    """The state with every path in it changed; empty ones, which say that there is none, stay."""
    single = ("best_model_path", "kth_best_model_path", "last_model_path")
    paths = {key: changed(state[key]) for key in single if state.get(key)}
    several = {changed(path): score for path, score in (state.get("best_k_models") or {}).items()}
    return {**state, **paths, "best_k_models": several}


def run_checkpoints(run_folder: Path) -> list[ModelCheckpoint]:
    """Callbacks that keep checkpoints/best.ckpt by validation accuracy, and last.ckpt after every epoch."""
    folder = (run_folder / LAST).parent
    best = RunCheckpoint(
        dirpath=folder,
        monitor="val/accuracy",
        mode="max",
        filename="best",
        save_top_k=1,
        auto_insert_metric_name=False,
        enable_version_counter=False,
    )
    last = RunCheckpoint(
        dirpath=folder, filename="last", save_top_k=1, save_on_train_epoch_end=True, enable_version_counter=False
    )
    return [best, last]
