"""What a FewShotClassifier classifies with, by the options that say so: an encoder, a method, a temperature."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

import fewshot.methods
from fewshot.backbones import BackboneConfig
from fewshot.classification.encoder import PictureEncoder, check_encoding, encoder_of_backbone
from fewshot.data.transforms import Preprocessing
from fewshot.methods import Method, UniversalSIB
from fewshot.training.few_shot_module import FewShotModule
from fewshot.training.from_file import import_packages
from fewshot.training.saved_model import load_trained


class LoadedModel(NamedTuple):
    """A method, and what turns pictures into its features."""

    encoder: PictureEncoder | None
    """None where rows are features already."""
    method: Method
    """In evaluation mode."""
    module: FewShotModule | None = None
    """The checkpoint's, whose backbone the encoder has; its method may be another. None without a checkpoint."""
    temperature: float | None = None
    """Fitted for this method on validation episodes, or 1 where it was trained to need none; None where neither."""

    def placed(self, device: torch.device, **options: Any) -> LoadedModel:
        """The same on a device; what is there already is left as it is.

        Args:
            device: where to.
            options: of PictureEncoder, by name.

        Raises:
            ValueError: options that the encoder refuses.
        """
        self.method.to(device)
        encoder, wanted = self.encoder, {"device": device, **options}
        if encoder is None:
            check_encoding(device, batch_size=options["batch_size"], precision=options["precision"])
            return self
        if all(getattr(encoder, name) == value for name, value in wanted.items()):
            return self
        moved = PictureEncoder(encoder.backbone, encoder.preprocessing, encoder.config, **wanted)
        return self._replace(encoder=moved)


def loaded_model(
    backbone: str | nn.Module | None,
    method: str | Method | None,
    *,
    checkpoint: str | None,
    packages: Sequence[str],
    weights: str | None,
    preprocessing: Preprocessing | None,
    image_size: int | None,
) -> LoadedModel:
    """The model that these options of FewShotClassifier name, on the CPU.

    Raises:
        FileNotFoundError: no such checkpoint or weights.
        ValueError: options that do not go together, or a model that cannot be built.
    """
    if checkpoint is not None:
        own = {"backbone": backbone, "weights": weights, "image_size": image_size, "preprocessing": preprocessing}
        if given := [name for name, value in own.items() if value is not None]:
            raise ValueError(f"checkpoint and {given[0]} given; a checkpoint brings its own: leave one out")
        module, pictures, _ = load_trained(checkpoint, packages)
        encoder = PictureEncoder(module.backbone, pictures, module.backbone_config)
        if method is None:
            own_temperature = 1.0 if module.method.comes_trained else None
            temperature = own_temperature if module.temperature is None else module.temperature
            return LoadedModel(encoder, module.method.eval(), module, temperature)
        return _with_method(encoder, method, module)
    if backbone is None:
        own = {"weights": weights, "image_size": image_size, "preprocessing": preprocessing}
        if given := [name for name, value in own.items() if value is not None]:
            raise ValueError(
                f"{given[0]} given and no backbone, to which it belongs; give backbone=..., or leave it out"
            )
        return _with_method(None, method)
    if isinstance(backbone, str):
        import_packages(packages)
        encoder = encoder_of_backbone(backbone, weights=weights, image_size=image_size)
    elif preprocessing is None or not hasattr(backbone, "num_features"):
        raise ValueError("a network of your own needs preprocessing=Preprocessing(...) and num_features, D")
    else:
        encoder = PictureEncoder(backbone, preprocessing)
    return _with_method(encoder, method)


def _with_method(
    encoder: PictureEncoder | None, given: str | Method | None, module: FewShotModule | None = None
) -> LoadedModel:
    method = untrained_method(given).eval()
    return LoadedModel(encoder, method, module, 1.0 if method.comes_trained else None)


def whole_module(model: LoadedModel, backbone: str | nn.Module | None) -> FewShotModule | None:
    """Backbone and method as one module, for a file; None where rows are features. A task's temperature is not in it.

    Args:
        model: which.
        backbone: that of the classifier's options.

    Raises:
        ValueError: a network of a person's own, which has no name to be built by.
    """
    encoder = model.encoder
    if encoder is None:
        return None
    if model.module is not None and model.module.method is model.method:
        return model.module
    name = backbone if model.module is None else model.module.backbone_config.name
    if not isinstance(name, str):
        raise ValueError("a network of your own cannot be saved by name; take a timm name or a checkpoint")
    size, channels = encoder.preprocessing.image_size, encoder.preprocessing.channels
    module = FewShotModule(model.method, BackboneConfig(name=name, in_chans=channels, image_size=size))
    module.backbone, module.temperature = encoder.backbone, model.temperature
    return module.eval()


def device_of(name: str) -> torch.device:
    """The device of that name, "auto" being a GPU where there is one; ValueError where there is no such device."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.zeros(1, device=name).device
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device={name!r} cannot be used here ({reason}); give cpu, or auto") from error


def needs_training(method: Method) -> bool:
    """Whether what the method says of classes has to be learned first."""
    return not (method.scales_only or method.comes_trained) and any(True for _ in method.parameters())


def takes_task_mean(method: Method) -> bool:
    """Whether the method asks for the training classes' mean, and has not been told it or only that of a task."""
    return method.needs_base == "features" and (not method.is_prepared or not len(method.base.class_means))


def untrained_method(given: str | Method | None) -> Method:
    """The method of that name; UniversalSIB where there is none.

    Args:
        given: the name of a class of fewshot.methods, or a method, which is given back; a copy of it where a task is
            going to tell it a mean.

    Raises:
        ValueError: no such class, or one that needs training or options.
    """
    if isinstance(given, Method):
        return copy.deepcopy(given) if takes_task_mean(given) else given
    if given is None:
        return UniversalSIB()
    if fault := _fault(given):
        raise ValueError(f"method={given!r} {fault}; choose one of {', '.join(untrained_names())}")
    return getattr(fewshot.methods, given)()


def untrained_names() -> list[str]:
    """Names of methods that serve as they are."""
    return sorted(name for name in fewshot.methods.__all__ if _fault(name) is None)


def _fault(name: str) -> str | None:
    """Why the method of that name does not serve as it is; None where it does."""
    kind = getattr(fewshot.methods, name, None)
    if not (isinstance(kind, type) and issubclass(kind, Method)):
        return "is no class of fewshot.methods"
    try:
        made = kind()
        made.build(8)
    except Exception as error:
        return f"cannot be made without options ({error}); give an instance"
    if not made.on_features:
        return "adapts the backbone itself and has no classifier of features"
    if made.needs_base == "classifier":
        return "needs the classifier of the training classes; give checkpoint=..."
    if needs_training(made):
        return "has to be trained first; give checkpoint=..."
    return None
