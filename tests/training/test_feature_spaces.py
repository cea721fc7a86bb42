"""Training tasks from several feature spaces, through the data module and a trainer."""

import itertools

import numpy as np
import pytest
import torch
from blobs import CONV4, Blobs, trainer

from fewshot.backbones import BackboneConfig
from fewshot.data.batches import ResumableLoader
from fewshot.data.task_mixture import TaskMixture
from fewshot.episode import STRANGER
from fewshot.methods import SIB, EquivariantGradient, NearestClassMean, TransportSIB, UniversalSIB
from fewshot.training.encoding import FrozenBackbone
from fewshot.training.feature_augmentation import augmented
from fewshot.training.feature_spaces import FeatureSpace, FeatureSpacesDataModule
from fewshot.training.few_shot_module import FewShotModule

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*does not have many workers.*"),
    pytest.mark.filterwarnings("ignore:.*in eval mode at the start of training.*"),
    pytest.mark.filterwarnings("ignore:.*smaller than the logging interval.*"),
]

WIDE = BackboneConfig(name="conv4_128", image_size=28)
TASKS = TaskMixture(ways=(2, 5), shots=(1, 2), queries=(1, 3), strangers=(0.0, 0.3))


def spaces_of(*backbones):
    torch.manual_seed(0)
    return [FeatureSpace(Blobs(), backbone) for backbone in backbones]


def data_module(**options):
    options = {"tasks": TASKS, "tasks_per_batch": 4, "train_episodes": 16, "val_episodes": 4, "n_query": 3, **options}
    return FeatureSpacesDataModule(Blobs(), spaces_of(CONV4, WIDE), **options)


def batches(loader, epoch=0):
    loader.sampler.set_epoch(epoch)
    return list(loader)


def test_every_batch_comes_from_one_space_and_is_the_same_again(monkeypatch):
    weights = {name: FrozenBackbone(config) for name, config in (("conv4", CONV4), ("conv4_128", WIDE))}
    monkeypatch.setattr("fewshot.training.feature_spaces.FrozenBackbone", lambda config: weights[config.name])
    data = data_module(augment=False, train_episodes=64)
    first = batches(data.train_dataloader())
    assert len(first) == 16 and {episode.n_tasks for episode in first} == {4}
    widths = [weights[name].network.num_features for name in ("conv4", "conv4_128")]
    assert {episode.support.shape[-1] for episode in first} == set(widths)
    for episode in first:
        assert episode.check() is episode
        assert int(episode.query_labels.min()) >= STRANGER
    again, other = batches(data.train_dataloader()), batches(data.train_dataloader(), epoch=1)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.query, two.query) and torch.equal(one.query_labels, two.query_labels)
    assert any(one.query.shape != two.query.shape for one, two in zip(first, other, strict=True))
    assert any((episode.query_labels == STRANGER).any() for episode in first)


def test_an_epoch_goes_on_where_it_stopped():
    loader = data_module().train_dataloader()
    assert isinstance(loader, ResumableLoader)
    whole = batches(loader)
    state = {"epoch": 0, "batches": 2, "batch_size": 4, "world_size": 1}
    loader.load_state_dict(state)
    rest = batches(loader)
    assert len(rest) == 2
    assert all(torch.equal(one.query, two.query) for one, two in zip(whole[2:], rest, strict=True))


def test_ranks_draw_batches_of_their_own(monkeypatch):
    drawn = []
    for rank in range(2):
        for module in ("fewshot.data.keys", "fewshot.training.feature_spaces"):
            monkeypatch.setattr(f"{module}.rank_and_world_size", lambda rank=rank: (rank, 2))
        drawn.append(batches(data_module().train_dataloader()))
    assert [len(each) for each in drawn] == [2, 2]
    assert [sorted(torch.cat([one.numbers for one in each]).tolist()) for each in drawn] == [
        list(range(0, 16, 2)),
        list(range(1, 16, 2)),
    ]
    pairs = [(one.query, other.query) for one, other in itertools.product(*drawn)]
    assert not any(one.shape == other.shape and torch.equal(one, other) for one, other in pairs)


