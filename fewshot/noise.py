"""What libraries say that no user can act on, silenced while a command runs."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

# Silenced by name: what each of them says is so by design, or is upstream's to mend.
NOISE = (
    # https://github.com/Lightning-AI/pytorch-lightning/issues/21326
    (".*LeafSpec.*", FutureWarning),
    # LightningCLI calls what jsonargparse 4.49 deprecated: https://github.com/Lightning-AI/pytorch-lightning/issues/21900
    (r"(?s).*(JsonargparseDeprecationWarning|add_instantiator|instantiate_classes|skip_none)", DeprecationWarning),
    # num_workers=0 is the default on purpose: https://github.com/Lightning-AI/pytorch-lightning/issues/10182
    (".*does not have many workers.*", UserWarning),
    # a frozen backbone is in evaluation mode: https://github.com/Lightning-AI/pytorch-lightning/issues/19820
    (".*module\\(s\\) in eval mode at the start of training.*", UserWarning),
    # short epochs are logged at their last step
    (".*smaller than the logging interval.*", UserWarning),
    # every rank has computed the same value over all ranks; averaging it would cost a digit
    (r"(?s).*sync_dist=True.*when logging on epoch level.*", UserWarning),
    # W&B writes into the run folder before the CSVLogger looks into it; a run that is continued has lines there, kept
    (".*directory .* exists and is not empty.*", UserWarning),
)
# A checkpoint is tested in a folder of its own; where training is resumed in one, it is worth knowing.
NOISE_BUT_IN_FIT = ((".*dirpath has changed.*", UserWarning),)


@contextmanager
def quietened(*, training: bool) -> Iterator[None]:
    """Without that noise; what is worth knowing when a training is resumed stays.

    Args:
        training: whether the command trains.
    """
    for name in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)  # no tips, no list of absent accelerators
    logging.getLogger("pytorch_lightning.profilers").setLevel(logging.INFO)  # what trainer.profiler asks for
    with warnings.catch_warnings():
        for message, category in NOISE if training else NOISE + NOISE_BUT_IN_FIT:
            warnings.filterwarnings("ignore", message=message, category=category)
        yield
