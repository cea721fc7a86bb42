"""FewShotClassifier: one's own pictures in scikit-learn's conventions."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from fewshot.classification.adaptation import Adapted, later, moved, origin
from fewshot.classification.class_embeddings import as_class_embeddings
from fewshot.classification.conventions import (
    check_numbered,
    check_rows,
    check_unlabelled,
    column_names,
    label_array,
    labels_of,
)
from fewshot.classification.encoder import PictureEncoder
from fewshot.classification.fitting import Given, fitted
from fewshot.classification.given_pictures import as_pictures
from fewshot.classification.model import LoadedModel, whole_module
from fewshot.classification.prepared import MODEL_OPTIONS, PreparedEstimator
from fewshot.classification.saved_classifier import OPTIONS, FittedClassifier, read_classifier, write_classifier
from fewshot.data.transforms import Preprocessing
from fewshot.methods import Method


class FewShotClassifier(PreparedEstimator):
    """Classifies pictures after a few labelled ones, with the unlabelled ones to help.

    Rows given to `fit` without a label (-1, or None) drive the refinement, as in scikit-learn's semi-supervised
    estimators, and get their labels in `transduction_`; `predict` and `predict_proba` then classify any pictures, each
    alone, by what is left of the refined classifier: adapt once, predict later.

        classifier = FewShotClassifier.from_checkpoint("runs/tiny_imagenet_conv4_transport_sib")
        classifier.fit(labelled + unlabelled, ["cat", "cat", "dog", "dog"] + [None] * len(unlabelled))
        classifier.transduction_[-1], classifier.predict(["new.jpg"])

    Pictures are paths, Pillow images, numpy arrays [n, H, W, 3], tensors [n, 3, H, W] or lists of them; without a
    backbone they are rows of features, [n, D]. Labels are of any hashable kind. Prediction changes nothing on the
    classifier and may run in several threads. Pickling works as with any estimator; `save` and `load` do without.

    Args:
        backbone: a timm name, a network from [B, C, S, S] to [B, D], or None where rows are features already.
        method: a Method, or the name of a class of fewshot.methods that needs no training; None takes the checkpoint's,
            else UniversalSIB. A method that centres by the training classes' mean takes that of all rows given to
            `fit`, unless it was told the other.
        checkpoint: a checkpoint of FewShotModule or the folder of its run, in place of a backbone (and a method).
        packages: of your own whose classes the checkpoint may name; they are imported.
        weights: of a backbone by name: a file or a run folder; None fetches timm's published weights.
        preprocessing: how pictures become tensors, where the backbone is a network of your own.
        image_size: side of the pictures in pixels; None takes the one of the weights.
        chunk_size: how many unlabelled rows are refined together at most; None takes all together, or as many as the
            method bears.
        temperature: what logits are divided by for probabilities; None takes the checkpoint's, else finds it by
            holding out labelled rows (1 where every class has one, and for UniversalSIB, which was trained so).
        batch_size: pictures that a GPU encodes at a time; a CPU takes few, which is as fast.
        device: "auto" takes a GPU where there is one; else as torch says it.
        precision: of the backbone: 32-true, bf16-mixed, or on a GPU 16-mixed.
        store_features: whether features of picture files are remembered in the cache folder, by the files' content.
        class_embedding_weight: as how many labelled rows an embedding of a class counts.
        check_refinement: whether labelled rows are held out in turn to see if looking at the unlabelled ones helps;
            where it hurts by more than chance, the answer before it is given.

    Attributes:
        classes_: [N] the labels, sorted where they can be.
        transduction_: [n] a label for every row given to `fit`; those of labelled rows are their own.
        transduced_: [n] int64, the same as places in `classes_`.
        transduction_proba_: [Q, N] probabilities of the unlabelled rows, in their order.
        initial_proba_: [Q, N] the same before refinement.
        strangers_: [Q] probabilities that an unlabelled row is of none of the classes; None where the method does not
            tell.
        temperature_: what logits were divided by.
        temperature_from_: in words, what that was fitted on, or that it was not fitted.
        held_out_: how many labelled rows that were held out got their label before and after refinement; None where
            that was not asked for, or the method looks at no other rows.
        given_: the features and labels that it was fitted on; None where it was loaded without them.
        n_features_in_: D.
    """

    given_: Given | None

    def __init__(
        self,
        backbone: str | nn.Module | None = None,
        method: str | Method | None = None,
        *,
        checkpoint: str | None = None,
        packages: Sequence[str] = (),
        weights: str | None = None,
        preprocessing: Preprocessing | None = None,
        image_size: int | None = None,
        chunk_size: int | None = None,
        temperature: float | None = None,
        batch_size: int = 64,
        device: str = "auto",
        precision: str = "32-true",
        store_features: bool = True,
        class_embedding_weight: int = 1,
        check_refinement: bool = False,
    ) -> None:
        self.backbone = backbone
        self.method = method
        self.checkpoint = checkpoint
        self.packages = packages
        self.weights = weights
        self.preprocessing = preprocessing
        self.image_size = image_size
        self.chunk_size = chunk_size
        self.temperature = temperature
        self.batch_size = batch_size
        self.device = device
        self.precision = precision
        self.store_features = store_features
        self.class_embedding_weight = class_embedding_weight
        self.check_refinement = check_refinement

    @classmethod
    def from_checkpoint(cls, path: str | os.PathLike[str], **options: Any) -> FewShotClassifier:
        """A classifier with the backbone and method of a run; options are those of the constructor.

        Args:
            path: a checkpoint of FewShotModule, the folder of a run or experiment, or a saved model.
            options: by name.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it cannot be read or is of something else.
        """
        made = cls(checkpoint=os.fspath(path), **options)
        made.prepare()
        return made

    def fit(self, X: Any, y: Any, class_embeddings: Any = None) -> FewShotClassifier:
        """Adapt to a task.

        Args:
            X: n pictures or feature rows, labelled and unlabelled.
            y: n labels; -1 or None where there is none.
            class_embeddings: {label: [D]}, or [N, D] of the labels 0..N-1, by the same model: extra support.

        Raises:
            ValueError: what does not go together, one class alone, more than the method serves, a broken picture.
        """
        self.prepare()
        self.fit_features(self._features(X, None, y), y, class_embeddings)
        self.check_feature_names(column_names(X), fits=True)
        return self

    def fit_features(self, features: Tensor, y: Any, class_embeddings: Any = None) -> FewShotClassifier:
        """`fit` on features [n, D], which are kept as they are for `partial_fit`; arguments and errors as there."""
        self.prepare()
        return self._fit(self._checked(features, y, class_embeddings))

    def partial_fit(
        self, X: Any, y: Any = None, classes: Any = None, class_embeddings: Any = None
    ) -> FewShotClassifier:
        """`fit` to what was given before and to more: rows with a label or without, also of new classes.

        What was given before is remembered and not encoded again. All attributes are of all rows, in the order in which
        they came.

        Args:
            X: as of `fit`.
            y: as of `fit`; None labels none of them, where there was a `fit` before.
            classes: nothing; for scikit-learn's sake. A class is known by its first label.
            class_embeddings: as of `fit`, beside those given before.

        Raises:
            ValueError: as of `fit`, and where this was loaded without its rows; what was fitted before stays.
        """
        if not hasattr(self, "_adapted"):
            return self.fit(X, y, class_embeddings)
        self._check_fitted()
        self.prepare()
        if self.given_ is None:
            raise ValueError("this classifier was saved without its rows; save it by save(folder, rows=True)")
        features = self._features(X, self.n_features_in_)
        more = self._checked(features, [None] * len(features) if y is None else y, class_embeddings)
        return self._fit(self.given_.with_more(more))

    def _checked(self, features: Tensor, y: Any, class_embeddings: Any) -> Given:
        labels = labels_of(y, len(features))
        check_unlabelled(y, labels)
        embeddings = None if class_embeddings is None else as_class_embeddings(class_embeddings, features.shape[1])
        if embeddings is not None and not isinstance(class_embeddings, Mapping):
            check_numbered(labels, embeddings.class_names, "give a dictionary {label: row}")
        return Given(features, labels, embeddings)

    def _fit(self, given: Given) -> FewShotClassifier:
        found = fitted(
            self._model,
            given,
            device=self._device,
            weight=self.class_embedding_weight,
            chunk_size=self.chunk_size,
            temperature=self._model.temperature if self.temperature is None else float(self.temperature),
            check=self.check_refinement,
        )
        self.given_ = given
        self._restore(label_array(found.classes), found.adapted, found.transduced)
        return self

    def _restore(self, classes: np.ndarray, adapted: Adapted, transduced: np.ndarray) -> None:
        """Take over what fitting found: labels [N], the task, and the class of every row [n]."""
        self.classes_, self.transduced_ = classes, transduced
        self.transduction_ = classes[transduced]
        self.n_features_in_ = int(adapted.support.shape[-1])
        self.temperature_ = adapted.temperature
        self.temperature_from_ = origin(adapted, self._model.temperature)
        self.initial_proba_ = adapted.before.cpu().numpy()
        self.transduction_proba_ = adapted.probabilities.cpu().numpy()
        self.held_out_ = adapted.held_out
        self.strangers_ = None if adapted.strangers is None else adapted.strangers.numpy()
        self._adapted, self._fitted_with = moved(adapted, self._device), self._asked()

    def predict_proba(self, X: Any) -> np.ndarray:
        """Probabilities [n, N] of pictures or feature rows, each by itself, columns in the order of `classes_`."""
        self._check_fitted()
        return self.later_features(self._features(X, self.n_features_in_))

    def later_features(self, features: Tensor) -> np.ndarray:
        """`predict_proba` on features [n, D] that the encoder gave."""
        return later(self._model.method, self._adapted, features.to(self._device)).cpu().numpy()

    def predict(self, X: Any) -> np.ndarray:
        """The most probable label of each picture or feature row, [n]."""
        places = self.predict_proba(X).argmax(1)
        return self.classes_[places]

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False, rows: bool = False) -> None:
        """Write the fitted classifier into a folder, JSON and safetensors; see fewshot.classification.saved_classifier.

        Args:
            folder: where; all of it is written or nothing.
            overwrite: whether a saved classifier that is there is replaced.
            rows: whether the features of all rows go with it, by which `partial_fit` goes on after `load`.

        Raises:
            ValueError: not fitted, labels that JSON has not, a backbone of one's own, or the folder is there.
        """
        self._check_fitted()
        encoder = self._model.encoder
        whole = FittedClassifier(
            self.classes_.tolist(),
            self._adapted,
            self.transduced_,
            self._model.method,
            whole_module(self._model, self.backbone),
            None if encoder is None else encoder.preprocessing,
            {name: getattr(self, name) for name in OPTIONS},
            self.given_ if rows else None,
            list(self.feature_names_in_) if hasattr(self, "feature_names_in_") else None,
        )
        write_classifier(whole, folder, overwrite=overwrite)

    @classmethod
    def load(
        cls, folder: str | os.PathLike[str], *, packages: Sequence[str] = (), device: str | None = None
    ) -> FewShotClassifier:
        """What `save` wrote.

        Args:
            folder: which.
            packages: top-level packages besides this one whose classes it may name; they are imported.
            device: as of the constructor; None takes what it was saved with.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is damaged, altered or of another format.
        """
        found = read_classifier(folder, packages)
        made = cls(method=found.method, preprocessing=found.preprocessing, **found.options)
        made.device = made.device if device is None else device
        made._model = LoadedModel(None, found.method, None, 1.0 if found.method.comes_trained else None)
        if found.module is not None and found.preprocessing is not None:
            backbone: Any = found.module.backbone
            made.backbone = backbone
            encoder = PictureEncoder(backbone, found.preprocessing, found.module.backbone_config)
            made._model = LoadedModel(encoder, found.method, found.module, found.module.temperature)
        made._loaded_for = {name: getattr(made, name) for name in MODEL_OPTIONS}
        made.prepare()
        made.given_ = found.given
        made._restore(label_array(found.classes), found.adapted, found.transduced)
        made.temperature_from_ = "as it was saved"
        made.check_feature_names(found.feature_names, fits=True)
        return made

    def _features(self, X: Any, n_features: int | None, y: Any = None) -> Tensor:
        encoder = self._model.encoder
        if encoder is not None:
            return encoder.encode(as_pictures(X)).features
        rows = check_rows(X, n_features, y)
        if n_features is not None:
            self.check_feature_names(column_names(X), fits=False)
        return rows
