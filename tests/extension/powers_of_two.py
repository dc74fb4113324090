"""A user's form and its method: every weight is a power of two with a sign, or zero.  After Zhou et al., 2017 (INQ)."""

from dataclasses import dataclass

import torch

from cortado import Form, Method, knob
from cortado.parts.part import INTEGERS


class Powers(Form):
    """value = sign(code) x 2^(|code| + low - 1); code 0 is zero."""

    facts = ("low",)
    arrays = {"codes": INTEGERS}

    def __init__(self, codes, low):
        super().__init__()
        self.shape, self.low = codes.shape, low
        self.register_buffer("codes", codes.to(torch.int8))

    def dense(self):
        return self.codes.sign() * torch.exp2(self.codes.abs().float() + (self.low - 1))

    def map_values(self, fn):
        return fn(self.dense())

    def narrow(self, axis, keep):
        return Powers(self.codes.index_select(axis, keep), self.low)

    def select(self, mask):
        return Powers(torch.where(mask, self.codes, 0), self.low)

    def bits(self):
        return self.codes.numel() * (2 * int(self.codes.abs().max())).bit_length()

    def parts(self):
        return {"codes": self.codes}

    @classmethod
    def from_parts(cls, shape, spec, parts):
        return cls(parts["codes"].reshape(shape), spec["low"])


@dataclass(frozen=True)
class RoundToPowers(Method):
    """Round to the nearest of the `levels` largest powers of two, or to zero."""

    lossy = True
    levels: int = knob(4, low=1, high=60, help="powers of two on each side of zero")

    def apply(self, view, task):
        for weight in view.weights(self.where):
            weight.map_values(self.rounded)

    def rounded(self, values):
        exponents = values.abs().clamp(min=1e-30).log2().round().int()
        low = int(exponents.max()) - self.levels + 1
        return Powers((exponents - low + 1).clamp(min=0) * values.sign().int(), low)
