"""Move: mirror, zoom and shift pictures together with all that belongs to them: masks, a teacher's maps."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadTask
from cortado.running.trees import map_tensors, sample_count

LEAST = 0.05
"""The least factor of zoom, and one over the largest."""


@dataclass(frozen=True)
class Move:
    """A `vary` for pictures and maps, of any size, at once.

    >>> move = cortado.Move(zoom=(0.75, 1.5), void=11)
    >>> data = cortado.Data(torch.zeros(4, 3, 60, 80), torch.zeros(4, 60, 80).long(), vary=move)

    Each sample is mirrored with probability 1/2 if `mirror` is set, magnified by a factor between both of `zoom`, and shifted
    by up to `shift` of its width and height; a magnified picture is cut at a random place. Tensors (N, H, W) and
    (N, C, H, W) move, those of fewer axes stay. Floats are interpolated linearly, integers take the nearest pixel. What
    comes from outside of the picture is 0, the mean colour of normalised pictures, and `void` in integers.

    The outputs of a teacher for the picture as it was move with it, so that a teacher is asked once for each sample. Raises
    BadTask for a range of zoom that is none.
    """

    mirror: bool = True
    zoom: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0
    void: int = -100

    def __post_init__(self) -> None:
        pair = self.zoom if isinstance(self.zoom, (tuple, list)) and len(self.zoom) == 2 else (0.0, 0.0)
        numbers = all(isinstance(one, (int, float)) for one in (*pair, self.shift)) and isinstance(self.void, int)
        if not numbers or not LEAST <= pair[0] <= pair[1] <= 1 / LEAST or not 0 <= self.shift <= 1:
            raise BadTask(
                f"task: a Move needs {LEAST:g} <= zoom[0] <= zoom[1] <= {1 / LEAST:g}, a shift of 0 to 1 and a whole number for "
                f"void, got zoom={self.zoom!r}, shift={self.shift!r}, void={self.void!r}. "
                "Write Move(zoom=(0.75, 1.5), shift=0.1, void=11)."
            )

    @property
    def leaves_pictures(self) -> bool:
        """Return whether moved pictures may show what is outside of them."""
        return self.zoom[0] < 1 or self.shift > 0

    def __call__(self, inputs: Any, targets: Any, generator: torch.Generator) -> tuple[Any, Any]:
        """Return inputs and targets (trees of tensors), moved in the same way."""
        maps = self.drawn(sample_count(inputs), generator)
        return self.moved(inputs, maps), self.moved(targets, maps)

    def drawn(self, count: int, generator: torch.Generator) -> Tensor:
        """Return maps (N, 2, 3) from places in a moved picture to places in the picture, both from -1 to 1."""
        draws = torch.rand(4, count, generator=generator)
        low, high = self.zoom
        scale = 1 / (low * (high / low) ** draws[0])
        sign = torch.where(draws[1] < 0.5, -1.0, 1.0) if self.mirror else torch.ones(count)
        # A magnified picture may be cut anywhere; one that was made smaller may lie anywhere on its ground.
        free = (1 - scale).abs() + 2 * self.shift
        maps = torch.zeros(count, 2, 3)
        maps[:, 0, 0], maps[:, 1, 1] = sign * scale, scale
        maps[:, :, 2] = ((2 * draws[2:] - 1) * free).T
        return maps

    def moved(self, values: Any, maps: Tensor) -> Any:
        """Return a tree whose pictures and maps are moved by `maps` (N, 2, 3)."""
        return map_tensors(lambda one: self.moved_tensor(one, maps), values)

    def moved_tensor(self, values: Tensor, maps: Tensor) -> Tensor:
        """Return (N, H, W) or (N, C, H, W), moved; anything else as it is."""
        if values.dim() not in (3, 4) or len(values) != len(maps):
            return values
        pictures = values if values.dim() == 4 else values[:, None]
        size = [len(pictures), 1, *pictures.shape[-2:]]
        grid = functional.affine_grid(maps.to(values.device), size, align_corners=False)
        if values.is_floating_point():
            found = functional.grid_sample(pictures.float(), grid, padding_mode="zeros", align_corners=False)
            return found.to(values.dtype).view_as(values)
        # Zeros come from outside, so void is 0 meanwhile.  Doubles hold whole numbers up to 2^53, floats up to 2^24.
        exact = torch.float32 if values.dtype in (torch.uint8, torch.int8, torch.int16) else torch.float64
        found = functional.grid_sample(
            pictures.to(exact) - self.void, grid.to(exact), "nearest", padding_mode="zeros", align_corners=False
        )
        return (found + self.void).to(values.dtype).view_as(values)
