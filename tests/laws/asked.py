"""Asked: what the methods themselves say of a network, or of a state in it: they find what they need, or nothing, or refuse it."""

import contextlib
import copy
from dataclasses import dataclass
from functools import cache

from torch import nn

from cortado.engine.changes import Changes
from cortado.errors import BadNetwork, BadTask, CortadoError, NothingChanged
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.methods.needs import Leaves
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.aware import QuantizeAware
from cortado.network.view import View
from tests.laws.small_methods import small
from tests.laws.tiny_nets import BY_NAME


@dataclass(frozen=True)
class Asked:
    """What a method says: the error that ends its stage, with its words, or none where it finds what it needs."""

    error: type[CortadoError] | None = None
    words: str = ""


FINDS_WORK = Asked()


def asked(method: Method, view: View, net: str) -> Asked:
    """What the method says of the network in a view; it changes nothing."""
    try:
        unmet = method.unmet(view, BY_NAME[net].task())
    except (BadNetwork, BadTask) as error:
        return Asked(type(error), str(error))
    return Asked(NothingChanged, unmet) if unmet else FINDS_WORK


def stages(name: str, **knobs: object) -> list[Method]:
    """The method, after what gives it something to do: trained weights to rewind, forms to release, empty places to sort by."""
    before: dict[str, list[Method]] = {
        "rewind": [Finetune(epochs=0.25)],
        "release": [PruneWeights()],
        "finalize": [QuantizeAware()],
        "conditional/thresholds": [small("conditional/exits")],
        "quantize/scales": [small("quantize/weights", bits=4)],
        "prune/units": [PruneWeights(keep=0.3, by="random")],
    }
    return [*before.get(name, []), small(name, **knobs)]


def stages_on(name: str, net: str) -> list[Method]:
    """The same, without what finds nothing to do on a tiny network."""
    *first, method = stages(name)
    return [*(one for one in first if asked(one, view_after((), net), net) == FINDS_WORK), method]


def after_first(name: str, net: str) -> nn.Module:
    """The tiny network after what gives the method something to do."""
    return copy.deepcopy(view_after(tuple(stages(name)[:-1]), net).network)


@cache
def view_after(first: tuple[Method, ...], net: str) -> View:
    """A tiny network after some stages, for all questions: it is traced once, and asking changes nothing."""
    tiny = BY_NAME[net]
    network = tiny.make()
    for stage in first:
        view = View(network, tiny.make(), tiny.example)
        # Where the first stage finds nothing to do, the method is asked of the network as it is.
        with contextlib.suppress(NothingChanged):
            stage.apply(view, tiny.task())
        network = view.network
    return View(network, tiny.make(), tiny.example)


@cache
def asked_of(name: str, net: str) -> Asked:
    """What the method called `name` says of a tiny network, given something to do."""
    *first, method = stages(name)
    return asked(method, view_after(tuple(first), net), net)


def would_change(method: Method, view: View, net: str) -> bool:
    """Whether the method changes something if nobody asks for its needs."""
    before = copy.deepcopy(view.network)
    with contextlib.suppress(NothingChanged):
        method.apply(view, BY_NAME[net].task())
    return Changes(before, view.network, view.touched).any(values_only=method.lossy)


def leaves(name: str, left: Leaves) -> bool:
    """Whether a method may leave something of this kind."""
    return left in small(name).leaves
