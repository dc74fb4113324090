"""Detections: the boxes, scores and classes that a detector's outputs stand for."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.boxes.grid import BoxGrid, split_outputs
from cortado.boxes.suppression import stays_of
from cortado.errors import BadValue


@dataclass(frozen=True)
class Detections:
    """From a detector's outputs to its boxes: scores above `least`, and of boxes of one class that overlap by more than
    `overlap` the best, at most `most` per picture, of the `candidates` with the largest scores.

    >>> found = Detections(Anchors().on(240, 320))(network(pictures))

    Raises BadValue for shares outside of 0..1 and numbers below 1.
    """

    grid: BoxGrid
    least: float = 0.01
    overlap: float = 0.45
    most: int = 100
    candidates: int = 600

    def __post_init__(self) -> None:
        if not 0 <= self.least <= 1 or not 0 <= self.overlap <= 1 or self.most < 1 or self.candidates < 1:
            raise BadValue(
                f"detections: least and overlap must lie in 0..1, most and candidates be at least 1, got {self.least}, "
                f"{self.overlap}, {self.most}, {self.candidates}. Write Detections(grid, least=0.01, overlap=0.45, most=100)."
            )

    def __call__(self, outputs: Any) -> list[dict[str, Tensor]]:
        """Return "boxes" (n, 4), "scores" (n,) and "labels" (n,) of each picture, best first.  Raises BadTask."""
        boxes, scores, labels = self.padded(outputs, None)
        counts = (scores > self.least).sum(1).tolist()
        return [
            {"boxes": boxes[row, :count], "scores": scores[row, :count], "labels": labels[row, :count]}
            for row, count in enumerate(counts)
        ]

    def padded(self, outputs: Any, rounds: int | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return boxes (N, most, 4), scores (N, most) and classes (N, most), best first; rows without a box have score 0 and
        class -1.  `rounds` as in `stays_of`.
        """
        logits, offsets = split_outputs(outputs, self.grid.places)
        scores = self.grid.class_scores(logits)
        classes = scores.shape[2]
        count = min(self.candidates, scores.shape[1] * classes)
        best, at = scores.flatten(1).topk(count, 1)
        if rounds is None:
            count = max(1, int((best > self.least).sum(1).amax())) if len(best) else 1
            best, at = best[:, :count], at[:, :count]
        place, label = at.div(classes, rounding_mode="floor"), at.remainder(classes)
        boxes = self.grid.decoded(offsets).gather(1, place[..., None].expand(-1, -1, 4))
        # Boxes of each class are moved far from those of all others, so that none overlaps one of another class.
        apart = label[..., None] * (boxes.detach().abs().amax((1, 2), keepdim=True) * 2 + 1)
        stays = stays_of(boxes + apart, self.overlap, rounds) & (best > self.least)
        final = torch.where(stays, best, 0.0)
        final, order = final.topk(min(self.most, count), 1)
        kept = final > self.least
        boxes = boxes.gather(1, order[..., None].expand(-1, -1, 4))
        return torch.where(kept[..., None], boxes, 0.0), final, torch.where(kept, label.gather(1, order), -1)
