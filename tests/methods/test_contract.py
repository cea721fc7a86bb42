"""What every method promises, checked for all of them: to add a method, add a line to METHODS."""

import re

import pytest
import torch

from fewshot.episode import STRANGER, Episode
from fewshot.methods import (
    ANIL,
    BDCSPN,
    CTM,
    GNN,
    ILPC,
    LEO,
    MAML,
    PADDLE,
    PTMAP,
    R2D2,
    SIB,
    SNAIL,
    TADAM,
    TIM,
    TPN,
    UNEM,
    ActivationsToParameters,
    AlphaTIM,
    BaseClasses,
    EaseSiamese,
    EquivariantGradient,
    FullContextEmbedding,
    GaussianPosterior,
    ImprintedWeights,
    LaplacianShot,
    LogisticRegression,
    MatchingNetworks,
    MetaOptNetRidge,
    MetaOptNetSVM,
    MLPGradient,
    NearestClassMean,
    ProtoLP,
    ProtoNet,
    RelationNetwork,
    RidgeRegression,
    SimpleShot,
    StatA,
    TransductiveFineTuning,
    TransportSIB,
    UniversalSIB,
)

N_FEATURES, N_WAY, N_SHOT, N_QUERY, N_TASKS = 12, 4, 3, 5, 3

METHODS = {
    "nearest class mean": lambda: NearestClassMean(),
    "protonet": lambda: ProtoNet(),
    "protonet, learned temperature": lambda: ProtoNet(0.5, learn_temperature=True),
    "sib": lambda: SIB(gradient=MLPGradient(N_WAY), step_size=0.05),
    "sib, K=0": lambda: SIB(gradient=MLPGradient(N_WAY), n_steps=0),
    "sib, mean, matching": lambda: SIB(
        gradient=MLPGradient(N_WAY), reduction="mean", step_size=1.0, matching_weight=0.1
    ),
    "sib, equivariant": lambda: SIB(gradient=EquivariantGradient(), step_size=0.05),
    "sib, gaussian": lambda: SIB(gradient=MLPGradient(N_WAY), posterior=GaussianPosterior(kl_weight=0.01)),
    "simpleshot": lambda: SimpleShot(),
    "pt-map": lambda: PTMAP(n_rounds=3, max_sweeps=50),
    "pt-map, given prior": lambda: PTMAP(n_rounds=3, prior=[0.1, 0.2, 0.3, 0.4], max_sweeps=50),
    "pt-map, support prior": lambda: PTMAP(n_rounds=3, prior="support", max_sweeps=50),
    "pt-map, query prior": lambda: PTMAP(n_rounds=3, prior="queries", max_sweeps=50),
    "tim": lambda: TIM(n_iterations=20),
    "alpha-tim": lambda: AlphaTIM(alpha=7.0, n_iterations=20),
    "alpha-tim, tsallis support": lambda: AlphaTIM(support_entropy="tsallis", n_iterations=20),
    "bd-cspn": lambda: BDCSPN(),
    "laplacianshot": lambda: LaplacianShot(),
    "paddle": lambda: PADDLE(n_iterations=10),
    "paddle, power transform": lambda: PADDLE(n_iterations=10, power=0.5),
    "unem": lambda: UNEM(n_steps=3, scale=20.0),
    "stat-a": lambda: StatA(n_iterations=4),
    "stat-a, soft counts": lambda: StatA(n_iterations=4, counts="soft"),
    "transductive fine-tuning": lambda: TransductiveFineTuning(n_rounds=5),
    "r2d2": lambda: R2D2(regularizer=0.5),
    "metaoptnet, ridge": lambda: MetaOptNetRidge(),
    "metaoptnet, svm": lambda: MetaOptNetSVM(n_iterations=30),
    "imprinted weights": lambda: ImprintedWeights(),
    "imprinted weights, fine-tuned": lambda: ImprintedWeights(n_steps=3),
    "matching networks": lambda: MatchingNetworks(),
    "matching networks, in context": lambda: MatchingNetworks(context=FullContextEmbedding(3)),
    "relation network": lambda: RelationNetwork(16),
    "gnn": lambda: GNN(N_WAY, width=8, embedding=8),
    "leo": lambda: LEO(8, latent_steps=2, weight_steps=2),
    "activations to parameters": lambda: ActivationsToParameters(),
    "snail": lambda: SNAIL(N_WAY, N_SHOT, n_filters=4, embedding=8),
    "ctm": lambda: CTM(N_WAY, width=8, n_masked=16),
    "tadam": lambda: TADAM(),
    "transport sib": lambda: TransportSIB(n_steps=2),
    "transport sib, plan alone": lambda: TransportSIB(
        n_steps=2,
        correction=False,
        last_correction=False,
        mean_pull=False,
        support_gradient=False,
        neighbourhood=False,
    ),
    "transport sib, corrections alone": lambda: TransportSIB(
        n_steps=2, transport=False, mean_pull=False, neighbourhood=False
    ),
    "logistic regression": lambda: LogisticRegression(n_iterations=30),
    "ridge regression": lambda: RidgeRegression(),
    "universal sib": lambda: UniversalSIB(n_steps=2, width=8, trained=False),
    "universal sib, told": lambda: UniversalSIB(n_steps=2, width=8, prior="uniform", trained=False),
    "universal sib, given prior": lambda: UniversalSIB(n_steps=2, width=8, prior=[0.1, 0.2, 0.3, 0.4], trained=False),
    "tpn": lambda: TPN(n_neighbours=6),
    "ease + siamese": lambda: EaseSiamese(tolerance=1e-3, n_rounds=2),
    "ease + siamese, prior of the queries": lambda: EaseSiamese(tolerance=1e-3, n_rounds=2, prior="queries"),
    "protolp": lambda: ProtoLP(tolerance=1e-3, n_rounds=2),
    "protolp, prior of the queries": lambda: ProtoLP(tolerance=1e-3, n_rounds=2, prior="queries"),
    "maml": lambda: MAML(N_WAY, test_steps=7, step_size=0.1, chunk_size=2),
    "maml, first order": lambda: MAML(N_WAY, first_order=True),
    "anil": lambda: ANIL(N_WAY, test_steps=7, step_size=0.1),
    "ilpc": lambda: ILPC(n_neighbours=6, n_head_steps=10),
    "ilpc, prior of the support": lambda: ILPC(n_neighbours=6, n_head_steps=10, prior="support"),
}


