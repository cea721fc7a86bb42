"""Steps of gradient descent and what flows back through them, where both have a closed form."""

import pytest
import torch
from torch.func import vmap

from fewshot.functional.inner_loop import gradient_steps


@pytest.mark.parametrize("first_order", [False, True], ids=["second order", "first order"])
def test_least_squares_descends_as_the_closed_form_says_and_so_does_the_derivative(first_order: bool) -> None:
    """A step is w - a X^T (X w - y); the derivative of w_K is (I - a X^T X)^K, of first order the identity."""
    inputs, targets, start = (torch.randn(*size, dtype=torch.float64) for size in ((6, 3), (6,), (3,)))
    start.requires_grad_()
    step_size, n_steps = 0.05, 4
    matrix = torch.eye(3, dtype=torch.float64) - step_size * inputs.T @ inputs
    path = list(
        gradient_steps(
            lambda at: 0.5 * (inputs @ at["w"] - targets).square().sum(),
            {"w": start},
            n_steps=n_steps,
            step_size=step_size,
            first_order=first_order,
        )
    )
    assert len(path) == n_steps + 1
    solution = torch.linalg.lstsq(inputs, targets).solution
    for k, parameters in enumerate(path):
        power = torch.linalg.matrix_power(matrix, k)
        torch.testing.assert_close(parameters["w"].detach(), solution + power @ (start.detach() - solution))
        derivative = torch.stack([torch.autograd.grad(w, start, retain_graph=True)[0] for w in parameters["w"]])
        torch.testing.assert_close(derivative, torch.eye(3).double() if first_order else power)


def test_it_is_mapped_over_tasks_and_descends_in_inference_mode() -> None:
    targets, start = torch.randn(5, 2), torch.randn(2)

    def of_task(target: torch.Tensor) -> torch.Tensor:
        steps = gradient_steps(
            lambda at: 0.5 * (at["w"] - target).square().sum(),
            {"w": start},
            n_steps=2,
            step_size=0.1,
            first_order=False,
        )
        return [parameters["w"] for parameters in steps][-1]

    with torch.inference_mode():
        torch.testing.assert_close(vmap(of_task)(targets), targets + 0.81 * (start - targets))
