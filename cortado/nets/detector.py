"""Detector: a network and all that turns its outputs into boxes, with fixed sizes, so that it can be exported as one."""

from typing import Any

from torch import Tensor, nn

from cortado.boxes.detections import Detections
from cortado.boxes.grid import BoxGrid
from cortado.errors import BadValue

ROUNDS = 16
"""How many better boxes in a chain of overlaps a box can have for an exact answer."""


class Detector(nn.Module):
    """A detector's network, then decoding and non-maximum suppression in plain operators.

    >>> whole = Detector(network, network.grid(240, 320), score=0.4)
    >>> boxes, scores, classes = whole(pictures)

    Returns boxes (N, `most`, 4) as x0, y0, x1, y1 in pixels, scores (N, `most`) and classes (N, `most`), best first. Where a
    picture has fewer boxes with a score above `score`, the remaining rows have score 0 and class -1. Of boxes of one class that
    overlap by more than `overlap` the best stays. `candidates`: of how many boxes with the largest scores. Raises BadValue for
    values outside of their ranges.
    """

    def __init__(
        self,
        network: nn.Module,
        grid: BoxGrid,
        score: float = 0.3,
        overlap: float = 0.45,
        most: int = 100,
        candidates: int = 200,
        rounds: int = ROUNDS,
    ) -> None:
        super().__init__()
        if rounds < 1:
            raise BadValue(f"detector: rounds must be at least 1, got {rounds}.")
        self.network, self.rounds = network, rounds
        self.found = Detections(grid, score, overlap, min(most, candidates), candidates)

    def forward(self, pictures: Any) -> tuple[Tensor, Tensor, Tensor]:
        return self.found.padded(self.network(pictures), self.rounds)