VARIANTS = {
    "protonet, learned temperature",
    "sib, K=0",
    "pt-map, given prior",
    "pt-map, support prior",
    "alpha-tim, tsallis support",
    "stat-a, soft counts",
    "imprinted weights, fine-tuned",
    "ease + siamese, prior of the queries",
    "protolp, prior of the queries",
    "maml, first order",
    "ilpc, prior of the support",
}
"""Other options of methods that are above, whose lines other tests run too; these are run by the slow tests."""


def in_turn(name):
    return pytest.param(name, marks=pytest.mark.slow if name in VARIANTS else [], id=name)


@pytest.fixture(params=[in_turn(name) for name in METHODS])
def method(request):
    torch.manual_seed(1)
    built = METHODS[request.param]()
    built.build(N_FEATURES)
    means = torch.randn(6, N_FEATURES)
    built.prepare(BaseClasses(means.mean(0), means, weights=torch.randn(6, N_FEATURES), scale=torch.tensor(10.0)))
    return built.double()


@pytest.fixture
def task():
    """Support [T, S, D], labels, query [T, Q, D], query labels; of any sign, as some backbones give them."""
    generator = torch.Generator().manual_seed(2)
    centres = torch.randn(N_TASKS, N_WAY, N_FEATURES, generator=generator, dtype=torch.float64)

    def draw(per_class):
        labels = torch.stack([torch.randperm(N_WAY * per_class, generator=generator) % N_WAY for _ in range(N_TASKS)])
        noise = torch.randn(N_TASKS, N_WAY * per_class, N_FEATURES, generator=generator, dtype=torch.float64)
        return centres.gather(1, labels.unsqueeze(-1).expand(-1, -1, N_FEATURES)) + 0.7 * noise, labels

    (support, support_labels), (query, query_labels) = draw(N_SHOT), draw(N_QUERY)
    return support, support_labels, query, query_labels


def stochastic(method):
    drops = any(isinstance(part, torch.nn.Dropout) and part.p > 0 for part in method.modules())
    return method.training and (drops or getattr(method, "posterior", None) is not None)


def refine(method, support, labels, query):
    torch.manual_seed(3)
    return method.refine(support, labels, query, N_WAY)


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_a_batch_gives_what_single_tasks_give(method, task, training):
    method.train(training)
    if stochastic(method):
        pytest.skip("draws samples in training")
    support, labels, query, _ = task
    together = refine(method, support, labels, query).logits
    for t in range(N_TASKS):
        alone = refine(method, support[t : t + 1], labels[t : t + 1], query[t : t + 1]).logits
        torch.testing.assert_close(together[:, t : t + 1], alone, rtol=1e-10, atol=1e-10)


