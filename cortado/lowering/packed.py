"""Packed: weights of linear layers as codes of at most 4 bits in blocks along the inputs, for products on packed codes."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cortado.parts.forms.lattice import Lattice

FEW_BITS = 4
WIDTHS = (2, 4)
"""Bits per packed code."""
SMALLEST_BLOCK, LARGEST_BLOCK = 16, 128
FAR = 1e-5
"""Largest error of the codes, as a share of the largest weight."""


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight (rows, columns): value = (code - zero) x scale, with one scale per block of a row.

    `codes`: (rows, blocks, block) of uint8, starting at 0; the last block may extend past the columns. `scales` and
    `zeros`: (rows, blocks); without `zeros`, 2**(bits - 1) is the code of zero everywhere.
    """

    bits: int
    columns: int
    codes: Tensor
    scales: Tensor
    zeros: Tensor | None

    @property
    def block(self) -> int:
        """Return the number of columns that share a scale."""
        return self.codes.shape[2]

    def dense(self) -> Tensor:
        """Return the weight, (rows, columns)."""
        middle = 2 ** (self.bits - 1) if self.zeros is None else self.zeros[..., None]
        values = (self.codes.to(self.scales.dtype) - middle) * self.scales[..., None]
        return values.flatten(1)[:, : self.columns]

    def at_least(self, bits: int) -> "Packed":
        """Return the same weight in codes of at least `bits` bits."""
        if self.bits >= bits:
            return self
        shift = 0 if self.zeros is not None else 2 ** (bits - 1) - 2 ** (self.bits - 1)
        return replace(self, bits=bits, codes=self.codes + shift)


def span(codes: Tensor) -> int:
    """Return the range of the codes, largest minus smallest."""
    return int(codes.max()) - int(codes.min())


def packed_of(form: Lattice) -> Packed | str:
    """Return the codes of a weight (rows, columns) in blocks, or the reason why they do not fit."""
    rows, columns = form.codes.shape
    grids = form.scale.numel() // rows if form.layout != "tensor" else 1
    block = block_of(columns, form.group if grids > 1 else 0)
    if block is None:
        return f"no power of two from {SMALLEST_BLOCK} on divides its groups of {form.group}"
    if form.scale.dtype != torch.float32:
        return f"its scales are {str(form.scale.dtype).removeprefix('torch.')}, and packed codes need float32"
    shift = shift_of(form)
    if shift is None:
        return f"its codes and zero points together take more than {FEW_BITS} bits"
    bits, low = shift
    blocks = -(-columns // block)
    # The scale that each block of a row reads.
    read = torch.arange(blocks) * block // (form.group if grids > 1 else columns)
    scales = form.scale.detach().cpu().reshape(-1, grids).expand(rows, grids)[:, read].clone()
    zeros = None if form.zero is None else (form.zero.cpu().reshape(-1, grids).expand(rows, grids)[:, read] - low)
    codes = torch.full((rows, blocks * block), 2 ** (bits - 1), dtype=torch.uint8)
    codes[:, :columns] = (form.codes.cpu().int() - low).to(torch.uint8)
    zeros = None if zeros is None else zeros.to(torch.uint8)
    return Packed(bits, columns, codes.reshape(rows, blocks, block), scales, zeros)


def block_of(columns: int, group: int) -> int | None:
    """Return the largest block within one group (0: the whole row); None if it would be too small."""
    if not group:
        return min(LARGEST_BLOCK, max(SMALLEST_BLOCK, 1 << (columns - 1).bit_length()))
    largest = group & -group
    return min(LARGEST_BLOCK, largest) if largest >= SMALLEST_BLOCK else None


def shift_of(form: Lattice) -> tuple[int, int] | None:
    """Return the bits of the codes when all start at 0, and the offset subtracted for it."""
    low, high = int(form.codes.min()), int(form.codes.max())
    for bits in WIDTHS:
        half = 2 ** (bits - 1)
        if form.zero is None and -half <= low and high < half:
            return bits, -half
        if form.zero is not None:
            first = min(low, int(form.zero.min()))
            if max(high, int(form.zero.max())) - first < 2**bits:
                return bits, first
    return None


def rescaled(packed: Packed, weight: Tensor) -> Packed | str:
    """Return the codes with scales that reproduce `weight`, with a norm possibly folded into its rows."""
    rows = packed.dense()
    largest = rows.abs().argmax(1, keepdim=True)
    before, after = rows.gather(1, largest), weight.gather(1, largest)
    factors = torch.where(before == 0, torch.ones_like(after), after / torch.where(before == 0, 1.0, before))
    made = replace(packed, scales=packed.scales * factors)
    if (made.dense() - weight).abs().max() > FAR * weight.abs().max():
        return "rewriting changed its values, and its codes no longer give them"
    return made
