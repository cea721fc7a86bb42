"""The model card of a saved model: README.md, with the metadata at its head that the Hugging Face Hub reads."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from fewshot.data.transforms import Preprocessing

TEMPLATE = Path(__file__).with_name("model_card.md")
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
    package, _, method = model["method"]["class_path"].rpartition(".")
    package, backbone = package.split(".")[0], model["backbone"]["name"]
    if license is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", license):
        raise ValueError(f"license={license!r}; give the Hub's word for it, such as mit, apache-2.0 or other")
    missing = [key for key in FIGURES if results is not None and key not in results]
    if missing:
        raise ValueError(f"the results lack {', '.join(missing)}; give those of a test (results.json)")
    title = f"{method} on {backbone}"
    data = ModelCardData(
        library_name="fewshot",
        pipeline_tag="image-classification",
        tags=["few-shot-learning", "meta-learning", "transductive", "timm"],
        license=license,
    )
    if results is not None:
        sizes = f"{results['n_way']}-way {results['n_shot']}-shot"
        data.metrics, data.model_name = ["accuracy"], title
        data.eval_results = [
            EvalResult(
                task_type="image-classification",
                task_name=f"few-shot classification, {sizes}",
                dataset_type=str(results["data"]),
                dataset_name=str(results["data"]),
                dataset_split=str(results["split"]),
                metric_type="accuracy",
                metric_name=f"{sizes} accuracy, %",
                metric_value=round(100 * results["accuracy"], 2),
            )
        ]
    size = preprocessing.image_size
    shown: dict[str, Any] = {"title": title, "size": size, "results": results}
    shown["package"] = "" if package == "fewshot" else package
    card = ModelCard.from_template(data, template_path=str(TEMPLATE), **shown)
    return f"{str(card).rstrip()}\n"
