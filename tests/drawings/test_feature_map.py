import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from fewshot.data.images import Images
from fewshot.drawings.feature_map import COLOURS, SHAPES, feature_map_figure, mapped_episode
from fewshot.drawings.plots import png
from fewshot.episode import Episode


def mapped(n_way, *, refined=True, names=None):
    """An episode of one picture and three queries a class; query 0 is wrong before refinement and right after it."""
    labels, query_labels = torch.arange(n_way)[None], torch.arange(n_way).repeat(3)[None]
    pictures = Images(
        np.zeros((n_way, 1, 2, 2), dtype=np.uint8),
        np.arange(n_way),
        names or [f"class {c}" for c in range(n_way)],
        [""] * n_way,
    )
    support, query = torch.randn(1, n_way, 6), torch.randn(1, 3 * n_way, 6)
    after = torch.eye(n_way)[query_labels[0]][None]
    before = after.clone()
    if refined:
        before[0, 0] = torch.eye(n_way)[1]
    episode = Episode(support, labels, query, query_labels, n_way, torch.tensor([0]), labels, query_labels)
    return mapped_episode(episode, support, query, before=before, after=after, images=pictures), support, query


def test_the_plane_is_that_of_the_unit_features_principal_components():
    found, support, query = mapped(4)
    features = torch.cat([support, query], 1)[0].double().numpy()
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    pca = PCA(2, svd_solver="full")
    expected = pca.fit_transform(features)
    np.testing.assert_allclose(torch.cat([found.support, found.query]).numpy(), expected, atol=1e-5)
    assert found.variance == pytest.approx(pca.explained_variance_ratio_, abs=1e-5)
    assert found.before[0] == 1 and found.after == found.query_labels and found.is_refined


def test_before_and_after_differ_where_refinement_mended_a_query():
    figure = feature_map_figure(mapped(4, names=["猫", "b", "$c", "\U0001f9c1"])[0], title="mine · $test")
    before, after = figure.axes
    assert before.get_title() == "before refinement: 11 of 12 right (91.7 %)"
    assert after.get_title() == "after refinement: 12 of 12 right (100.0 %)"
    numbers = [text.get_text() for text in before.texts]
    assert numbers == ["0", "1", "2", "3", "0"]  # the support's classes, then the wrong query's
    assert len(after.texts) == 4
    assert before.get_xlim() == after.get_xlim()
    png(figure)


@pytest.mark.slow
def test_numbers_keep_apart_where_there_are_many():
    figure = feature_map_figure(mapped(25)[0]._replace(before=[0] * 75), title="")
    before = figure.axes[0]
    png(figure)
    places = [before.transData.transform(text.xy) / figure.dpi for text in before.texts]
    assert 25 < len(places) < 25 + 72  # not one number for each wrong query
    assert sum(text.get_text() == "0" for text in before.texts) == 1  # right ones have none


def test_one_panel_where_nothing_is_refined():
    (axes,) = feature_map_figure(mapped(3, refined=False)[0], title="").axes
    assert axes.get_title().startswith("predicted: 9 of 9")


def test_classes_are_told_apart_by_colour_or_shape():
    figure = feature_map_figure(mapped(20)[0], title="")
    legend = figure.legends[0]
    looks = {(handle.get_color(), handle.get_marker()) for handle in legend.legend_handles[:20]}
    assert len(looks) == 20
    assert len(COLOURS) == len(set(COLOURS)) and len(SHAPES) == len(set(SHAPES))
    assert [text.get_text() for text in legend.get_texts()[:2]] == ["0  class 0", "1  class 1"]
