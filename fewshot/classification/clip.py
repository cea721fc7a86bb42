"""CLIP's two sides, by the name of a model of the package transformers: pictures, and classes by what they are called.

Radford, Kim, Hallacy and others: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
arXiv 2103.00020. The mean over several prompts of a class is theirs (section 3.1.4).
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.data.transforms import Preprocessing
from fewshot.functional.features import normalized

PROMPTS = ("a photo of a {}.",)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, per channel."""
MOST_WEIGHTS, MOST_LAYERS = 5_000_000_000, 200
"""Twice as many as the largest model of CLIP that is published has, and four times its layers."""
LEAST_BYTES = 2
"""Of a weight in a file."""
ADAPTER = "adapter_config.json"
"""Where transformers reads the name of a model that it is to load in the place of this one."""
AT_ONCE = 256
"""Prompts that are encoded at a time."""


class PictureSide(nn.Module):
    """Pictures [B, 3, S, S] to features [B, D] in the space that words are embedded in too.

    Args:
        model: transformers' CLIPModel.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.num_features = int(model.config.projection_dim)

    def forward(self, pictures: Tensor) -> Tensor:
        return _embedded(self.model.get_image_features(pixel_values=pictures))


class Clip(NamedTuple):
    """A model of both sides."""

    backbone: PictureSide
    preprocessing: Preprocessing
    tokenizer: Any

    @torch.no_grad()
    def class_embeddings(self, class_names: Sequence[str], prompts: Sequence[str] = PROMPTS) -> ClassEmbeddings:
        """An embedding [D] of length one for each class: the mean of its prompts', each of length one.

        Args:
            class_names: N words; `_` is read as a space.
            prompts: each with {} where the class stands.

        Raises:
            ValueError: no class, one twice, or a prompt without its place.
        """
        if not class_names or len(set(class_names)) < len(class_names):
            raise ValueError(f"class_names={list(class_names)}; give each class once, and at least one")
        check_prompts(prompts)
        texts = [prompt.replace("{}", name.replace("_", " ")) for name in class_names for prompt in prompts]
        found = []
        for first in range(0, len(texts), AT_ONCE):
            words = self.tokenizer(texts[first : first + AT_ONCE], padding=True, truncation=True, return_tensors="pt")
            given = {name: words[name] for name in ("input_ids", "attention_mask")}
            found.append(normalized(_embedded(self.backbone.model.get_text_features(**given)).float()))
        of_classes = torch.cat(found).view(len(class_names), len(prompts), -1).mean(1)
        return ClassEmbeddings(tuple(class_names), normalized(of_classes))


def clip(name: str) -> Clip:
    """The model of that name, in evaluation mode on the CPU.

    Args:
        name: on the Hugging Face Hub, such as openai/clip-vit-base-patch32, which is fetched once, or a folder. Weights
            are read from safetensors alone, and no program that comes with them is run.

    Raises:
        ValueError: transformers is not installed, or there is no such model of CLIP.
    """
    if importlib.util.find_spec("transformers") is None:
        raise ValueError("clip: it needs the package transformers; pip install 'fewshot[clip]'")
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer

    with _named(name):
        config = CLIPConfig.from_pretrained(name)
        if config.model_type != "clip":
            raise ValueError(f"it is a model of kind {config.model_type}")
        folder = Path(name) if Path(name).is_dir() else None
        check_size(config, folder)
        if getattr(config, "quantization_config", None) or (folder is not None and (folder / ADAPTER).exists()):
            raise ValueError("it asks for another program or model, to unpack its weights or to adapt to")
        # said here, so that its configuration does not choose where attention is computed
        how: dict[str, Any] = {"use_safetensors": True, "dtype": torch.float32, "attn_implementation": "sdpa"}
        loaded: Any = CLIPModel.from_pretrained(name, config=config, output_loading_info=True, **how)
        model, found = loaded
        if absent := sorted(map(str, found["missing_keys"])):
            raise ValueError(f"its file lacks {len(absent)} of the weights, {absent[0]} among them")
        tokenizer = CLIPTokenizer.from_pretrained(name)
    size = int(model.config.vision_config.image_size)
    preprocessing = Preprocessing(size, size, MEAN, STD, interpolation="bicubic")
    return Clip(PictureSide(model.eval().requires_grad_(False)).eval(), preprocessing, tokenizer)


def check_size(config: Any, folder: Path | None) -> None:
    """ValueError for a model of more weights than its files hold, or than any model of CLIP has; no memory is taken.

    Args:
        config: transformers' CLIPConfig, of whoever made the model.
        folder: where its weights lie; None where they are on the Hub.
    """
    text, vision = config.text_config, config.vision_config
    sizes = [
        (side, key) for side in (text, vision) for key in ("hidden_size", "intermediate_size", "num_hidden_layers")
    ]
    sizes += [(text, "vocab_size"), (text, "max_position_embeddings"), (config, "projection_dim")]
    sizes += [(vision, "image_size"), (vision, "patch_size"), (vision, "num_channels")]
    for place, key in sizes:
        value, most = getattr(place, key), MOST_LAYERS if key == "num_hidden_layers" else MOST_WEIGHTS
        if type(value) is not int or not 1 <= value <= most:
            raise ValueError(f"{key}={value!r} in its configuration; a whole number from 1 to {most:,} is wanted")
    count = config.projection_dim * (text.hidden_size + vision.hidden_size)
    count += text.hidden_size * (text.vocab_size + text.max_position_embeddings)
    count += vision.hidden_size * (
        (vision.image_size // vision.patch_size) ** 2 + vision.num_channels * vision.patch_size**2
    )
    for side in (text, vision):
        count += side.num_hidden_layers * side.hidden_size * (4 * side.hidden_size + 2 * side.intermediate_size)
    held = MOST_WEIGHTS
    if folder is not None:
        held = min(held, sum(file.stat().st_size for file in folder.glob("*.safetensors")) // LEAST_BYTES)
    if count > held:
        raise ValueError(f"its configuration describes {count:,} weights, and {held:,} are possible here")


def check_prompts(prompts: Sequence[str]) -> None:
    """ValueError for no prompt, or one that has no place for the class."""
    wrong = [prompt for prompt in prompts if "{}" not in prompt]
    if wrong or not prompts:
        given = repr(wrong[0]) if wrong else "none"
        raise ValueError(f"prompts: {given} has no {{}} where the class is to stand, as in 'a photo of a {{}}.'")


@contextlib.contextmanager
def _named(name: str) -> Any:
    """Whatever a model that is not there, or is another, raises becomes one ValueError."""
    try:
        yield
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError) as error:
        reason = " ".join(str(error).split())[:300]
        raise ValueError(
            f"clip: {name!r} cannot be loaded ({reason}); give a model of CLIP with safetensors on the Hugging Face "
            "Hub, such as openai/clip-vit-base-patch32, or a folder of one"
        ) from error


def _embedded(found: Any) -> Tensor:
    """The embeddings [n, D] in what transformers returns: they themselves until version 4."""
    embedded = found if isinstance(found, Tensor) else found.pooler_output
    assert isinstance(embedded, Tensor)
    return embedded
