"""Latent embedding optimisation (LEO).

Rusu, Rao, Sygnowski, Vinyals, Pascanu, Osindero, Hadsell: Meta-Learning with Latent Embedding Optimization, ICLR 2019,
arXiv 1807.05960.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from fewshot.functional.cosine import logit_gradient
from fewshot.functional.features import class_means, normalized
from fewshot.methods.base import Method, Refinement
from fewshot.methods.options import check_above, check_at_least, check_share


class LEO(Method):
    """A linear classifier found by descent in a latent space of few dimensions, then in that of its weights.

    An encoder and a network of all pairs of support examples give every class a Gaussian over latent codes, a decoder
    turns a code into a Gaussian over the class's weights (section 2.3). Codes go down the gradient of the support's
    cross-entropy, through the decoder, and then the decoded weights do, with learned step sizes for every latent and
    weight dimension. In training codes and weights are drawn, in evaluation they are the means. The loss adds the
    divergence of the codes from a unit Gaussian, the distance that descent moved them (towards where they ended, which
    gets no gradient) and how far the decoder's directions are from orthogonal. Inner gradients are differentiated in
    the outer step. Inductive: every query is classified alone. On features, as published.

    Departures: features are L2-normalised and multiplied by a learned scale, so that the step sizes to begin with serve
    backbones of any feature size. Standard deviations stop at one above where they start, as their exponential can run
    away in the inner steps. The divergence is in closed form rather than of one draw. The L2 penalty is left to the
    optimiser's weight decay. Dropout of the encoder's input is as published, that of the classifier's is left out.

    Args:
        n_latents: L, size of a latent code.
        latent_steps: descent steps in latent space.
        weight_steps: descent steps in weight space.
        latent_step_size: what the step sizes in latent space start at; they, and those in weight space, apply to the
            gradient summed over the ways and averaged over the shots.
        weight_step_size: what the step sizes in weight space start at.
        scale: what the scale of the normalised features starts at.
        dropout: of the encoder's input, in training.
        kl_weight: beta, of the divergence.
        encoder_weight: gamma, of the distance moved.
        orthogonality_weight: lambda_2, of the decoder's correlations.

    Raises:
        ValueError: an option out of its range.
    """

    transductive = False
    encoder: nn.Linear
    decoder: nn.Linear
    weight_rates: nn.Parameter

    def __init__(
        self,
        n_latents: int = 64,
        *,
        latent_steps: int = 5,
        weight_steps: int = 5,
        latent_step_size: float = 1.0,
        weight_step_size: float = 0.001,
        scale: float = 5.0,
        dropout: float = 0.3,
        kl_weight: float = 0.001,
        encoder_weight: float = 1e-9,
        orthogonality_weight: float = 0.001,
    ) -> None:
        super().__init__()
        check_at_least(1, n_latents=n_latents)
        check_at_least(
            0,
            latent_steps=latent_steps,
            weight_steps=weight_steps,
            latent_step_size=latent_step_size,
            weight_step_size=weight_step_size,
            kl_weight=kl_weight,
            encoder_weight=encoder_weight,
            orthogonality_weight=orthogonality_weight,
        )
        check_above(0, scale=scale)
        check_share(dropout=dropout)
        self.n_latents, self.latent_steps, self.weight_steps = n_latents, latent_steps, weight_steps
        self.n_steps: int = latent_steps + weight_steps
        self.weight_step_size = weight_step_size
        self.dropout = nn.Dropout(dropout)
        self.kl_weight, self.encoder_weight = kl_weight, encoder_weight
        self.orthogonality_weight = orthogonality_weight
        self.scale = nn.Parameter(torch.tensor(float(scale)))
        self.latent_rates = nn.Parameter(torch.full((n_latents,), float(latent_step_size)))
        double = 2 * n_latents
        self.relation = nn.Sequential(
            glorot(double, double), nn.ReLU(), glorot(double, double), nn.ReLU(), glorot(double, double)
        )

    def build(self, n_features: int) -> None:
        self.encoder = glorot(n_features, self.n_latents)
        self.decoder = glorot(self.n_latents, 2 * n_features)
        self.weight_rates = nn.Parameter(torch.full((n_features,), float(self.weight_step_size)))

    def refine(self, support: Tensor, support_labels: Tensor, query: Tensor, n_way: int) -> Refinement:
        support, query = (self.scale * normalized(part) for part in (support, query))
        mean, deviation = self._codes(support, support_labels, n_way)
        start = latents = self._drawn(mean, deviation)  # [T, N, L]
        recorded = torch.is_grad_enabled()
        # the gradient in inference mode is wrong, without an error, before torch 2.12
        with torch.inference_mode(False), torch.set_grad_enabled(recorded):
            # the annotation allows for a third result, of has_aux
            weights, pull_back = torch.func.vjp(self._decoded, latents)  # type: ignore[misc]
            logits = [torch.bmm(query, weights.transpose(1, 2))]
            for _ in range(self.latent_steps):
                (slope,) = pull_back(weight_gradient(weights, support, support_labels))
                latents = latents - self.latent_rates * slope
                weights, pull_back = torch.func.vjp(self._decoded, latents)  # type: ignore[misc]
                logits.append(torch.bmm(query, weights.transpose(1, 2)))
        for _ in range(self.weight_steps):
            weights = weights - self.weight_rates * weight_gradient(weights, support, support_labels)
            logits.append(torch.bmm(query, weights.transpose(1, 2)))
        losses = {
            "kl": self.kl_weight * (mean.square() + deviation.square() - 1 - 2 * deviation.log()).mean() / 2,
            "encoder": self.encoder_weight * (start - latents.detach()).square().mean(),
            "orthogonality": self.orthogonality_weight * self._correlation(),
        }
        return Refinement(torch.stack(logits), losses=losses)

    def _codes(self, support: Tensor, support_labels: Tensor, n_way: int) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of every class's latent code, [T, N, L] each."""
        codes = self.encoder(self.dropout(support))  # [T, S, L]
        n_support = codes.shape[1]
        left = codes.unsqueeze(2).expand(-1, -1, n_support, -1)
        right = codes.unsqueeze(1).expand(-1, n_support, -1, -1)
        relations = self.relation(torch.cat([left, right], dim=-1)).mean(2)  # [T, S, 2L]
        mean, spread = class_means(relations, support_labels, n_way).chunk(2, dim=-1)
        return mean, standard_deviation(spread, 0.0)

    def _decoded(self, latents: Tensor) -> Tensor:
        """Class weights [T, N, D] of latent codes [T, N, L]; drawn in training, their mean in evaluation."""
        mean, spread = self.decoder(latents).chunk(2, dim=-1)
        # codes of zero give weights the spread that Glorot's initialisation would
        usual = math.sqrt(2 / (mean.shape[-1] + latents.shape[-2]))
        return self._drawn(mean, standard_deviation(spread, usual))

    def _drawn(self, mean: Tensor, deviation: Tensor) -> Tensor:
        return mean + deviation * torch.randn_like(mean) if self.training else mean

    def _correlation(self) -> Tensor:
        """Mean squared difference of the correlations of the decoder's L directions from those of orthogonal ones."""
        directions = normalized(self.decoder.weight.T)  # [L, 2D]
        identity = torch.eye(self.n_latents, dtype=directions.dtype, device=directions.device)
        return (directions @ directions.T - identity).square().mean()


def glorot(n_inputs: int, n_outputs: int) -> nn.Linear:
    """A linear layer without bias, initialised as Glorot and Bengio (2010) do."""
    layer = nn.Linear(n_inputs, n_outputs, bias=False)
    nn.init.xavier_uniform_(layer.weight)
    return layer


def standard_deviation(spread: Tensor, usual: float) -> Tensor:
    """exp(spread) - 1 + usual, which is `usual` where the spread is 0; between 1e-10 and 1 + usual.

    Args:
        spread: any shape.
        usual: what to begin with.
    """
    return (spread.clamp_max(math.log(2)).exp() - 1 + usual).clamp_min(1e-10)


def weight_gradient(weights: Tensor, support: Tensor, support_labels: Tensor) -> Tensor:
    """Gradient of the support's cross-entropy, N / S times its sum, with respect to the class weights, [T, N, D].

    Args:
        weights: [T, N, D], whose inner products with the features are the logits.
        support: [T, S, D].
        support_labels: [T, S] int64.
    """
    error = logit_gradient(torch.bmm(support, weights.transpose(1, 2)), support_labels)  # [T, S, N]
    return torch.bmm(error.transpose(1, 2), support) * (weights.shape[1] / support.shape[1])
