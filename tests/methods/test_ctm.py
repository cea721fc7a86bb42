import pytest
import torch
import torch.nn.functional as F

from fewshot.methods import CTM

LABELS = torch.tensor([[0, 1, 2, 1, 0, 2], [2, 2, 0, 1, 0, 1]])


def test_logits_are_those_of_a_loop() -> None:
    method = CTM(3, width=4, n_masked=7, scale=3.0)
    method.build(5)
    method.double()
    support, query = torch.randn(2, 6, 5, dtype=torch.float64), torch.randn(2, 4, 5, dtype=torch.float64)
    found = method.classify(support, LABELS, query, 3)
    for task in range(2):
        common = []
        for c in range(3):
            members = [method.concentrator(x) for x, y in zip(support[task], LABELS[task], strict=True) if y == c]
            common.append(sum(members) / len(members))
        scores = method.projector(torch.cat(common))
        mask = scores.exp() / scores.exp().sum()
        for c in range(3):
            improved = [method.reshaper(x) * mask for x, y in zip(support[task], LABELS[task], strict=True) if y == c]
            mean = sum(improved) / len(improved)
            expected = [3 * F.cosine_similarity(method.reshaper(q) * mask, mean, dim=0) for q in query[task]]
            torch.testing.assert_close(found[task, :, c], torch.stack(expected))


def test_a_mask_learns_which_dimensions_matter_in_a_task() -> None:
    """One half of the dimensions tells a task's classes apart, the other is noise; the support shows which is which."""
    method = CTM(2, width=16, n_masked=8)
    method.build(8)
    optimizer = torch.optim.Adam(method.parameters(), lr=0.01)

    def accuracy() -> torch.Tensor:
        labels = torch.tensor([0, 1, 0, 1]).expand(128, -1)
        first = torch.rand(128, 1, 1) < 0.5
        signs = torch.where(labels == 0, 1.0, -1.0)
        signal = (signs.unsqueeze(-1) * torch.tensor([1.0, 0, 0, 0])) + torch.tensor([0.0, 2, 0, 0])
        noise = 3 * torch.randn(128, 4, 4) * torch.tensor([0.0, 0, 0, 1])
        pictures = torch.where(first, torch.cat([signal, noise], dim=-1), torch.cat([noise, signal], dim=-1))
        logits = method.classify(pictures[:, :2], labels[:, :2], pictures[:, 2:], 2)
        loss = F.cross_entropy(logits.flatten(0, 1), labels[:, 2:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return (logits.argmax(-1) == labels[:, 2:]).float().mean()

    before = accuracy()
    for _ in range(200):
        after = accuracy()
    assert after > 0.95 > before


def test_other_ways_and_impossible_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="width=0"):
        CTM(width=0)
    method = CTM(5)
    method.build(6)
    with pytest.raises(ValueError, match="made for n_way=5 but the episode has 3 ways"):
        method.classify(torch.randn(1, 3, 6), torch.tensor([[0, 1, 2]]), torch.randn(1, 4, 6), 3)
