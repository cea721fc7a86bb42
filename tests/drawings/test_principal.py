import pytest
import torch
from sklearn.decomposition import PCA

from fewshot.drawings.principal import principal_components, variance


@pytest.mark.parametrize(("n", "size"), [(30, 6), (6, 30), (9, 9)])
def test_components_are_scikit_learns_and_so_is_their_sign(n: int, size: int) -> None:
    features = torch.randn(2, n, size, dtype=torch.float64) + 7
    found = principal_components(features, 3)
    for task in range(2):
        expected = PCA(3, svd_solver="full").fit_transform(features[task].numpy())
        torch.testing.assert_close(found[task], torch.from_numpy(expected))


def test_many_rows_are_centred_part_by_part(monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(40, 5, dtype=torch.float64) + 7
    whole = principal_components(features)
    monkeypatch.setattr("fewshot.drawings.principal.AT_ONCE", 9)
    torch.testing.assert_close(principal_components(features), whole)


def test_the_same_features_turned_give_the_same_map_up_to_sign() -> None:
    features = torch.randn(40, 5, dtype=torch.float64)
    turned = features @ torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64))[0]
    torch.testing.assert_close(principal_components(turned).abs(), principal_components(features).abs())


@pytest.mark.parametrize(("n", "size"), [(1, 4), (1, 1), (2, 4), (8, 1)])
def test_directions_that_there_are_not_are_zero(n: int, size: int) -> None:
    found = principal_components(torch.randn(n, size))
    assert found.shape == (n, 2)
    assert not found[:, 1].any()
    assert bool(found[:, 0].any()) == (n > 1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_features_that_are_alike_lie_on_one_point(dtype: torch.dtype) -> None:
    for n, size in ((4, 30), (30, 4)):
        found = principal_components(torch.full((n, size), 0.3, dtype=dtype))
        assert found.dtype == torch.float32
        assert not found.any()


def test_rows_in_several_places_are_as_in_one() -> None:
    features = torch.randn(40, 5, dtype=torch.float64) + 7
    several = [features[:0], features[:7], features[7:]]
    torch.testing.assert_close(principal_components(several), principal_components(features))
    assert variance(several[1:]) == pytest.approx(float(features.var(0).sum()) * 39)
