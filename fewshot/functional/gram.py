"""Inner products of a task's examples: weights that combine them, regressions on them, and what a centre changes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from fewshot.functional.solvers import inverse

FACTOR_PAYS = 2
"""Products with all inner products go through the features where those are so many times fewer than the examples."""
LEAST_SQUARE = 1e-5
"""Squared lengths beside vectors of length one; inner products in float32 are right to some 1e-6."""


class Gram(NamedTuple):
    """Examples x_i of a task by their inner products, K = X X^T, and class weights that are combinations of them.

    Weights theta_c = sum_i A_ic x_i are held by their coefficients A, [T, n, N], or, where features are few, as they
    are, [T, D, N].
    """

    matrix: Tensor
    """K, [T, n, n]."""
    factor: Tensor | None = None
    """X, [T, n, D], where products through it take fewer operations."""

    @property
    def rows(self) -> Tensor:
        """What weights are multiplied with for the examples' scores: K or X."""
        return self.matrix if self.factor is None else self.factor

    def weights(self, coefficients: Tensor) -> Tensor:
        """Weights by their coefficients A, [T, n, N]."""
        return coefficients if self.factor is None else torch.bmm(self.factor.transpose(1, 2), coefficients)

    def scores(self, weights: Tensor) -> Tensor:
        """x_i . theta_c, [T, n, N]."""
        return torch.bmm(self.rows, weights)

    def times(self, coefficients: Tensor) -> Tensor:
        """K A, [T, n, N] from A, as large."""
        return self.scores(self.weights(coefficients))


def gram_of(features: Tensor) -> Gram:
    """The inner products of examples [T, n, D]; a graph that is exported has one way of multiplying."""
    matrix = torch.bmm(features, features.transpose(1, 2))
    few = not torch.compiler.is_exporting() and FACTOR_PAYS * features.shape[2] < features.shape[1]
    return Gram(matrix, features if few else None)


class RegularizedInverse:
    """(K + lambda I)^-1, or (X^T X + lambda I)^-1 where there are features to go through: they make the same weights.

    Args:
        gram: of the examples.
        penalty: lambda, above 0; one number, or [T, 1, 1].
    """

    def __init__(self, gram: Gram, penalty: Tensor | float) -> None:
        self.gram = gram
        inner = gram.matrix if gram.factor is None else torch.bmm(gram.factor.transpose(1, 2), gram.factor)
        identity = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        self.inner = inverse(inner + penalty * identity)  # [T, n, n] or [T, D, D]

    def times(self, weights: Tensor) -> Tensor:
        """The solution, from a right side in the form of weights; of `gram.weights(targets)` it is ridge regression."""
        return torch.bmm(self.inner, weights)

    def left_out(self, targets: Tensor, weights: Tensor) -> Tensor:
        """Ridge regression's score of each example when fitted without it, [T, n, N] (Allen's PRESS).

        Args:
            targets: [T, n, N].
            weights: the solution for them.
        """
        if self.gram.factor is None:  # the weights are coefficients, the errors over lambda
            return targets - weights / self.inner.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        leverage = (torch.bmm(self.gram.factor, self.inner) * self.gram.factor).sum(-1, keepdim=True)  # [T, n, 1]
        return targets - (targets - self.gram.scores(weights)) / (1 - leverage)


class CentredProducts:
    """What the examples of a task see of each other and of class weights once a centre is taken off all of them.

    With inner products G of n examples x_i and the centre c = sum_i w_i x_i, the examples become
    u_i = (x_i - c) / |x_i - c|, and class weights are combinations theta_c = sum_i A_ic u_i. An example that lies at
    the centre, as far as float32 can tell, has no direction: u_i is zero.

    Args:
        gram: G, of examples of length one.
        centre: w, [T, n], each task's summing to one.
    """

    def __init__(self, gram: Gram, centre: Tensor) -> None:
        self.gram = gram
        self.to_centre = gram.times(centre.unsqueeze(-1))  # [T, n, 1], x_i . c
        self.centre_square = (centre.unsqueeze(-1) * self.to_centre).sum(1, keepdim=True)  # [T, 1, 1]
        own = gram.matrix.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        self.inverse = _inverse_length(own - 2 * self.to_centre + self.centre_square)  # [T, n, 1]

    def weights_products(self, coefficients: Tensor) -> Tensor:
        """u_i . theta_c for all examples, [T, n, N].

        Args:
            coefficients: A, [T, n, N].
        """
        scaled = self.inverse * coefficients
        mass = scaled.sum(1, keepdim=True)  # [T, 1, N]
        plain = self.gram.times(scaled)  # [T, n, N]
        along = (self.to_centre * scaled).sum(1, keepdim=True)  # [T, 1, N], c . sum_i B_ic x_i
        return self.inverse * (plain - self.to_centre * mass - along + self.centre_square * mass)

    def cosines(self, rows: slice, columns: slice) -> Tensor:
        """Cosines between some examples and some others, [T, rows, columns]."""
        products = self.gram.matrix[:, rows, columns] - self.to_centre[:, rows]
        products = products - self.to_centre[:, columns].transpose(1, 2) + self.centre_square
        return products * self.inverse[:, rows] * self.inverse[:, columns].transpose(1, 2)


def of_length_one(coefficients: Tensor, products: Tensor) -> tuple[Tensor, Tensor]:
    """Coefficients of class weights scaled to length one, or zero, and the cosines of all examples with them.

    Args:
        coefficients: A, [T, n, N].
        products: u_i . theta_c, [T, n, N].
    """
    inverse = _inverse_length((coefficients * products).sum(1, keepdim=True))  # [T, 1, N], of theta_c
    return coefficients * inverse, products * inverse


def _inverse_length(square: Tensor) -> Tensor:
    """One over the length of vectors with these squared lengths; 0 for what may be nothing but rounding."""
    return torch.where(square > LEAST_SQUARE, square.clamp_min(LEAST_SQUARE).rsqrt(), 0.0)
