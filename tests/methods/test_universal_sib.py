"""What UniversalSIB promises beyond the contract of all methods."""

import math

import pytest
import torch
from safetensors.torch import save

from fewshot.classification.novelty import novelty
from fewshot.episode import STRANGER, Episode
from fewshot.functional.features import normalized, signed_power
from fewshot.functional.gram import gram_of
from fewshot.methods import Method, UniversalSIB
from fewshot.methods.construction import constructed, construction
from fewshot.methods.kept_proportions import balance_of
from fewshot.methods.query_evidence import Told, energy_and_distance

N_WAY = 4


def head(**options):
    torch.manual_seed(0)
    made = UniversalSIB(**{"n_steps": 2, "width": 8, "trained": False, **options})
    for parameter in made.parameters():  # the outputs start at zero, which would hide half of it
        parameter.data += 0.1 * torch.randn_like(parameter)
    return made.double().eval()


def task(n_query=20, n_features=16, n_shot=2, seed=1):
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(N_WAY, n_features, generator=generator, dtype=torch.float64)

    def draw(n):
        labels = torch.arange(n) % N_WAY
        noise = torch.randn(n, n_features, generator=generator, dtype=torch.float64)
        return (centres[labels] + 0.8 * noise).unsqueeze(0), labels.unsqueeze(0)

    return *draw(N_WAY * n_shot), *draw(n_query)


@pytest.mark.slow
def test_one_query_alone_gets_the_inductive_answer():
    support, labels, query, _ = task()
    together = head().refine(support, labels, query, N_WAY).logits
    alone = torch.cat([head().refine(support, labels, query[:, q : q + 1], N_WAY).logits for q in range(20)], dim=2)
    torch.testing.assert_close(alone[-1].softmax(-1), alone[0].softmax(-1))
    torch.testing.assert_close(alone[0], together[0])
    assert not torch.allclose(together[-1], together[0])


def test_no_weight_knows_the_feature_size():
    made = head()
    before = {name: value.clone() for name, value in made.state_dict().items()}
    for n_features in (3, 16, 50):
        support, labels, query, _ = task(n_features=n_features)
        assert made.refine(support, labels, query, N_WAY).logits.isfinite().all()
    assert all(torch.equal(before[name], value) for name, value in made.state_dict().items())


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("n_features", [1, 4, 512])
def test_rows_that_are_all_the_same_are_answered_by_halves(value, n_features):
    rows = torch.full((1, 10, n_features), value)
    refinement = UniversalSIB().eval().refine(rows[:, :2], torch.tensor([[0, 1]]), rows[:, 2:], 2)
    assert refinement.strangers.isfinite().all()
    torch.testing.assert_close(refinement.logits.softmax(-1), torch.full((7, 1, 8, 2), 0.5), rtol=0, atol=1e-3)


@pytest.mark.parametrize("n_shot", [1, 3])
def test_what_nothing_can_be_told_from_is_answered_with_numbers(n_shot):
    support, labels, query, _ = task(n_shot=n_shot)
    same = query[:, :1].expand(-1, 20, -1)
    for given in ((support, same), (support, 0 * query), (0 * support, query), (0 * support, 0 * query)):
        refinement = head().refine(given[0], labels, given[1], N_WAY)
        assert refinement.logits.isfinite().all() and refinement.strangers.isfinite().all()
    repeated = head().refine(support, labels, same, N_WAY).logits[-1]
    torch.testing.assert_close(repeated, repeated[:, :1].expand(-1, 20, -1))


@pytest.mark.parametrize("n_shot", [1, 9])
def test_two_queries_that_are_alike_do_not_make_logits_of_thousands(n_shot):
    support, labels, query, _ = task(n_shot=n_shot, n_features=100)
    alike = query[:, :1] + 1e-4 * query[:, :2]
    assert head().refine(support, labels, alike, N_WAY).logits.abs().max() < 100


