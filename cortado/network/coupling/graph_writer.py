"""Graph writer: the traced and cut graph of a network as a module with its own tensors, for any batch size."""

import copy
import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.network.coupling.batches import Following, samples_in
from cortado.network.coupling.constants import changed
from cortado.network.coupling.cut import narrowed
from cortado.network.coupling.graph_layers import graph_layers
from cortado.network.coupling.graph_module import GraphNet, graph_copy
from cortado.network.coupling.groups import Groups
from cortado.network.coupling.rewritten import tensors_at, with_numbers
from cortado.network.graph.axes.step import operator_name, source_of
from cortado.network.graph.axes.variables import Gone
from cortado.network.graph.operators.movement import SIZES
from cortado.parts.forms.attach import attach
from cortado.parts.forms.form import Form


@dataclass
class GraphWriter:
    """Writes the graph of a network, cut or, with `copies` False, whole and with the network's own tensors."""

    network: nn.Module
    groups: Groups
    gone: Gone
    following: Following
    axis: int
    copies: bool = True

    def net(self) -> GraphNet:
        captured = self.groups.walked.captured
        program = captured.program.module(check_guards=False)
        # A separate graph without a module that checks paths: the layers do not exist yet.
        graph = graph_copy(program.graph)  # type: ignore[arg-type]
        before = [node for node in captured.graph.nodes if node.op == "call_function"]
        after = [node for node in graph.nodes if node.op == "call_function"]
        duplicates = dict(zip(before, after, strict=True))
        self.renumber(duplicates)
        self.follow_batch(graph, duplicates)
        parts, names, values, forms = self.tensors(graph, program)
        graph.eliminate_dead_code()
        layers = graph_layers(graph, self.network, names, values) if self.copies else {}
        keep_readable(graph)
        net = GraphNet(root_of(parts, layers), graph)
        saved = self.network.state_dict()
        for path, _, name in (full.rpartition(".") for full in parts if full not in saved):
            owner = net.get_submodule(path)
            owner._non_persistent_buffers_set.update({name} & set(owner._buffers))
        for full, form in forms.items():
            path, _, name = full.rpartition(".")
            if name in net.get_submodule(path)._parameters:
                attach(net.get_submodule(path), name, form)
        return net

    def renumber(self, duplicates: dict[fx.Node, fx.Node]) -> None:
        """Give operators the constants of the cut network."""
        new: dict[fx.Node, list[tuple[str, int, int]]] = {}
        for constant, value in changed(self.groups.constants, self.gone):
            new.setdefault(constant.node, []).append((constant.argument, constant.place, value))
        for node, numbers in new.items():
            duplicate = duplicates[node]
            duplicate.args, duplicate.kwargs = with_numbers(duplicate.target, duplicate.args, duplicate.kwargs, numbers)

    def follow_batch(self, graph: fx.Graph, duplicates: dict[fx.Node, fx.Node]) -> None:
        """Compute the numbers that follow the batch from an input, or let the operator infer them (-1)."""
        captured = self.groups.walked.captured
        count = samples_in(captured, self.axis)
        times: dict[int, fx.Node] = {}
        for node, places in self.following.items():
            duplicate = duplicates.get(node) or next(n for n in graph.nodes if n.op == node.op == "output")
            leaves, spec = pytree.tree_flatten((duplicate.args, duplicate.kwargs))
            alone = len(places) == 1 and operator_name(node) in SIZES and -1 not in leaves
            for place in places:
                if leaves[place] % count:
                    raise BadNetwork(
                        f"graph: after this cut {source_of(node) or operator_name(node)} has {leaves[place]} instead of a "
                        f"multiple of {count} samples. Cut other amounts, or exclude the group."
                    )
                share = leaves[place] // count
                leaves[place] = -1 if alone else self.multiple(graph, times, share)
            duplicate.args, duplicate.kwargs = pytree.tree_unflatten(leaves, spec)

    def multiple(self, graph: fx.Graph, times: dict[int, fx.Node], share: int) -> fx.Node:
        """Return the node that computes `share` times the batch."""
        if not times:
            given = [node for node in graph.nodes if node.op == "placeholder"]
            inputs = pytree.tree_leaves(self.groups.walked.captured.program.example_inputs)
            pairs = zip(given, inputs, strict=True)
            source = next(n for n, part in pairs if isinstance(part, Tensor) and part.dim() > self.axis)
            with graph.inserting_after(given[-1]):
                times[1] = graph.call_function(torch.ops.aten.sym_size.int, (source, self.axis))
        if share not in times:
            with graph.inserting_after(times[1]):
                times[share] = graph.call_function(operator.mul, (times[1], share))
        return times[share]

    def tensors(self, graph: fx.Graph, program: Any) -> tuple[dict[str, Any], dict, dict, dict[str, Form]]:
        """Return the tensors that the graph reads, by name; names and values by node; and the forms of some of them."""
        by_name = {name: node for node, names in self.groups.walked.captured.tensors.items() for name in names}
        kept = self.groups.kept_rows(self.gone)
        modules = dict(self.network.named_modules(remove_duplicate=False))
        read = tensors_at(self.network, self.groups)
        parts: dict[str, Any] = {}
        names: dict[fx.Node, tuple[str, ...]] = {}
        values: dict[fx.Node, Any] = {}
        forms: dict[str, Form] = {}
        made: dict[tuple[str, ...], Any] = {}
        for node in [node for node in graph.nodes if node.op == "get_attr"]:
            full = str(node.target)
            if not node.users:
                graph.erase_node(node)
            elif full not in by_name:
                parts[full] = copy.deepcopy(read_path(program, full)) if self.copies else read_path(program, full)
            elif not self.copies:
                parts[full] = read(by_name[full])
            else:
                place = by_name[full]
                names[node] = self.groups.walked.captured.tensors[place]
                if names[node] not in made:
                    path, _, name = names[node][0].rpartition(".")
                    rows = {d: numbers for (n, d), numbers in kept.items() if n is place}
                    made[names[node]] = owned(modules[path], name, rows, forms, names[node])
                parts[full] = values[node] = made[names[node]]
        return parts, names, values, forms


