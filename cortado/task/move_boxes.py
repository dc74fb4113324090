"""MoveBoxes: mirror, zoom, stretch and shift pictures together with the boxes in them."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.boxes.overlap import area
from cortado.boxes.targets import NO_CLASS, check_targets
from cortado.errors import BadTask

FACTORS = (0.05, 20.0)
"""The least and the largest factor of zoom."""


@dataclass(frozen=True)
class MoveBoxes:
    """A `vary` for pictures (N, C, H, W) with padded boxes (N, boxes, 5).

    >>> data = cortado.Data(pictures, boxes, vary=MoveBoxes(zoom=(1.0, 1.6)))

    Each picture is mirrored with probability 1/2 if `mirror` is set, turned upside down if `flip` is set, magnified by a factor
    between both of `zoom` and stretched to a side by up to `stretch`, and cut at a random place. Boxes move along and are
    clipped; one of which less than the share `visible` is left is dropped. What comes from outside of the picture is `ground`.
    Raises BadTask for ranges that are none, and for targets that are no padded boxes.
    """

    mirror: bool = True
    flip: bool = False
    zoom: tuple[float, float] = (1.0, 1.5)
    stretch: float = 0.15
    visible: float = 0.4
    ground: float = 0.0

    def __post_init__(self) -> None:
        pair = self.zoom if isinstance(self.zoom, (tuple, list)) and len(self.zoom) == 2 else (0.0, 0.0)
        if (
            not FACTORS[0] <= pair[0] <= pair[1] <= FACTORS[1]
            or not 0 <= self.stretch < 1
            or not 0 <= self.visible <= 1
        ):
            raise BadTask(
                f"task: MoveBoxes needs {FACTORS[0]:g} <= zoom[0] <= zoom[1] <= {FACTORS[1]:g}, 0 <= stretch < 1 and visible in "
                f"0..1, got zoom={self.zoom!r}, stretch={self.stretch!r}, visible={self.visible!r}. "
                "Write MoveBoxes(zoom=(1.0, 1.5), stretch=0.15)."
            )

    def __call__(self, inputs: Tensor, targets: Tensor, generator: torch.Generator) -> tuple[Any, Any]:
        """Return pictures and boxes, moved in the same way."""
        targets = check_targets(targets)
        if not isinstance(inputs, Tensor) or inputs.dim() != 4 or len(inputs) != len(targets):
            raise BadTask(
                f"task: MoveBoxes moves pictures (N, C, H, W) with one row of boxes for each, got {type(inputs).__name__} "
                f"{tuple(getattr(inputs, 'shape', ()))} and boxes {tuple(targets.shape)}. Pass a tensor of pictures."
            )
        scale, centre = self.drawn(len(inputs), generator)
        return self.pictures(inputs, scale, centre), self.boxes(targets, scale, centre, inputs.shape[-2:])

    def drawn(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return (N, 2) and (N, 2): for x and y, the part of the picture that is seen, negative if it is turned, and its centre.

        Places in the picture are -1 to 1; `centre + scale * place` is the place of a moved picture's `place`.
        """
        draws = torch.rand(6, count, generator=generator)
        low, high = self.zoom
        factor = low * (high / low) ** draws[0]
        side = ((1 + self.stretch) / (1 - self.stretch)) ** (draws[1] - 0.5)
        seen = torch.stack([1 / (factor * side), side / factor], 1)
        turned = [draws[2] < 0.5 if self.mirror else draws[2] < 0, draws[3] < 0.5 if self.flip else draws[3] < 0]
        sign = torch.where(torch.stack(turned, 1), -1.0, 1.0)
        # A magnified picture may be cut anywhere; one that was made smaller may lie anywhere on its ground.
        centre = (2 * draws[4:].T - 1) * (1 - seen).abs()
        return seen * sign, centre

    def pictures(self, inputs: Tensor, scale: Tensor, centre: Tensor) -> Tensor:
        """Return moved pictures, interpolated linearly."""
        height, width = inputs.shape[-2:]
        ends = [((2 * torch.arange(size) + 1) / size - 1) for size in (width, height)]
        across, down = (
            (one * scale[:, axis, None] + centre[:, axis, None]).to(inputs) for axis, one in enumerate(ends)
        )
        grid = torch.stack(torch.broadcast_tensors(across[:, None], down[:, :, None]), -1)
        moved = functional.grid_sample(inputs - self.ground, grid, padding_mode="zeros", align_corners=False)
        return moved.add_(self.ground)

    def boxes(self, targets: Tensor, scale: Tensor, centre: Tensor, size: torch.Size) -> Tensor:
        """Return moved boxes, clipped; those that are hardly visible have class -1."""
        half = torch.tensor([size[1], size[0]], dtype=targets.dtype, device=targets.device) / 2
        scale, centre = (one.to(targets)[:, None] for one in (scale, centre))
        ends = [((targets[..., two : two + 2] / half - 1 - centre) / scale + 1) * half for two in (0, 2)]
        whole = torch.cat([torch.minimum(*ends), torch.maximum(*ends)], -1)
        clipped = torch.minimum(whole.clamp(min=0), torch.cat([half, half]) * 2)
        share = area(clipped) / area(whole).clamp(min=1e-30)
        label = torch.where(share > self.visible, targets[..., 4], float(NO_CLASS))
        return torch.cat([clipped * (label >= 0)[..., None], label[..., None]], -1)
