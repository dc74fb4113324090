"""Points: places of a detector's maps that answer with the distances to the four sides of a box.  Tian et al., 2019."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from cortado.boxes.overlap import area
from cortado.boxes.targets import check_targets
from cortado.errors import BadValue

Shapes = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class PointGrid:
    """One box for each place of each map: its distances to the left, upper, right and lower side, in strides.

    >>> grid = PointGrid.on((8, 16, 32), 240, 320)

    `points` (places, 3) are x and y of each place in pixels, and its stride. Logits are of classes alone, each with a sigmoid of
    its own. Raises BadValue for another number of maps than strides.
    """

    strides: tuple[int, ...]
    shapes: Shapes
    points: Tensor = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if len(self.strides) != len(self.shapes) or not self.strides or min(self.strides) < 1:
            raise BadValue(
                f"points: each map needs a stride of at least 1, got strides {self.strides} and maps {self.shapes}. "
                "Write PointGrid.on((8, 16, 32), height, width)."
            )
        # Made at once, because a tensor that is first made while a network is traced is none afterwards.
        made = [level_points(stride, shape) for stride, shape in zip(self.strides, self.shapes, strict=True)]
        object.__setattr__(self, "points", torch.cat(made))

    @classmethod
    def on(cls, strides: Sequence[int], height: int, width: int) -> "PointGrid":
        """Return the points for pictures of a size, whose maps have a place for each stride, also for one begun."""
        return cls(tuple(strides), tuple((-(-height // one), -(-width // one)) for one in strides))

    @property
    def places(self) -> int:
        return sum(height * width for height, width in self.shapes)

    def class_scores(self, logits: Tensor) -> Tensor:
        """Return (N, places, classes): the sigmoids."""
        return logits.sigmoid()

    def softmaxes(self, logits: Tensor) -> Tensor:
        """Return (N, places, classes, 2): logits of no and yes for each class."""
        return torch.stack([torch.zeros_like(logits), logits], -1)

    def decoded(self, distances: Tensor) -> Tensor:
        """Return corners (..., places, 4) in pixels."""
        points = self.points.to(distances)
        sides = distances * points[:, 2:]
        return torch.cat([points[:, :2] - sides[..., :2], points[:, :2] + sides[..., 2:]], -1)

    def matched(self, targets: Tensor, radius: float = 1.5) -> tuple[Tensor, Tensor]:
        """Return for each place the class that it learns (N, places), -1 for none, and the corners of its box (N, places, 4).

        A place learns a box if it is inside of it and at most `radius` strides from its centre, on the level whose stride fits
        the box best; of several boxes the smallest one.
        """
        targets = check_targets(targets)
        corners, sides = targets[:, None, :, :4], area(targets[..., :4]).clamp(min=1).sqrt()
        at = self.points.to(targets)[:, None]
        inside = torch.cat([at[..., :2] - corners[..., :2], corners[..., 2:] - at[..., :2]], -1).amin(-1) > 0
        far = (at[..., :2] - (corners[..., :2] + corners[..., 2:]) / 2).abs().amax(-1)
        # A box belongs to the level on which it is about five places wide.
        levels = torch.tensor(self.strides).to(targets)
        level = levels[(sides[..., None] / (5 * levels)).log().abs().argmin(-1)][:, None]
        real = (targets[:, None, :, 4] >= 0) & inside & (far <= radius * at[..., 2]) & (level == at[..., 2])
        size = torch.where(real, sides[:, None], torch.inf)
        least, which = size.min(2)
        chosen = targets.gather(1, which[..., None].expand(-1, -1, targets.shape[2]))
        return torch.where(least.isfinite(), chosen[..., 4].long(), -1), chosen[..., :4]


def level_points(stride: int, shape: tuple[int, int]) -> Tensor:
    """Return (height * width, 3): the middle of each place of a map, row by row, and its stride."""
    rows, columns = torch.meshgrid(*[torch.arange(size, device="cpu") for size in shape], indexing="ij")
    centres = (torch.stack([columns, rows], -1).reshape(-1, 2) + 0.5) * stride
    return torch.cat([centres, torch.full((len(centres), 1), float(stride), device="cpu")], 1)