def owned(
    layer: nn.Module, name: str, rows: dict[int, Any], forms: dict[str, Form], names: tuple[str, ...]
) -> nn.Parameter | Tensor:
    """Return a narrowed tensor that shares no memory with the network; its form is recorded under all its names."""
    value = narrowed(layer, name, rows)
    if isinstance(value, Form):
        form = copy.deepcopy(value)
        forms.update(dict.fromkeys(names, form))
        learns = any(parameter.requires_grad for parameter in form.parameters())
        dense = form.dense().detach()
        return nn.Parameter(dense, requires_grad=learns and dense.is_floating_point())
    if rows:
        return value
    return (
        nn.Parameter(value.detach().clone(), value.requires_grad) if isinstance(value, nn.Parameter) else value.clone()
    )


def read_path(root: nn.Module, full: str) -> Any:
    """Return the object at a dotted name."""
    path, _, name = full.rpartition(".")
    return getattr(root.get_submodule(path), name)


def root_of(parts: dict[str, Any], layers: dict[str, nn.Module]) -> nn.Module:
    """Return a tree of bare modules with layers and tensors at their paths."""
    root = nn.Module()
    for full, part in [*sorted(layers.items()), *parts.items()]:
        *above, name = full.split(".")
        owner = root
        for step in above:
            if step not in owner._modules:
                owner.add_module(step, nn.Module())
            owner = owner.get_submodule(step)
        if isinstance(part, nn.Module):
            inside = owner._modules.get(name)
            owner.add_module(name, part)
            for child, module in inside.named_children() if inside is not None else ():
                part.add_module(child, module)
        elif name not in owner._parameters and name not in owner._buffers:
            if isinstance(part, nn.Parameter):
                owner.register_parameter(name, part)
            else:
                owner.register_buffer(name, part)
    return root


def keep_readable(graph: fx.Graph) -> None:
    """Drop unread tensors, and all node metadata except its source."""
    for node in list(graph.nodes):
        node.meta = {key: node.meta[key] for key in ("stack_trace", "nn_module_stack") if key in node.meta}
        if node.op == "get_attr" and not node.users:
            graph.erase_node(node)
