"""Box loss: what a detector with anchors learns: classes with hard negatives, and offsets of boxes.  Liu et al., 2016."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.nn import functional

from cortado.boxes.anchors import AnchorGrid
from cortado.boxes.grid import split_outputs
from cortado.boxes.matching import BACKGROUND, match
from cortado.errors import BadTask


@dataclass(frozen=True)
class BoxLoss:
    """Cross entropy of classes plus smooth L1 of offsets, both over the number of anchors that have a box.  Liu et al., 2016.

    >>> task = cortado.Task(..., loss=BoxLoss(Anchors().on(240, 320)))

    Of the anchors without a box only the `negatives` hardest per anchor with a box count, at least `fewest` in each picture, so
    that a picture without boxes is learned as well. Targets are padded boxes (N, boxes, 5). Raises BadTask for outputs that do
    not fit the anchors, and for classes that the network does not have.
    """

    grid: AnchorGrid
    negatives: float = 3.0
    fewest: int = 10

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        logits, offsets = split_outputs(outputs, self.grid.places)
        matches = match(self.grid, targets)
        labels, numbers = matches.labels, logits.shape[2]
        if int(labels.max()) >= numbers:
            raise BadTask(
                f"task: classes of boxes must lie in 0..{numbers - 2}, as the detector has {numbers} logits with the background, "
                f"got {int(labels.max()) - 1}. Make the network for more classes, or correct the boxes."
            )
        losses = functional.cross_entropy(logits.mT, labels.clamp(min=0), reduction="none")
        positive = labels > BACKGROUND
        hard = self.hardest(losses, labels)
        count = positive.sum().clamp(min=1)
        apart = functional.smooth_l1_loss(offsets[positive], matches.offsets[positive], reduction="sum")
        return (losses[positive].sum() + losses[hard].sum() + apart) / count

    def hardest(self, losses: Tensor, labels: Tensor) -> Tensor:
        """Return (N, places): which anchors without a box count, those with the largest losses of each picture."""
        none = labels == BACKGROUND
        ranked = losses.detach().masked_fill(~none, -1.0)
        wanted = (self.negatives * (labels > BACKGROUND).sum(1, keepdim=True)).long().clamp(min=self.fewest)
        wanted = wanted.clamp(max=labels.shape[1])
        least = ranked.topk(int(wanted.max()), 1).values.gather(1, wanted - 1)
        return none & (ranked >= least)
