"""The original program's way of working, written plainly: one episode at a time, nothing kept between episodes.

Pictures are opened, decoded and transformed for every episode by Pillow, the frozen backbone encodes all of them again,
the inner gradient comes from autograd with create_graph, and the gradient network normalises by BatchNorm modules in
training mode. Parameters have the original program's names, so that its state dicts load as they are;
tests/test_benchmarks.py compares logits and gradients with tests/oracles.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torchvision import transforms

N_WAY, N_SHOT, N_QUERY, N_STEPS, STEP_SIZE = 5, 1, 15, 3, 1e-3

Task = tuple[Tensor, Tensor, Tensor, Tensor]
"""support [S, *], support labels [S], query [Q, *], query labels [Q] of one episode."""


class FeatureAverage(nn.Module):
    """Class means of the support times a learned vector."""

    def __init__(self, n_features: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(n_features))

    def forward(self, support: Tensor, labels: Tensor, n_way: int) -> Tensor:
        """[N, D] from [S, D]."""
        members = F.one_hot(labels, n_way).to(support.dtype).t()
        return (members / members.sum(1, keepdim=True)) @ support * self.weight


class GradientNetwork(nn.Module):
    """Three linear layers with BatchNorm between them, on the logits of one episode's queries."""

    def __init__(self, n_way: int) -> None:
        super().__init__()
        width = 8 * n_way
        self.layer1 = nn.Sequential(nn.Linear(n_way, width), nn.ReLU(), nn.BatchNorm1d(width))
        self.layer2 = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.BatchNorm1d(width))
        self.layer3 = nn.Linear(width, n_way)

    def forward(self, logits: Tensor) -> Tensor:
        """[Q, N] from [Q, N]."""
        return self.layer3(self.layer2(self.layer1(logits)))


class ReferenceSIB(nn.Module):
    """SIB for one episode, always in training mode, as the original program runs it at meta-test too."""

    def __init__(
        self, n_features: int, n_way: int = N_WAY, n_steps: int = N_STEPS, step_size: float = STEP_SIZE
    ) -> None:
        super().__init__()
        self.n_way, self.n_steps, self.step_size = n_way, n_steps, step_size
        self.scale_cls = nn.Parameter(torch.tensor(10.0))
        self.bias = nn.Parameter(torch.tensor(0.0))
        self.wnLayerFavg = FeatureAverage(n_features)
        self.dni = GradientNetwork(n_way)

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, *, create_graph: bool = True) -> Tensor:
        """Logits [Q, N] after the last step; create_graph=False where no outer gradient follows."""
        with torch.set_grad_enabled(create_graph):
            query = F.normalize(query, dim=-1)
            theta = self.wnLayerFavg(F.normalize(support, dim=-1), labels, self.n_way)
            for _ in range(self.n_steps):
                theta = theta - self.step_size * self.gradient(query, theta, create_graph=create_graph)
            return self.logits(query, theta)

    def gradient(self, query: Tensor, theta: Tensor, *, create_graph: bool) -> Tensor:
        """The gradient [N, D] that the network's answer to the logits gives by autograd."""
        if create_graph:
            logits = self.logits(query, theta)
            synthetic = self.dni(logits)
        else:
            theta.requires_grad_()
            with torch.enable_grad():
                logits = self.logits(query, theta)
            synthetic = self.dni(logits.detach())
        return torch.autograd.grad(logits, theta, grad_outputs=synthetic, create_graph=create_graph)[0]

    def logits(self, query: Tensor, theta: Tensor) -> Tensor:
        """Scaled cosines [Q, N]."""
        return self.scale_cls * (F.linear(query, theta / theta.norm(dim=-1, keepdim=True)) + self.bias)


class OriginalSIB(ReferenceSIB):
    """The same answers with the original program's detours: lengths anew at every use, a graph at meta-test too."""

    def forward(self, support: Tensor, labels: Tensor, query: Tensor, *, create_graph: bool = True) -> Tensor:
        return super().forward(support, labels, query, create_graph=True)

    def logits(self, query: Tensor, theta: Tensor) -> Tensor:
        query, theta = F.normalize(query, dim=-1, eps=1e-12), F.normalize(theta, dim=-1, eps=1e-12)
        return self.scale_cls * torch.addmm(self.bias, query, theta.t())


def reference_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """The published SGD."""
    return torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4)


