"""View: a method's view of a network before a stage, and the operations for editing it."""

import copy
from collections.abc import Callable
from difflib import get_close_matches
from functools import cached_property, reduce
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadValue
from cortado.layers.cut_numbers import note_cuts
from cortado.layers.factors import factored_copy
from cortado.layers.low_rank import low_rank_of
from cortado.network.coupling.cut import cut, kept_outputs
from cortado.network.coupling.find import find_groups
from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.graph.chains import Units, find_units
from cortado.network.graph.trace import Trace, trace
from cortado.network.graph.where import choose
from cortado.parts.blocks.block import Block, stand_in
from cortado.parts.forms.attach import PREFIX, attach, attached_names, dense_form, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Form
from cortado.parts.part import own_modules
from cortado.progress import Progress, quiet


class Weight:
    """One weight of a network and all the places that share it; edit it with `map_values` and `set_form`."""

    def __init__(self, path: str, places: list[tuple[nn.Module, str]]) -> None:
        """`path` is the first name ("conv1.weight"); `places` are the layers that own it, with its name in each."""
        self.path, self.places = path, places
        self.touched: set[str] = set()
        """Where a view records the weights written."""

    @property
    def layer(self) -> nn.Module:
        """Return the first layer that owns it."""
        return self.places[0][0]

    @property
    def layer_path(self) -> str:
        return self.path.rpartition(".")[0]

    @property
    def title(self) -> str:
        """Return its name for messages, in terms that `where` accepts."""
        return self.path

    @property
    def name(self) -> str:
        """Return its name in the layer, usually "weight"."""
        return self.places[0][1]

    @property
    def form(self) -> Form:
        """Return its form; a Dense copy when it has none."""
        form = form_of(*self.places[0])
        return dense_form(getattr(self.layer, self.name)) if form is None else form

    def dense(self) -> Tensor:
        """Return its value, detached."""
        return getattr(self.layer, self.name).detach()

    @property
    def shape(self) -> torch.Size:
        form = form_of(*self.places[0])
        return getattr(self.layer, self.name).shape if form is None else form.shape

    @property
    def real(self) -> bool:
        """Return whether its values are real floats, which forms require."""
        return form_of(*self.places[0]) is not None or bool(getattr(self.layer, self.name).is_floating_point())

    def map_values(self, fn: Callable[[Tensor], Form]) -> None:
        """Apply `fn` (Tensor -> Form) to the float values of the present form."""
        self.set_form(self.form.map_values(fn))

    def select(self, mask: Tensor) -> None:
        """Keep the entries that `mask` (bool, shape of the weight) has, in their form; in plain floats if it cannot say so."""
        self.set_form(self.form.select(mask) or Dense(self.dense()).select(mask))

    def set_form(self, form: Form) -> None:
        """Attach `form` to the weight in every place that shares it."""
        self.touched.add(self.path)
        for layer, name in self.places:
            attach(layer, name, form)


class Factor(Weight):
    """One factor of a low-rank weight.  Methods that prune or train single entries use a factor's entries."""

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
        return reduce(lambda form, name: getattr(form.factors(), name), self.route, self.whole.form)

    def dense(self) -> Tensor:
        return self.form.dense().detach()

    @property
    def shape(self) -> torch.Size:
        return self.form.shape

    def set_form(self, form: Form) -> None:
        self.whole.set_form(with_factor(self.whole.form, self.route, form))


def with_factor(form: Form, route: tuple[str, ...], part: Form) -> Form:
    """Return a low-rank form with another factor at the end of a route."""
    factors = form.factors()
    if not route or factors is None:
        return part
    inner = with_factor(getattr(factors, route[0]), route[1:], part)
    return factors.remade(inner, factors.last) if route[0] == "first" else factors.remade(factors.first, inner)


def routes_of(form: Form) -> list[tuple[str, ...]]:
    """Return the routes to all factors of a form, in running order; one empty route for a form without factors."""
    factors = form.factors()
    if factors is None:
        return [()]
    return [(name, *rest) for name in ("first", "last") for rest in routes_of(getattr(factors, name))]


def parameter_places(network: nn.Module) -> list[Weight]:
    """Return every parameter of a network, in a form or not, tied ones once, in module order."""
    found: dict[int, Weight] = {}
    for path, layer in own_modules(network).items():
        for name in layer_parameters(layer):
            attached = form_of(layer, name)
            key = id(layer._parameters[name] if attached is None else attached)
            place = f"{path}.{name}" if path else name
            found.setdefault(key, Weight(place, [])).places.append((layer, name))
    return list(found.values())


def layer_parameters(layer: nn.Module) -> list[str]:
    """Return the names of a layer's own parameters, those in forms in their original order."""
    free = [name for name, value in layer._parameters.items() if value is not None]
    return [*attached_names(layer), *free] if attached_names(layer) else free


