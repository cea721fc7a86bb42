"""Cosines about a centre from inner products alone: the feature size does not occur."""

from __future__ import annotations

import torch
from torch import Tensor

LEAST_SQUARE = 1e-5
"""Squared lengths beside vectors of length one; inner products in float32 are right to some 1e-6."""


class CentredProducts:
    """What the examples of a task see of each other and of class weights once a centre is taken off all of them.

    With inner products G of n examples x_i and the centre c = sum_i w_i x_i, the examples become
    u_i = (x_i - c) / |x_i - c|, and class weights are combinations theta_c = sum_i A_ic u_i. An example that lies at
    the centre, as far as float32 can tell, has no direction: u_i is zero.

    Args:
        gram: G, [T, n, n], of examples of length one.
        centre: w, [T, n], each task's summing to one.
    """

    def __init__(self, gram: Tensor, centre: Tensor) -> None:
        self.gram = gram
        self.to_centre = torch.bmm(gram, centre.unsqueeze(-1))  # [T, n, 1], x_i . c
        self.centre_square = (centre.unsqueeze(-1) * self.to_centre).sum(1, keepdim=True)  # [T, 1, 1]
        own = gram.diagonal(dim1=1, dim2=2).unsqueeze(-1)
        self.inverse = _inverse_length(own - 2 * self.to_centre + self.centre_square)  # [T, n, 1]

    def weights_products(self, coefficients: Tensor) -> Tensor:
        """u_i . theta_c for all examples, [T, n, N].

        Args:
            coefficients: A, [T, n, N].
        """
        scaled = self.inverse * coefficients
        mass = scaled.sum(1, keepdim=True)  # [T, 1, N]
        plain = torch.bmm(self.gram, scaled)  # [T, n, N]
        along = (self.to_centre * scaled).sum(1, keepdim=True)  # [T, 1, N], c . sum_i B_ic x_i
        return self.inverse * (plain - self.to_centre * mass - along + self.centre_square * mass)

    def cosines(self, rows: slice, columns: slice) -> Tensor:
        """Cosines between some examples and some others, [T, rows, columns]."""
        products = self.gram[:, rows, columns] - self.to_centre[:, rows]
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