def train_episode(model: ReferenceSIB, optimizer: torch.optim.Optimizer, task: Task) -> float:
    """One step of training; returns the loss."""
    support, labels, query, query_labels = task
    loss = F.cross_entropy(model(support, labels, query), query_labels)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.item()


def test_accuracy(model: ReferenceSIB, task: Task) -> float:
    """Share of correct queries of one episode."""
    support, labels, query, query_labels = task
    logits = model(support, labels, query, create_graph=False)
    return (logits.argmax(1) == query_labels).float().mean().item()


def train_original(model: OriginalSIB, optimizer: torch.optim.Optimizer, task: Task, losses: list[float]) -> None:
    """One step of training, its accuracy and loss kept, as the original program does for its progress bar."""
    support, labels, query, query_labels = task
    optimizer.zero_grad()
    logits = model(support, labels, query)
    loss = F.cross_entropy(logits, query_labels)
    loss.backward()
    optimizer.step()
    losses += [top_accuracy(logits, query_labels), loss.item()]


def test_original(model: OriginalSIB, task: Task, accuracies: list[float]) -> None:
    """One episode of meta-test."""
    support, labels, query, query_labels = task
    accuracies.append(top_accuracy(model(support, labels, query), query_labels))


def top_accuracy(logits: Tensor, labels: Tensor) -> float:
    """Share of queries [Q] whose first of sorted logits [Q, N] is right."""
    with torch.no_grad():
        best = logits.topk(1, dim=1, largest=True, sorted=True).indices.t()  # [1, Q]
        return best.eq(labels.view(1, -1)).float().sum(1).mul(1 / len(labels)).item()


def drawn_episodes(by_class: list[np.ndarray], seed: int = 0) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Without end: pictures [N, K] of the support and [N, n_query] of the queries."""
    rng = np.random.default_rng(seed)
    while True:
        classes = rng.choice(len(by_class), N_WAY, replace=False)
        picks = np.stack([by_class[c][rng.choice(len(by_class[c]), N_SHOT + N_QUERY, replace=False)] for c in classes])
        yield picks[:, :N_SHOT], picks[:, N_SHOT:]


def feature_tasks(features: Tensor, by_class: list[np.ndarray], seed: int = 0) -> Iterator[Task]:
    """Episodes of features [n, D] held in memory."""
    labels, query_labels = torch.arange(N_WAY).repeat_interleave(N_SHOT), torch.arange(N_WAY).repeat_interleave(N_QUERY)
    for support, query in drawn_episodes(by_class, seed):
        yield (
            features[torch.from_numpy(support.reshape(-1))],
            labels,
            features[torch.from_numpy(query.reshape(-1))],
            query_labels,
        )


def training_pipeline(
    size: int, padding: int, mean: tuple[float, ...], std: tuple[float, ...]
) -> Callable[..., Tensor]:
    """The published training transforms on a PIL picture."""
    return transforms.Compose(
        [
            transforms.RandomCrop(size, padding=padding),
            transforms.ColorJitter(0.4, 0.4, 0.4),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(mean, std),
        ]
    )


def test_pipeline(size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Callable[..., Tensor]:
    """The published test transforms on a PIL picture."""
    return transforms.Compose([transforms.CenterCrop(size), transforms.ToTensor(), transforms.Normalize(mean, std)])


def picture_tasks(
    files: list[str], by_class: list[np.ndarray], pipeline: Callable[..., Tensor], seed: int = 0
) -> Iterator[Task]:
    """Episodes of pictures, each opened, decoded and transformed anew."""
    labels, query_labels = torch.arange(N_WAY).repeat_interleave(N_SHOT), torch.arange(N_WAY).repeat_interleave(N_QUERY)

    def opened(number: int) -> Tensor:
        with Image.open(files[number]) as picture:
            return pipeline(picture.convert("RGB"))

    for support, query in drawn_episodes(by_class, seed):
        yield (
            torch.stack([opened(int(number)) for number in support.reshape(-1)]),
            labels,
            torch.stack([opened(int(number)) for number in query.reshape(-1)]),
            query_labels,
        )


def encoded_task(backbone: nn.Module, task: Task) -> Task:
    """The task with features in place of pictures, support and query in one pass of the frozen backbone."""
    support, labels, query, query_labels = task
    with torch.no_grad():
        features = backbone(torch.cat([support, query]))
    return features[: len(support)], labels, features[len(support) :], query_labels
