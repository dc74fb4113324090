"""View: a fresh picture of a network before each stage, and the editing operations a method writes with."""

import copy
from collections.abc import Callable
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.layers.cut_numbers import note_cuts
from cortado.layers.low_rank import low_rank_of
from cortado.network.coupling.cut import cut, kept_outputs
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.graph.chains import Units, find_units
from cortado.network.graph.trace import Trace, trace
from cortado.network.graph.where import choose
from cortado.parts.forms.attach import PREFIX, attach, attached_names, dense_form, form_of
from cortado.parts.forms.form import Form
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.part import own_modules
from cortado.progress import Progress, quiet


class Weight:
    """One weight of a network and all the places that share it.  The editing operation is `map_values`."""

    def __init__(self, path: str, places: list[tuple[nn.Module, str]]) -> None:
        """`path` is the first name ("conv1.weight"); `places` are the layers that own it, with its name in each."""
        self.path, self.places = path, places
        self.touched: set[str] = set()
        """Where a view notes what was written."""

    @property
    def layer(self) -> nn.Module:
        """The layer that owns it first."""
        return self.places[0][0]

    @property
    def layer_path(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def title(self) -> str:
        """What a message calls it, in words that `where` knows."""
        return self.path

    @property
    def name(self) -> str:
        """Its name in the layer, "weight" mostly."""
        return self.places[0][1]

    @property
    def form(self) -> Form:
        """The form that holds it; a Dense copy when nothing does."""
        form = form_of(*self.places[0])
        return dense_form(getattr(self.layer, self.name)) if form is None else form

    def dense(self) -> Tensor:
        """Its value, apart from the graph of gradients."""
        return getattr(self.layer, self.name).detach()

    @property
    def shape(self) -> torch.Size:
        form = form_of(*self.places[0])
        return getattr(self.layer, self.name).shape if form is None else form.shape

    @property
    def real(self) -> bool:
        """Whether its values are real floats, which forms hold."""
        return form_of(*self.places[0]) is not None or bool(getattr(self.layer, self.name).is_floating_point())

    def map_values(self, fn: Callable[[Tensor], Form]) -> None:
        """Apply `fn` (Tensor -> Form) where the floats of the present form live."""
        self.set_form(self.form.map_values(fn))

    def set_form(self, form: Form) -> None:
        """Hold the weight in `form` from now on, in every place that shares it."""
        self.touched.add(self.path)
        for layer, name in self.places:
            attach(layer, name, form)


class Factor(Weight):
    """One factor of a weight that its layers run in low rank.  What prunes or trains single entries has these entries."""

    def __init__(self, whole: Weight, route: tuple[str, ...], number: int) -> None:
        """`route` leads from the form of the whole weight to the factor, `number` counts the factors in order."""
        path = f"{whole.layer_path}.{number}.{whole.name}".removeprefix(".")
        super().__init__(path, whole.places)
        self.whole, self.route = whole, route

    @property
    def title(self) -> str:
        return f"a factor of {self.whole.path}"

    @property
    def layer_path(self) -> str:
        return self.whole.layer_path

    @property
    def form(self) -> Form:
        return reduce(getattr, self.route, self.whole.form)

    def dense(self) -> Tensor:
        return self.form.dense().detach()

    @property
    def shape(self) -> torch.Size:
        return self.form.shape

    def set_form(self, form: Form) -> None:
        self.whole.set_form(replaced(self.whole.form, self.route, form))


def replaced(form: Form, route: tuple[str, ...], part: Form) -> Form:
    """A form in low rank with another factor at the end of a route."""
    if not route:
        return part
    assert isinstance(form, LowRank)
    inner = replaced(getattr(form, route[0]), route[1:], part)
    return form.of(inner, form.last) if route[0] == "first" else form.of(form.first, inner)


def routes_of(form: Form) -> list[tuple[str, ...]]:
    """The ways to all factors of a form, in the order in which they run; one of no length to what is in one piece."""
    if not isinstance(form, LowRank):
        return [()]
    return [(name, *rest) for name in ("first", "last") for rest in routes_of(getattr(form, name))]


def parameter_places(network: nn.Module) -> list[Weight]:
    """Every parameter of a network, held or not, tied ones once, in the order of its modules."""
    found: dict[int, Weight] = {}
    for path, layer in own_modules(network).items():
        for name in layer_parameters(layer):
            attached = form_of(layer, name)
            key = id(layer._parameters[name] if attached is None else attached)
            place = f"{path}.{name}" if path else name
            found.setdefault(key, Weight(place, [])).places.append((layer, name))
    return list(found.values())


def layer_parameters(layer: nn.Module) -> list[str]:
    """Names of a layer's own parameters, held ones in the place that its class gave them."""
    free = [name for name, value in layer._parameters.items() if value is not None]
    return [*attached_names(layer), *free] if attached_names(layer) else free


class View:
    """What a method may ask of a network, and the only ways to change it.

    `network` is the working copy, `original` the user's network as it came (never changed), `reference` the network as it
    was before the last lossy step, whose moments `match_moments` gives back. The editing operations: `weight.map_values`, `cut` and `replace`.
    """

    def __init__(
        self,
        network: nn.Module,
        original: nn.Module,
        example: Any,
        progress: Progress | None = None,
        reference: nn.Module | None = None,
        kept: dict[str, Tensor] | None = None,
    ) -> None:
        self.network, self.original, self.example = network, original, example
        self.progress = progress or quiet()
        self.reference = original if reference is None else reference
        self.kept: dict[str, Tensor] = {} if kept is None else kept
        """For each layer whose outputs are others than in the reference network: which of its outputs they are, in order."""
        self.notes: list[str] = []
        """What a method wants the report to say of this stage."""
        self.touched: set[str] = set()
        """The weights that the editing operations have written, by path."""

    @cached_property
    def all_weights(self) -> list[Weight]:
        found = parameter_places(self.network)
        for weight in found:
            weight.touched = self.touched
        return found

    def weights(self, where: str = "*") -> list[Weight]:
        """Return the weights of real floats that `where` takes (see network/where.py); the others are noted.

        Raises BadValue when a pattern takes none.
        """
        by_name = {weight.path: weight for weight in self.all_weights}
        chosen = choose(where, {path: len(weight.shape) for path, weight in by_name.items()})
        others = [path for path in chosen if not by_name[path].real]
        if others:
            note = f"left as they are, for forms hold real floats: {', '.join(others)}"
            if len(others) == len(chosen):
                raise BadValue(
                    f"where: {where!r} takes no real floats, but {', '.join(others[:3])}. Choose other weights."
                )
            self.notes += [note] if note not in self.notes else []
        return [by_name[path] for path in chosen if path not in others]

    def pieces(self, where: str = "*") -> list[Weight]:
        """The same, but for a weight that runs in low rank its factors, one after another."""
        found: list[Weight] = []
        for weight in self.weights(where):
            if all(name == "weight" and low_rank_of(layer) is not None for layer, name in weight.places):
                found += [Factor(weight, route, number) for number, route in enumerate(routes_of(weight.form))]
            else:
                found.append(weight)
        return found

    @cached_property
    def trace(self) -> Trace:
        """The calls of one forward pass on the example."""
        return trace(self.network, self.example)

    @cached_property
    def units(self) -> list[Units]:
        """The groups of units (neurons, channels) that one layer makes and known layers read."""
        return find_units(self.network, self.example)

    @cached_property
    def groups(self) -> Groups:
        """The groups of channels that can only be cut together.  Raises BadNetwork when the network cannot be traced."""
        return find_groups(self.network, self.example)

    def cut(self, keeps: Keeps) -> None:
        """Leave only these units of some groups (group -> numbers of the units that stay).

        Raises CannotFollow when the network's own code cannot follow, after which `groups.free` is without those at fault,
        and BadValue when a group would keep nothing.
        """
        rows = kept_outputs(self.network, self.groups, keeps)
        cut(self.network, self.groups, keeps)
        self.remember(rows)
        self.forget()

    def remember(self, rows: dict[str, Tensor]) -> None:
        """Layers have only these of their outputs left, or have them in this order."""
        for path, kept in rows.items():
            before = self.kept.get(path)
            self.kept[path] = kept.cpu() if before is None else before[kept.cpu()]

    def forget(self) -> None:
        """The network has changed: what was found of it is found again when asked for."""
        for cached in ("all_weights", "trace", "units", "groups"):
            self.__dict__.pop(cached, None)

    def replace(self, path: str, layer: nn.Module) -> None:
        """Put `layer` in the place of the module at `path`.  Raises BadNetwork when there is none."""
        parent_path, _, name = path.rpartition(".")
        modules = dict(self.network.named_modules())
        if path not in modules or not name or name.startswith(PREFIX):
            raise BadNetwork(f"view: there is no layer {path!r} to replace. cortado profile lists the layers.")
        setattr(modules[parent_path], name, layer)
        self.forget()


def working_copy(network: nn.Module, alias: bool = False) -> nn.Module:
    """A copy to work on.  Raises BadNetwork when the network has values that are not finite.

    `alias`: the memory of its parameters is the network's own, for a copy that is only read.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for path, value in network.state_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        # A buffer may hold infinite values on purpose, as a mask of attention does.
        if bool((~torch.isfinite(value)).any() if path in parameters else torch.isnan(value).any()):
            raise BadNetwork(
                f"network: {path} holds NaN or infinite values. Load or train sound weights before compressing them."
            )
    own = {id(value): value for value in parameters.values() if type(value) is nn.Parameter and not vars(value)}
    memo = {key: nn.Parameter(value.detach(), value.requires_grad) for key, value in own.items() if alias}
    try:
        made = copy.deepcopy(network, memo)
    except Exception as error:
        raise BadNetwork(
            f"network: {type(network).__name__} cannot be copied ({error}). Give it a __deepcopy__, or remove what blocks it."
        ) from error
    note_cuts(made)
    return made
