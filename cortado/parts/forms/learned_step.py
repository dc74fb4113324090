"""LearnedStep: a latent weight on an even grid with a learned step."""

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent, straight
from cortado.parts.forms.quantized import LAYOUTS, Quantized, layout_name, scales_of
from cortado.parts.part import FLOATS, Arrays

SMALLEST = 1e-6
MOST_BITS = 16


class LearnedStep(Latent):
    """Rounds to the nearest of 2**bits multiples of a step around zero: LSQ (Esser et al., 2020).

    One step per tensor or per output channel. With `bits` 0 the levels are unbounded and the step's gradient is used
    as is; otherwise it is scaled down by the number of weights and levels, as in the paper. Forms may share a step.
    """

    facts = ("layout", "bits")
    arrays = {"values": FLOATS, "step": FLOATS}

    def __init__(self, values: Tensor, step: float | Tensor | nn.Parameter, bits: int = 0) -> None:
        """`step`: one number, or one per index of axis 0; a Parameter is shared.  Raises BadValue."""
        super().__init__(values)
        made = torch.as_tensor(step, dtype=values.dtype, device=values.device)
        if (
            bits == 1
            or not 0 <= bits <= MOST_BITS
            or made.numel() not in (1, scales_of(values.shape, "tensor", 0), *values.shape[:1])
        ):
            raise BadValue(
                f"forms/learned_step: bits must be 0 (unbounded) or 2..{MOST_BITS}, with one step or one per channel; "
                f"got {bits} and {made.numel()} steps for {tuple(values.shape)}."
            )
        self.width = bits
        self.layout = "tensor" if made.numel() == 1 else "channel"
        self.step = step if isinstance(step, nn.Parameter) else nn.Parameter(made.detach().clone().reshape(-1))

    @classmethod
    def of(cls, values: Tensor, bits: int, layout: str = "tensor") -> "LearnedStep":
        """Return a form with the step, or steps, that round `values` with the least squared error."""
        found = Quantized.of(values.detach(), bits, layout, clip="mse").scale.detach()
        return cls(values, found.clamp(min=SMALLEST), bits)

    @property
    def size(self) -> Tensor:
        """Return the steps, kept above zero, shaped to broadcast with the values."""
        size = self.step.abs().clamp(min=SMALLEST)
        return size if self.layout == "tensor" else size.view(-1, *[1] * (len(self.shape) - 1))

    @property
    def ends(self) -> tuple[int, int]:
        """Return the lowest and the highest level.  Raises BadValue where the levels are unbounded."""
        if not self.width:
            raise BadValue("forms/learned_step: with bits 0 the levels are unbounded.")
        top = 2 ** (self.width - 1) - 1
        # From 8 bits on the grid is symmetric: runtimes store codes of -127 to 127.
        return (-top - 1 if self.width < 8 else -top), top

    def rounded(self) -> Tensor:
        size = self.size
        if not self.width:
            level = self.values / size
            return straight(level.round(), level) * size
        low, high = self.ends
        share = 1.0 / (max(1.0, self.values.numel() / max(1, self.step.numel())) * high) ** 0.5
        size = straight(size, size * share)
        level = (self.values / size).clamp(low, high)
        return straight(level.round(), level) * size

    def float_levels(self) -> Tensor:
        return self.values / self.size

    def levels(self) -> Tensor:
        """Return the integer levels of the values, as floats."""
        level = (self.values.detach() / self.size.detach()).round()
        return level.clamp(*self.ends) if self.width else level

    def attached(self) -> Form:
        return Quantized(self.levels(), self.step.detach().abs().clamp(min=SMALLEST), layout=self.layout)

    def narrow(self, axis: int, keep: Tensor) -> Form:
        step = self.step.detach()[keep] if self.layout == "channel" and axis == 0 else self.step
        made = LearnedStep(self.values.detach().index_select(axis, keep), step, self.width)
        made.layout = self.layout
        return made

    def spec(self) -> dict[str, int]:
        return {"layout": LAYOUTS[self.layout], "bits": self.width}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if spec["layout"] not in (LAYOUTS["tensor"], LAYOUTS["channel"]) or not 0 <= spec["bits"] <= MOST_BITS:
            raise BadValue(f"forms/learned_step: unknown layout or width in {spec}.")
        return {"step": scales_of(shape, layout_name(spec), 0)}

    def parts(self) -> Arrays:
        return {"values": self.values.detach(), "step": self.step.detach().reshape(-1)}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "LearnedStep":
        made = cls(parts["values"].reshape(shape), parts["step"], spec["bits"])
        made.layout = layout_name(spec)
        return made