def test_proportions_that_are_told_count():
    support, labels, query, _ = task()
    unknown, uniform, given = (
        head(prior=prior).refine(support, labels, query, N_WAY).logits[-1]
        for prior in (None, "uniform", [0.7, 0.1, 0.1, 0.1])
    )
    assert not torch.allclose(unknown, uniform) and not torch.allclose(uniform, given)
    assert given.softmax(-1).mean(1)[0, 0] > uniform.softmax(-1).mean(1)[0, 0]
    with pytest.raises(ValueError, match="prior has 2 proportions but the episodes have 4 ways"):
        head(prior=[0.5, 0.5]).refine(support, labels, query, N_WAY)
    for word in ("even", "support", "queries"):
        with pytest.raises(ValueError, match=f"prior='{word}'; choose one of 'uniform'"):
            head(prior=word)


def test_strangers_train_what_tells_them_and_nothing_else():
    support, labels, query, truth = task()
    made = head().train()
    strange = truth.clone()
    strange[:, ::5] = STRANGER
    refinement = made.refine(support, labels, query, N_WAY)
    terms, known = made.loss(refinement, strange), strange[0] != STRANGER
    only_known = refinement._replace(logits=refinement.logits[:, :, known], strangers=refinement.strangers[..., known])
    torch.testing.assert_close(terms["cross_entropy"], made.loss(only_known, truth[:, known])["cross_entropy"])
    assert terms["strangers"] != made.loss(refinement, truth)["strangers"]


def test_some_training_tasks_are_told_their_proportions(monkeypatch):
    support, labels, query, truth = task()
    made = head().train()
    episode = Episode(support, labels, query, truth, N_WAY)
    results = []
    for share in (0.0, 1.0):
        monkeypatch.setattr("fewshot.methods.universal_sib.TOLD", share)
        results.append(made(torch.nn.Identity(), episode).logits)
    for known, found in enumerate(results):
        told = Told(torch.full((1, N_WAY), 1 / N_WAY).double(), torch.full((1, 1), known).double())
        torch.testing.assert_close(found, made._refined(support, labels, query, N_WAY, told).logits)
    assert not torch.allclose(results[0], results[1])


@torch.no_grad()
def test_proportions_are_kept_to_as_strictly_as_so_many_queries_can():
    support, labels, query, _ = task(n_query=400, n_features=3)
    free, told = (head(prior=prior).refine(support, labels, query, N_WAY) for prior in (None, "uniform"))
    off = []
    for found in (free, told):
        known = 1 - found.strangers[-1].sigmoid().unsqueeze(-1)
        held = (known * found.logits[-1].softmax(-1)).sum(1) / known.sum(1)
        off.append(float((held * N_WAY - 1).abs().max()))
    assert off[1] < 0.02 < 0.1 < off[0], off
    one = head(prior="uniform").refine(support, labels, query[:, :1], N_WAY).logits.softmax(-1)
    torch.testing.assert_close(one[-1], one[0])
    absent = head(prior=[0.5, 0.5, 0.0, 0.0]).refine(support, labels, query, N_WAY).logits[-1]
    assert absent.isfinite().all() and (absent.argmax(-1) < 2).float().mean() > 0.9


@pytest.mark.slow
@torch.no_grad()
def test_balanced_queries_gain_by_being_told_or_taken_for_balanced():
    right = {"taken": 0.0, "told": 0.0, "neither": 0.0}
    nothing = Told(torch.full((1, N_WAY), 1 / N_WAY).double(), torch.zeros(1, 1).double())
    free, told = (UniversalSIB(prior=prior).double().eval() for prior in (None, "uniform"))
    for seed in range(30):
        support, labels, query, truth = task(n_query=60, n_features=8, n_shot=1, seed=seed)
        found = {
            "taken": free.refine(support, labels, query, N_WAY),
            "told": told.refine(support, labels, query, N_WAY),
            "neither": free._refined(support, labels, query, N_WAY, nothing),
        }
        for name, refinement in found.items():
            right[name] += float((refinement.logits[-1].argmax(-1) == truth).double().mean()) / 30
    assert right["told"] > right["taken"] > right["neither"], right


