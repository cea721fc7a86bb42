"""The loaders give the same episodes however they are run, and errors name what is wrong."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from pytorch_lightning import LightningModule, Trainer
from pytorch_lightning.cli import LightningArgumentParser
from torch import Tensor

from fewshot.data.class_datamodule import ClassDataModule
from fewshot.data.datasets.base import FewShotDataset, Split
from fewshot.data.datasets.folder import ImageFolderSplits
from fewshot.data.episodic_datamodule import EpisodicDataModule
from fewshot.data.images import Images
from fewshot.data.transforms import Preprocessing, adapted_preprocessing, evaluation_transform
from fewshot.drawings.training import taken_of_a_class
from fewshot.episode import PADDING, Episode

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have many workers.*")


class Noise(FewShotDataset):
    """Random pictures in memory: 12 training classes, 8 in the other splits, 20 pictures each."""

    name = "noise"

    def __init__(self, shared_class: bool = False, sizes: dict[str, int] | None = None) -> None:
        self.preprocessing = Preprocessing(8, 10, (0.4, 0.5, 0.6), (0.2, 0.3, 0.2), 3, "bilinear", 2, 0.4, True)
        self.shared_class = shared_class
        self.sizes = sizes or {"train": 12, "val": 8, "test": 8}
        self.asked: list[tuple[str, Preprocessing | None]] = []

    def images(self, split: Split, preprocessing: Preprocessing | None = None) -> Images:
        """The pictures of one split."""
        self.asked.append((split, preprocessing))
        used = preprocessing or self.preprocessing
        n_classes = self.sizes[split]
        shape = (n_classes * 20, used.channels, used.stored_size, used.stored_size)
        array = np.random.default_rng(len(split)).integers(0, 256, shape, dtype=np.uint8)
        names = [f"{split}{i}" for i in range(n_classes)]
        if self.shared_class:
            names[0] = "owl"
        labels = np.repeat(np.arange(n_classes), 20)
        return Images(array, labels, names, [f"{names[label]}/{i}" for i, label in enumerate(labels)])


def stack_episodes(episodes: Sequence[Episode]) -> Episode:
    """One batch out of several: the episodes of every element, joined along T.

    Raises ValueError where they differ in the number of ways.
    """
    ways = {episode.n_way for episode in episodes}
    if len(ways) != 1:
        raise ValueError(f"episodes of {sorted(ways)} ways cannot share a batch; sample them with one n_way")

    def join(name: str) -> Tensor | None:
        parts = [getattr(episode, name) for episode in episodes]
        return None if any(part is None for part in parts) else torch.cat(parts)

    tensors = {name: join(name) for name in Episode._fields if name != "n_way"}
    return Episode(n_way=ways.pop(), **tensors)  # type: ignore[arg-type]


def make(dataset: FewShotDataset | None = None, **options: Any) -> EpisodicDataModule:
    """A small data module."""
    sizes = {"train_episodes": 20, "val_episodes": 9, "test_episodes": 10, "n_query": 4, "tasks_per_batch": 4}
    return EpisodicDataModule(dataset or Noise(), **{**sizes, **options})


def gathered(loader: Any, epoch: int = 0) -> Episode:
    """All episodes of a loader in one."""
    loader.sampler.set_epoch(epoch)
    return stack_episodes([episode.check() for episode in loader])


def assert_same(one: Episode, other: Episode) -> None:
    """Equal to the last bit."""
    for name, a, b in zip(Episode._fields, one, other, strict=True):
        assert a.equal(b) if isinstance(a, Tensor) else a == b, name


def encode(inputs: Tensor) -> Tensor:
    """Features of 6 numbers."""
    return torch.cat([inputs.mean((2, 3)), inputs[:, :, 0, 0]], dim=1)


class Collector(LightningModule):
    """Remembers which episodes each stage has met."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.met: dict[str, list[list[int]]] = {"train": [], "val": [], "test": [], "predict": []}
        self.pictures: dict[int, list[list[int]]] = {}

    def training_step(self, episode: Episode, batch_idx: int) -> Tensor:
        """A loss that hangs on nothing."""
        self.met["train"].append(episode.numbers.tolist())
        self.pictures.setdefault(self.current_epoch, []).extend(episode.query_index.tolist())
        return self.weight * 0

    def validation_step(self, episode: Episode, batch_idx: int) -> None:
        """Note the numbers."""
        self.met["val"].append(episode.numbers.tolist())

    def test_step(self, episode: Episode, batch_idx: int) -> None:
        """Note the numbers."""
        self.met["test"].append(episode.numbers.tolist())

    def predict_step(self, episode: Episode, batch_idx: int) -> list[int]:
        """Return the numbers."""
        return episode.numbers.tolist()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain descent."""
        return torch.optim.SGD(self.parameters(), lr=0.1)


def quiet_trainer(**options: Any) -> Trainer:
    """A trainer that writes nothing."""
    return Trainer(
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        **options,
    )


@pytest.mark.parametrize(
    ("split", "workers", "tasks"),
    [*((split, 0, tasks) for split in ("train", "val", "test") for tasks in (1, 16)), ("train", 2, 4), ("test", 2, 16)],
)
def test_neither_workers_nor_batch_size_change_an_episode(split, workers, tasks):
    def loader(**options: int) -> Any:
        return getattr(make(**options), f"{split}_dataloader")()

    for epoch in (0, 1):
        assert_same(gathered(loader(), epoch), gathered(loader(num_workers=workers, tasks_per_batch=tasks), epoch))


def test_batches_are_as_announced():
    episodes = list(make(tasks_per_batch=4).test_dataloader())
    assert [episode.n_tasks for episode in episodes] == [4, 4, 2]
    assert episodes[0].support.shape == (4, 5, 3, 8, 8) and episodes[0].query.shape == (4, 20, 3, 8, 8)
    assert torch.cat([episode.numbers for episode in episodes]).tolist() == list(range(10))
    assert all(episode.support.is_contiguous() and episode.query.is_contiguous() for episode in episodes)


def test_an_episode_holds_the_pictures_that_it_names():
    data = make()
    episode = gathered(data.test_dataloader())
    images = data.images("test")
    for inputs, labels, index in (
        (episode.support, episode.support_labels, episode.support_index),
        (episode.query, episode.query_labels, episode.query_index),
    ):
        expected = evaluation_transform(images.read(index.flatten().numpy()), data.preprocessing)
        torch.testing.assert_close(inputs.flatten(0, 1), expected, rtol=0, atol=0)
        classes = torch.from_numpy(images.labels)[index]
        for task in range(10):
            assert len({*zip(classes[task].tolist(), labels[task].tolist(), strict=True)}) == 5


def test_training_pictures_are_augmented_by_episode():
    data = make()
    first, second = (gathered(data.train_dataloader(), epoch) for epoch in (0, 1))
    assert not first.support_index.equal(second.support_index)
    plain = evaluation_transform(data.images("train").read(first.query_index.flatten().numpy()), data.preprocessing)
    different = (first.query.flatten(0, 1) != plain).flatten(1).any(dim=1)
    assert different.float().mean() > 0.9


def test_evaluation_episodes_do_not_depend_on_the_epoch():
    loader = make().val_dataloader()
    assert_same(gathered(loader, 0), gathered(loader, 7))


def test_prediction_reads_the_test_episodes():
    data = make()
    assert_same(gathered(data.test_dataloader()), gathered(data.predict_dataloader()))


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_episode_too_many_is_marked_as_padding(monkeypatch, split):
    monkeypatch.setattr("fewshot.data.keys.rank_and_world_size", lambda: (2, 3))
    episode = next(iter(getattr(make(train_episodes=2, val_episodes=2), f"{split}_dataloader")()))
    assert episode.is_padding == (split == "val")
    assert episode.numbers.tolist() == [PADDING if split == "val" else 2]
    assert not next(iter(make().val_dataloader())).is_padding


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("split", ["train", "test"])
def test_ranks_divide_the_episodes(monkeypatch, world, split):
    parts = []
    for rank in range(world):
        monkeypatch.setattr("fewshot.data.keys.rank_and_world_size", lambda rank=rank: (rank, world))
        parts.append(gathered(getattr(make(), f"{split}_dataloader")()))
    monkeypatch.undo()
    together = stack_episodes(parts)
    order = together.numbers.argsort()
    n_episodes = {"train": world * -(-20 // world), "test": 10}[split]
    assert together.numbers[order].tolist() == list(range(n_episodes))
    alone = gathered(getattr(make(train_episodes=n_episodes), f"{split}_dataloader")())
    assert alone.query.equal(together.query[order])


def test_lightning_runs_every_stage(monkeypatch):
    data, module = make(), Collector()
    trainer = quiet_trainer(max_epochs=2, num_sanity_val_steps=0)
    trainer.fit(module, datamodule=data)
    assert module.met["train"] == [list(range(i, i + 4)) for i in range(0, 20, 4)] * 2
    assert module.met["val"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8]] * 2
    assert module.pictures[0] != module.pictures[1]
    assert module.pictures[1] == gathered(make().train_dataloader(), 1).query_index.tolist()
    trainer.test(module, datamodule=data, verbose=False)
    assert module.met["test"] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]
    assert trainer.predict(module, datamodule=data) == module.met["test"]


def test_lightning_runs_with_workers():
    data, module = make(num_workers=2), Collector()
    quiet_trainer(max_epochs=2, num_sanity_val_steps=0).fit(module, datamodule=data)
    assert module.pictures[1] == gathered(make().train_dataloader(), 1).query_index.tolist()


def test_lightnings_own_splitting_over_devices_is_refused():
    for data in (make(), ClassDataModule(Noise(), batch_size=4, n_query=4)):
        connector = SimpleNamespace(use_distributed_sampler=True)
        data.trainer = SimpleNamespace(world_size=2, current_epoch=0, _accelerator_connector=connector)
        for split in ("train", "val", "test", "predict"):
            with pytest.raises(ValueError, match=r"set trainer\.use_distributed_sampler=false"):
                getattr(data, f"{split}_dataloader")()
        connector.use_distributed_sampler = False
        data.train_dataloader()


def test_stored_features_take_the_place_of_pictures():
    data, plain = make(num_workers=2), make()
    assert data.use_features(encode, "one") is True
    for stage in ("train", "val", "test", "predict"):
        episode, pictures = (gathered(getattr(each, f"{stage}_dataloader")()) for each in (data, plain))
        assert episode.holds_features and episode.support.shape[2:] == (6,)
        assert episode.query_index.equal(pictures.query_index)
        if stage != "train":
            expected = encode(pictures.query.flatten(0, 1)).unflatten(0, pictures.query.shape[:2])
            torch.testing.assert_close(episode.query, expected)


def test_the_key_of_an_encoder_is_asked_for_with_the_loader():
    data, weight = make(), [1.0]
    data.use_features(lambda inputs: encode(inputs) * weight[0], lambda: str(weight[0]))
    before = gathered(data.test_dataloader())
    weight[0] = 2.0
    torch.testing.assert_close(gathered(data.test_dataloader()).query, before.query * 2)


def test_features_that_are_not_wanted():
    data = make(store_features=False)
    assert data.use_features(encode, "one") is False
    assert not gathered(data.val_dataloader()).holds_features


@pytest.mark.parametrize("tasks", [1, 7])
def test_augmented_views_are_chosen_by_the_episode(tasks):
    def loader(**options: int) -> Any:
        data = make(augmented_views=3, **options)
        data.use_features(encode, "views")
        return data.train_dataloader()

    episode = gathered(loader(), 1)
    assert_same(episode, gathered(loader(tasks_per_batch=tasks), 1))
    index, features = episode.query_index.flatten(), episode.query.flatten(0, 1)
    views = [len(features[index == picture].unique(dim=0)) for picture in index.unique()]
    assert max(views) == 3  # a picture that comes up often is seen in all its views


def test_pictures_are_read_only_when_a_loader_is_asked_for():
    dataset = Noise()
    data = make(dataset)
    data.setup("fit")
    data.adapt(channels=1, image_size=16)
    assert dataset.asked == []
    assert gathered(data.val_dataloader()).query.shape[2:] == (1, 16, 16)
    assert [split for split, _ in dataset.asked] == ["val"]
    data.adapt(channels=1, image_size=16)
    data.val_dataloader()
    assert len(dataset.asked) == 1
    data.adapt(channels=3)
    assert gathered(data.val_dataloader()).query.shape[2:] == (3, 8, 8)


def test_what_the_backbone_wants_of_pictures():
    own = Noise().preprocessing
    assert adapted_preprocessing(own) == own
    assert adapted_preprocessing(own, channels=1).channels == 1
    assert adapted_preprocessing(own, image_size=16) == own.with_image_size(16)
    timm = {
        "input_size": (3, 224, 224),
        "mean": (0.1, 0.2, 0.3),
        "std": (0.5, 0.6, 0.7),
        "interpolation": "bicubic",
        "crop_pct": 0.875,
        "crop_mode": "center",
    }
    wanted = adapted_preprocessing(own, channels=3, wanted=timm)
    assert wanted == Preprocessing(224, 256, (0.1, 0.2, 0.3), (0.5, 0.6, 0.7), 3, "bicubic", 56, 0.4, True)
    assert adapted_preprocessing(own, channels=1, wanted=timm).mean == pytest.approx((0.2,))
    assert adapted_preprocessing(own, wanted=replace(own, flip=False), image_size=4).flip is False
    with pytest.warns(UserWarning, match="published for pictures cropped by 'squash'; here the middle"):
        assert adapted_preprocessing(own, channels=3, wanted={**timm, "crop_mode": "squash"}) == wanted


def test_image_size_has_one_source():
    data = make(image_size=12)
    data.adapt(channels=3, image_size=12)
    assert gathered(data.val_dataloader()).query.shape[-1] == 12
    with pytest.raises(ValueError, match=r"data\.image_size=12 but the backbone is built for image_size=84"):
        data.adapt(channels=3, image_size=84)


def test_description_of_the_episodes():
    data = make(dirichlet=2.0, seed=5)
    described = data.describe("val")
    assert described["episodes_sha256"] == data.episodes_sha256("val") != data.episodes_sha256("test")
    assert described["episodes_sha256"] == make(dirichlet=2.0, seed=5, tasks_per_batch=1).episodes_sha256("val")
    expected = {
        "data": "noise",
        "split": "val",
        "n_classes": 8,
        "image_size": 8,
        "n_way": 5,
        "n_shot": 1,
        "n_query": 4,
        "query_distribution": "dirichlet(2.0)",
        "seed": 5,
        "n_episodes": 9,
    }
    assert {key: described[key] for key in expected} == expected
    assert make().describe("test")["query_distribution"] == "balanced"


@pytest.mark.parametrize(("name", "value"), [("n_shot", 3), ("n_way", 4), ("seed", 9), ("long_tail", 3.0)])
def test_sizes_that_are_set_anew_are_obeyed_and_described(name, value):
    data = make()
    before = data.episodes_sha256("test")
    setattr(data, name, value)
    fresh = make(**{name: value})
    assert_same(gathered(data.test_dataloader()), gathered(fresh.test_dataloader()))
    assert before != data.episodes_sha256("test") == fresh.episodes_sha256("test")
    assert data.describe("test") == fresh.describe("test")


class OwnSize(Noise):
    """A data set that gives its pictures as it has them, whatever is asked for."""

    def images(self, split: Any, preprocessing: Preprocessing | None = None) -> Images:
        return super().images(split, self.preprocessing)


@pytest.mark.parametrize("adapted", [{"image_size": 4}, {"channels": 1}, {"image_size": 16}])
def test_a_data_set_that_does_not_resize_or_convert_is_refused(adapted):
    data = make(OwnSize())
    data.val_dataloader()
    data.adapt(**adapted)
    with pytest.raises(ValueError, match=r"noise: images\(split, preprocessing\) gives pictures of 3 channels and"):
        data.val_dataloader()


def test_a_long_tail_is_of_validation_and_test():
    data = make(long_tail=10.0)
    distributions = {split: data.describe(split)["query_distribution"] for split in ("train", "val", "test")}
    assert distributions == {"train": "balanced", "val": "tail(10.0)", "test": "tail(10.0)"}
    taken = {split: taken_of_a_class(data, split) for split in distributions}
    assert taken == {"train": data.n_shot + data.n_query, "val": None, "test": None}


def test_training_may_have_other_sizes():
    data = make(train_n_way=9, train_n_shot=3, train_n_query=2)
    assert gathered(data.train_dataloader()).query.shape[1] == 18
    assert gathered(data.train_dataloader()).support.shape[1] == 27
    assert gathered(data.val_dataloader()).support.shape[1] == 5


def test_training_may_mix_sizes():
    sizes = {"train_n_way": [3, 4], "train_n_shot": [1, 2], "train_dirichlet": [None, 0.5]}
    data = make(n_query=2, train_episodes=768, **sizes)
    met = set()
    loader = data.train_dataloader()
    for number, episode in enumerate(loader):
        episode.check()
        counts = torch.nn.functional.one_hot(episode.query_labels).sum(1)  # [T, N]
        met.add((number // 16, episode.n_way, episode.support_labels.shape[1] // episode.n_way))
        assert episode.query_labels.shape == (4, 2 * episode.n_way)
        assert episode.numbers.tolist() == list(range(4 * number, 4 * number + 4))
        met.add((number // 16, "balanced" if bool((counts == 2).all()) else "unbalanced"))
    assert len({block for block, *_ in met}) == 12
    assert {rest for _, *rest in map(tuple, met) if len(rest) == 2 for rest in [tuple(rest)]} == {
        (n_way, n_shot) for n_way in (3, 4) for n_shot in (1, 2)
    }
    assert {kind for _, *rest in met if len(rest) == 1 for kind in rest} == {"balanced", "unbalanced"}
    described = data.describe("train")
    assert (described["n_way"], described["n_shot"], described["n_query"]) == ([3, 4], [1, 2], 2)
    assert described["query_distribution"] == ["balanced", "dirichlet(0.5)"]
    assert data.describe("val")["n_way"] == 5


def test_mixed_sizes_do_not_hang_on_the_batch():
    sizes = {"train_n_shot": [1, 2], "train_episodes": 192}
    few, many = (
        [episode for episode in make(tasks_per_batch=at_once, **sizes).train_dataloader()] for at_once in (2, 64)
    )
    for block, episode in enumerate(many):
        assert_same(stack_episodes(few[32 * block : 32 * block + 32]), episode)


def test_a_concentration_of_training_is_named_as_such():
    with pytest.raises(ValueError, match=r"train_dirichlet=0\.0"):
        make(train_dirichlet=[2.0, 0.0])


def test_mixed_sizes_need_whole_batches_in_a_block():
    with pytest.raises(ValueError, match=r"tasks_per_batch=24 on 1 device\(s\), .* blocks of 64"):
        make(train_n_shot=[1, 2], tasks_per_batch=24).train_dataloader()
    make(train_n_shot=[2], tasks_per_batch=24).train_dataloader()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"train_n_way": []}, r"train_n_way=\[\]"),
        ({"train_n_shot": [1, 0]}, "train_n_shot=0"),
        ({"train_dirichlet": [None, -1.0]}, "dirichlet=-1.0"),
        ({"n_way": 0}, r"n_way=0 but an episode needs at least 1; raise data\.n_way"),
        ({"tasks_per_batch": 0}, r"tasks_per_batch=0 but it is at least 1; raise data\.tasks_per_batch"),
        ({"train_n_shot": 0}, "train_n_shot=0"),
        ({"test_episodes": 0}, "test_episodes=0"),
        ({"num_workers": -1}, "num_workers=-1"),
        ({"augmented_views": -1}, "augmented_views=-1"),
        ({"image_size": 0}, "image_size=0"),
        ({"dirichlet": -1.0}, "dirichlet=-1.0"),
        ({"seed": -3}, "seed=-3"),
    ],
)
def test_impossible_options_are_refused_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        make(**options)


def test_more_ways_than_classes():
    with pytest.raises(ValueError, match=r"n_way=9 but split 'val' of noise has 8 classes; lower data\.n_way"):
        make(n_way=9).val_dataloader()
    with pytest.raises(ValueError, match=r"train_n_way=13 but split 'train' of noise has 12 .* data\.train_n_way"):
        make(train_n_way=13).train_dataloader()


def test_too_few_pictures():
    with pytest.raises(ValueError, match="class 'test0' of split 'test' of noise has 20"):
        make(n_shot=10, n_query=11).test_dataloader()


def test_an_empty_split():
    with pytest.raises(ValueError, match="split 'val' of noise holds no pictures"):
        make(Noise(sizes={"val": 0})).val_dataloader()


def test_classes_in_two_splits():
    data = make(Noise(shared_class=True))
    data.train_dataloader()
    with pytest.raises(ValueError, match="splits 'train' and 'val' of noise share 1 classes, such as 'owl'"):
        data.val_dataloader()


def test_data_sets_of_a_loader_can_be_sent_to_another_process():
    data = make()
    data.use_features(encode, "spawn")
    episodes = data.train_dataloader().dataset
    copy = pickle.loads(pickle.dumps(episodes))
    assert_same(copy[(2, 5)], episodes[(2, 5)])


def classes(**options: Any) -> ClassDataModule:
    """A small data module for pre-training."""
    return ClassDataModule(
        Noise(), **{"batch_size": 32, "n_query": 4, "val_episodes": 9, "tasks_per_batch": 4, **options}
    )


def epoch_of(loader: Any, epoch: int = 0) -> tuple[Tensor, Tensor]:
    """All pictures and labels of an epoch."""
    loader.sampler.set_epoch(epoch)
    pictures, labels = zip(*loader, strict=True)
    return torch.cat(pictures), torch.cat(labels)


def test_plain_batches():
    data = classes()
    batches = list(data.train_dataloader())
    assert [len(labels) for _, labels in batches] == [32] * 7  # 240 pictures; the incomplete batch is left out
    assert batches[0][0].shape == (32, 3, 8, 8) and batches[0][0].dtype == torch.float32
    assert batches[0][1].dtype == torch.int64
    assert data.n_classes == 12
    counts = torch.cat([labels for _, labels in batches]).bincount(minlength=12)
    assert counts.sum() == 224 and counts.max() <= 20 and counts.min() >= 4


def test_plain_batches_are_a_function_of_seed_and_epoch():
    pictures, labels = epoch_of(classes().train_dataloader(), 1)
    again, same_labels = epoch_of(classes(num_workers=2).train_dataloader(), 1)
    assert pictures.equal(again) and labels.equal(same_labels)
    assert not labels.equal(epoch_of(classes().train_dataloader(), 2)[1])
    assert not labels.equal(epoch_of(classes(seed=1).train_dataloader(), 1)[1])


def test_plain_batches_are_augmented_and_labelled_rightly():
    data = classes(batch_size=1)
    data.dataset.preprocessing = replace(data.dataset.preprocessing, colour_jitter=0.0, flip=False, crop_padding=0)
    images = data.images("train")
    stored = (images.read(np.arange(240)).float() / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor(
        [0.2, 0.3, 0.2]
    )[:, None, None]
    corners = set()
    for (picture, label), (_, _, number) in zip(data.train_dataloader(), data.train_dataloader().sampler, strict=True):
        assert label.item() == images.labels[number]
        places = [
            (i, j) for i in range(3) for j in range(3) if stored[number, :, i : i + 8, j : j + 8].allclose(picture[0])
        ]
        corners.update(places)
        assert places
    assert len(corners) == 9


def test_pretraining_is_watched_by_the_same_episodes():
    assert_same(gathered(classes().val_dataloader()), gathered(make().val_dataloader()))
    assert classes().describe("val") == make().describe("val")


def test_a_batch_larger_than_the_split():
    with pytest.raises(
        ValueError, match=r"batch_size=300 but split 'train' of noise has 240 .* lower data\.batch_size"
    ):
        classes(batch_size=300).train_dataloader()
    with pytest.raises(ValueError, match="batch_size=0"):
        classes(batch_size=0)


@pytest.mark.parametrize("kind", [EpisodicDataModule, ClassDataModule])
def test_options_can_be_read_and_are_explained(kind, capsys, monkeypatch):
    monkeypatch.setenv("JSONARGPARSE_DEPRECATION_WARNINGS", "off")  # instantiate_classes, which Lightning calls too
    parser = LightningArgumentParser(exit_on_error=False)
    parser.add_lightning_class_args(kind, "data", subclass_mode=True)
    name = f"--data={kind.__module__}.{kind.__name__}"
    where = f"{ImageFolderSplits.__module__}.{ImageFolderSplits.__name__}"
    config = parser.parse_args([name, f"--data.dataset={where}", "--data.dataset.root=somewhere", "--data.n_way=7"])
    data = parser.instantiate_classes(config).data
    assert isinstance(data, kind) and data.n_way == 7 and isinstance(data.dataset, ImageFolderSplits)
    with pytest.raises(SystemExit):
        parser.parse_args([f"--data.help={kind.__module__}.{kind.__name__}"])
    text = capsys.readouterr().out
    assert "labelled pictures of a class" in text and "--data.tasks_per_batch" in text


@pytest.mark.slow
def test_real_images(data_root):
    data = EpisodicDataModule(
        ImageFolderSplits(str(data_root / "cifar_fs"), image_size=32, crop_padding=4, name="cifar_fs"), test_episodes=20
    )
    episode = gathered(data.test_dataloader())
    assert episode.support.shape == (20, 5, 3, 32, 32) and episode.query.shape == (20, 75, 3, 32, 32)
    images = data.images("test")
    assert len(images) == 20 * 600 and len(images.class_names) == 20
    for index, label in zip(episode.support_index.flatten(), episode.support_labels.flatten(), strict=True):
        assert images.names[int(index)].startswith(images.class_names[images.labels[int(index)]] + "/")
        assert 0 <= label < 5
    with pytest.raises(ValueError, match="n_way=17 but split 'val' of cifar_fs has 16 classes"):
        EpisodicDataModule(data.dataset, n_way=17).val_dataloader()


class CountingEncoder:
    """Mean intensity of each channel and a constant; counts the pictures it sees."""

    def __init__(self):
        self.pictures, self.shift = 0, 0.0

    def __call__(self, pictures):
        self.pictures += len(pictures)
        return torch.nn.functional.pad(pictures.mean((2, 3)), (0, 1), value=1.0) + self.shift


@pytest.mark.parametrize("kind", [make, classes])
def test_episodes_carry_the_features_computed_last(kind):
    data, encoder = kind(), CountingEncoder()
    data.expect_features("val", "test")
    loader = data.val_dataloader()
    for encoder.shift in (0.0, 2.0):
        data.compute_features("val", encoder)
        episodes, pictures = gathered(loader), gathered(kind().val_dataloader())
        assert torch.equal(episodes.query_index, pictures.query_index)
        for features, inputs in ((episodes.support, pictures.support), (episodes.query, pictures.query)):
            tasks, size = inputs.shape[:2]
            expected = CountingEncoder()(inputs.flatten(0, 1)).unflatten(0, (tasks, size)) + encoder.shift
            torch.testing.assert_close(features, expected)
    assert encoder.pictures == 2 * len(data.images("val"))


@pytest.mark.parametrize("asked", [1, 7])
def test_stored_features_are_evaluated_many_tasks_at_a_time(asked, monkeypatch):
    monkeypatch.setattr("fewshot.data.picture_datamodule.EVALUATED_TOGETHER", 5 * 15**2)
    data = make(n_way=3, n_shot=1, n_query=4, tasks_per_batch=asked, val_episodes=8, test_episodes=8, train_episodes=8)

    def sizes(loader):
        return [episode.n_tasks for episode in loader]

    loaders = (data.val_dataloader, data.test_dataloader, data.train_dataloader, data.predict_dataloader)
    carrying_pictures = [sizes(loader()) for loader in loaders]
    data.use_features(CountingEncoder(), "some")
    as_asked = [asked] * (8 // asked) + [8 % asked] * (8 % asked > 0)
    assert carrying_pictures == [as_asked] * 4
    together = [5, 3] if asked == 1 else as_asked
    assert [sizes(loader()) for loader in loaders] == [together, together, as_asked, as_asked]


def test_few_episodes_of_many_pictures_carry_pictures():
    data, encoder = make(val_episodes=1), CountingEncoder()
    data.expect_features("val")
    data.compute_features("val", encoder)
    assert not next(iter(data.val_dataloader())).holds_features
    assert encoder.pictures == 0


def test_what_is_handed_over_last_decides():
    data, encoder = make(store_features=True), CountingEncoder()
    data.use_features(encoder, "first")
    assert next(iter(data.train_dataloader())).holds_features
    data.expect_features("val", "test")
    assert not next(iter(data.train_dataloader())).holds_features
    data.use_features(encoder, "second")
    data.carry_pictures()
    assert not next(iter(data.val_dataloader())).holds_features


def test_a_picture_episode_is_the_loaders() -> None:
    data = make()
    for split in ("train", "val", "test"):
        loaded = gathered(data._loader(split))
        shown = data.picture_episode(split, 3)
        assert shown.n_tasks == 1 and int(shown.numbers) == 3
        for mine, theirs in zip(shown, loaded, strict=True):
            assert mine == theirs if isinstance(mine, int) else torch.equal(mine[0], theirs[3])
    assert [data.augments(split) for split in ("train", "val", "test")] == [True, False, False]


def test_a_picture_episode_is_not_augmented_where_features_of_plain_pictures_are_stored() -> None:
    data = make()
    augmented = data.picture_episode("train", 0)
    data.use_features(lambda pictures: pictures.flatten(1), "flat")
    plain = data.picture_episode("train", 0)
    assert not data.augments("train") and not torch.equal(plain.support, augmented.support)
    for index, inputs in ((plain.support_index, plain.support), (plain.query_index, plain.query)):
        expected = evaluation_transform(data.images("train").read(index[0].numpy()), data.preprocessing)
        assert torch.equal(inputs[0], expected)
    views = make(augmented_views=2)
    views.use_features(lambda pictures: pictures.flatten(1), "flat")
    assert views.augments("train")


def test_the_first_pictures_of_a_batch_are_the_loaders() -> None:
    data = ClassDataModule(Noise(), batch_size=32, n_query=4)
    pictures, labels = next(iter(data.train_dataloader()))
    for size in (5, 64):
        first, theirs = data.picture_batch(size)
        assert len(first) == min(size, 32)
        assert torch.equal(first, pictures[:size]) and torch.equal(theirs, labels[:size])


def test_a_data_set_that_lacks_what_it_has_to_set_is_refused() -> None:
    class Bare(Noise):
        def __init__(self) -> None:
            super().__init__()
            del self.preprocessing

    with pytest.raises(ValueError, match="Bare has no preprocessing; set self"):
        EpisodicDataModule(Bare())
