"""CLIP's two sides, by the name of a model of the package transformers: pictures, and classes by what they are called.

Radford, Kim, Hallacy and others: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021,
arXiv 2103.00020. The mean over several prompts of a class is theirs (section 3.1.4).
"""

from __future__ import annotations

import contextlib
import importlib.util
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from fewshot.classification.class_embeddings import ClassEmbeddings
from fewshot.data.transforms import Preprocessing
from fewshot.functional.features import normalized

PROMPTS = ("a photo of a {}.",)
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
"""Of the pictures that CLIP was trained on, per channel."""
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
        model: Any = CLIPModel.from_pretrained(name, use_safetensors=True, dtype=torch.float32)
        tokenizer = CLIPTokenizer.from_pretrained(name)
    size = int(model.config.vision_config.image_size)
    preprocessing = Preprocessing(size, size, MEAN, STD, interpolation="bicubic")
    return Clip(PictureSide(model.eval().requires_grad_(False)).eval(), preprocessing, tokenizer)


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
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
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
