import pytest
import torch
from torch import nn

from fewshot.methods import FullContextEmbedding, MatchingNetworks

N_WAY, N_FEATURES = 3, 6
LABELS = torch.tensor([0, 1, 2, 2, 0, 1])


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(2, len(LABELS), N_FEATURES), torch.randn(2, 5, N_FEATURES)


def test_the_probability_of_a_class_is_the_attention_to_its_support() -> None:
    support, query = draw()
    found = MatchingNetworks(3.0, learn_scale=False).classify(support, LABELS.expand(2, -1), query, N_WAY).exp()
    for task in range(2):
        for row, one in enumerate(query[task]):
            attention = (3 * torch.cosine_similarity(one, support[task])).softmax(0)
            expected = torch.stack([attention[label == LABELS].sum() for label in range(N_WAY)])
            torch.testing.assert_close(found[task, row], expected)


def test_full_context_embeddings_are_easyfsls() -> None:
    easyfsl = pytest.importorskip("easyfsl.methods")
    context = FullContextEmbedding(n_steps=len(LABELS))  # theirs reads as often as the support is large
    context.build(N_FEATURES)
    theirs = easyfsl.MatchingNetworks(
        nn.Identity(),
        feature_dimension=N_FEATURES,
        support_encoder=context.support_lstm,
        query_encoder=context.query_lstm,
    )
    support, query = draw()
    order = support.sum(-1).argsort(-1)
    found_support, found_labels, found_query = context(support, LABELS.expand(2, -1), query)
    method = MatchingNetworks(1.0, learn_scale=False, context=context)
    logits = method.classify(support, LABELS.expand(2, -1), query, N_WAY)
    for task in range(2):
        assert torch.equal(found_labels[task], LABELS[order[task]])
        theirs.process_support_set(support[task, order[task]], LABELS[order[task]])
        torch.testing.assert_close(found_support[task], theirs.contextualized_support_features)
        torch.testing.assert_close(found_query[task], theirs.encode_query_features(query[task]))
        # their queries keep their length when they are compared: give them the length one of the paper's cosine
        theirs.encode_query_features = lambda _, task=task: nn.functional.normalize(found_query[task], dim=1)
        torch.testing.assert_close(logits[task], theirs(query[task]), atol=1e-4, rtol=0)
        del theirs.encode_query_features


def test_no_step_at_all_is_refused() -> None:
    with pytest.raises(ValueError, match="n_steps=0"):
        FullContextEmbedding(0)
