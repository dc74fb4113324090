"""Products: the layers of a lowered network that multiply by a weight, and what a kernel may ask about each of them.

A lowered network computes with plain floats. A weight that had a form takes_note it, so that a runtime can still store its
codes.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import kind_of
from cortado.lowering.integers import Codes, Emitted
from cortado.lowering.packed import FEW_BITS, Packed, packed_of, rescaled, span
from cortado.native.product_layouts import CodebookArrays, SparseArrays, faster_sparse, smaller_codebook
from cortado.network.graph.flow import flow_of
from cortado.network.graph.trace import trace
from cortado.network.quantizers.on_grid import inputs_on_grid
from cortado.parts.activations.quantizer import sites
from cortado.parts.activations.sign import Sign
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.forms.lattice import Lattice

FLOATS, CODES, SIGNS = "floats", "codes", "signs"
"""What a product reads: plain activations, quantized ones, or sums of signs."""
MULTIPLYING = ("linear", "conv", "recurrent", "embedding")
"""Families of layers that are listed; an embedding multiplies by rows of zeros with a single one."""
NEAR = 1e-5
"""Largest difference of two magnitudes that count as one, as a share."""


class LoweredWeight(Dense):
    """A plain weight that takes_note the form it had before lowering."""

    def __init__(self, values: nn.Parameter, form: Form) -> None:
        super().__init__(values)
        # In a tuple it is no part of the module, and no exporter stores it.
        self.values, self.before = values, (form,)


class ProductWeight:
    """A weight of a lowered network (`values`), with the form it had; layers with a tied weight share it."""

    def __init__(self, values: Tensor, form: Form | None, has_codes: bool) -> None:
        self.values, self.form, self.has_codes = values, form, has_codes

    @cached_property
    def lattice(self) -> Lattice | None:
        """Return the codes that the form has, None without any."""
        found = None if self.form is None else self.form.lattice()
        return found if found is not None and found.codes.numel() else None

    @cached_property
    def few_bits(self) -> bool:
        """Return whether its codes take at most 4 bits."""
        return self.lattice is not None and span(self.lattice.codes) < 2**FEW_BITS

    @cached_property
    def packed(self) -> Packed | str:
        """Return its codes in blocks, with a folded norm in their scales, or the reason why there are none."""
        if self.lattice is None:
            return "its weight has no codes"
        packed = packed_of(self.lattice)
        return rescaled(packed, self.values) if isinstance(packed, Packed) else packed

    @cached_property
    def zeros(self) -> float:
        """Return the share of zeros."""
        return 1 - float(self.values.count_nonzero()) / max(1, self.values.numel())

    @cached_property
    def sparse(self) -> SparseArrays | str:
        """Return its entries other than zero, or the reason why a product of them is not faster."""
        return faster_sparse(self.values.numpy())

    @cached_property
    def codebook(self) -> CodebookArrays | str:
        """Return its codes into a codebook of at most 16 values, or the reason why there are none."""
        return smaller_codebook(self.values.numpy())

    @cached_property
    def sign_terms(self) -> int:
        """Return of how many signs each weight is a sum, times one scale a row: 2 with zeros; 0 if it is no such sum."""
        rows = self.values.flatten(1).abs()
        same = torch.isclose(rows, rows.amax(1, keepdim=True), rtol=NEAR, atol=0.0)
        return 1 if bool(same.all()) else 2 if bool((same | (rows == 0)).all()) else 0


@dataclass(frozen=True, eq=False)
class Product:
    """A layer that multiplies: its path in the lowered network, the layer, its weight, and what it reads."""

    path: str
    layer: nn.Module
    weight: ProductWeight
    reads: str = FLOATS

    @property
    def family(self) -> str:
        """Return "linear", "conv", "transposed conv", "recurrent" or "embedding"."""
        kind = kind_of(self.layer)
        family = "" if kind is None else kind.family
        axes = {} if kind is None else kind.axes(self.layer)
        return (
            f"transposed {family}" if "weight" in axes and axes["weight"].output == 1 and family == "conv" else family
        )


def note_forms(network: nn.Module, source: nn.Module) -> None:
    """Let the plain weights of a lowered network remember the forms that `source` has.

    Tied weights stay tied. A weight with 8-bit codes (see integers.py) has a form already.
    """
    layers = dict(network.named_modules(remove_duplicate=False))
    made: dict[tuple[int, int], LoweredWeight] = {}
    for path, layer in source.named_modules(remove_duplicate=False):
        form, copy = form_of(layer, "weight"), layers.get(path)
        values = None if copy is None or not takes_note(copy) else copy._parameters.get("weight")
        if form is None or copy is None or values is None:
            continue
        key = id(form), id(values)
        made.setdefault(key, LoweredWeight(values, form))
        attach(copy, "weight", made[key])


def takes_note(layer: nn.Module) -> bool:
    """Return whether some kernel asks for the form of such a layer."""
    kind = kind_of(layer)
    return kind is not None and kind.family in MULTIPLYING and kind.family != "recurrent"


def products_of(network: nn.Module, example: Any) -> list[Product]:
    """Return the layers of a lowered network that multiply by a weight, in module order."""
    found: list[Product] = []
    weights: dict[int, ProductWeight] = {}
    reading = activations_read(network, example)
    for path, layer in network.named_modules(remove_duplicate=False):
        kind = kind_of(layer)
        if kind is None or kind.family not in MULTIPLYING:
            continue
        form = form_of(layer, "weight")
        values = layer.weight.detach().cpu() if kind.family != "recurrent" else torch.empty(0)  # type: ignore
        source = form.before[0] if isinstance(form, LoweredWeight) else None
        weight = ProductWeight(values, source, isinstance(form, Codes))
        key = id(form) if form is not None else id(layer._parameters.get("weight", layer))
        found.append(Product(path, layer, weights.setdefault(key, weight), reading.get(path, FLOATS)))
    return found


def activations_read(network: nn.Module, example: Any) -> dict[str, str]:
    """Return what each layer of a lowered network reads, by its path; layers that read plain floats are left out."""
    quantizers = sites(network)
    if not quantizers:
        return {}
    flow = flow_of(trace(network, example))
    kinds = {
        CODES: {place for place, one in quantizers.items() if isinstance(one, Emitted)},
        SIGNS: {place for place, one in quantizers.items() if isinstance(one, Sign)},
    }
    return {path: kind for kind, places in kinds.items() for path, _ in inputs_on_grid(flow, places)}