def test_queries_look_balanced_where_the_found_proportions_are_equal():
    balanced, known = torch.eye(3).repeat(5, 1).unsqueeze(0), torch.ones(1, 15)
    unequal = balanced.clone()
    unequal[:, :3] = torch.tensor([1.0, 0.0, 0.0])
    assert balance_of(50 * balanced, known) == 1 > balance_of(50 * unequal, known) > 0
    assert balance_of(50 * balanced[:, :3].expand(-1, 3, -1)[:, ::3], known[:, :1]) < 1e-6
    assert balance_of(torch.zeros(1, 5, 1), torch.ones(1, 5)) == 1  # one class
    strange = torch.cat([known, torch.zeros(1, 3)], 1)  # queries of no class do not count
    assert balance_of(torch.cat([50 * balanced, 50 * unequal[:, :3]], 1), strange) == 1


def test_the_weights_of_the_package_are_for_their_own_sizes():
    made = UniversalSIB()
    assert sum(value.numel() for value in made.state_dict().values()) < 250_000  # under 1 MB
    with pytest.raises(ValueError, match="n_steps=2 but what comes with the package is for n_steps=6"):
        UniversalSIB(n_steps=2)
    with pytest.raises(ValueError, match="width=8 but"):
        UniversalSIB(width=8)


def test_a_head_of_ones_own_is_saved_and_taken_for_any_backbone(tmp_path):
    made = head(power=1.0).float()
    made.save(tmp_path / "head.safetensors")
    taken = UniversalSIB(n_steps=2, width=8, power=1, weights=str(tmp_path / "head.safetensors")).eval()
    assert taken.comes_trained and not made.comes_trained
    support, labels, query, _ = (part.float() if part.is_floating_point() else part for part in task())
    assert torch.equal(taken.classify(support, labels, query, N_WAY), made.classify(support, labels, query, N_WAY))
    description = construction(taken)
    (tmp_path / "head.safetensors").unlink()  # a checkpoint has the weights itself, and never sends us to a file
    again = constructed(description, Method, packages=["fewshot"])
    assert again.n_steps == 2 and not again.comes_trained
    assert constructed(construction(UniversalSIB()), Method, packages=["fewshot"]).comes_trained


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no file; give one that UniversalSIB.save wrote"),
        (b"nothing", "cannot be read as safetensors"),
        (save({}), "does not hold what UniversalSIB.save writes"),
        (save({"a": torch.zeros(2)}, {"n_steps": "2", "width": "8", "power": "much"}), "does not hold what"),
        ("n_steps", "n_steps=2 but .* is for n_steps=3; say n_steps=3"),
        ("width", "width=8 but .* is for width=4"),
        ("nan", "does not hold what"),
        ("shape", "does not hold what"),
    ],
)
def test_a_file_that_is_no_head_is_refused(tmp_path, content, message):
    place = tmp_path / "head.safetensors"
    if isinstance(content, bytes):
        place.write_bytes(content)
    elif content is not None:
        made = head(**{"n_steps": {"n_steps": 3}, "width": {"width": 4}}.get(content, {})).float()
        if content == "nan":
            made.log_few.data[:] = torch.nan
        if content == "shape":
            made.log_few.data = torch.zeros(7)
        made.save(place)
    with pytest.raises(ValueError, match=message):
        UniversalSIB(n_steps=2, width=8, weights=str(place))


def test_energy_and_distance_are_those_of_novelty_without_training():
    support, query = torch.randn(6, 9).relu(), torch.randn(8, 9).relu()
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    examples = normalized(signed_power(torch.cat([support, query]), 0.5)).unsqueeze(0)
    one_hot = torch.nn.functional.one_hot(labels, 3).float().unsqueeze(0)
    energy, distance = energy_and_distance(gram_of(examples), one_hot)
    expected = [novelty(support, labels, query, 3, measure) for measure in ("energy", "distance")]
    torch.testing.assert_close(energy[0] - math.log(3), expected[0], rtol=0, atol=1e-4)
    torch.testing.assert_close(distance[0], expected[1], rtol=0, atol=1e-5)
