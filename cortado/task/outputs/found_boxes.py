"""FoundBoxes: outputs are boxes, scores and classes, as a `Detector` returns them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.outputs.detected import f1_of
from cortado.task.outputs.gaussian import half_square, square_slope
from cortado.task.outputs.outputs import Outputs, Rows


@dataclass(frozen=True)
class FoundBoxes(Outputs):
    """Boxes (N, most, 4), scores (N, most) and classes (N, most), best first, -1 in rows without a box.

    >>> task = cortado.Task(..., outputs=FoundBoxes(least=0.4))

    The scores stand for Gaussians of variance 1, the first with the first. Two networks agree on a picture by the F1 of their
    boxes with scores of `least` and more, as in `Detected`.
    """

    least: float = 0.4

    def rows(self, outputs: Any) -> Rows:
        boxes, scores, classes = found_parts(outputs)
        return torch.cat([boxes.float(), scores[..., None].float(), classes[..., None].float()], -1)

    def divergence(self, wanted: Rows, found: Rows, temperature: float = 1.0) -> Tensor:
        return half_square(wanted[..., 4:5], found[..., 4:5], 1.0)

    def slope(self, rows: Rows, temperature: float, generator: torch.Generator) -> Tensor:
        return square_slope(rows[..., 4:5], 1.0, generator)

    def agreement(self, wanted: Rows, found: Rows) -> Tensor | None:
        pairs = [
            [{"boxes": one[:, :4], "scores": one[:, 4], "labels": one[:, 5]} for one in pair]
            for pair in zip(wanted, found, strict=True)
        ]
        return torch.tensor([f1_of(one, other, self.least) for one, other in pairs], dtype=torch.float64)


def found_parts(outputs: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Return boxes, scores and classes of a detector that ends in boxes.  Raises BadTask for other outputs."""
    parts = tuple(outputs) if isinstance(outputs, (tuple, list)) else ()
    shapes = [tuple(one.shape) if isinstance(one, Tensor) else () for one in parts]
    if (
        len(shapes) != 3
        or len(shapes[0]) != 3
        or shapes[0][2] != 4
        or shapes[1] != shapes[2]
        or shapes[0][:2] != shapes[1]
    ):
        raise BadTask(
            "task: the outputs must be boxes (N, most, 4), scores (N, most) and classes (N, most), got "
            f"{shapes or type(outputs).__name__}. Wrap the network as Detector(network, grid)."
        )
    return parts[0], parts[1], parts[2]


def found_detections(outputs: Any) -> list[dict[str, Tensor]]:
    """Return "boxes", "scores" and "labels" of each picture, for `mean_average_precision`, from a `Detector`'s outputs."""
    made = []
    for boxes, scores, classes in zip(*found_parts(outputs), strict=True):
        real = classes >= 0
        made.append({"boxes": boxes[real], "scores": scores[real], "labels": classes[real].long()})
    return made
