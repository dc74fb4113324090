"""Quantized: integers on an even grid, (code - zero) x scale, per tensor, channel or group."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice, spread
from cortado.parts.part import FLOATS, INTEGERS, Arrays

TENSOR, CHANNEL, GROUP = 0, 1, 2
LAYOUTS = {"tensor": TENSOR, "channel": CHANNEL, "group": GROUP}


FAR_IN = (0.15, 0.11, 0.08, 0.06, 0.045, 0.033, 0.025)
"""Shares of the full span to try for few bits, where outliers make narrow spans best."""
AT_ONCE = 1 << 17
"""Values searched together."""


class Quantized(Form):
    """Affine quantization (Jacob et al., 2018): weight = (code - zero) x scale.

    One scale per tensor, per channel (index along axis 0), or per `group` neighbours in a channel's row. Symmetric
    when `zero` is None. The scale is a Parameter: fine-tuning changes it and keeps the codes.
    """

    facts = ("layout", "group", "symmetric")
    arrays = {"zero": INTEGERS, "codes": INTEGERS, "scale": FLOATS}
    units = ("scale",)
    codes: Tensor
    zero: Tensor | None

    def __init__(
        self, codes: Tensor, scale: Tensor, zero: Tensor | None = None, layout: str = "tensor", group: int = 0
    ) -> None:
        """`codes`: integers, shape of the weight; `scale`, `zero`: (1,), (channels,) or (channels * groups,)."""
        super().__init__()
        self.shape, self.layout, self.group = codes.shape, layout, group
        needed = scales_of(codes.shape, layout, group)
        if scale.numel() != needed or (zero is not None and zero.numel() != needed):
            raise BadValue(
                f"forms/quantized: layout {layout} of {tuple(codes.shape)} needs {needed} scales, got {scale.numel()}."
            )
        self.scale = nn.Parameter(scale.detach().clone().flatten())
        self.register_buffer("codes", smallest_integers(codes))
        self.register_buffer("zero", None if zero is None else zero.detach().flatten().to(torch.int32))

    @classmethod
    def of(
        cls,
        values: Tensor,
        bits: int,
        layout: str = "tensor",
        group: int = 0,
        symmetric: bool = True,
        clip: str = "range",
    ) -> "Quantized":
        """Round `values` to 2**bits levels.  `clip`: "range" covers all values, "mse" minimizes the squared error."""
        # A group is at most one row.
        group = min(group, max(1, values.shape[1:].numel())) if layout == "group" and values.dim() else group
        if values.numel() == 0:
            ones = torch.ones(scales_of(values.shape, layout, group))
            return cls(values.int(), ones, None if symmetric else 0 * ones, layout, group)
        rows, real = rows_by_scale(values.detach(), layout, group), real_entries(values.shape, layout, group)
        real = real.to(rows)
        shares = (1.0,) if clip == "range" else (*(1.0 - 0.02 * step for step in range(41)), *FAR_IN)
        # Search as many rows together as fit into the cache.
        few = max(1, AT_ONCE // max(1, rows.shape[1]))
        found = [
            best_grid(some, part, bits, symmetric, shares)
            for some, part in zip(rows.split(few), real.expand(len(rows), -1).split(few), strict=True)
        ]
        codes, scale, zero = (torch.cat(parts) for parts in zip(*found, strict=True))
        flat = codes.reshape(rows_shape(values.shape, layout)) if layout != "group" else codes.view(len(values), -1)
        flat = flat[:, : values[0].numel()] if layout == "group" else flat
        return cls(flat.reshape(values.shape), scale, None if symmetric else zero, layout, group)

    def lattice(self) -> Lattice:
        return Lattice(self.codes, self.scale, self.zero, self.layout, self.group)

    def spread(self, values: Tensor) -> Tensor:
        """Return one value per scale, laid out to broadcast with the codes."""
        return spread(values, self.shape, self.layout, self.group)

    def dense(self) -> Tensor:
        return self.lattice().dense()

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        codes = self.codes.index_select(axis, keep)
        if self.layout == "tensor" or (self.layout == "channel" and axis != 0):
            return Quantized(codes, self.scale, self.zero, self.layout)
        if self.layout == "group" and axis != 0:
            # Groups no longer align with the rows: give every entry its own scale.
            scale = self.spread(self.scale).index_select(axis, keep)
            zero = None if self.zero is None else self.spread(self.zero).index_select(axis, keep)
            return Quantized(codes, scale, zero, "group", 1)
        rows = self.scale.view(self.shape[0], -1)
        zero = None if self.zero is None else self.zero.view(self.shape[0], -1)[keep]
        return Quantized(codes, rows[keep], zero, self.layout, self.group)

    def bits(self) -> float:
        span = int(self.codes.max()) - int(self.codes.min()) + 1 if self.codes.numel() else 1
        width = max(1, (span - 1).bit_length())
        zeros = 0 if self.zero is None else self.zero.numel() * width
        return self.codes.numel() * width + self.scale.numel() * self.scale.element_size() * 8 + zeros

    def select(self, mask: Tensor) -> Form:
        # The grid contains zero: a dropped weight is one more zero code.
        zero = torch.zeros((), dtype=torch.int32, device=mask.device) if self.zero is None else self.spread(self.zero)
        codes = torch.where(mask, self.codes.int(), zero)
        return Quantized(codes, self.scale, self.zero, self.layout, self.group)

    def symbols(self) -> tuple[Tensor, int]:
        zero_bits = 0 if self.zero is None else self.zero.numel() * self.codes.element_size() * 8
        return self.lattice().steps(), self.scale.numel() * self.scale.element_size() * 8 + zero_bits

    def code_bits(self) -> int | None:
        return max(1, (level_count(self.codes) - 1).bit_length()) if self.codes.numel() else None

    def spec(self) -> dict[str, int]:
        return {"layout": LAYOUTS[self.layout], "group": self.group, "symmetric": int(self.zero is None)}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if spec["layout"] not in (TENSOR, CHANNEL, GROUP) or spec["symmetric"] not in (0, 1):
            raise BadValue(f"forms/quantized: unknown layout in {spec}.")
        row = shape[1:].numel() if len(shape) else 1
        if not (1 <= spec["group"] <= max(1, row) if spec["layout"] == GROUP else spec["group"] == 0):
            raise BadValue(f"forms/quantized: groups of {spec['group']} do not fit rows of {row}.")
        count = scales_of(shape, layout_name(spec), spec["group"])
        return {"scale": count, "zero": 0 if spec["symmetric"] else count}

    def parts(self) -> Arrays:
        # Count codes from the zero point: small symbols are small values, which compresses best.
        if self.zero is None:
            nothing = torch.empty(0, dtype=torch.int32)
            return {"zero": nothing, "codes": self.codes, "scale": self.scale.detach()}
        return {"zero": self.zero, "codes": self.codes.int() - self.spread(self.zero), "scale": self.scale.detach()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Quantized":
        codes, layout = parts["codes"].reshape(shape), layout_name(spec)
        if spec["symmetric"]:
            return cls(codes, parts["scale"], None, layout, spec["group"])
        made = cls(codes, parts["scale"], parts["zero"], layout, spec["group"])
        return cls(codes.int() + made.spread(parts["zero"].int()), parts["scale"], parts["zero"], layout, spec["group"])

    def scale_rows(self, factors: Tensor) -> bool:
        if self.layout == "tensor":
            return False
        with torch.no_grad():
            self.scale.mul_(factors.repeat_interleave(self.scale.numel() // len(factors)))
        return True


def layout_name(spec: dict[str, int]) -> str:
    """Return the name of the layout number."""
    return next(name for name, number in LAYOUTS.items() if number == spec["layout"])


def scales_of(shape: torch.Size, layout: str, group: int) -> int:
    """Return the number of scales for a weight of `shape`.  Raises BadValue for an invalid layout."""
    if layout == "tensor":
        return 1
    if len(shape) == 0:
        raise BadValue("forms/quantized: a scalar has no channels. Use the layout tensor.")
    if layout == "channel":
        return shape[0]
    if layout != "group" or group < 1:
        raise BadValue(
            f"forms/quantized: layout must be tensor, channel or group (with a group of 1 or more), got {layout!r}, {group}."
        )
    return shape[0] * -(-shape[1:].numel() // group)


def rows_shape(shape: torch.Size, layout: str) -> tuple[int, ...]:
    """Return the shape in which every row has one scale."""
    return (1, shape.numel()) if layout == "tensor" else (shape[0], shape[1:].numel())


def rows_by_scale(values: Tensor, layout: str, group: int) -> Tensor:
    """Return `values` as (scales, entries per scale); a short last group is padded with its last entry."""
    scales_of(values.shape, layout, group)
    rows = values.reshape(rows_shape(values.shape, layout))
    if layout != "group":
        return rows
    short = -rows.shape[1] % group
    if short:
        rows = torch.cat([rows, rows[:, -1:].expand(-1, short)], 1)
    return rows.reshape(-1, group)


def real_entries(shape: torch.Size, layout: str, group: int) -> Tensor:
    """Return 1 for the real entries of `rows_by_scale` and 0 for padding: (rows, or 1; entries)."""
    if layout != "group":
        return torch.ones(1, 1)
    row = shape[1:].numel()
    filled = torch.zeros(-(-row // group) * group)
    filled[:row] = 1
    return filled.view(-1, group).repeat(shape[0], 1)


def best_grid(
    rows: Tensor, real: Tensor, bits: int, symmetric: bool, shares: tuple[float, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Return each row's codes, scales and zero points for the share of its span with the least squared error.

    `real` (rows, entries or 1) is 0 for padding. A single share is used without a search.
    """
    grid = symmetric_grid(rows, real, bits) if symmetric else affine_grid(rows, bits)
    scale, zero = grid(shares[0])
    best, made = torch.full((len(rows),), torch.inf, device=rows.device), torch.empty_like(rows)
    whole = bool((real == 1).all())
    for share in shares if len(shares) > 1 else ():
        tried = grid(share)
        error = codes_on(rows, *tried, bits, symmetric, made)
        error = error if symmetric else error.sub_(tried[1][:, None])
        error = error.mul_(tried[0][:, None]).sub_(rows).square_()
        error = (error if whole else error.mul_(real)).nansum(1)
        better = error < best
        best = torch.where(better, error, best)
        scale, zero = torch.where(better, tried[0], scale), torch.where(better, tried[1], zero)
    return codes_on(rows, scale, zero, bits, symmetric, made), scale, zero


