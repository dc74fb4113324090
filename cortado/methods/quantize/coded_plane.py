"""Coded plane: one tensor of floats on its way to codes: its scales, its segments, its rates."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from cortado.methods.quantize.code_rates import CONTEXTS, rates_of
from cortado.methods.quantize.viterbi import Segment, best_segments
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import Quantized
from cortado.parts.forms.states import Law, grids_of, levels_of
from cortado.parts.forms.trellis import Trellis
from cortado.progress import Progress

SHORTEST, LISTED = 128, 1024
"""Codes that a segment has at least, if its weight has; a vector is cut into segments of LISTED."""


@dataclass(eq=False)
class CodedPlane:
    """`values`, the weight of each one's squared error, and its context; `per` as in `quantize/weights`.

    `scale` has one entry, or one per index of axis 0; an error of one scale costs `unit` squared. `codes` are magnitudes.
    """

    values: Tensor
    importance: Tensor
    contexts: Tensor
    per: str
    unit: float = 1.0
    scale: Tensor = field(default_factory=lambda: torch.ones(1))
    codes: Tensor | None = None
    law: Law | None = None

    @property
    def layout(self) -> str:
        """Return the layout of the scales: a vector has one."""
        return self.per if self.values.dim() > 1 else "tensor"

    @property
    def segment(self) -> int:
        """Return the number of codes after which the machine starts again: a row, several short ones, or part of a vector.

        Where it is a row, whole rows can be cut without changing the others.
        """
        row = self.values.shape[1:].numel()
        if self.values.dim() < 2:
            return LISTED
        return max(1, min(row * -(-SHORTEST // max(1, row)), self.values.numel()))

    def relative_size(self) -> float:
        """Return log2 of the root mean square of the values, counted in scales of `set_scale(1)`."""
        square = float(self.values.float().square().mean() * self.importance.mean())
        return 0.5 * float(torch.tensor(max(square, 1e-30)).log2())

    def set_scale(self, unit: float) -> None:
        """Set the scales; those of channels to a power of two times their common one."""
        self.unit = unit
        self.scale = torch.tensor([unit]) / self.importance.mean().sqrt()
        if self.layout == "channel":
            rows = (self.importance.flatten(1).mean(1) / self.importance.mean()).clamp(min=1e-12)
            self.scale = self.scale * 2.0 ** (-0.5 * rows.log2()).round()

    def spread(self, scale: Tensor) -> Tensor:
        """Return the scales, laid out to broadcast with the values."""
        return scale if len(scale) == 1 else scale.view(-1, *[1] * (self.values.dim() - 1))

    def sizes(self) -> Tensor:
        """Return the magnitudes in scales."""
        return self.values.float().abs() / self.spread(self.scale)

    def segments(self, first_context: int) -> list[Segment]:
        """Return the segments, whose contexts are counted from `first_context` on."""
        weights = self.importance * (self.spread(self.scale) / self.unit).square()
        parts = (self.sizes(), weights, self.contexts + first_context)
        return [Segment(*some) for some in zip(*(one.reshape(-1).split(self.segment) for one in parts), strict=True)]

    def rates(self) -> Tensor:
        """Return the bits of each code, as the codes so far have it, or without any the nearest ones on either grid."""
        sizes = self.sizes()
        if self.codes is not None:
            zero = torch.zeros_like(self.codes)
            return rates_of(
                self.codes, zero if self.law is None else grids_of(self.codes, self.law, self.segment), self.contexts
            )
        if self.law is None:
            return rates_of(sizes.round(), torch.zeros_like(sizes), self.contexts)
        nearest = torch.stack([(sizes / 2).round(), ((sizes + 1) / 2).round().clamp(min=1) * (sizes > 0.5)])
        each = torch.stack([torch.zeros_like(sizes), torch.ones_like(sizes)])
        return rates_of(nearest, each, torch.stack([self.contexts, self.contexts]))

    def form(self) -> Form:
        """Return the codes as a form, with the scale of least weighted error."""
        assert self.codes is not None
        codes = self.codes * self.values.sign().int()
        levels = codes if self.law is None else levels_of(codes, self.law, self.segment)
        made = levels * self.spread(self.scale)
        error = self.importance * made
        factor = (error * self.values).sum() / (error * made).sum() if bool(levels.any()) else torch.ones(())
        scale = (self.scale * factor).to(self.values.dtype)
        if self.law is None:
            return Quantized(codes, scale, None, self.layout)
        return Trellis(codes, scale, self.law.states, self.segment, self.layout)


def find_codes(planes: list[CodedPlane], law: Law | None, bit_cost: float, rounds: int, progress: Progress) -> None:
    """Find the codes of all planes, `rounds` times, each time with the rates of the codes before."""
    for plane in planes:
        plane.law = law
    with progress.bar("trellis", rounds) as bar:
        for _ in range(rounds):
            rates = torch.cat([plane.rates() for plane in planes])
            segments = [plane.segments(number * CONTEXTS) for number, plane in enumerate(planes)]
            found = iter(best_segments([one for some in segments for one in some], law, rates, bit_cost))
            for plane, some in zip(planes, segments, strict=True):
                plane.codes = torch.cat([next(found) for _ in some]).view(plane.values.shape)
            bar.advance()
