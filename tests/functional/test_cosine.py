import torch
import torch.nn.functional as F

from fewshot.functional.cosine import (
    cosine_logits,
    cosine_weight_gradient,
    logit_gradient,
    moved,
    position,
    query_cosines,
)
from fewshot.functional.features import normalized


def test_closed_form_equals_autograd_and_can_be_differentiated_again():
    weights = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    query = normalized(torch.randn(2, 7, 5, dtype=torch.float64))
    upstream = torch.randn(2, 7, 3, dtype=torch.float64)
    scale = torch.tensor(4.0, dtype=torch.float64, requires_grad=True)
    expected = torch.autograd.grad((cosine_logits(query, weights, scale, 0.3) * upstream).sum(), weights)[0]
    torch.testing.assert_close(cosine_weight_gradient(weights, query, upstream, scale), expected)
    assert torch.autograd.gradcheck(
        lambda w, g, s: cosine_weight_gradient(w, query, g, s), (weights, upstream.requires_grad_(), scale)
    )


def test_positions_move_as_the_weights_do():
    weights = torch.randn(2, 3, 5, dtype=torch.float64)
    query = torch.randn(2, 7, 5, dtype=torch.float64)
    query[1, 2] = 0
    upstream, step = torch.randn(2, 7, 3, dtype=torch.float64), 0.8
    cosines, inverse = query_cosines(query)
    place = moved(position(weights, query, inverse), cosines, upstream.mT, step)
    moved_weights = weights - step * cosine_weight_gradient(weights, normalized(query), upstream, 1.0)
    torch.testing.assert_close(place.cosines.mT, cosine_logits(normalized(query), moved_weights, 1.0, 0.0))
    torch.testing.assert_close(place.length, moved_weights.norm(dim=-1, keepdim=True))


def test_positions_can_be_differentiated_in_everything():
    arguments = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 5), (2, 4, 5), (2, 3, 4))
    ]

    def places(weights, query, upstream):
        cosines, inverse = query_cosines(query)
        return moved(position(weights, query, inverse), cosines, upstream, 0.8)

    assert torch.autograd.gradcheck(places, arguments)


def test_logit_gradient_is_that_of_the_summed_cross_entropy():
    logits = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    labels = torch.randint(3, (2, 4))
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
    torch.testing.assert_close(logit_gradient(logits, labels), torch.autograd.grad(loss, logits)[0])