def codes_on(rows: Tensor, scale: Tensor, zero: Tensor, bits: int, symmetric: bool, out: Tensor) -> Tensor:
    """Return the codes of rows on their grids, written into `out`."""
    if symmetric and bits == 1:
        return out.copy_(torch.where(rows < 0, -1.0, 1.0))
    torch.div(rows, scale[:, None], out=out).round_()
    top = 2 ** (bits - 1) - 1
    return out.clamp_(-top, top) if symmetric else out.add_(zero[:, None]).clamp_(0, 2**bits - 1)


Grid = Callable[[float], tuple[Tensor, Tensor]]
"""Maps a share of the span to the scale and zero point of each row."""


def symmetric_grid(rows: Tensor, real: Tensor, bits: int) -> Grid:
    """Return scales for codes in -(2**(bits-1) - 1) .. 2**(bits-1) - 1 (for 1 bit: -1 and 1), with zero points of 0."""
    largest = rows.abs().amax(1)
    zero_code, top = torch.zeros_like(largest), 2 ** (bits - 1) - 1
    if bits == 1:
        # The mean magnitude gives the least squared error (Rastegari et al., 2016).
        mean = (real * rows.abs()).sum(1) / real.expand_as(rows).sum(1)
        return lambda share: (mean, zero_code)

    def grid(share: float) -> tuple[Tensor, Tensor]:
        scale = largest * share / top
        return torch.where(scale > 0, scale, torch.ones_like(scale)), zero_code

    return grid


