"""Places: which weights and activations the methods of this folder quantize, and which layers are the edges."""

from collections.abc import Callable

from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.lowering.fold import fold_norms
from cortado.lowering.lower import dense
from cortado.methods.method import Method
from cortado.network.graph.flow import MATMUL, NORM, Flow, flow_of
from cortado.network.graph.where import original_first
from cortado.network.quantizers.placement import QuantizerSite, quantizer_sites
from cortado.network.statistics.ranges import ObservedRange, measure_ranges
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import (
    INPUT,
    OUTPUT,
    ActivationQuantizer,
    put_quantizer,
    quantizer_at,
    sites,
    take_quantizers,
)
from cortado.parts.forms.form import Form
from cortado.task.task import Task

MapValues = Callable[[Tensor], Form]


def edges_of(view: View) -> set[str]:
    """Return the paths of the first and last matmul layer; empty if nothing runs between them."""
    ran = matmul_layers_in_order(view)
    return {ran[0], ran[-1]} if len(ran) > 2 else set()


def matmul_layers_in_order(view: View) -> list[str]:
    """Return the paths of the matmul layers, in order of their first call."""
    return list(dict.fromkeys(step.path for step in flow_of(view.network, view.example).steps if step.kind == MATMUL))


def attach_weights(
    method: Method, view: View, inner: MapValues, outer: MapValues, last: MapValues | None = None
) -> None:
    """Give each chosen weight the form that `inner` makes of it, and `outer` in the first and last layer.

    `last`, if given, is for the last layer. Raises NothingChanged if no weight of two or more axes is chosen.
    """
    edges = edges_of(view)
    ends = set(matmul_layers_in_order(view)[-1:]) if last is not None else set()
    chosen = [weight for weight in view.pieces(method.where) if len(weight.shape) > 1]
    if not chosen:
        raise NothingChanged(
            f"{method.name()}: where ({method.where}) selects no weight of two or more axes. Name some."
        )
    for weight in chosen:
        paths = paths_of_weight(view.network, weight)
        made = outer if paths & edges else inner
        weight.map_values(last if last is not None and paths & ends else made)


def quantize_activations(
    method: Method,
    view: View,
    task: Task,
    images: int,
    batch: int,
    quantizer: Callable[[QuantizerSite, ObservedRange], ActivationQuantizer | None],
    at_readers: bool = False,
) -> tuple[list[tuple[QuantizerSite, ObservedRange]], list[str]]:
    """Attach the quantizer that `activation` makes for each site; None leaves that activation in floats.

    `at_readers`: quantize where each layer reads, so that sums and shortcuts keep the floats, instead of where
    runtimes fuse. Return the observed sites, and the operations that stay in floats. Raises NothingChanged if no layer
    is chosen.
    """
    assert task.calibration is not None
    flow = flow_of(view.network, view.example)
    matmul_layers = chosen_matmul_layers(method, view, flow)
    found = quantizer_sites(view.network, flow, None if method.where == type(method).where else matmul_layers)
    places, below = [site.measured for site in found.quantizer_sites], [site.below for site in found.quantizer_sites]
    reaches = measure_ranges(view.network, places, task.calibration, images, batch, below)
    modules = dict(view.network.named_modules())
    for site, observed in zip(found.quantizer_sites, reaches, strict=True):
        made = quantizer(site, observed)
        chosen = tuple((reader, INPUT) for reader in site.readers) if at_readers else site.places
        for path, side in chosen if made is not None else ():
            put_quantizer(modules[path], side, made)  # type: ignore[arg-type]
    return list(zip(found.quantizer_sites, reaches, strict=True)), [
        step.path or "the network" for step in found.unquantized
    ]


def chosen_matmul_layers(method: Method, view: View, flow: Flow) -> set[str]:
    """Return the layers that run and whose weights are chosen.  Raises NothingChanged if there are none."""
    layers = {path for weight in view.weights(method.where) for path in paths_of_weight(view.network, weight)}
    matmul_layers = {step.path for step in flow.steps if step.kind == MATMUL} & layers
    if not matmul_layers:
        raise NothingChanged(
            f"{method.name()}: where ({method.where}) selects no convolution or linear layer that runs. "
            f"Widen where.{original_first(weight.path for weight in view.all_weights)}"
        )
    return matmul_layers


def note_quantizers(view: View, found: list[tuple[QuantizerSite, ObservedRange]], unquantized: list[str]) -> None:
    """Add notes on constant activations, on grids too coarse for their values, and on operations left in floats."""
    constant = [site.places[0][0] for site, observed in found if observed.high <= observed.low]
    if constant:
        view.notes.append(
            f"{len(constant)} activations are constant on the calibration data; the first is at {constant[0]}."
        )
    coarse = [
        site.places[0] for site, observed in found if observed.high > observed.low and is_coarse(view, site, observed)
    ]
    if coarse:
        view.notes.append(
            f"{len(coarse)} activations have 99.9 % of their values within a few steps of their grid and will be mostly "
            f"zeros; the first is the {coarse[0][1]} of {coarse[0][0] or 'the network'}. "
            "Look for outliers in the calibration data."
        )
    if unquantized:
        names = ", ".join(dict.fromkeys(unquantized))
        view.notes.append(
            f"{len(unquantized)} operations stay in floats, because there is no layer at which to quantize them: {names}."
        )
    if floats := unfolded(view, {path for site, _ in found for path in site.readers}):
        view.notes.append(
            f"{len(floats)} layers stay in floats, because the batch norm behind them cannot be folded: "
            f"{', '.join(floats)}. A shared layer needs the same norm at each of its calls."
        )


def unfolded(view: View, matmul_layers: set[str]) -> list[str]:
    """Return the layers that stay in floats because the batch norm behind them cannot be folded."""
    flow = flow_of(view.network, view.example)
    norms = {step.inputs[0]: step.path for step in flow.steps if step.kind == NORM and step.inputs}
    given = {path for path, side in sites(view.network) if side == OUTPUT}
    before = [(step.path, norms[step.outputs[0]]) for step in flow.steps if step.outputs and step.outputs[0] in norms]
    apart = [(path, norm) for path, norm in before if path in matmul_layers - given]
    if not apart:
        return []
    copy = dense(view.network)
    take_quantizers(copy)
    folded = fold_norms(copy, view.example, given)
    return list(dict.fromkeys(path for path, norm in apart if norm not in folded))


def is_coarse(view: View, site: QuantizerSite, observed: ObservedRange) -> bool:
    """Return whether nearly all of an activation falls on one level in 32 of its grid."""
    path, side = site.places[0]
    made = quantizer_at(view.network.get_submodule(path), side)
    return isinstance(made, Affine) and 32 * observed.steps(float(made.size.detach())) < made.top


def paths_of_weight(network: nn.Module, weight: Weight) -> set[str]:
    """Return every path of every layer that has this weight; a tied one has several."""
    return {path for layer, _ in weight.places for path in paths_of(network, layer)}


def paths_of(network: nn.Module, layer: nn.Module) -> list[str]:
    """Return every path of a layer."""
    return [path for path, module in network.named_modules(remove_duplicate=False) if module is layer]
