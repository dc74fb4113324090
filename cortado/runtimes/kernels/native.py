"""Native: zeros and free codebooks in an .onnx file as Cortado's own operators, computed by a library beside the file."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cortado.lowering.products import CODES, Product
from cortado.native.build import product_library
from cortado.native.product_layouts import CodebookArrays, SparseArrays
from cortado.runtimes.kernels.kernel import NOT_CONCERNED, Kernel
from cortado.runtimes.own_products import with_own_products

FEWEST_ZEROS = 0.3
"""Share of zeros below which nobody expects a sparse product."""


@dataclass(frozen=True)
class SparseProducts(Kernel):
    """Linear layers and convolutions of images that multiply by the remaining weights only, in float32."""

    name = "sparse"
    lost = "no matrix product in the file belongs to this layer alone"

    def fits(self, product: Product) -> str | None:
        if product.family not in ("linear", "conv") or product.weight.zeros < FEWEST_ZEROS:
            return NOT_CONCERNED
        if product.reads == CODES and product.weight.has_codes:
            return "its input is quantized, and sparse products are of float32"
        layer = product.layer
        if isinstance(layer, nn.Conv2d) and (layer.groups > 1 or layer.padding_mode != "zeros"):
            return f"it has {layer.groups} groups and padding of {layer.padding_mode}; sparse products take neither"
        found = product.weight.sparse
        return found if isinstance(found, str) else missing_library()

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        with_own_products(
            model, {one.path: one.weight.sparse for one in products if isinstance(one.weight.sparse, SparseArrays)}
        )


@dataclass(frozen=True)
class CodebookProducts(Kernel):
    """Linear layers of at most 16 different weights, stored as codes of 2 or 4 bits.

    With `rounds_inputs` the centroids and the inputs are rounded to 8 bits.
    """

    name = "codebook"
    lost = "no matrix product in the file belongs to this layer alone"
    rounds_inputs: bool = False

    def fits(self, product: Product) -> str | None:
        form = product.weight.form
        if product.family != "linear" or form is None or form.code_bits() is None or product.weight.lattice is not None:
            return NOT_CONCERNED
        if product.reads == CODES and product.weight.has_codes:
            return NOT_CONCERNED
        found = product.weight.codebook
        return found if isinstance(found, str) else missing_library()

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        found = {one.path: one.weight.codebook for one in products if isinstance(one.weight.codebook, CodebookArrays)}
        with_own_products(model, found, self.rounds_inputs)


def missing_library() -> str | None:
    """Return why there is no library of own operators here; None if there is one."""
    made = product_library()
    return made if isinstance(made, str) else None
