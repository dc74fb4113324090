"""Trellis: codes on two grids, where the parities of the codes before say which of them a code is on."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice
from cortado.parts.forms.quantized import (
    CHANNEL,
    LAYOUTS,
    TENSOR,
    Quantized,
    layout_name,
    level_count,
    scales_of,
    smallest_integers,
)
from cortado.parts.forms.states import LAWS, Course, codes_of, grids_of, levels_of
from cortado.parts.part import FLOATS, INTEGERS, Arrays

MOST = 1 << 30
"""Largest code."""


class Trellis(Form):
    """Dependent quantization (Schwarz et al., 2019; ISO/IEC 15938-17): weight = level x scale.

    Grid 0 has the even levels, grid 1 the odd ones and zero. A machine of `states` states, which the parity of each code
    drives, says on which grid the next code is; it starts again every `segment` codes, in row-major order. So all levels
    together are twice as dense as those a single code chooses from. A reader of the weight sees an even grid. One scale per
    tensor or per channel (index along axis 0), a Parameter: fine-tuning changes it and keeps the codes.
    """

    facts = ("states", "segment", "layout")
    arrays = {"codes": INTEGERS, "scale": FLOATS}
    units = ("scale",)
    levels: Tensor

    def __init__(
        self, codes: Tensor, scale: Tensor, states: int = 8, segment: int = 1024, layout: str = "tensor"
    ) -> None:
        """`codes`: integers, shape of the weight; `scale`: (1,) or (channels,).  Raises BadValue."""
        super().__init__()
        self.shape, self.states, self.segment, self.layout = codes.shape, states, segment, layout
        needed = type(self).sizes(codes.shape, self.spec())["scale"]
        if scale.numel() != needed:
            raise BadValue(
                f"forms/trellis: layout {layout} of {tuple(codes.shape)} needs {needed} scales, got {scale.numel()}."
            )
        if codes.numel() and int(codes.abs().max()) > MOST:
            raise BadValue(
                f"forms/trellis: codes must lie in -{MOST}..{MOST}, got {int(codes.abs().max())}. Use a larger scale."
            )
        self.scale = nn.Parameter(scale.detach().clone().flatten())
        self.register_buffer("levels", smallest_integers(levels_of(codes, LAWS[states], segment)))

    def codes(self) -> Tensor:
        """Return the code of each entry on its grid (int32, shape of the weight)."""
        return codes_of(self.levels)

    def grids(self) -> Tensor:
        """Return the grid of each entry, 0 or 1 (uint8, shape of the weight)."""
        return grids_of(self.codes(), LAWS[self.states], self.segment)

    def lattice(self) -> Lattice:
        return Lattice(self.levels, self.scale, None, self.layout)

    def dense(self) -> Tensor:
        return self.lattice().dense()

    def even(self) -> Quantized:
        """Return the same values on an even grid, each level a code of its own."""
        return Quantized(self.levels, self.scale, None, self.layout)

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        if axis != 0 or self.segment != max(1, self.shape[1:].numel()):
            # The codes after a missing one would lie on other grids.
            return self.even().narrow(axis, keep)
        scale = self.scale.detach()
        return Trellis(
            self.codes().index_select(0, keep), scale if self.layout == "tensor" else scale[keep], self.states, self.segment,
            self.layout,
        )  # fmt: skip

    def select(self, mask: Tensor) -> Form:
        # Only what is zero anyway can go without moving the codes after it to other grids.
        return self if bool((mask | (self.levels == 0)).all()) else self.even().select(mask)

    def bits(self) -> float:
        largest = int(self.codes().abs().max()) if self.shape.numel() else 0
        scales = self.scale.numel() * self.scale.element_size() * 8
        return self.shape.numel() * max(1, (2 * largest).bit_length()) + scales

    def course(self) -> Course:
        return Course(self.states, self.segment)

    def symbols(self) -> tuple[Tensor, int]:
        return self.levels.int(), self.scale.numel() * self.scale.element_size() * 8

    def code_bits(self) -> int | None:
        return max(1, (level_count(self.levels) - 1).bit_length()) if self.shape.numel() else None

    def spec(self) -> dict[str, int]:
        return {"states": self.states, "segment": self.segment, "layout": LAYOUTS.get(self.layout, -1)}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if spec["states"] not in LAWS or spec["segment"] < 1 or spec["layout"] not in (TENSOR, CHANNEL):
            raise BadValue(
                f"forms/trellis: states must be one of {', '.join(map(str, LAWS))}, the segment at least 1 and the layout "
                f"tensor or channel, got {spec}."
            )
        return {"scale": scales_of(shape, layout_name(spec), 0)}

    def parts(self) -> Arrays:
        return {"codes": self.codes(), "scale": self.scale.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Trellis":
        return cls(parts["codes"].reshape(shape), parts["scale"], spec["states"], spec["segment"], layout_name(spec))

    def scale_rows(self, factors: Tensor) -> bool:
        if self.layout == "tensor":
            return False
        with torch.no_grad():
            self.scale.mul_(factors)
        return True
