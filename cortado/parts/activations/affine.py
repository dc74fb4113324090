"""Affine: activations on an even grid of 2**bits levels, (code - zero) x scale, with one scale per tensor."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.activations.quantizer import ActivationQuantizer
from cortado.parts.part import FLOATS, INTEGERS, Arrays

LARGEST_BITS = 16


def on_grid(values: Tensor, step: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the nearest multiples of `step` from `low` to `high` steps, in float32 at least."""
    return (values.to(exact(values)) / step).round_().clamp_(low, high).mul_(step).to(values.dtype)


def exact(values: Tensor) -> torch.dtype:
    """Return the dtype in which the grid for these values is computed."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32


class Learned(torch.autograd.Function):
    """`on_grid` with LSQ's gradients written out: activations are large, and autograd would store five copies."""

    @staticmethod
    def forward(  # type: ignore[override]
        context: Any, values: Tensor, step: Tensor, low: Tensor, high: Tensor, share: float
    ) -> Tensor:
        context.save_for_backward(values, step, low, high)
        context.share = share
        return on_grid(values, step, low, high)

    @staticmethod
    def backward(context: Any, slope: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        values, step, low, high = context.saved_tensors
        inside = (values > low * step) & (values < high * step)
        # Inside the range the step's gradient is the rounding error in steps; outside, the level at the end.
        moved = None
        if context.needs_input_grad[1]:
            # In float32 from the start: bfloat16's rounding error is as large as that of an 8-bit grid.
            given = values.to(exact(values))
            made = on_grid(given, step, low, high)
            rest = torch.where(inside, made - given, made)
            moved = (slope.to(rest) * rest).sum().reshape(1) / step * context.share
        return slope * inside, moved, None, None, None


class Affine(ActivationQuantizer):
    """Codes 0 .. 2**bits - 1; zero itself is on the grid (Jacob et al., 2018).

    `zero` is 0 for non-negative activations and mid-range for symmetric ones. The scale is learned as in LSQ (Esser
    et al., 2020): the gradient passes inside the range, and the scale receives gradients from both rounded and
    clipped values.
    """

    facts = ("bits",)
    arrays = {"scale": FLOATS, "zero": INTEGERS}
    zero: Tensor

    def __init__(self, scale: float | Tensor, zero: int, bits: int) -> None:
        """`scale`: step width, above 0; `zero`: the code of 0.  Raises BadValue."""
        super().__init__()
        made = torch.as_tensor(scale, dtype=torch.float32).reshape(1)
        if not 1 <= bits <= LARGEST_BITS or not 0 <= zero < 2**bits:
            raise BadValue(
                f"activations/affine: bits must lie in 1..{LARGEST_BITS} and zero on the grid, got {bits}, {zero}."
            )
        if not bool(torch.isfinite(made).all() and (made > 0).all()):
            raise BadValue(f"activations/affine: scale must be finite and above 0, got {float(made)}.")
        self.width = bits
        self.scale = nn.Parameter(made.detach().clone())
        self.register_buffer("zero", torch.tensor([zero], dtype=torch.int32))

    @classmethod
    def spanning(cls, low: float, high: float, bits: int) -> "Affine":
        """Return the grid over low .. high, extended to contain 0; an empty range gets a step of 1."""
        low, high, top = min(low, 0.0), max(high, 0.0), 2**bits - 1
        scale = (high - low) / top
        return cls(scale, round(-low / scale), bits) if scale > 0 else cls(1.0, 0, bits)

    @property
    def top(self) -> int:
        """Return the largest code."""
        return 2**self.width - 1

    @property
    def size(self) -> Tensor:
        """Return the step, kept above zero while it is trained."""
        return self.scale.abs().clamp(min=1e-9)

    def forward(self, values: Tensor) -> Tensor:
        zero, step = self.zero.to(exact(values)), self.size.to(exact(values))
        if not torch.is_grad_enabled() or not (values.requires_grad or step.requires_grad):
            return on_grid(values, step, -zero, self.top - zero)
        # Scale the step's gradient down by the number of entries and levels (Esser et al., 2020).
        share = 1.0 / (max(1, values.shape[1:].numel()) * self.top) ** 0.5 if values.dim() else 1.0
        return Learned.apply(values, step, -zero, self.top - zero, share)  # type: ignore[no-untyped-call, no-any-return]

    def spec(self) -> dict[str, int]:
        return {"bits": self.width}

    def parts(self) -> Arrays:
        return {"scale": self.scale.detach().abs().clamp(min=1e-9), "zero": self.zero}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Affine":
        return cls(parts["scale"], int(parts["zero"]), spec["bits"])

    def bits(self) -> int:
        return self.width

    def ends(self) -> tuple[float, float]:
        zero, step = int(self.zero), float(self.size.detach())
        # The zero code must give 0, not -0.
        return (-zero * step if zero else 0.0), (self.top - zero) * step

    def extra_repr(self) -> str:
        return f"bits={self.width}, zero={int(self.zero)}"
