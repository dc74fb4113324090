"""View: a method's view of a network before a stage, and the operations for editing it."""

import copy
from difflib import get_close_matches
from functools import cached_property
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
from cortado.network.coupling.reorder import Orders, reorder
from cortado.network.graph.blocks import find_blocks
from cortado.network.graph.flow import Flow, flow_of
from cortado.network.graph.graph import Graph
from cortado.network.graph.trace import trace
from cortado.network.graph.where import choose
from cortado.network.weight import Factor, Weight, parameter_places, routes_of, tensor_of
from cortado.parts.blocks.block import Block, stand_in, take_off
from cortado.parts.forms.attach import PREFIX
from cortado.progress import Progress, quiet


class View:
    """A method's access to a network: queries, and the only operations that change it.

    `network` is the working copy, `original` the user's network (never changed): it teaches, and results are compared with
    it. `base` is the network that the working copy was made from and the file is written against: the original, or a student
    as it came. `reference` is the network before the last lossy step, whose moments `match_moments` restores. The editing
    operations: `weight.map_values`, `weight.set_form`, `cut`, `wrap`, `unwrap` and `become`.
    """

    def __init__(
        self,
        network: nn.Module,
        original: nn.Module,
        example: Any,
        progress: Progress | None = None,
        reference: nn.Module | None = None,
        kept: dict[str, Tensor] | None = None,
        survivors: dict[str, Tensor] | None = None,
        base: nn.Module | None = None,
    ) -> None:
        self.network, self.original, self.example = network, original, example
        self.base = original if base is None else base
        self.progress = progress or quiet()
        self.reference = self.base if reference is None else reference
        self.kept: dict[str, Tensor] = {} if kept is None else kept
        """For each layer whose outputs differ from the reference network's: which of its outputs remain, in order."""
        self.survivors = survivors
        """The same against `base`; None where that is not known."""
        self.notes: list[str] = []
        """A method's notes for the report on this stage."""
        self.hindrances: list[str] = []
        """Sentences on why a training could change little."""
        self.curves: dict[str, list[float]] = {}
        """The mean of each term of the loss in every epoch that a method trained, for the report."""
        self.measured: dict[Any, Any] = {}
        """What a method's needs have measured on the network as it is, for its `apply` to take."""
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
        runs = View(factored_copy(self.network), self.original, self.example, self.progress, base=self.base)
        # Both networks have the same tensors, but a bias may belong to another layer there.
        by_tensor = {id(tensor_of(weight)): weight for weight in runs.all_weights}
        return runs, [by_tensor[id(tensor_of(piece))] for piece in pieces]

    @cached_property
    def graph(self) -> Graph:
        """Return what ran in one forward pass on the example."""
        return trace(self.network, self.example)

    @cached_property
    def flow(self) -> Flow:
        """Return the values that pass between operators in one run on the example."""
        return flow_of(self.graph)

    @cached_property
    def blocks(self) -> list[str]:
        """Return the paths of the modules that could be removed, as their output has the shape of their input."""
        return find_blocks(self.network, self.example)

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

    def reorder(self, orders: Orders) -> None:
        """Put the units of some groups in another order (group -> indices of all its units); outputs stay the same.

        Raises BadValue for a group whose units cannot change places.
        """
        self.remember(reorder(self.network, self.groups, orders))
        self.forget()

    def remember(self, rows: dict[str, Tensor]) -> None:
        """Record that layers have only these of their outputs, in this order."""
        for known in (self.kept, *([] if self.survivors is None else [self.survivors])):
            for path, kept in rows.items():
                before = known.get(path)
                known[path] = kept.cpu() if before is None else before[kept.cpu()]

    def forget(self) -> None:
        """Invalidate the cached analyses after a change to the network."""
        for cached in ("all_weights", "graph", "flow", "blocks", "groups"):
            self.__dict__.pop(cached, None)
        self.measured.clear()

    def wrap(self, path: str, block: Block) -> None:
        """Put a block in the place of the module at `path`, wherever it stands; the block may keep that module inside.

        >>> view.wrap("layer3.2", Bypass())
        >>> view.wrap("layer3.2", Gate(view.network.get_submodule("layer3.2"), channels=64))

        The path "" is the whole network, which the block has to keep. Raises BadNetwork when it does not, when there is no
        such module, and for names that clash.
        """
        modules = dict(self.network.named_modules(remove_duplicate=False))
        if path not in modules or path.rpartition(".")[2].startswith(PREFIX):
            near = ", ".join(get_close_matches(path, modules, 3)) or "cortado profile lists them"
            raise BadNetwork(f"view: there is no module {path!r} to wrap. Its modules: {near}.")
        before = self.network.get_submodule(path)
        if block.kept is not None and block.kept is not before:
            raise BadNetwork(
                f"view: {type(block).__name__} keeps another module than the one at {path!r}. "
                f"Make it with view.network.get_submodule({path!r})."
            )
        self.network = stand_in(self.network, before, block.train(before.training))
        self.touched.add(next(first for first, module in self.network.named_modules() if module is block))
        self.forget()

    def unwrap(self, path: str) -> None:
        """Put what the outermost block at `path` keeps back in its place.  Raises BadNetwork where no block keeps a module.

        >>> view.unwrap("layer3.2")
        """
        block = self.network.get_submodule(path) if path in dict(self.network.named_modules()) else None
        if not isinstance(block, Block):
            raise BadNetwork(f"view: there is no block at {path!r} to take off. Wrap a module first.")
        self.network = take_off(self.network, block)
        self.touched.add(path)
        self.forget()

    def become(self, network: nn.Module) -> None:
        """Continue with a copy of another network, a student: it is the base now, and nothing of it was cut.

        >>> view.become(small())
        """
        self.network, self.base, self.reference = copy.deepcopy(network), network, network
        self.kept, self.survivors = {}, {}
        self.forget()


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
