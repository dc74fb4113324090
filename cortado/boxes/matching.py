"""Matching: which true box each anchor learns.  Liu et al., 2016, section 2.2."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.boxes.anchors import AnchorGrid
from cortado.boxes.overlap import corners_of, overlap
from cortado.boxes.targets import check_targets

BACKGROUND, IGNORED = 0, -1
LEAST = 1e-6
"""The least overlap at which the best anchor of a box is matched with it."""


@dataclass(frozen=True)
class Matches:
    """What each anchor learns: `labels` (N, places), 0 for background, -1 if it does not count, else 1 + the class; `offsets`
    (N, places, 4) to its box, of use where the label is above 0."""

    labels: Tensor
    offsets: Tensor


def match(grid: AnchorGrid, targets: Tensor, positive: float = 0.5, negative: float = 0.4) -> Matches:
    """Return what each anchor learns from padded boxes (N, boxes, 5).

    An anchor learns the box that it overlaps most, if by `positive`; below `negative` it is background. Each box also has the
    anchor that overlaps it most, however little, unless none does. A picture without boxes is all background.
    """
    targets = check_targets(targets)
    real = targets[..., 4] >= 0
    count = max(1, int(real.sum(1).max())) if len(targets) else 1
    # Boxes first, so that rows without any can be dropped; a stable sort keeps their order.
    order = real.float().argsort(dim=1, descending=True, stable=True)[:, :count]
    targets = targets.gather(1, order[..., None].expand(-1, -1, targets.shape[2]))
    real = targets[..., 4] >= 0
    shares = overlap(corners_of(grid.boxes.to(targets)), targets[..., :4])
    shares = torch.where(real[:, None], shares, -1.0)
    best, which = shares.max(2)
    best, which = own_anchors(shares, best, which)
    chosen = targets.gather(1, which[..., None].expand(-1, -1, targets.shape[2]))
    labels = torch.where(best >= positive, chosen[..., 4].long() + 1, BACKGROUND)
    labels = torch.where((best >= negative) & (best < positive), IGNORED, labels)
    return Matches(labels, grid.encoded(chosen[..., :4]))


def own_anchors(shares: Tensor, best: Tensor, which: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best overlap and box of each anchor once every box has the anchor that overlaps it most."""
    most, anchor = shares.max(1)
    places, count = shares.shape[1:]
    # Boxes that no anchor overlaps, and rows without one, write to a place that is cut off.
    anchor = torch.where(most >= LEAST, anchor, places)
    spare = torch.zeros_like(best[:, :1])
    # Of two boxes with the same anchor the one that it overlaps more is written last.
    order = most.argsort(1)
    anchor = anchor.gather(1, order)
    wide_which = torch.cat([which, spare.long()], 1)
    wide_best = torch.cat([best, spare], 1)
    for rank in range(count):
        wide_which.scatter_(1, anchor[:, rank : rank + 1], order[:, rank : rank + 1])
    wide_best.scatter_(1, anchor, torch.ones_like(most))
    return wide_best[:, :places], wide_which[:, :places]
