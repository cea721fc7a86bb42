"""What decides an answer besides the pictures, in words for the report and for run.json."""

from __future__ import annotations

import inspect
from typing import Any

from fewshot.data.transforms import Preprocessing
from fewshot.methods import Method
from fewshot.methods.construction import construction


def method_options(method: Method) -> str:
    """Every option of a method with its value, those that were not given too."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(type(method).__init__).parameters.items()
        if parameter.default is not parameter.empty
    }
    return ", ".join(f"{name} {_value(value)}" for name, value in {**defaults, **method._arguments}.items()) or "none"


def of_preprocessing(how: Preprocessing) -> str:
    """How a picture becomes what the backbone receives."""
    steps = [f"shorter edge to {how.stored_size} px ({how.interpolation}), middle square"]
    if how.image_size != how.stored_size:
        steps.append(f"of it the middle {how.image_size} px")
    steps.append("grey" if how.channels == 1 else "RGB")
    steps += ["inverted"] if how.invert else []
    mean, deviation = (" ".join(f"{value:g}" for value in values) for values in (how.mean, how.std))
    return ", ".join([*steps, f"mean {mean}, deviation {deviation}"])


def _value(value: Any) -> str:
    """An argument in words; what is constructed itself is its class with its options."""
    plain = construction(value)
    if isinstance(plain, dict) and "class_path" in plain:
        inner = ", ".join(f"{name} {_value(item)}" for name, item in plain.get("init_args", {}).items())
        return plain["class_path"].rpartition(".")[2] + (f" ({inner})" if inner else "")
    return f"{plain:g}" if isinstance(plain, float) else str(plain)
