"""Episodes are a pure function of their number; classes, labels and queries are drawn as promised."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from fewshot.data import sampler as sampler_module
from fewshot.data.draws import dirichlet_counts, distinct_integers, exchanged, largest_remainders
from fewshot.data.keys import EpisodeKeys, PictureKeys
from fewshot.data.sampler import EpisodeIndex, EpisodeSampler


def make(n_classes: int = 12, n_pictures: int = 30, **options: object) -> EpisodeSampler:
    """A sampler over shuffled labels, so that classes do not stand in blocks."""
    labels = np.random.default_rng(7).permutation(np.repeat(np.arange(n_classes), n_pictures))
    return EpisodeSampler(labels, **{"n_way": 5, "n_shot": 2, "n_query": 6, **options})  # type: ignore[arg-type]


def labels_of(sampler: EpisodeSampler) -> np.ndarray:
    """[n] class of every picture."""
    labels = np.empty(len(sampler.by_class), dtype=np.int64)
    labels[sampler.by_class] = np.repeat(np.arange(len(sampler.sizes)), sampler.sizes)
    return labels


def set_ranks(monkeypatch: pytest.MonkeyPatch, rank: int, world: int) -> None:
    """Pretend to be one of several processes."""
    monkeypatch.setattr("fewshot.data.keys.rank_and_world_size", lambda: (rank, world))


@pytest.mark.parametrize("proportions", [{}, {"dirichlet": 0.05}, {"dirichlet": 2.0}, {"long_tail": 10.0}], ids=str)
def test_an_episode_is_the_same_in_any_company_and_any_process(proportions):
    one, other = (
        make(split="train", **proportions),
        pickle.loads(pickle.dumps(make(split="train", **proportions))),
    )
    together = one.draw(3, range(40))
    other.draw(9, [5])
    np.random.seed(1)
    for number in (39, 0, 17):
        alone = other.draw(3, [number])
        for field, batched in zip(alone, together, strict=True):
            np.testing.assert_array_equal(field[0], batched[number])


def test_what_episodes_depend_on():
    def first(epoch: int = 0, **options: object) -> list[list[int]]:
        return [field.tolist() for field in make(**options).draw(epoch, [0])]

    assert first(split="train") != first(epoch=1, split="train")
    for split in ("val", "test"):
        assert first(split=split) == first(epoch=1, split=split)
    distinct = [first(split="train"), first(split="val"), first(split="test"), first(seed=1)]
    assert all(a != b for i, a in enumerate(distinct) for b in distinct[:i])


def test_global_random_state_is_neither_read_nor_moved():
    state = np.random.get_state()[1].copy()
    make(dirichlet=1.0).draw(0, range(10))
    np.testing.assert_array_equal(state, np.random.get_state()[1])


@pytest.mark.parametrize("dirichlet", [None, 0.3, 2.0])
@pytest.mark.parametrize(("n_way", "n_shot", "n_query"), [(5, 1, 15), (12, 1, 1), (3, 25, 5), (1, 1, 1), (7, 5, 3)])
def test_every_episode_is_well_formed(n_way, n_shot, n_query, dirichlet):
    sampler = make(n_way=n_way, n_shot=n_shot, n_query=n_query, dirichlet=dirichlet)
    classes = labels_of(sampler)
    index = sampler.draw(0, range(60))
    assert index.support.shape == index.support_labels.shape == (60, n_way * n_shot)
    assert index.query.shape == index.query_labels.shape == (60, n_way * n_query)
    for support, support_labels, query, query_labels in zip(*index, strict=True):
        pictures = np.concatenate([support, query])
        assert len(set(pictures.tolist())) == len(pictures)  # no picture twice, so support and query are disjoint
        assert np.bincount(support_labels, minlength=n_way).tolist() == [n_shot] * n_way
        if dirichlet is None:
            assert np.bincount(query_labels, minlength=n_way).tolist() == [n_query] * n_way
        class_of = dict(zip(support_labels.tolist(), classes[support].tolist(), strict=True))
        assert len(set(class_of.values())) == n_way
        assert [class_of[label] for label in query_labels.tolist()] == classes[query].tolist()


def test_classes_of_unequal_sizes():
    sizes = [4, 9, 30, 5, 4]
    sampler = EpisodeSampler(np.repeat(np.arange(5), sizes), n_way=5, n_shot=1, n_query=3)
    index = sampler.draw(0, range(500))
    seen = np.unique(np.concatenate([index.support, index.query], axis=1))
    np.testing.assert_array_equal(seen, np.arange(sum(sizes)))


def test_label_numbers_are_uniform_over_classes():
    index = make(n_classes=6, n_shot=1, n_query=1).draw(0, range(12000))
    classes = labels_of(make(n_classes=6))[index.support]  # [T, N], label by label
    for label in range(5):
        counts = np.bincount(classes[:, label], minlength=6)
        assert ((counts - 2000) ** 2 / 2000).sum() < 25  # chi-squared, 5 degrees of freedom: p = 1.4e-4


def test_pictures_are_uniform():
    index = make(n_classes=2, n_pictures=10, n_way=1, n_shot=1, n_query=9).draw(0, range(20000))
    counts = np.bincount(index.support[:, 0], minlength=20)
    assert ((counts - 1000) ** 2 / 1000).sum() < 55  # 19 degrees of freedom: p = 2.4e-5
    first = np.bincount(index.query[:, 0], minlength=20)
    assert ((first - 1000) ** 2 / 1000).sum() < 55


def test_queries_are_shuffled():
    labels = make().draw(0, range(3000)).query_labels  # [T, Q]
    assert len({tuple(row) for row in labels.tolist()}) == 3000
    for place in (0, 13, 29):
        counts = np.bincount(labels[:, place], minlength=5)
        assert ((counts - 600) ** 2 / 600).sum() < 23  # 4 degrees of freedom: p = 1.3e-4


def test_dirichlet_queries():
    balanced, skewed = (
        make(n_pictures=200, n_query=15, n_shot=1, dirichlet=alpha).draw(0, range(2000)).query_labels
        for alpha in (500.0, 2.0)
    )
    counts = np.stack([np.bincount(row, minlength=5) for row in skewed])
    assert (counts.sum(axis=1) == 75).all()
    assert counts.mean(axis=0) == pytest.approx([15] * 5, abs=0.8)
    # Variance of a share under Dirichlet(2 * 1_5): (1/5)(4/5) / 11; rounding adds about 1/12.
    assert counts.std() == pytest.approx(75 * (0.16 / 11) ** 0.5, rel=0.05)
    assert np.stack([np.bincount(row, minlength=5) for row in balanced]).std() < 1.5


def test_a_long_tail_of_queries():
    labels = make(n_pictures=200, n_query=15, n_shot=1, long_tail=10.0).draw(0, range(2000)).query_labels
    counts = np.stack([np.bincount(row, minlength=5) for row in labels])
    assert (np.sort(counts, axis=1) == [3, 6, 11, 20, 35]).all()  # 75 queries by 10^(-i/4)
    assert counts.mean(axis=0) == pytest.approx([15] * 5, abs=1)


def test_dirichlet_queries_never_exceed_what_a_class_has():
    sizes = [8, 40, 9, 16, 8]
    sampler = EpisodeSampler(np.repeat(np.arange(5), sizes), n_way=4, n_shot=1, n_query=7, dirichlet=0.05)
    index = sampler.draw(0, range(500))
    assert index.query.shape == (500, 28)
    for support, query in zip(index.support, index.query, strict=True):
        assert len(set(support.tolist()) | set(query.tolist())) == 32


def test_counts_are_capped_and_redistributed():
    shares = np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2], [1.0, 0.0, 0.0]])
    room = np.array([[4, 50, 50], [50, 50, 50], [3, 5, 50]])
    counts = dirichlet_counts(shares, 10, room)
    assert counts.tolist()[:2] == [[4, 4, 2], [5, 3, 2]]
    assert counts[2].sum() == 10 and (counts <= room).all()
    assert largest_remainders(np.array([[3.4, 3.3, 3.3]]), 10).tolist() == [[4, 3, 3]]


def test_distinct_integers_is_the_walk_of_fisher_and_yates():
    uniform, sizes = np.random.default_rng(0).random((300, 6)), np.random.default_rng(1).integers(6, 40, 300)
    for draws, size, got in zip(uniform, sizes, distinct_integers(uniform, sizes), strict=True):
        places = list(range(size))
        for step, draw in enumerate(draws):
            other = step + int(draw * (size - step))
            places[step], places[other] = places[other], places[step]
        assert got.tolist() == places[:6]


def test_hash_of_the_episode_list():
    def sha256(n_episodes: int = 1000, **options: object) -> str:
        labels = np.repeat(np.arange(64), 600)
        sizes = {"n_way": 5, "n_shot": 1, "n_query": 15, "seed": 3}
        return EpisodeSampler(labels, **{**sizes, **options}).sha256(n_episodes)  # type: ignore[arg-type]

    # Written down: results name such hashes, so a change in how episodes are drawn must not go unnoticed.
    assert sha256() == "14f9de7e179899e66724cce9e7bb0f36f5bf355c97e46906627518b3ea33fc6b"
    assert sha256(dirichlet=2.0) == "469431325f551597e98956fb31ab634f96715f5206e0171849367236430a18f8"
    others = [sha256(999), sha256(seed=4), sha256(n_shot=2), sha256(split="val"), sha256()]
    assert len(set(others)) == 5


def test_the_generator_of_an_episode_is_its_own():
    sampler = make(split="train")
    numbers = [sampler.generator(*key).random() for key in ((0, 0), (0, 1), (1, 0))]
    assert len(set(numbers)) == 3
    sampler.draw(5, [1, 2])
    assert sampler.generator(0, 1).random() == numbers[1]


def test_cost_does_not_grow_with_the_number_of_classes(monkeypatch):
    """Counted, not timed: how many random numbers an episode takes."""
    index = [make(n_classes=n, n_pictures=20).draw(0, range(3)) for n in (10, 10_000)]
    few, many = (EpisodeIndex(*fields) for fields in index)
    assert few.query.shape == many.query.shape
    lengths = []
    monkeypatch.setattr(
        sampler_module, "distinct_integers", lambda u, *rest: lengths.append(u.size) or distinct_integers(u, *rest)
    )
    for n in (10, 10_000):
        make(n_classes=n, n_pictures=20).draw(0, [0])
    assert lengths[:2] == lengths[2:]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_way": 20}, "n_way=20 but split 'val' of toys has 12 classes; lower data.n_way"),
        ({"n_way": 20, "option_prefix": "train_"}, "lower data.train_n_way"),
        (
            {"n_query": 29},
            "n_shot=2 and n_query=29 take 31 pictures of a class but class '0' of split 'val' of toys has 30",
        ),
        ({"n_shot": 0}, "n_shot=0 but an episode needs at least 1; raise data.n_shot"),
        ({"n_way": -1}, "n_way=-1"),
        ({"n_query": 0}, "n_query=0"),
        ({"seed": -1}, "seed=-1"),
        ({"dirichlet": 0.0}, "dirichlet=0.0"),
        ({"dirichlet": float("nan")}, "dirichlet=nan"),
        ({"long_tail": 0.5}, "long_tail=0.5 but the largest class is 1 or more times the smallest"),
        ({"long_tail": 10.0, "dirichlet": 2.0}, "dirichlet=2.0 and long_tail=10.0; leave one of them null"),
        ({"split": "valid"}, "split='valid' is not one of train, val, test"),
    ],
)
def test_errors_name_the_culprit(options, message):
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        make(**{"split": "val", "source": "toys", **options})


def test_too_small_a_class_is_named_with_its_count():
    labels = np.repeat([0, 1, 2], [20, 15, 20])
    with pytest.raises(ValueError, match="class 'owl' of split 'test' of birds has 15"):
        EpisodeSampler(
            labels, n_way=2, n_shot=1, n_query=15, class_names=["auk", "owl", "tit"], split="test", source="birds"
        )


def test_an_empty_split_is_named():
    with pytest.raises(ValueError, match="split 'val' of birds holds no pictures"):
        EpisodeSampler(np.array([], dtype=np.int64), n_way=2, n_shot=1, n_query=1, split="val", source="birds")


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_evaluation_episodes_without_loss_or_repetition(monkeypatch, world):
    keys = EpisodeKeys(10, training=False)
    keys.set_epoch(4)
    shares = []
    for rank in range(world):
        set_ranks(monkeypatch, rank, world)
        shares.append(list(keys))
        assert len(shares[-1]) == len(keys)
        assert all(number % world == rank for _, number in shares[-1])
    assert sorted(key for share in shares for key in share) == [(0, number) for number in range(10)]


def test_a_rank_without_an_episode_gets_one_that_does_not_exist(monkeypatch):
    keys = EpisodeKeys(2, training=False)
    shares = []
    for rank in range(4):
        set_ranks(monkeypatch, rank, 4)
        assert len(keys) == 1
        shares.append(list(keys))
    assert shares == [[(0, 0)], [(0, 1)], [(0, 2)], [(0, 3)]]


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_train_on_equally_many_episodes(monkeypatch, world):
    keys = EpisodeKeys(10, training=True)
    keys.set_epoch(4)
    shares = []
    for rank in range(world):
        set_ranks(monkeypatch, rank, world)
        shares.append(list(keys))
        assert len(shares[-1]) == len(keys)
    assert len({len(share) for share in shares}) == 1
    everything = sorted(key for share in shares for key in share)
    assert everything == [(4, number) for number in range(world * -(-10 // world))]


def test_an_epoch_can_begin_where_it_was_left():
    for keys in (EpisodeKeys(10, training=True), PictureKeys(10, seed=0)):
        keys.set_epoch(3)
        whole = list(keys)
        keys.resume(3, 4)
        assert list(keys) == whole[4:]
        assert len(keys) == 10
        assert list(keys) == whole
        keys.resume(2, 4)
        assert list(keys) == whole


@pytest.mark.parametrize("world", [1, 2, 3])
def test_ranks_share_pictures(monkeypatch, world):
    keys = PictureKeys(100, seed=0)
    shares = []
    for rank in range(world):
        set_ranks(monkeypatch, rank, world)
        shares.append(list(keys))
    assert {len(share) for share in shares} == {100 // world}
    pictures = [picture for share in shares for _, _, picture in share]
    assert len(set(pictures)) == len(pictures) == 100 // world * world


def test_the_order_of_pictures_changes_with_epoch_and_seed():
    keys = PictureKeys(50, seed=0)
    first = [picture for *_, picture in keys]
    keys.set_epoch(1)
    assert [picture for *_, picture in keys] != first
    assert [picture for *_, picture in PictureKeys(50, seed=0)] == first
    assert [picture for *_, picture in PictureKeys(50, seed=1)] != first


def test_exchanging_is_what_a_shuffle_does_step_by_step():
    rng = np.random.default_rng(0)
    for size, n in ((3, 3), (16, 16), (20, 16), (100, 40)):
        places = rng.integers(np.arange(n), size, (200, n))
        for row, found in zip(places, exchanged(places), strict=True):
            deck = list(range(size))
            for step, place in enumerate(row):
                deck[step], deck[place] = deck[place], deck[step]
            assert found.tolist() == deck[:n]
