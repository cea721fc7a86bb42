"""Inner products of a task's examples: what is multiplied with them, solved with them, and seen about a centre."""

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
    """Inner products K = X X^T of a task's examples."""

    matrix: Tensor
    """K, [T, n, n]."""
    factor: Tensor | None = None
    """X, [T, n, D], where products through it take fewer operations."""

    def times(self, coefficients: Tensor) -> Tensor:
        """K A, [T, n, N] from A, as large."""
        if self.factor is None:
            return torch.bmm(self.matrix, coefficients)
        return torch.bmm(self.factor, torch.bmm(self.factor.transpose(1, 2), coefficients))


def gram_of(features: Tensor) -> Gram:
    """The inner products of examples [T, n, D]; a graph that is exported has one way of multiplying."""
    matrix = torch.bmm(features, features.transpose(1, 2))
    few = not torch.compiler.is_exporting() and FACTOR_PAYS * features.shape[2] < features.shape[1]
    return Gram(matrix, features if few else None)


class RegularizedInverse:
    """(K + lambda I)^-1, by a D x D system where K has features to go through (the Woodbury identity).

    Args:
        gram: K.
        penalty: lambda, above 0; one number, or [T, 1, 1]. Beside examples of length one through their features it is
            0.05 or more: the smaller it is, the more digits cancel.
    """

    def __init__(self, gram: Gram, penalty: Tensor | float) -> None:
        self.factor, self.penalty = gram.factor, penalty
        inner = gram.matrix if self.factor is None else torch.bmm(self.factor.transpose(1, 2), self.factor)
        identity = torch.eye(inner.shape[-1], dtype=inner.dtype, device=inner.device)
        self.inner = inverse(inner + penalty * identity)  # [T, n, n] or [T, D, D]

    def times(self, right: Tensor) -> Tensor:
        """The solution, [T, n, N] from the right side, as large."""
        if self.factor is None:
            return torch.bmm(self.inner, right)
        within = torch.bmm(self.inner, torch.bmm(self.factor.transpose(1, 2), right))
        return (right - torch.bmm(self.factor, within)) / self.penalty

    def diagonal(self) -> Tensor:
        """[T, n, 1]."""
        if self.factor is None:
            return self.inner.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        return (1 - (torch.bmm(self.factor, self.inner) * self.factor).sum(-1, keepdim=True)) / self.penalty


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
