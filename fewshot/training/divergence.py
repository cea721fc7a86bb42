"""A training loss that is not a finite number: which episode it came from, and that episode on disk."""

from __future__ import annotations

from pathlib import Path

import torch
from pytorch_lightning import LightningModule
from torch import Tensor

from fewshot.backbones.checkpoint_file import save_whole
from fewshot.data.interface import data_of
from fewshot.data.ranks import rank_and_world_size
from fewshot.episode import Episode


def divergence(module: LightningModule, loss: Tensor, episode: Episode, logits: Tensor, *, save: bool) -> ValueError:
    """The error that stops a run: the loss, the step, the numbers of the episodes at fault and their classes.

    Args:
        module: attached to its trainer.
        loss: one number, not finite.
        episode: T tasks.
        logits: [K+1, T, Q, N]; tasks that have any entry which is not finite are at fault, or all where none has.
        save: whether to write the episodes at fault, with their logits, into the run folder.
    """
    faulty = (~logits.detach().isfinite()).flatten(2).any(-1).any(0)  # [T]
    tasks = faulty.nonzero().flatten() if bool(faulty.any()) else torch.arange(episode.n_tasks, device=faulty.device)
    numbers = None if episode.numbers is None else episode.numbers.to(tasks.device)[tasks].tolist()
    classes = [class_names(module, episode, int(task)) for task in tasks[:3]]
    described = "; ".join(f"classes {', '.join(names)}" for names in classes if names)
    advice = "lower the learning rate or the step size, and check the features of these episodes"
    if save:
        advice += f"; written to {write_episodes(module, episode, logits, tasks)}"
    else:
        advice += "; model.save_bad_episodes=true writes them to disk"
    return ValueError(
        f"the loss is {float(loss.detach())} at step {module.global_step}, epoch {module.current_epoch}, "
        f"episodes {numbers}{f' ({described})' if described else ''}; {advice}"
    )


def class_names(module: LightningModule, episode: Episode, task: int) -> list[str]:
    """Names of a training episode's classes, in the order of their labels; none where the data module tells none."""
    data = data_of(module.trainer)
    if episode.support_index is None or data is None:
        return []
    return data.images("train").names_of_episode(
        episode.support_index[task].tolist(), episode.support_labels[task].tolist(), episode.n_way
    )


def write_episodes(module: LightningModule, episode: Episode, logits: Tensor, tasks: Tensor) -> Path:
    """Write these tasks of a batch, their logits and their class names; `torch.load(weights_only=True)` reads them."""
    folder = Path(getattr(module.trainer.loggers[0], "log_dir", None) or "." if module.trainer.loggers else ".")
    rank = rank_and_world_size()[0]
    path = folder / f"bad_episodes_step_{module.global_step}{f'_rank_{rank}' if rank else ''}.pt"
    fields = {
        name: value[tasks.to(value.device)].cpu() if isinstance(value, Tensor) else value
        for name, value in episode._asdict().items()
    }
    names = [class_names(module, episode, int(task)) for task in tasks]
    content = {**fields, "logits": logits.detach()[:, tasks].cpu(), "class_names": names}
    content |= {"step": module.global_step, "epoch": module.current_epoch}
    save_whole(path, content)
    return path
