"""Places: which weights and activations the methods of this folder quantize, and which layers are the edges."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from cortado.layers.roles import MATMUL, NORM
from cortado.lowering.fold import fold_norms
from cortado.lowering.lower import dense
from cortado.methods.needs import MATRIX, Need, matrices, some_differ
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
    rounding_facts,
    sites,
    take_quantizers,
)
from cortado.parts.forms.form import Form
from cortado.task.task import Task

MapValues = Callable[[Tensor], Form]
Observed = list[tuple[QuantizerSite, ObservedRange]]


@dataclass(frozen=True)
class WeightForms:
    """The forms that a method makes of weights: `inner`, `outer` in the first and last layer; `last`, if given, in the last."""

    inner: MapValues
    outer: MapValues
    last: MapValues | None = None

    def of(self, weight: Weight, view: View) -> Form:
        """Return the form that the method makes of a weight."""
        paths, edges = paths_of_weight(view.network, weight), edges_of(view)
        made = self.outer if paths & edges else self.inner
        if self.last is not None and paths & set(matmul_layers_in_order(view)[-1:]):
            made = self.last
        return weight.form.map_values(made)


@dataclass(frozen=True)
class Rounding:
    """How a method rounds activations: the quantizer of each site, None for floats, from its range on calibration data.

    `at_readers`: round where each layer reads, so that sums and shortcuts keep the floats, instead of where runtimes
    fuse.
    """

    quantizer: Callable[[QuantizerSite, ObservedRange], ActivationQuantizer | None]
    images: int
    batch: int
    at_readers: bool = False

    def quantizers(self, observed: Observed) -> Iterator[tuple[tuple[str, str], ActivationQuantizer]]:
        """Yield each place, a layer and its side, with its quantizer."""
        for site, seen in observed:
            made = self.quantizer(site, seen)
            chosen = tuple((reader, INPUT) for reader in site.readers) if self.at_readers else site.places
            if made is not None:
                yield from ((place, made) for place in chosen)


def edges_of(view: View) -> set[str]:
    """Return the paths of the first and last matmul layer; empty if nothing runs between them."""
    ran = matmul_layers_in_order(view)
    return {ran[0], ran[-1]} if len(ran) > 2 else set()


def matmul_layers_in_order(view: View) -> list[str]:
    """Return the paths of the matmul layers, in order of their first call."""
    return list(dict.fromkeys(step.path for step in view.flow.steps if step.kind == MATMUL))


def attach_weights(method: Any, view: View, task: Task) -> None:
    """Give each chosen weight of two or more axes its form.  Raises NothingChanged if there is none."""
    forms = method.weight_forms()
    for weight in MATRICES.require(method, view, task):
        weight.set_form(forms.of(weight, view))


def new_forms(method: Any, view: View, task: Task) -> bool:
    """Return whether the method gives a chosen weight another form than it has."""
    forms = method.weight_forms()
    return some_differ(matrices(view.pieces(method.where)), lambda weight: forms.of(weight, view))


def round_activations(method: Any, view: View, task: Task, rounding: Rounding) -> tuple[Observed, list[str]]:
    """Attach the quantizers of a method; return the observed sites, and the operations that stay in floats.

    Raises NothingChanged if no layer is chosen.
    """
    observed, unquantized = view.measured.pop(ranges_key(method, rounding), None) or observe(
        method, view, task, rounding
    )
    modules = dict(view.network.named_modules())
    for (path, side), made in rounding.quantizers(observed):
        put_quantizer(modules[path], side, made)
    return observed, unquantized


def observe(method: Any, view: View, task: Task, rounding: Rounding) -> tuple[Observed, list[str]]:
    """Return the sites of activations to round with their ranges, and the operations that stay in floats."""
    assert task.calibration is not None
    matmul_layers = MATMULS.require(method, view, task)
    found = quantizer_sites(view.network, view.flow, None if method.where == type(method).where else matmul_layers)
    chosen = found.quantizer_sites
    places, below, floors = ([getattr(site, name) for site in chosen] for name in ("measured", "below", "floor"))
    reaches = measure_ranges(view.network, places, task.calibration, rounding.images, rounding.batch, below, floors)
    return list(zip(found.quantizer_sites, reaches, strict=True)), [
        step.path or "the network" for step in found.unquantized
    ]


def ranges_key(method: Any, rounding: Rounding) -> tuple[str, int, int]:
    """Return what the observed ranges of a network depend on."""
    return method.where, rounding.images, rounding.batch


def planned_quantizers(method: Any, view: View, task: Task) -> Iterator[tuple[tuple[str, str], ActivationQuantizer]]:
    """Yield the quantizers that a method would attach, and leave the observed ranges for its `apply`."""
    rounding = method.rounding(view)
    if rounding is not None:
        key = ranges_key(method, rounding)
        if key not in view.measured:
            view.measured[key] = observe(method, view, task, rounding)
        yield from rounding.quantizers(view.measured[key][0])


def new_quantizers(method: Any, view: View, task: Task) -> bool:
    """Return whether the method rounds an activation otherwise than it is rounded."""
    modules = dict(view.network.named_modules())
    return any(
        (there := quantizer_at(modules[path], side)) is None or rounding_facts(there) != rounding_facts(made)
        for (path, side), made in planned_quantizers(method, view, task)
    )


def both_signs(method: Any, view: View, task: Task) -> bool:
    """Return True, unless making the signs of some input raises."""
    for _ in planned_quantizers(method, view, task):
        continue
    return True


def chosen_matmul_layers(method: Any, view: View, task: Task) -> set[str]:
    """Return the layers that run and whose weights are chosen."""
    layers = {path for weight in view.weights(method.where) for path in paths_of_weight(view.network, weight)}
    return {step.path for step in view.flow.steps if step.kind == MATMUL} & layers


MATRICES = Need(MATRIX, lambda method, view, task: matrices(view.pieces(method.where)))
MATMULS = Need("a convolution or linear layer that runs", chosen_matmul_layers)
SIGNS = Need("inputs of both signs", both_signs)
NEW_FORM = Need(f"{MATRIX} that is not in this form yet", new_forms)
NEW_QUANTIZER = Need("an activation that is not rounded like this yet", new_quantizers)
NEW_ROUNDING = Need(
    f"{MATRIX}, or an activation, that is not rounded like this yet",
    lambda method, view, task: new_forms(method, view, task) or new_quantizers(method, view, task),
)


def note_quantizers(view: View, found: Observed, unquantized: list[str]) -> None:
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
    flow = view.flow
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
