"""Placements: with which kernel a file computes each layer, in how many bits, and why not with a faster one."""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cortado.layers.factors import factored_network
from cortado.lowering.lower import lowered
from cortado.lowering.products import Product, products_of
from cortado.network.finalize import finalized_copy
from cortado.network.profile.profile import profile
from cortado.parts.forms.attach import form_of
from cortado.report.record import FLOATS, UNREPORTED, Placement
from cortado.runtimes.kernels.kernel import reasons_against
from cortado.runtimes.kernels.native import FEWEST_ZEROS
from cortado.runtimes.runtime import Ran, Runtime

FLOAT_BITS = 32
GONE = "it was merged or rewritten"


def placements(
    runtime: Runtime, file: Path, network: nn.Module, example: Any, low: nn.Module | None = None
) -> tuple[Placement, ...]:
    """Return a row for each layer that multiplies, in the order in which they run.

    `low` is the lowered network that the file was written from (made here if it is not at hand). A layer whose runtime does
    not report its kernels has the kernel UNREPORTED.
    """
    low = lowered(network, example) if low is None else low
    # Low-rank layers run as the layers of their factors.
    source = factored_network(finalized_copy(network))
    costs = {row.path: row.multiply_adds for row in profile(source, example).rows if row.multiply_adds}
    by_path = {product.path: product for product in products_of(low, example)}
    found, total, layers = runtime.placed(file), sum(costs.values()), dict(source.named_modules())
    rows, paths = [], [*costs, *(path for path in by_path if path not in costs and path in (found or {}))]
    for path in paths:
        ran = Ran(UNREPORTED, FLOAT_BITS) if found is None else ran_of(path, found, paths)
        why = why_not(runtime, layers[path], by_path.get(path), ran.kernel)
        rows.append(Placement(path, ran.kernel, ran.bits, costs.get(path, 0.0) / total if total else 0.0, why))
    return tuple(rows)


def placements_of(runtime: Runtime, network: nn.Module, example: Any) -> tuple[Placement, ...]:
    """Return the rows of a file that is written for them alone.  Raises what exporting raises."""
    with tempfile.TemporaryDirectory() as folder:
        low = lowered(network, example)
        return placements(runtime, runtime.lower(low, example, Path(folder)), network, example, low)


def why_not(runtime: Runtime, layer: nn.Module, product: Product | None, ran: str) -> str:
    """Return why no faster kernel than `ran` computes a layer; "" where none could."""
    if ran == UNREPORTED or (product is None and form_of(layer, "weight") is None):
        return ""
    if not runtime.kernels:
        return f"{runtime.name()} computes in floats" if form_of(layer, "weight") is not None else ""
    if product is None:
        return GONE
    return reasons_against(runtime.kernels, product, ran) or (unused(runtime, product) if ran == FLOATS else "")


def unused(runtime: Runtime, product: Product) -> str:
    """Return what of a weight no kernel of the runtime makes use of; "" if there is nothing."""
    weight = product.weight
    if weight.form is None:
        return ""
    few, shared = weight.few_bits, weight.lattice is None and weight.form.code_bits() is not None
    what = "few bits" if few else "shared values" if shared else "mostly zeros" if weight.zeros >= FEWEST_ZEROS else ""
    return f"{runtime.name()} multiplies by it as floats: it has no {product.family} product of {what}" if what else ""


def ran_of(path: str, found: Mapping[str, Ran], paths: Collection[str] = ()) -> Ran:
    """Return how a file computes a layer: by its own name, or by those of the operators inside it.

    `paths` are all layers: those inside this one are others, and say nothing about what it computes itself.
    """
    if path in found:
        return found[path]
    inside = [ran for name, ran in found.items() if path and name.startswith(f"{path}.") and name not in paths]
    return inside[0] if inside else Ran(FLOATS, FLOAT_BITS)


def kernel_share(rows: Sequence[Placement], kernel: str) -> float:
    """Return the share of the multiply-adds that a kernel computes."""
    return sum(row.share for row in rows if row.kernel == kernel)
