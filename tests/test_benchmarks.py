"""The benchmarks run, and what they compare with is the original program."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fewshot.data.feature_file import Features, write_features
from fewshot.training.feature_spaces import EncodedSpace
from tests.benchmarks import NAMES, class_embeddings, safety, suggest
from tests.benchmarks.__main__ import main
from tests.benchmarks.own_pictures import area
from tests.benchmarks.reference import OriginalSIB, ReferenceSIB

ORACLES = sorted((Path(__file__).parent / "oracles").glob("sib_*.npz"))


@pytest.mark.parametrize(
    ("known", "other", "expected"),
    [([1, 2], [3, 4], 1.0), ([3, 4], [1, 2], 0.0), ([1, 1], [1, 1], 0.5), ([0, 0, 0, 1], [0, 1, 1, 1], 0.75)],
)
def test_the_area_counts_ties_half(known, other, expected):
    assert area(torch.tensor(known, dtype=torch.float32), torch.tensor(other, dtype=torch.float32)) == expected


@pytest.mark.parametrize("kind", [ReferenceSIB, OriginalSIB])
@pytest.mark.parametrize("path", ORACLES, ids=lambda path: path.stem)
def test_the_reference_reproduces_the_original(path, kind):
    oracle = {key: torch.from_numpy(value) for key, value in np.load(path, allow_pickle=False).items()}
    sizes = int(oracle["n_way"]), int(oracle["n_steps"]), float(oracle["step_size"])
    model = kind(oracle["support"].shape[-1], *sizes).double()
    shapes = {name: tensor.shape for name, tensor in model.state_dict().items()}
    model.load_state_dict({name: oracle[f"weights/{name}"].reshape(shape) for name, shape in shapes.items()})

    tasks = list(zip(oracle["support"], oracle["support_labels"], oracle["query"], strict=True))
    logits = torch.stack([model(*task) for task in tasks])
    tested = torch.stack([model(*task, create_graph=False) for task in tasks])
    assert (logits - oracle["logits"]).abs().max() < 1e-9
    assert (tested - oracle["logits"]).abs().max() < 1e-9

    F.cross_entropy(logits.flatten(0, 1), oracle["query_labels"].flatten()).backward()
    compared = 0
    for name, parameter in model.named_parameters():
        expected = oracle.get(f"grads/{name}")
        if expected is not None and expected.norm() > 1e-12:  # the shared bias at K = 0 is zero but for rounding
            assert (parameter.grad - expected.reshape(parameter.shape)).norm() / expected.norm() < 1e-7
            compared += 1
    assert compared >= (13 if sizes[1] else 2)


@pytest.mark.weekly
def test_every_benchmark_prints_its_tables(capsys):
    main(["--quick"])
    sections = re.split(r"^## ", capsys.readouterr().out, flags=re.MULTILINE)[1:]
    assert len(sections) == len(NAMES)
    for section in sections:
        assert re.search(r"\d+ cores, \d+ threads", section)
        assert re.search(r"^\|(-+\|)+\n(\| .+ \|\n?)+", section, re.MULTILINE) or "not installed" in section


def test_an_unknown_benchmark_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["speed"])
    assert "choose among sib_training" in capsys.readouterr().err


def test_zero_shot_is_measured_with_all_classes_and_with_some(tmp_path, capsys):
    generator = np.random.default_rng(0)
    labels, embeddings = np.arange(40) % 4, generator.normal(size=(4, 8))
    rows = embeddings[labels] + 0.1 * generator.normal(size=(40, 8))
    np.savez(tmp_path / "x.npz", features=rows, labels=labels, class_embeddings=embeddings)
    class_embeddings.main([str(tmp_path / "x.npz"), "--present", "2", "--draws", "2"])
    said = capsys.readouterr().out
    assert "x.npz: rows of 4 of 4 classes, 1 draws" in said and "x.npz: rows of 2 of 4 classes, 2 draws" in said
    assert re.search(r"the default, after +100\.0", said)


def test_safety_compares_methods_on_the_same_tasks(tmp_path, capsys, monkeypatch):
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(8, 16))
    rows = (np.repeat(centres, 20, axis=0) + generator.normal(size=(160, 16))).astype(np.float32)
    write_features(tmp_path / "rows.npy", iter([[rows]]), (1, 160), name="rows", partners=[0])
    by_class = [np.arange(20 * number, 20 * number + 20) for number in range(8)]
    space = EncodedSpace("rows by hand", Features(tmp_path / "rows.npy"), by_class)
    cells = [cell for cell in safety.grid(8) if cell.n_way == 5 and cell.n_query == 5 and cell.n_shot == 1]
    assert {cell.kind for cell in cells} == set(safety.KINDS)
    monkeypatch.setattr(safety, "spaces_of", lambda *_: iter([space]))
    monkeypatch.setattr(safety, "grid", lambda _: cells)
    names = ["nearest class mean", "logistic regression", "UniversalSIB"]
    safety.main(["--tasks", "3", "--methods", *names, "--output", str(tmp_path / "safety.json")])
    printed = capsys.readouterr().out
    assert "| UniversalSIB |" in printed and "less logistic regression" in printed and "strangers" in printed
    found = json.loads((tmp_path / "safety.json").read_text(encoding="utf-8"))
    assert len(found) == len(cells) * 3 and all(0 <= row["accuracy"] <= 100 for row in found)


def test_suggested_labels_are_compared_with_random_order(tmp_path, capsys, monkeypatch):
    generator = np.random.default_rng(0)
    by_class = [torch.from_numpy(generator.normal(size=(12, 8)) + 4 * np.eye(8)[c]).float() for c in range(4)]
    monkeypatch.setattr(suggest, "STEPS", (3, 6, 12))
    found = suggest.measured(by_class, n_classes=3, per_class=10, starts=1, method="NearestClassMean")
    for runs in found.values():
        assert [run["steps"] for run in runs] == [[3, 6, 12, 15]] and runs[0]["final"] > 0.9
        assert all(3 <= run["needed"] <= 15 for run in runs)
    assert found["random"][0]["accuracies"][-1] == found["suggest"][0]["accuracies"][-1]  # all are labelled
    assert suggest.labels_to(0.5, (10, 20, 30), (0.2, 0.4, 0.8)) == pytest.approx(22.5)
    with pytest.raises(ValueError, match="classes=5 but there are 4"):
        suggest.measured(by_class, n_classes=5, per_class=10, starts=1)
