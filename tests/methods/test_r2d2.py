import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import Ridge

from fewshot.methods import R2D2


@pytest.mark.parametrize("n_shot", [1, 4])
def test_it_is_scikit_learns_ridge_with_its_offset_penalised(n_shot: int) -> None:
    labels = torch.arange(3).repeat(n_shot).expand(2, -1)
    support = torch.randn(2, 3 * n_shot, 6, dtype=torch.float64)
    query = torch.randn(2, 5, 6, dtype=torch.float64)
    method = R2D2(regularizer=0.2, scale=3.0, bias=0.5).double()
    found = method.classify(support, labels, query, 3)
    for task in range(2):
        ones = [F.pad(features[task], (0, 1), value=1.0).numpy() for features in (support, query)]
        model = Ridge(alpha=0.2 * 3 * n_shot, fit_intercept=False)
        model.fit(ones[0], F.one_hot(labels[task]).double().numpy())
        torch.testing.assert_close(found[task], torch.from_numpy(3.0 * model.predict(ones[1]) + 0.5), rtol=0, atol=1e-6)


def test_a_regulariser_that_is_not_above_zero_is_refused() -> None:
    with pytest.raises(ValueError, match="regularizer=0"):
        R2D2(regularizer=0)
