"""The order in which classes are shown to a person: numbers inside their names count, so that c2 comes before c10."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from fewshot.classification.classified import Classified


def natural_order(names: Sequence[str]) -> list[int]:
    """Places of the names in the order in which a person looks for them; upper and lower case are alike."""

    def key(place: int) -> tuple[list[tuple[int, str]], str]:
        parts = re.split("([0-9]+)", names[place].casefold())
        numbers = (part.lstrip("0") if odd % 2 else part for odd, part in enumerate(parts))
        return [(len(part) if odd % 2 else 0, part) for odd, part in enumerate(numbers)], names[place]

    return sorted(range(len(names)), key=key)


def in_natural_order(classified: Classified) -> Classified:
    """The same answer with its classes in their natural order."""
    order = natural_order(classified.class_names)
    if order == sorted(order):
        return classified
    places = np.argsort(order)
    ordered = replace(
        classified,
        class_names=tuple(classified.class_names[place] for place in order),
        support_labels=places[classified.support_labels],
        before=classified.before[:, order],
        probabilities=classified.probabilities[:, order],
    )
    # of two classes that are equally probable the same one as in predictions.csv
    vars(ordered).update(predicted=places[classified.predicted], predicted_before=places[classified.predicted_before])
    return ordered
