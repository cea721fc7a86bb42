"""The model card of a saved model: README.md, with the metadata at its head that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import yaml

from fewshot.data.transforms import Preprocessing

FIGURES = ("accuracy", "ci95", "n_way", "n_shot", "n_query", "n_episodes", "data", "split")
"""What of results.json the card shows."""


def model_card(
    model: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    license: str | None = None,
    results: Mapping[str, Any] | None = None,
) -> str:
    """Markdown with a head of YAML.

    Args:
        model: init_args of the module: `method` and `backbone` are shown.
        preprocessing: how pictures become tensors.
        license: the Hub's word for it, such as mit or apache-2.0; None leaves it out.
        results: of a test, as in results.json; None leaves all figures out.

    Raises:
        ValueError: a licence that is no word of the Hub's form, results that lack figures.
    """
    method, backbone = model["method"]["class_path"].rsplit(".", 1)[-1], model["backbone"]["name"]
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise ValueError(f"license={license!r}; give the Hub's word for it, such as mit, apache-2.0 or other")
    missing = [key for key in FIGURES if results is not None and key not in results]
    if missing:
        raise ValueError(f"the results lack {', '.join(missing)}; give those of a test (results.json)")
    title = f"{method} on {backbone}"
    head: dict[str, Any] = {
        "library_name": "fewshot",
        "pipeline_tag": "image-classification",
        "tags": ["few-shot-learning", "meta-learning", "transductive", "timm"],
    }
    if license is not None:
        head["license"] = license
    if results is not None:
        head["metrics"] = ["accuracy"]
        head["model-index"] = [{"name": title, "results": [_entry(results)]}]
    size = preprocessing.image_size
    parts = [
        f"---\n{yaml.safe_dump(head, sort_keys=False, allow_unicode=True)}---\n",
        f"# {title}\n",
        "A few-shot classifier: a few labelled pictures of classes that it was not trained on (support) and unlabelled "
        f"ones (query) in, probabilities of the classes out. It was written by `fewshot`; pictures become {size} x "
        f"{size} pixels as `config.json` says under `preprocessing`.\n",
        "```python\nfrom fewshot.training.saved_model import load_trained\n\n"
        'module, preprocessing, _ = load_trained("the folder of this file")\n```\n',
    ]
    if results is not None:
        parts.append(_sentence(results))
    return "\n".join(parts)


def _entry(results: Mapping[str, Any]) -> dict[str, Any]:
    """One entry of the Hub's model-index."""
    sizes = f"{results['n_way']}-way {results['n_shot']}-shot"
    return {
        "task": {"type": "image-classification", "name": f"few-shot classification, {sizes}"},
        "dataset": {"type": str(results["data"]), "name": str(results["data"]), "split": str(results["split"])},
        "metrics": [{"type": "accuracy", "name": f"{sizes} accuracy, %", "value": round(100 * results["accuracy"], 2)}],
    }


def _sentence(results: Mapping[str, Any]) -> str:
    interval = "" if results["ci95"] is None else f" ± {100 * results['ci95']:.2f}"
    return (
        f"Accuracy {100 * results['accuracy']:.2f}{interval} % (95 % interval) over {results['n_episodes']} "
        f"{results['n_way']}-way {results['n_shot']}-shot episodes with {results['n_query']} queries a class, classes "
        f"of the split {results['split']} of {results['data']}.\n"
    )
