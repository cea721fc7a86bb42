"""SNAIL against whole sequences, one a query, by conv1d and by attention with a mask."""

import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import SNAIL
from fewshot.methods.snail import AttentionBlock, DenseBlock

N_WAY = 3


def convolved(block: DenseBlock, sequence: torch.Tensor) -> torch.Tensor:
    """[S+1, C] to [S+1, C+F]."""
    kernel = torch.stack([block.back.weight, block.here.weight], dim=-1)  # [2F, C, 2], the earlier place first
    padded = F.pad(sequence.T, (block.dilation, 0))
    made = F.conv1d(padded[None], kernel, block.here.bias, dilation=block.dilation)[0].T
    half = made.shape[1] // 2
    return torch.cat([sequence, torch.tanh(made[:, :half]) * torch.sigmoid(made[:, half:])], dim=1)


def attended(block: AttentionBlock, sequence: torch.Tensor) -> torch.Tensor:
    """[S+1, C] to [S+1, C+V]."""
    scores = block.queries(sequence) @ block.keys(sequence).T / block.keys.out_features**0.5
    later = torch.ones_like(scores).triu(1).bool()
    return torch.cat([sequence, scores.masked_fill(later, -torch.inf).softmax(1) @ block.values(sequence)], dim=1)


@pytest.mark.parametrize("n_shot", [1, 2])
def test_logits_are_those_of_whole_sequences(n_shot: int) -> None:
    method = SNAIL(N_WAY, n_shot, n_filters=4, embedding=5)
    method.build(6)
    method.double()
    labels = torch.tensor([[0, 1, 2, 1, 0, 2], [2, 2, 0, 1, 0, 1]])
    support, query = torch.randn(2, 6, 6, dtype=torch.float64), torch.randn(2, 3, 6, dtype=torch.float64)
    found = method.classify(support, labels, query, N_WAY)
    for task in range(2):
        places = sorted(range(6), key=lambda i: (labels[task, i].item(), support[task, i].sum().item()))
        pictures = [torch.cat([method.embed(support[task, i]), torch.eye(N_WAY)[labels[task, i]]]) for i in places]
        for q in range(3):
            last = torch.cat([method.embed(query[task, q]), torch.zeros(N_WAY)])
            sequence = torch.stack([*pictures, last])
            for block in method.blocks:
                sequence = (convolved if isinstance(block, DenseBlock) else attended)(block, sequence)  # type: ignore[operator]
            torch.testing.assert_close(found[task, q], method.readout(sequence[-1]))


def test_it_is_built_as_in_the_paper() -> None:
    kinds = [
        (block.dilation, block.here.out_features // 2)
        if isinstance(block, DenseBlock)
        else (block.keys.out_features, block.values.out_features)
        for block in SNAIL(5, 5).blocks
        if isinstance(block, (DenseBlock, AttentionBlock))
    ]
    stack = [(dilation, 128) for dilation in (1, 2, 4, 8, 16)]  # 26 places
    assert kinds == [(64, 32), *stack, (256, 128), *stack, (512, 256)]


def test_other_ways_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="n_shot=0"):
        SNAIL(n_shot=0)
    method = SNAIL(5, n_filters=4, embedding=5)
    method.build(6)
    with pytest.raises(ValueError, match="made for n_way=5 but the episode has 3 ways"):
        method.classify(torch.randn(1, 3, 6), torch.tensor([[0, 1, 2]]), torch.randn(1, 4, 6), 3)
