"""Cut: remove units of groups from a network, in place: tensors in whatever form, attributes, and a proof that it is right."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork
from cortado.forms.hold import form_of, hold
from cortado.groups.attribute import set_attributes
from cortado.groups.capture import silent_and_plain
from cortado.groups.find import edits_for
from cortado.groups.groups import Gone, Groups, Keeps
from cortado.groups.rewritten import Rewritten, tensors_at
from cortado.groups.trial import attempt, place
from cortado.layers.widths import match_widths

TOLERANCE = 1e-3
"""Largest relative difference between the cut network and its rewritten graph: they add up in the same order."""


def cut(network: nn.Module, groups: Groups, keeps: Keeps) -> None:
    """Leave of each group in `keeps` only those units, in the network that the groups were found in.

    Weights are narrowed in whatever form holds them, tied ones together; attributes follow. A shadow of the network is
    cut and run first, and afterwards the network must answer as its rewritten graph does; otherwise nothing is changed.
    Raises BadNetwork when the network's code cannot follow, with the line, and BadValue for units that are not there.
    """
    gone = groups.gone(keeps)
    kept = groups.kept_rows(gone)
    solved = edits_for(network, groups, gone)
    failure = attempt(network, groups, gone, solved.edits)
    if failure is not None:
        raise BadNetwork(
            f"groups: this cut cannot be made: {failure.line or failure.module} says {failure.says}. "
            "Leave the group out with where=, or cut other amounts."
        )
    undo = Undo(network)
    tensors = groups.walked.captured.tensors
    # A tensor that layers share may have a placeholder for each, and is cut once.
    for node in {tensors[node]: node for node, _ in kept}.values():
        undo.narrow(tensors[node], {d: rows for (n, d), rows in kept.items() if n is node})
    undo.attributes = set_attributes(network, solved.edits)
    for layer in undo.touched.values():
        match_widths(layer)
    difference = disagreement(network, groups, gone)
    if not difference <= TOLERANCE:
        undo.all()
        raise BadNetwork(
            f"groups: the network's own code follows this cut, but computes something else (relative difference "
            f"{difference:.2g}). Leave {', '.join(group.name for group in keeps)} out with where=."
        )


def kept_outputs(groups: Groups, keeps: Keeps) -> dict[str, Tensor]:
    """For each layer that loses outputs (or is a norm of lost channels) the numbers of those that stay."""
    found = {}
    roles, tensors = groups.walked.roles, groups.walked.captured.tensors
    for (node, axis), rows in groups.kept_rows(groups.gone(keeps)).items():
        role = roles.get((node, axis), "rider")
        if role == "producer" or (role == "rider" and node.meta["val"].dim() == 1):
            for full in tensors[node]:
                found[full.rpartition(".")[0]] = torch.as_tensor(rows)
    return found


class Undo:
    """Cuts tensors and remembers what was there."""

    def __init__(self, network: nn.Module) -> None:
        self.modules = dict(network.named_modules(remove_duplicate=False))
        self.network = network
        self.before: list[tuple[nn.Module, dict[str, Any]]] = []
        self.touched: dict[int, nn.Module] = {}
        self.attributes: dict[tuple[str, str], Any] = {}

    def narrow(self, names: tuple[str, ...], rows: dict[int, Any]) -> None:
        """Narrow one tensor along some axes, in all places that share it."""
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
                hold(layer, name, made)
            else:
                place(layer, name, made)

    def all(self) -> None:
        """Everything as it was."""
        for layer, before in self.before:
            layer.__dict__.clear()
            layer.__dict__.update(before)
        modules = dict(self.network.named_modules())
        for (path, name), value in self.attributes.items():
            modules[path].__dict__[name] = value


def snapshot(layer: nn.Module) -> dict[str, Any]:
    """A layer's own attributes and slots; the tensors in them are not copied."""
    own = dict(layer.__dict__)
    for slots in ("_parameters", "_buffers", "_modules"):
        own[slots] = copy.copy(own[slots])
    return own


def narrowed(layer: nn.Module, name: str, rows: dict[int, Any]) -> Any:
    """A parameter, buffer or form with fewer entries along some axes."""
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


def disagreement(network: nn.Module, groups: Groups, gone: Gone) -> float:
    """The largest difference between the outputs of a cut network and of its rewritten graph, over their largest value."""
    wanted = Rewritten(groups, gone, tensors_at(network, groups)).answer()
    found = answer(network, groups)
    worst = 0.0
    for a, b in zip(wanted, found, strict=True):
        if a.shape != b.shape:
            return float("inf")
        if a.numel():
            worst = max(worst, float((a - b).abs().max() / a.abs().max().clamp(min=1e-12)))
    return worst


def answer(network: nn.Module, groups: Groups) -> list[Tensor]:
    """The network's outputs on the example, flat, in eval mode."""
    modes = [(module, module.training) for module in network.modules()]
    given, named = groups.walked.captured.program.example_inputs
    try:
        with silent_and_plain():
            found = network.eval()(*given, **named)
    finally:
        for module, mode in modes:
            module.training = mode
    return [value for value in torch.utils._pytree.tree_leaves(found) if isinstance(value, Tensor)]


def zeroed(network: nn.Module, groups: Groups, keeps: Keeps) -> nn.Module:
    """A copy of the uncut network in which every entry of the removed units is zero, consumers' columns too.

    Where all groups are exact, it computes what the cut network does: the law that cuts are tested by.
    """
    twin = copy.deepcopy(network)
    modules = dict(twin.named_modules(remove_duplicate=False))
    for (node, axis), rows in groups.kept_rows(groups.gone(keeps)).items():
        path, _, name = groups.walked.captured.tensors[node][0].rpartition(".")
        tensor = modules[path]._parameters.get(name, modules[path]._buffers.get(name))
        assert tensor is not None
        lost = torch.ones(tensor.shape[axis], dtype=torch.bool)
        lost[torch.as_tensor(rows)] = False
        with torch.no_grad():
            tensor.index_fill_(axis, lost.nonzero().squeeze(1).to(tensor.device), 0)
    return twin