class View:
    """A method's access to a network: queries, and the only operations that change it.

    `network` is the working copy, `original` the user's network (never changed), `reference` the network before the
    last lossy step, whose moments `match_moments` restores. The editing operations: `weight.map_values`,
    `weight.set_form`, `cut` and `wrap`.
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
        """For each layer whose outputs differ from the reference network's: which of its outputs remain, in order."""
        self.notes: list[str] = []
        """A method's notes for the report on this stage."""
        self.curves: dict[str, list[float]] = {}
        """The mean of each term of the loss in every epoch that a method trained, for the report."""
        self.touched: set[str] = set()
        """The paths of weights that the editing operations have written."""

    @cached_property
    def all_weights(self) -> list[Weight]:
        found = parameter_places(self.network)
        for weight in found:
            weight.touched = self.touched
        return found

    def weights(self, where: str = "*") -> list[Weight]:
        """Return the weights of real floats that `where` selects (see network/graph/where.py), and note the others.

        Raises BadValue when a pattern selects none.
        """
        by_name = {weight.path: weight for weight in self.all_weights}
        chosen = choose(where, {path: len(weight.shape) for path, weight in by_name.items()})
        others = [path for path in chosen if not by_name[path].real]
        if others:
            note = f"left unchanged, because forms hold only real floats: {', '.join(others)}"
            if len(others) == len(chosen):
                raise BadValue(
                    f"where: {where!r} selects no real floats, only {', '.join(others[:3])}. Choose other weights."
                )
            self.notes += [note] if note not in self.notes else []
        return [by_name[path] for path in chosen if path not in others]

    def pieces(self, where: str = "*") -> list[Weight]:
        """Return the same weights, but each low-rank weight as its factors in order."""
        found: list[Weight] = []
        for weight in self.weights(where):
            if all(name == "weight" and low_rank_of(layer) is not None for layer, name in weight.places):
                found += [Factor(weight, route, number) for number, route in enumerate(routes_of(weight.form))]
            else:
                found.append(weight)
        return found

    def as_run(self, pieces: list[Weight]) -> tuple["View", list[Weight]]:
        """Return a read-only view in which each factor is the weight of the layer that runs it, and the pieces in it."""
        if not any(isinstance(piece, Factor) for piece in pieces):
            return self, pieces
        runs = View(factored_copy(self.network), self.original, self.example, self.progress)
        # Both networks have the same tensors, but a bias may belong to another layer there.
        by_tensor = {id(tensor_of(weight)): weight for weight in runs.all_weights}
        return runs, [by_tensor[id(tensor_of(piece))] for piece in pieces]

    @cached_property
    def trace(self) -> Trace:
        """Return the calls of one forward pass on the example."""
        return trace(self.network, self.example)

    @cached_property
    def units(self) -> list[Units]:
        """Return the groups of units (neurons, channels) that one layer makes and known layers read."""
        return find_units(self.network, self.example)

    @cached_property
    def groups(self) -> Groups:
        """Return the groups of channels that are cut together.  Raises BadNetwork when the network cannot be traced."""
        return find_groups(self.network, self.example)

    def cut(self, keeps: Keeps) -> None:
        """Keep only these units of some groups (group -> indices of the units that stay).

        Raises CannotFollow when the network's own code cannot follow, after which `groups.free` omits the failing
        groups, and BadValue when a group would keep nothing.
        """
        rows = kept_outputs(self.network, self.groups, keeps)
        cut(self.network, self.groups, keeps)
        self.remember(rows)
        self.forget()

    def remember(self, rows: dict[str, Tensor]) -> None:
        """Record that layers have only these of their outputs, in this order."""
        for path, kept in rows.items():
            before = self.kept.get(path)
            self.kept[path] = kept.cpu() if before is None else before[kept.cpu()]

    def forget(self) -> None:
        """Invalidate the cached analyses after a change to the network."""
        for cached in ("all_weights", "trace", "units", "groups"):
            self.__dict__.pop(cached, None)

    def wrap(self, path: str, block: Block) -> None:
        """Put a block in the place of the module at `path`, wherever it stands; the block may keep that module inside.

        >>> view.wrap("layer3.2", Bypass())
        >>> view.wrap("layer3.2", Gate(view.network.get_submodule("layer3.2"), channels=64))

        Raises BadNetwork when there is no such module, for the whole network, and for names that clash.
        """
        modules = dict(self.network.named_modules())
        if path not in modules or path.rpartition(".")[2].startswith(PREFIX):
            near = ", ".join(get_close_matches(path, modules, 3)) or "cortado profile lists them"
            raise BadNetwork(f"view: there is no module {path!r} to wrap. Its modules: {near}.")
        before = self.network.get_submodule(path)
        if block.kept is not None and block.kept is not before:
            raise BadNetwork(
                f"view: {type(block).__name__} keeps another module than the one at {path!r}. "
                f"Make it with view.network.get_submodule({path!r})."
            )
        stand_in(self.network, before, block.train(before.training))
        self.touched.add(path)
        self.forget()


def tensor_of(weight: Weight) -> Tensor:
    """Return a tensor that belongs to this weight alone: the parameter, or the first one of its form."""
    own = weight.layer._parameters.get(weight.name)
    if own is not None and not isinstance(weight, Factor):
        return own
    return next(iter((*weight.form.parameters(), *weight.form.buffers())))


def working_copy(network: nn.Module, alias: bool = False) -> nn.Module:
    """Return a working copy.  Raises BadNetwork when the network has values that are not finite.

    `alias`: share the network's parameter memory, for a copy that is only read.
    """
    parameters = dict(network.named_parameters(remove_duplicate=False))
    for path, value in network.state_dict().items():
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            continue
        # A buffer may hold infinite values on purpose, such as an attention mask.
        if bool((~torch.isfinite(value)).any() if path in parameters else torch.isnan(value).any()):
            raise BadNetwork(
                f"network: {path} holds NaN or infinite values. Load or train valid weights before compressing."
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
