"""Cut: remove units of groups from a network, in place - tensors in any form, and attributes - and check the result."""

import copy
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from cortado.errors import CannotFollow
from cortado.layers.cut_numbers import note_cuts
from cortado.layers.kinds import kind_of
from cortado.layers.widths import match_widths
from cortado.network.coupling.answers import difference, flat_outputs
from cortado.network.coupling.attribute import Edits, set_attributes
from cortado.network.coupling.capture import first_line
from cortado.network.coupling.find import edits_for, failing_groups, leave_whole
from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.coupling.rewritten import Rewritten, tensors_at
from cortado.network.coupling.trial import Failure, attempt, place
from cortado.network.graph.axes.step import source_of
from cortado.network.graph.axes.variables import Gone
from cortado.parts.activations.quantizer import unrounded
from cortado.parts.forms.attach import attach, form_of

TOLERANCE = 1e-3
"""Largest relative difference between the cut network and its rewritten graph, which sum in the same order."""


Rows = dict[tuple[fx.Node, int], np.ndarray]
"""For each axis of a tensor, by its node in the graph: the indices of the entries that stay, in order."""


def cut(network: nn.Module, groups: Groups, keeps: Keeps) -> None:
    """Keep only the units in `keeps` of each group, in the network in which the groups were found.

    Weights are narrowed in any form, tied ones together, and attributes are updated. A fake copy of the network is
    cut and run first; afterwards the network's outputs must equal those of its rewritten graph, otherwise nothing is
    changed. Raises CannotFollow, with the line and the failing groups, when the network's code cannot follow; these
    are then frozen, and the cut can be repeated without them. Raises BadValue for units that do not exist.
    """
    failure = try_cut(network, groups, keeps)
    if failure is None:
        return
    failing = failing_groups(
        list(keeps),
        lambda few: try_cut(network, groups, {group: keeps[group] for group in few}, stays=False) is not None,
    )
    for group in failing:
        leave_whole(groups, group, failure)
    raise CannotFollow(
        f"groups: this cut cannot be made: {failure.line or failure.module or type(network).__name__}: {failure.message}. "
        f"Exclude {', '.join(group.name for group in failing)} with where=, or cut other amounts.",
        failing,
    )


def try_cut(network: nn.Module, groups: Groups, keeps: Keeps, stays: bool = True) -> Failure | None:
    """Make a cut and check it; return the failure, if any. On failure, or with `stays` False, restore the network."""
    gone = groups.gone(keeps)
    solved = edits_for(network, groups, gone)
    failure = attempt(network, groups, gone, solved.edits)
    if failure is not None:
        return failure
    undo = Undo(network)
    try:
        narrow_all(network, groups, gone, undo, solved.edits)
        failure = find_disagreement(network, groups, gone)
    except Exception:
        undo.all()
        raise
    if failure is not None or not stays:
        undo.all()
    else:
        note_cuts(network, undo.attributes)
    return failure


def narrow_all(network: nn.Module, groups: Groups, gone: Gone, undo: "Undo", edits: Edits) -> None:
    """Narrow every tensor that loses entries, and update the attributes."""
    narrow_rows(groups, groups.kept_rows(gone), undo)
    undo.attributes = set_attributes(network, edits)
    for layer in undo.touched.values():
        match_widths(layer)


def narrow_rows(groups: Groups, kept: Rows, undo: "Undo") -> None:
    """Keep only these entries, in this order, on each axis."""
    tensors = groups.walked.captured.tensors
    # A tensor that layers share may have several placeholders and is cut once.
    for node in {tensors[node]: node for node, _ in kept}.values():
        undo.narrow(tensors[node], {d: rows for (n, d), rows in kept.items() if n is node})