def affine_grid(rows: Tensor, bits: int) -> Grid:
    """Return scales and zero points for codes in 0 .. 2**bits - 1; zero itself is always on the grid."""
    least, most, top = rows.amin(1).clamp(max=0), rows.amax(1).clamp(min=0), 2**bits - 1

    def grid(share: float) -> tuple[Tensor, Tensor]:
        low = least * share
        scale = (most * share - low) / top
        scale = torch.where(scale > 0, scale, torch.ones_like(scale))
        return scale, (-low / scale).round().clamp(0, top)

    return grid


def smallest_integers(codes: Tensor) -> Tensor:
    """Return `codes` in the smallest integer type that fits."""
    low, high = (int(codes.min()), int(codes.max())) if codes.numel() else (0, 0)
    for dtype in (torch.int8, torch.uint8, torch.int16):
        if torch.iinfo(dtype).min <= low and high <= torch.iinfo(dtype).max:
            return codes.to(dtype)
    return codes.to(torch.int32)


def level_count(codes: Tensor) -> int:
    """Return the number of levels from the lowest to the highest code, in used steps: -1 and 1 are two levels."""
    used = torch.bincount((codes.long() - codes.min().long()).reshape(-1)).nonzero().cpu().numpy()
    return int(used[-1, 0] // max(1, np.gcd.reduce(used[:, 0]))) + 1
