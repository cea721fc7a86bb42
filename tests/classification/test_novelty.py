"""Where the line is drawn between queries of the classes and others."""

import torch

from fewshot.classification.novelty import novelty, support_novelty, threshold


def test_queries_known_to_be_of_no_class_move_the_line():
    generator = torch.Generator().manual_seed(0)
    centres, labels = 4 * torch.eye(4, 12), torch.arange(2).repeat_interleave(10)
    support = centres[labels] + 0.6 * torch.randn(20, 12, generator=generator)
    strange = centres[2] + 0.6 * torch.randn(4, 12, generator=generator)
    given = (support, labels, torch.cat([support[:10] + 0.3, strange]), 2, "distance")
    own, others = support_novelty(*given), novelty(*given)[10:]

    def wrong(line):
        return float((own > line).double().mean() + (others <= line).double().mean())

    line, usual = threshold(*given, strange=4), threshold(*given)
    assert wrong(line) < wrong(usual) and wrong(line) <= min(wrong(cut) for cut in torch.linspace(0, 2, 400))
    assert threshold(*given, share=0.5, strange=4) == float(novelty(*given)[:10].quantile(0.5))