def find_disagreement(network: nn.Module, groups: Groups, gone: Gone) -> Failure | None:
    """Return how a cut network differs from its rewritten graph in outputs or shapes; None if it agrees."""
    captured = groups.walked.captured
    rewritten = Rewritten(groups, gone, tensors_at(network, groups))
    try:
        wanted = rewritten.answer()
    except Exception as error:  # noqa: BLE001 - a graph that fails after a cut was not understood
        return Failure(f"in its graph: {first_line(error)}", "", source_of(rewritten.current))
    if [tuple(value.shape) for value in wanted] != captured.output_shapes():
        return Failure("its outputs would be cut", "", "")
    # The graph was traced without quantizers, which change no axis but every value a little.
    with unrounded(network):
        found = flat_outputs(network, captured.program.example_inputs)
    far = difference(found, wanted)
    if far <= TOLERANCE:
        return None
    return Failure(f"it would compute something else (relative difference {far:.2g})", "", "")


def kept_outputs(network: nn.Module, groups: Groups, keeps: Keeps) -> dict[str, Tensor]:
    """Return, for each layer that loses outputs (or norm that loses channels), the indices of those that stay."""
    return outputs_in(network, groups, groups.kept_rows(groups.gone(keeps)))


def outputs_in(network: nn.Module, groups: Groups, kept: Rows) -> dict[str, Tensor]:
    """Return the rows that are outputs of a layer (or channels of a norm), by its path."""
    found = {}
    tensors, modules = groups.walked.captured.tensors, dict(network.named_modules(remove_duplicate=False))
    for (node, axis), rows in kept.items():
        for full in tensors[node]:
            path, _, name = full.rpartition(".")
            if gives(modules[path], name, axis):
                found[path] = torch.as_tensor(rows)
    return found


def gives(layer: nn.Module, name: str, axis: int) -> bool:
    """Return whether an axis of a tensor has the layer's output channels: tied layers may use it the other way round."""
    kind = kind_of(layer)
    axes = None if kind is None else kind.axes(layer).get(name)
    # A recurrent layer's gates repeat the channels; a grouped transposed convolution has those of one group.
    return axes is not None and axes.output == axis and axes.blocks == 1 and (axes.groups == 1 or axis == 0)


class Undo:
    """Cuts tensors and can restore them."""

    def __init__(self, network: nn.Module) -> None:
        self.modules = dict(network.named_modules(remove_duplicate=False))
        self.network = network
        self.before: list[tuple[nn.Module, dict[str, Any]]] = []
        self.touched: dict[int, nn.Module] = {}
        self.attributes: dict[tuple[str, str], Any] = {}

    def narrow(self, names: tuple[str, ...], rows: dict[int, Any]) -> None:
        """Narrow one tensor along some axes, everywhere it is shared."""
        made: Any = None
        for full in names:
            path, _, name = full.rpartition(".")
            layer = self.modules[path]
            if id(layer) not in self.touched:
                self.touched[id(layer)] = layer
                self.before.append((layer, snapshot(layer)))
            if made is None:
                made = narrowed(layer, name, rows)
            if form_of(layer, name) is not None:
                attach(layer, name, made)
            else:
                place(layer, name, made)

    def all(self) -> None:
        """Restore everything."""
        for layer, before in self.before:
            layer.__dict__.clear()
            layer.__dict__.update(before)
        modules = dict(self.network.named_modules())
        for (path, name), value in self.attributes.items():
            modules[path].__dict__[name] = value


def snapshot(layer: nn.Module) -> dict[str, Any]:
    """Return a layer's own attributes and slots; tensors in them are not copied."""
    own = dict(layer.__dict__)
    for slots in ("_parameters", "_buffers", "_modules"):
        own[slots] = copy.copy(own[slots])
    return own


def narrowed(layer: nn.Module, name: str, rows: dict[int, Any]) -> Any:
    """Return a parameter, buffer or form with fewer entries along some axes."""
    form = form_of(layer, name)
    if form is not None:
        device = next(iter(form.state_dict().values())).device
        for axis, numbers in rows.items():
            form = form.narrow(axis, torch.as_tensor(numbers, dtype=torch.int64, device=device))
        return form
    old = layer._parameters.get(name, layer._buffers.get(name))
    assert old is not None
    value = old.detach()
    for axis, numbers in rows.items():
        value = value.index_select(axis, torch.as_tensor(numbers, dtype=torch.int64, device=old.device))
    return nn.Parameter(value, requires_grad=old.requires_grad) if name in layer._parameters else value
