"""SIB against the original program: logits and every gradient, tasks batched, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fewshot.interop.original import sib_from_original

ORACLES = sorted((Path(__file__).parent.parent / "oracles").glob("sib_*.npz"))
ORIGINAL_NAMES = {"scale": "scale_cls", "bias": "bias", "initializer.weight": "wnLayerFavg.weight"} | {
    f"gradient.layers.{ours}.{kind}": f"dni.{theirs}.{kind}"
    for ours, theirs in ((0, "layer1.0"), (2, "layer1.2"), (3, "layer2.0"), (5, "layer2.2"), (6, "layer3"))
    for kind in ("weight", "bias")
}


def test_there_are_six_oracles():
    assert len(ORACLES) == 6


@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_logits_and_gradients_equal_the_original(path):
    oracle = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    n_way, n_steps = int(oracle["n_way"]), int(oracle["n_steps"])
    weights = {key.removeprefix("weights/"): value for key, value in oracle.items() if key.startswith("weights/")}
    sib = sib_from_original({"SIB": weights, "nbStep": n_steps, "lr": float(oracle["step_size"])}).double()

    refinement = sib.refine(oracle["support"], oracle["support_labels"], oracle["query"], n_way)
    assert (refinement.logits[-1] - oracle["logits"]).abs().max() < 1e-9
    assert refinement.logits.shape[0] == n_steps + 1

    loss = sib.loss(refinement, oracle["query_labels"])["cross_entropy"]
    assert abs(float(loss.detach()) - float(oracle["loss"])) < 1e-9
    loss.backward()
    compared = 0
    for name, parameter in sib.named_parameters():
        expected = oracle.get("grads/" + ORIGINAL_NAMES[name])
        if expected is None:
            assert parameter.grad is None or not parameter.grad.any()
        elif expected.norm() < 1e-12:  # zero but for rounding: the shared bias at K = 0
            assert parameter.grad.norm() < 1e-12
        else:
            assert (parameter.grad - expected.reshape(parameter.shape)).norm() / expected.norm() < 1e-7
            compared += 1
    assert compared >= (len(ORIGINAL_NAMES) if n_steps else 2)


@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_evaluation_mode_gives_the_same_logits(path):
    oracle = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    weights = {key.removeprefix("weights/"): value for key, value in oracle.items() if key.startswith("weights/")}
    sib = sib_from_original({"SIB": weights, "nbStep": int(oracle["n_steps"]), "lr": float(oracle["step_size"])})
    sib = sib.double().eval()
    with torch.inference_mode():
        logits = sib.classify(oracle["support"], oracle["support_labels"], oracle["query"], int(oracle["n_way"]))
    assert (logits - oracle["logits"]).abs().max() < 1e-9
