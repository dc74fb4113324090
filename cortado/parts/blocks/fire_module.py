"""FireModule: stands in a convolution's place: a 1 x 1 squeeze, then 1 x 1 and larger kernels side by side."""

from typing import Any, Self

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.blocks.block import Block
from cortado.parts.blocks.picked import Picked
from cortado.parts.blocks.window import WINDOW, Window, has_middle, point_window, window_of, windowed
from cortado.parts.part import Arrays

POINT: Window = dict.fromkeys(WINDOW, 1) | {"pad_high": 0, "pad_wide": 0}


class FireModule(Block):
    """A fire module of SqueezeNet (Iandola et al., 2016): `squeezed` channels, of which `points` outputs read one place.

    The other outputs read the whole kernel. `rectified`: a ReLU follows the squeeze. `returns`: outputs are put in another
    order. What followed the convolution follows the block.
    """

    facts = ("inputs", "squeezed", "points", "others", "biased", "rectified", "returns", *WINDOW)

    def __init__(
        self, inputs: int, squeezed: int, points: int, others: int, window: Window,
        biased: bool, rectified: bool, returns: bool,
    ) -> None:  # fmt: skip
        """Raises BadValue for sizes of no convolution, and for a kernel without a middle."""
        super().__init__()
        if min(points, others) < 0 or not has_middle(window):
            raise BadValue(
                f"blocks/fire_module: it needs kernels with a middle, got {window}, {points} and {others} outputs."
            )
        self.rectified = rectified
        self.squeeze = windowed(POINT, inputs, squeezed, rectified)
        self.point = windowed(point_window(window), squeezed, points, biased) if points else None
        self.expand = windowed(window, squeezed, others, biased) if others or not points else None
        self.after = Picked(points + others) if returns else None

    def spec(self) -> dict[str, int]:
        point, expand = self.point, self.expand
        one = expand if expand is not None else point
        assert one is not None
        counts = {"points": point, "others": expand}
        sizes = {"inputs": self.squeeze.in_channels, "squeezed": self.squeeze.out_channels}
        sizes |= {name: 0 if layer is None else layer.out_channels for name, layer in counts.items()}
        has = {"biased": one.bias is not None, "rectified": self.rectified, "returns": self.after is not None}
        return {**sizes, **{name: int(there) for name, there in has.items()}, **window_of(expand or point)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> Self:
        window = {name: spec[name] for name in WINDOW}
        has = (bool(spec[name]) for name in ("biased", "rectified", "returns"))
        inputs, squeezed, points, others = (spec[name] for name in ("inputs", "squeezed", "points", "others"))
        return cls(inputs, squeezed, points, others, window, *has)

    def forward(self, values: Tensor, *others: Any, **named: Any) -> Tensor:
        """Return (N, points + others, H', W') from values (N, inputs, H, W)."""
        squeezed = self.squeeze(values)
        if self.rectified:
            squeezed = torch.relu(squeezed)
        sides = [layer(squeezed) for layer in (self.point, self.expand) if layer is not None]
        made = torch.cat(sides, 1) if len(sides) > 1 else sides[0]
        return made if self.after is None else self.after(made)
