"""Non-maximum suppression: of boxes that overlap, only the best one stays."""

import torch
from torch import Tensor

from cortado.boxes.overlap import overlap
from cortado.errors import BadValue


def suppressed(boxes: Tensor, scores: Tensor, least: float = 0.45) -> Tensor:
    """Return the indices (kept,) of the boxes that stay, best first.

    `boxes` (n, 4) are corners, `scores` (n,). A box is dropped if a better one that stays overlaps it by more than `least`.
    Of equal scores the first one is better. Raises BadValue for other shapes.
    """
    if boxes.dim() != 2 or boxes.shape[1] != 4 or scores.shape != boxes.shape[:1]:
        raise BadValue(
            f"suppressed: boxes must be (n, 4) and scores (n,), got {tuple(boxes.shape)} and {tuple(scores.shape)}. "
            "Pass the boxes of one picture."
        )
    order = scores.argsort(descending=True, stable=True)
    stays = stays_of(boxes[order], least)
    return order[stays]


def stays_of(boxes: Tensor, least: float, rounds: int | None = None) -> Tensor:
    """Return (..., n) bool: which boxes (..., n, 4) stay; they are sorted, best first.

    Each round drops what the boxes that stayed in the round before overlap. After r rounds the answer is right for every box
    with at most r better ones in a chain of overlaps above it, and once a round changes nothing it is right for all (cluster
    NMS; Zheng et al., 2020). `rounds`: how many, so that no operator depends on the values; None: until nothing changes.
    """
    count = boxes.shape[-2]
    better = torch.ones(count, count, dtype=torch.bool, device=boxes.device).triu(1)
    over = (overlap(boxes, boxes) > least) & better
    stays = torch.ones_like(boxes[..., 0], dtype=torch.bool)
    for _ in range(count if rounds is None else rounds):
        after = ~(over & stays[..., :, None]).any(-2)
        if rounds is None and torch.equal(after, stays):
            break
        stays = after
    return stays
