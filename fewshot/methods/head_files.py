"""Weights of a head as a file of its own, with the sizes that they are for: safetensors, numbers and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from fewshot.files import WholeFile


def write_head(head: nn.Module, sizes: Mapping[str, float], path: Path) -> None:
    """Write the weights of a head, whole or not at all.

    Args:
        head: whose.
        sizes: options that the weights are for, by name.
        path: of the file.
    """
    state = {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}
    content = save(state, metadata={name: str(size) for name, size in sizes.items()})
    with WholeFile(path, "wb") as file:
        file.write(content)


def read_head(head: nn.Module, sizes: Mapping[str, float], path: Path, source: str) -> None:
    """Give a head the weights of a file that `write_head` wrote. Nothing is read of a file whose shapes do not fit.

    Args:
        head: whose they become.
        sizes: options of the head that the weights have to be for.
        path: of the file.
        source: what to call it in an error.

    Raises:
        ValueError: there is no such file, it is something else, or it is of other sizes.
    """
    if not path.is_file():
        raise ValueError(f"weights: {source} is no file; give one that {type(head).__name__}.save wrote")
    own: dict[str, Tensor] = head.state_dict()
    state: dict[str, Tensor] = {}
    try:
        with safe_open(path, "pt") as file:
            made = _numbers(file.metadata() or {})
            fits = set(made) == set(sizes) and set(file.keys()) == set(own)
            for name, size in sizes.items() if fits else ():
                if made[name] != size:
                    raise ValueError(
                        f"{name}={size:g} but {source} is for {name}={made[name]:g}; say {name}={made[name]:g}, or set "
                        "trained=false without weights and train"
                    )
            if fits and all(file.get_slice(name).get_shape() == list(own[name].shape) for name in own):
                state = {name: file.get_tensor(name) for name in own}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"weights: {source} cannot be read as safetensors ({error})") from error
    if not state or not all(value.dtype == own[name].dtype and value.isfinite().all() for name, value in state.items()):
        raise ValueError(f"weights: {source} does not hold what {type(head).__name__}.save writes")
    head.load_state_dict(state)


def _numbers(texts: Mapping[str, str]) -> dict[str, float]:
    """What the texts say; none where they are no numbers."""
    try:
        return {name: float(text) for name, text in texts.items()}
    except ValueError:
        return {}