def test_a_batch_gives_what_single_tasks_give_where_classes_differ_in_shots(method, task):
    if isinstance(method, SNAIL):
        pytest.skip("serves one number of shots")
    support, _, query, _ = task
    labels = torch.stack(
        [
            torch.arange(N_WAY).repeat_interleave(torch.tensor(shots))
            for shots in ([3, 3, 3, 3], [1, 5, 4, 2], [6, 2, 2, 2])
        ]
    )
    together = refine(method.eval(), support, labels, query).logits
    for t in range(N_TASKS):
        alone = refine(method, support[t : t + 1], labels[t : t + 1], query[t : t + 1]).logits
        torch.testing.assert_close(together[:, t : t + 1], alone, rtol=1e-10, atol=1e-10)


def test_shapes_and_steps(method, task):
    support, labels, query, _ = task
    refinement = refine(method.eval(), support, labels, query)
    steps = method.evaluation_steps
    assert refine(method, support, labels, query[:, :0]).logits.shape == (steps + 1, N_TASKS, 0, N_WAY)
    assert method.classify(support, labels, query[:, :0], n_way=N_WAY).shape == (N_TASKS, 0, N_WAY)
    assert refinement.logits.shape == (steps + 1, N_TASKS, N_WAY * N_QUERY, N_WAY)
    if steps and refinement.gradients is not None:
        assert refinement.gradients.shape == (steps, N_TASKS, N_WAY * N_QUERY, N_WAY)
    torch.testing.assert_close(method.classify(support, labels, query, N_WAY), refinement.logits[-1])


def test_query_order_permutes_rows(method, task):
    method.eval()
    support, labels, query, _ = task
    order = torch.randperm(query.shape[1])
    expected = refine(method, support, labels, query).logits[:, :, order]
    torch.testing.assert_close(refine(method, support, labels, query[:, order]).logits, expected, rtol=1e-9, atol=1e-9)


def test_a_query_is_classified_alone_where_the_method_is_inductive(method, task):
    support, labels, query, _ = task
    together = refine(method.eval(), support, labels, query).logits[-1]
    with_fewer = refine(method, support, labels, query[:, :2]).logits[-1]
    same = torch.allclose(together[:, :2], with_fewer, rtol=1e-9, atol=1e-9)
    unrefined = isinstance(method, SIB) and method.evaluation_steps == 0
    assert same == (not method.transductive or unrefined or not method.on_features)  # MAML's BatchNorm is not seen here


def test_what_is_left_of_a_task_classifies_later_queries_alone(method, task):
    support, labels, query, _ = task
    logits = refine(method.eval(), support, labels, query).logits[-1]
    with torch.inference_mode():
        head = method.freeze(support, labels, query, logits, N_WAY)
        frozen = head.logits(query)
        unrefined = method.freeze(support, labels, query[:, :0], None, N_WAY).logits(query)
    assert frozen.shape == unrefined.shape == logits.shape and frozen.isfinite().all() and unrefined.isfinite().all()
    torch.testing.assert_close(head.logits(query[:, 3:4]), frozen[:, 3:4])
    one = method.freeze(support[:1], labels[:1], query[:1], logits[:1], N_WAY).logits(query[:1])
    torch.testing.assert_close(one, frozen[:1], rtol=1e-6, atol=1e-6)


def test_support_order_does_not_matter(method, task):
    method.eval()
    support, labels, query, _ = task
    order = torch.randperm(support.shape[1])
    expected = refine(method, support, labels, query).logits
    shuffled = refine(method, support[:, order], labels[:, order], query).logits
    torch.testing.assert_close(shuffled, expected, rtol=1e-9, atol=1e-9)


def test_relabelling_permutes_columns_where_promised(method, task):
    method.eval()
    support, labels, query, _ = task
    renamed = torch.tensor([2, 0, 3, 1])  # class c is now called renamed[c]
    before = refine(method, support, labels, query).logits
    after = refine(method, support, renamed[labels], query).logits
    same = torch.allclose(after[..., renamed], before, rtol=1e-9, atol=1e-9)
    unrefined = isinstance(method, SIB) and method.evaluation_steps == 0
    assert same == (method.relabels or unrefined)