def test_a_head_is_trained_on_spaces_and_validated_on_pictures():
    module = FewShotModule(UniversalSIB(n_steps=2, width=8, trained=False), CONV4)
    before = module.method.pull.detach().clone()
    fitted = trainer(max_epochs=2, log_every_n_steps=1)
    fitted.fit(module, data_module())
    assert not torch.equal(module.method.pull, before)
    assert module.results["val"]["n_episodes"] == 4
    assert {"train/loss", "train/strangers", "train/gradient_cosine"} <= set(fitted.logged_metrics)
    assert all(np.isfinite(float(value)) for value in fitted.logged_metrics.values())


def test_a_record_tells_what_training_tasks_are_drawn_from():
    told = data_module().describe("train")
    assert told["data"] == ["blobs by conv4", "blobs by conv4_128"]
    assert (told["n_way"], told["n_shot"], told["n_query"], told["n_episodes"]) == ([2, 5], [1, 2], [1, 3], 16)
    hashes = [data_module(**options).describe("train")["episodes_sha256"] for options in ({}, {}, {"train_seed": 5})]
    assert hashes[0] == hashes[1] != hashes[2]
    assert data_module().describe("val")["n_way"] == 5


@pytest.mark.parametrize(
    "method",
    [
        lambda: TransportSIB(n_steps=1),
        pytest.param(lambda: SIB(gradient=EquivariantGradient()), marks=pytest.mark.slow),
    ],
)
def test_a_method_with_weights_for_one_width_is_refused_on_another(method):
    with pytest.raises(
        ValueError, match=r"SIB has weights for the \d+ features of model.backbone, and a training task"
    ):
        trainer(num_sanity_val_steps=0).fit(FewShotModule(method(), CONV4), data_module())
    alone = FeatureSpacesDataModule(
        Blobs(),
        spaces_of(CONV4),
        tasks=TASKS,
        tasks_per_batch=4,
        train_episodes=4,
        val_episodes=4,
        augment=False,
        n_query=3,
    )
    trainer(num_sanity_val_steps=0).fit(FewShotModule(method(), CONV4), alone)


def test_a_loss_that_is_not_finite_names_no_classes_of_another_data_set():
    module = FewShotModule(UniversalSIB(n_steps=2, width=8, trained=False), CONV4)
    module.method.stranger_bias.data.fill_(torch.nan)
    with pytest.raises(ValueError, match=r"the loss is nan at step 0, epoch 0, episodes \[0, 1, 2, 3\]; lower the"):
        trainer(num_sanity_val_steps=0).fit(module, data_module())


def test_what_cannot_be_drawn_is_refused():
    with pytest.raises(ValueError, match=r"spaces=\[\]; name at least one data set with its backbone"):
        FeatureSpacesDataModule(Blobs(), [])
    with pytest.raises(ValueError, match="train_episodes=10 is no multiple of tasks_per_batch=4 on 1 device"):
        data_module(train_episodes=10).train_dataloader()
    small = FeatureSpacesDataModule(Blobs(), [FeatureSpace(Blobs(n_pictures=3), CONV4)], tasks_per_batch=1)
    with pytest.raises(ValueError, match="space blobs by conv4: 8 classes, the smallest with 3 pictures"):
        small.train_dataloader()


def test_augmentation_is_a_function_of_its_generator_and_shared_by_all():
    torch.manual_seed(0)
    support, query = torch.rand(2, 3, 40), torch.rand(2, 5, 40)
    seen = set()
    for seed in range(30):
        one, two = (augmented(support, query, np.random.default_rng(seed)) for _ in range(2))
        assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1])
        assert one[0].shape[:2] == (2, 3) and one[1].shape[:2] == (2, 5) and one[0].shape[-1] == one[1].shape[-1]
        assert one[1].isfinite().all()
        seen.add((one[0].shape[-1] < 40, torch.equal(one[0], support)))
    assert seen >= {(True, False), (False, True), (False, False)}
    few = augmented(support[..., :10], query[..., :10], np.random.default_rng(0))
    assert few[0].shape[-1] == 10


def test_a_space_serves_any_method_too():
    module = FewShotModule(NearestClassMean(), CONV4)
    trainer().test(module, data_module(test_episodes=4), verbose=False)
    assert module.results["test"]["n_episodes"] == 4
