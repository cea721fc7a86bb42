"""Where the line is drawn between queries of the classes and others."""

import torch

from fewshot.classification.novelty import novelty, support_novelty, threshold


def test_queries_known_to_be_of_no_class_move_the_line():
    generator = torch.Generator().manual_seed(0)
    centres = 4 * torch.eye(4, 12)
    labels = torch.arange(4).repeat_interleave(10)
    rows = centres[labels] + 0.6 * torch.randn(40, 12, generator=generator)
    support, others, near = rows[:20][labels[:20] < 2], rows[20:30], centres[0] + torch.eye(12)[5:9] * 3
    given = (support, labels[: len(support)], torch.cat([others, near]), 2, "distance")
    line = threshold(*given, strange=4)
    own, strange = support_novelty(*given), novelty(*given)[10:]
    wrong = (own > line).double().mean() + (strange <= line).double().mean()
    usual = threshold(*given)
    assert wrong <= (own > usual).double().mean() + (strange <= usual).double().mean()
    assert wrong < 0.5 and threshold(*given, share=0.5, strange=4) == float(novelty(*given)[:10].quantile(0.5))