def test_gradients_are_finite_and_reach_every_parameter(method, task):
    support, labels, query, query_labels = task
    parameters = {name: p for name, p in method.named_parameters() if p.requires_grad}
    if not parameters:
        pytest.skip("has no trained parameters")
    terms = method.loss(refine(method.train(), support, labels, query), query_labels)
    torch.stack(list(terms.values())).sum().backward()
    assert not {name for name, p in parameters.items() if p.grad is None}
    assert all(p.grad.isfinite().all() for p in parameters.values())


def test_a_backbone_that_is_trained_too_gets_the_right_gradient(method, task):
    support, labels, query, query_labels = task
    if not any(True for _ in method.parameters()):
        pytest.skip("has no trained parameters")
    if getattr(method, "first_order", False) or getattr(method, "matching_weight", 0):
        pytest.skip("takes a part of its loss for a constant, as it says")
    if stochastic(method.train()):
        method.eval()

    def loss(step):
        torch.manual_seed(3)
        refinement = method.refine(support + step * of_support, labels, query + step * of_query, N_WAY)
        return torch.stack(list(method.loss(refinement, query_labels).values())).sum()

    of_support, of_query = torch.randn_like(support), torch.randn_like(query)
    step = torch.zeros((), dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(loss(step), step)
    with torch.no_grad():
        difference = (loss(1e-7) - loss(-1e-7)) / 2e-7
    torch.testing.assert_close(slope, difference, rtol=1e-4, atol=1e-6)


def test_queries_of_no_class_train_nothing_that_needs_one(method, task):
    support, labels, query, query_labels = task
    if not any(True for _ in method.parameters()):
        pytest.skip("has no trained parameters")
    refinement = refine(method.train(), support, labels, query)
    strange = query_labels.clone()
    strange[:, ::5] = STRANGER
    for labels_of in (strange, torch.full_like(strange, STRANGER)):
        assert all(bool(term.isfinite()) for term in method.loss(refinement, labels_of).values())


def test_other_ways_are_refused_where_one_number_is_served(method, task):
    if method.n_way is None or (isinstance(method, SIB) and method.n_steps == 0):
        pytest.skip("serves any number of ways")
    support, labels, query, _ = task
    with pytest.raises(ValueError, match=f"made for n_way={N_WAY} but the episode has 3 ways"):
        method.refine(support, labels % 3, query, 3)


def test_the_same_seed_gives_the_same_result(method, task):
    support, labels, query, _ = task
    for training in (True, False):
        method.train(training)
        first, second = (refine(method, support, labels, query).logits for _ in range(2))
        assert torch.equal(first, second)


def test_nothing_is_left_between_calls(method, task):
    method.eval()
    support, labels, query, _ = task
    first = refine(method, support, labels, query).logits
    refine(method, support.flip(0) * 3, labels.flip(0), query.flip(0))
    assert torch.equal(refine(method, support, labels, query).logits, first)


def test_runs_in_inference_mode(method, task):
    support, labels, query, _ = task
    with torch.inference_mode():
        logits = refine(method.eval(), support, labels, query).logits
    assert logits.isfinite().all()


def test_half_precision_features_are_refined_in_float32(method, task):
    support, labels, query, _ = task
    method.float().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = refine(method, support.bfloat16(), labels, query.bfloat16()).logits
    assert logits.dtype == torch.float32
    exact = refine(method, support.bfloat16().float(), labels, query.bfloat16().float()).logits
    torch.testing.assert_close(logits, exact)


def test_one_query_a_task_is_classified(method, task, recwarn):
    support, labels, query, _ = task
    logits = refine(method.eval(), support, labels, query[:, :1]).logits
    assert logits.isfinite().all()
    if method.evaluation_steps and isinstance(getattr(method, "gradient", None), MLPGradient):
        assert "nothing is refined" in str(recwarn.pop(UserWarning).message)


def test_logits_of_another_shape_are_refused(task):
    support, labels, query, _ = task

    class Transposed(NearestClassMean):
        def classify(self, support, support_labels, query, n_way):
            return super().classify(support, support_labels, query, n_way).transpose(1, 2)

    episode = Episode(support, labels, query, labels.new_zeros(query.shape[:2]), N_WAY)
    needed = [*query.shape[:2], N_WAY]
    with pytest.raises(ValueError, match=re.escape(f"Transposed gives logits {[needed[0], needed[2], needed[1]]}")):
        Transposed()(torch.nn.Identity(), episode)
