"""Detected: outputs are the logits and offsets of a detector."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.boxes.detections import Detections
from cortado.boxes.grid import split_outputs
from cortado.boxes.overlap import overlap
from cortado.task.outputs.outputs import Outputs, Rows, signs_like

SAME = 0.5
"""Least intersection over union of two boxes that count as one."""


@dataclass(frozen=True)
class Detected(Outputs):
    """Logits (N, places, numbers) and offsets (N, places, 4), as `Ssd` and `Yolo` return them.

    >>> from cortado.boxes.anchors import Anchors
    >>> from cortado.boxes.detections import Detections
    >>> outputs = cortado.Detected(Detections(Anchors().on(240, 320)))

    The divergence is KL of classes plus that of Gaussians of variance 1 around the offsets. Almost all places are background, so
    each place weighs as much as the original network sees an object there, and at least `ground`; the offsets of background do
    not count. Two networks agree on a picture by the F1 of their boxes with scores of `least` and more: a box is
    right if it has a free partner of its class that it overlaps by 0.5.
    """

    found: Detections
    least: float = 0.4
    ground: float = 0.01

    def rows(self, outputs: Any) -> Rows:
        logits, offsets = split_outputs(outputs, self.found.grid.places)
        return logits.float(), offsets.float()

    def weights(self, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return (N, places): how much each place's logits and offsets weigh; both sum to 1 for each picture."""
        objects = self.found.grid.class_scores(logits.detach()).sum(-1).clamp(max=1)
        classes = objects.clamp(min=self.ground)
        return tuple(one / one.sum(1, keepdim=True).clamp(min=1e-30) for one in (classes, objects))  # type: ignore[return-value]

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        classes, offsets = self.apart(wanted, found, temperature)
        return classes + offsets

    def distilled(self, wanted: Rows, found: Rows, temperature: float) -> Tensor:
        classes, offsets = self.apart(wanted, found, temperature)
        return classes * temperature**2 + offsets

    def apart(self, wanted: Rows, found: Rows, temperature: float) -> tuple[Tensor, Tensor]:
        """Return (N,) and (N,): the divergence of classes at a temperature, and that of offsets."""
        grid = self.found.grid
        original, other = ((grid.softmaxes(one[0]) / temperature).log_softmax(-1) for one in (wanted, found))
        classes, places = self.weights(wanted[0])
        kl = (original.exp() * (original - other)).sum((-2, -1))
        square = 0.5 * (found[1] - wanted[1]).square().mean(-1)
        return (classes * kl).sum(1), (places * square).sum(1)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        logits, offsets = rows
        classes, places = self.weights(logits)
        decisions = self.found.grid.softmaxes(logits)
        xi, p = signs_like(decisions, generator), (decisions.detach() / temperature).softmax(-1)
        root = p.sqrt()
        along = (decisions * (root * xi - p * (root * xi).sum(-1, keepdim=True))).sum((-2, -1)) / temperature
        beside = (offsets * signs_like(offsets, generator)).sum(-1) / offsets.shape[-1] ** 0.5
        return (classes.sqrt() * along).sum() + (places.sqrt() * beside).sum()

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        pairs = zip(self.found(wanted), self.found(found), strict=True)
        return torch.tensor([f1_of(one, other, self.least) for one, other in pairs], dtype=torch.float64)

    @property
    def softens(self) -> bool:
        return True


def f1_of(wanted: dict[str, Tensor], found: dict[str, Tensor], least: float) -> float:
    """Return 2 x pairs / (boxes of both) of the boxes of two networks in one picture; 1 where both have none."""
    first, second = (one["scores"] >= least for one in (wanted, found))
    count = int(first.sum()) + int(second.sum())
    if not count:
        return 1.0
    shares = overlap(found["boxes"][second], wanted["boxes"][first])
    same = found["labels"][second][:, None] == wanted["labels"][first][None]
    shares, pairs = torch.where(same, shares, -1.0), 0
    # Boxes are sorted, best first, and each takes the free partner that it overlaps most.
    for row in range(len(shares) if shares.shape[1] else 0):
        share, best = shares[row].max(0)
        if float(share) >= SAME:
            shares[:, best], pairs = -1.0, pairs + 1
    return 2 * pairs / count
