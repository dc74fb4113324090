"""Noisy loss: labels of which a known share is wrong."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.outputs.outputs import first_floats_of

NO_CLASS = -100


@dataclass(frozen=True)
class NoisyLabels:
    """The cross entropy with labels of which a share is wrong, evenly over the other classes.

    >>> Source(boxes_as_masks, NoisyLabels(wrong=0.2, trim=0.2), weight=0.5)

    The network's probabilities become those of the labels that one would see: 1 - `wrong` of a class's own, and `wrong`
    spread over the others (forward correction; Patrini et al., 2017). The largest `trim` of the batch's losses do not
    count, as what fits worst is wrong most often. Outputs are logits (N, classes, ...), targets (N, ...), with `ignored`
    where there is none.
    """

    wrong: float = 0.2
    trim: float = 0.0
    ignored: int = NO_CLASS

    def __post_init__(self) -> None:
        if not 0 <= self.wrong < 1 or not 0 <= self.trim < 1:
            raise BadTask(
                f"task: NoisyLabels needs shares of 0 to below 1, got wrong={self.wrong} and trim={self.trim}. "
                "Write NoisyLabels(wrong=0.2)."
            )

    def __call__(self, outputs: object, targets: Tensor) -> Tensor:
        """Return the mean over the places that count.  Raises BadTask for labels without an output."""
        logits = first_floats_of(outputs)
        known = targets != self.ignored
        if not bool(known.any()):
            return 0 * logits.sum()
        rows, labels = logits.movedim(1, -1)[known].float(), targets[known]
        classes = rows.shape[1]
        if not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise BadTask(
                f"task: labels must lie in 0..{classes - 1}, got {int(labels.min())}..{int(labels.max())}. "
                f"Correct them, or write NoisyLabels(ignored={int(labels.max())}) for a label that is no class."
            )
        right = rows.softmax(1).gather(1, labels[:, None])[:, 0]
        seen = (1 - self.wrong) * right + self.wrong / max(1, classes - 1) * (1 - right)
        losses = -seen.clamp_min(torch.finfo(seen.dtype).tiny).log()
        kept = max(1, round((1 - self.trim) * len(losses)))
        return losses.sort().values[:kept].mean() if self.trim else losses.mean()
