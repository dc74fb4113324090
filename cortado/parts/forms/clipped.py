"""Clipped: a latent weight whose smallest share is zero and whose other values are the means of even intervals."""

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.parts.forms.latent import Latent, straight
from cortado.parts.part import FLOATS, Arrays

MOST_BITS = 8


class Clipped(Latent):
    """CLIP-Q (Tung and Mori, 2018): prune and quantize together, again at every step, so early mistakes can be
    undone.

    On each side of zero the share `zeros` of smallest values is clipped to 0. The rest is divided into 2**bits - 1
    intervals of equal width, allotted to the sides by their width, and each interval is replaced by its mean.
    """

    facts = ("bits",)
    arrays = {"values": FLOATS, "zeros": FLOATS}
    zeros: Tensor

    def __init__(self, values: Tensor, bits: int, zeros: float | Tensor) -> None:
        """Raises BadValue for bits outside 2..8 or a share outside 0..1."""
        super().__init__(values)
        share = torch.as_tensor(zeros, dtype=values.dtype, device=values.device).reshape(1)
        if not 2 <= bits <= MOST_BITS or not 0.0 <= float(share) <= 1.0:
            raise BadValue(
                f"forms/clipped: bits must lie in 2..{MOST_BITS} and zeros in 0..1, got {bits} and {float(share):g}."
            )
        self.width = bits
        self.register_buffer("zeros", share)

    def clusters(self) -> tuple[Tensor, Tensor]:
        """Return (codebook, codes): code 0 is zero, the others number the intervals from lowest to highest."""
        flat = self.values.detach().flatten()
        codes, sides = torch.zeros_like(flat, dtype=torch.long), []
        for sign in (-1, 1):
            size = flat * sign
            members = size > 0
            ends = size[members]
            low = ends.quantile(float(self.zeros)) if 0 < len(ends) < 2**24 else ends.new_zeros(())
            low = ends.sort().values[round(float(self.zeros) * (len(ends) - 1))] if len(ends) >= 2**24 else low
            # A share of 0 clips nothing, and a share of 1 clips everything.
            kept = members & ((size >= low) if float(self.zeros) < 1 else (size < 0))
            high = size[kept].max() if bool(kept.any()) else low
            sides.append((kept, low, high))
        widths = [float(high - low) for _, low, high in sides]
        total, first = 2**self.width - 1, 1
        below = min(
            max(round(total * widths[0] / max(sum(widths), 1e-30)), int(bool(sides[0][0].any()))),
            total - int(bool(sides[1][0].any())),
        )
        for (kept, low, high), count, sign in zip(sides, (below, total - below), (-1, 1), strict=True):
            if count and bool(kept.any()):
                place = ((flat[kept] * sign - low) / (high - low).clamp(min=1e-30) * count).long().clamp(max=count - 1)
                codes[kept] = first + place
            first += count
        sums = torch.zeros(total + 1, dtype=flat.dtype, device=flat.device).index_add(0, codes, flat)
        counts = torch.bincount(codes, minlength=total + 1)
        codebook = sums / counts.clamp(min=1)
        codebook[0] = 0.0
        return codebook, codes.view(self.shape)

    def rounded(self) -> Tensor:
        codebook, codes = self.clusters()
        return straight(codebook[codes], self.values)

    def attached(self) -> Form:
        codebook, codes = self.clusters()
        used = torch.bincount(codes.flatten(), minlength=len(codebook)) > 0
        used[0] = True
        return Codebook(codebook[used], (used.cumsum(0) - 1)[codes])

    def spec(self) -> dict[str, int]:
        return {"bits": self.width}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 2 <= spec["bits"] <= MOST_BITS:
            raise BadValue(f"forms/clipped: bits must lie in 2..{MOST_BITS}, got {spec['bits']}.")
        return {"zeros": 1}

    def parts(self) -> Arrays:
        return {"values": self.values.detach(), "zeros": self.zeros}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Clipped":
        return cls(parts["values"].reshape(shape), spec["bits"], parts["zeros"])
