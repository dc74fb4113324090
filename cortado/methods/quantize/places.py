"""Places: which weights and signals the methods of this room round, and which of them are the network's edges."""

from collections.abc import Callable

from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.forms.form import Form
from cortado.method import Method
from cortado.network.flow import PRODUCT, Flow, flow_of
from cortado.network.ranges import Reach, measure_ranges
from cortado.network.rounding import Wish, wishes
from cortado.network.view import View, Weight
from cortado.signals.affine import Affine
from cortado.signals.signal import INPUT, Signal, put_signal, signal_at
from cortado.task import Task

Recode = Callable[[Tensor], Form]


def edges_of(view: View) -> set[str]:
    """The layers whose products run first and last; none where nothing lies between them."""
    ran = products_in_order(view)
    return {ran[0], ran[-1]} if len(ran) > 2 else set()


def products_in_order(view: View) -> list[str]:
    """The layers whose products run, by their first run."""
    return list(dict.fromkeys(step.path for step in flow_of(view.network, view.example).steps if step.kind == PRODUCT))


def hold_weights(method: Method, view: View, inner: Recode, outer: Recode, last: Recode | None = None) -> None:
    """Let each chosen weight be held in what `inner` makes of it, those of the first and last product in what `outer` does.

    `last`, if given, is for the last product. Raises NothingChanged where no weight of two or more axes is among them.
    """
    edges = edges_of(view)
    ends = set(products_in_order(view)[-1:]) if last is not None else set()
    chosen = [weight for weight in view.pieces(method.where) if len(weight.shape) > 1]
    if not chosen:
        raise NothingChanged(
            f"{method.name()}: no weight of two or more axes is among those that where takes ({method.where}). Name some."
        )
    for weight in chosen:
        paths = paths_of_weight(view.network, weight)
        made = outer if paths & edges else inner
        weight.recode(last if last is not None and paths & ends else made)


def round_signals(
    method: Method,
    view: View,
    task: Task,
    images: int,
    batch: int,
    signal: Callable[[Wish, Reach], Signal | None],
    at_readers: bool = False,
) -> tuple[list[tuple[Wish, Reach]], list[str]]:
    """Put what `signal` makes of each signal on its places; None leaves it as it is.

    `at_readers`: where each product reads it, so that sums and shortcuts go on with the floats, instead of where runtimes
    fuse it.

    Gives what was looked at, and the steps that stay in floats. Raises NothingChanged where no product is chosen.
    """
    assert task.calibration is not None
    flow = flow_of(view.network, view.example)
    products = products_of(method, view, flow)
    found = wishes(view.network, flow, None if method.where == type(method).where else products)
    places, below = [wish.measured for wish in found.wishes], [wish.below for wish in found.wishes]
    reaches = measure_ranges(view.network, places, task.calibration, images, batch, below)
    modules = dict(view.network.named_modules())
    for wish, reach in zip(found.wishes, reaches, strict=True):
        made = signal(wish, reach)
        chosen = tuple((reader, INPUT) for reader in wish.readers) if at_readers else wish.places
        for path, side in chosen if made is not None else ():
            put_signal(modules[path], side, made)  # type: ignore[arg-type]
    return list(zip(found.wishes, reaches, strict=True)), [step.path or "the network" for step in found.islands]


def products_of(method: Method, view: View, flow: Flow) -> set[str]:
    """The layers whose products run and whose weights are chosen.  Raises NothingChanged where there are none."""
    layers = {path for weight in view.weights(method.where) for path in paths_of_weight(view.network, weight)}
    products = {step.path for step in flow.steps if step.kind == PRODUCT} & layers
    if not products:
        raise NothingChanged(
            f"{method.name()}: no convolution or linear layer among those that where takes ({method.where}) was run. "
            "Name some that are."
        )
    return products


def note_signals(view: View, found: list[tuple[Wish, Reach]], islands: list[str]) -> None:
    """Tell the report of signals that are always the same, of grids too coarse for theirs, and of steps left in floats."""
    constant = [wish.places[0][0] for wish, reach in found if reach.high <= reach.low]
    if constant:
        view.notes.append(f"{len(constant)} signals never change on the calibration data, the first at {constant[0]}.")
    coarse = [wish.places[0] for wish, reach in found if reach.high > reach.low and is_coarse(view, wish, reach)]
    if coarse:
        view.notes.append(
            f"{len(coarse)} signals lie within a few steps of their grid, one value in a thousand left out, the first is "
            f"the {coarse[0][1]} of {coarse[0][0] or 'the network'}: they will come out as little but zeros. "
            "Look for outliers in the calibration data."
        )
    if islands:
        names = ", ".join(dict.fromkeys(islands))
        view.notes.append(
            f"{len(islands)} steps stay in floats, as no layer stands where they could be rounded: {names}."
        )


def is_coarse(view: View, wish: Wish, reach: Reach) -> bool:
    """Whether nearly all of a signal falls on one level in 32 of its grid."""
    path, side = wish.places[0]
    made = signal_at(view.network.get_submodule(path), side)
    return isinstance(made, Affine) and 32 * reach.steps(float(made.size.detach())) < made.top


def paths_of_weight(network: nn.Module, weight: Weight) -> set[str]:
    """Every path of every layer that a weight belongs to: a tied one has several."""
    return {path for layer, _ in weight.places for path in paths_of(network, layer)}


def paths_of(network: nn.Module, layer: nn.Module) -> list[str]:
    """Every path of a layer."""
    return [path for path, module in network.named_modules(remove_duplicate=False) if module is layer]
