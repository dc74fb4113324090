"""Integers: products of 8-bit codes.  Lowering writes them as quantize operators, which a runtime fuses."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from cortado.lowering.products import CODES, SIGNS, Product
from cortado.report.record import INT8
from cortado.runtimes.kernels.kernel import NOT_CONCERNED, Kernel


@dataclass(frozen=True)
class Integers(Kernel):
    """8-bit weights times 8-bit activations.

    `lacks`: families of layers that the runtime has no such product for, with a sentence on each; `signs` is one on products
    that read signs.
    """

    name = INT8
    lost = "the runtime computes it in floats"
    lacks: Mapping[str, str] = field(default_factory=dict, hash=False)
    signs: str = NOT_CONCERNED

    def fits(self, product: Product) -> str | None:
        quantized = product.weight.has_codes or product.weight.lattice is not None
        if product.family in self.lacks and (quantized or product.reads == CODES):
            return self.lacks[product.family]
        if product.reads == SIGNS:
            return self.signs
        if product.reads != CODES:
            return "its input is not quantized" if quantized and not product.weight.few_bits else NOT_CONCERNED
        return None if product.weight.has_codes else "its weight has no 8-bit codes with one scale a row"

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        """Leave the model: its quantize operators are there already, and the runtime fuses them."""
