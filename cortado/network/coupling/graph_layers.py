"""Graph layers: turn operators of a traced graph back into torch layers that can be trained and recognized."""

import re

import torch
from torch import Tensor, fx, nn

from cortado.network.coupling.trial import place
from cortado.network.graph.axes.step import Step, module_of
from cortado.network.graph.operators.table import operator_facts

Slots = dict[str, fx.Node]
"""The node of each tensor of a layer, by its name in the layer."""
SLOTS = ("weight", "bias", "running_mean", "running_var")
CALLED_AGAIN = re.compile(r"@\d+")


def graph_layers(
    graph: fx.Graph, network: nn.Module, names: dict[fx.Node, tuple[str, ...]], values: dict[fx.Node, Tensor]
) -> dict[str, nn.Module]:
    """Replace operators of `graph` that are torch layers by calls of new layers; return these by path.

    Such an operator reads only one path's weight and the tensors that belong to it (`names`), always with the same
    settings. Dropout, which a trace in eval mode omits, is restored as a layer, and a batch norm layer that trains in
    `network` trains again. `values` are the tensors of the new layers.
    """
    modules = dict(network.named_modules(remove_duplicate=False))
    made: dict[str, nn.Module] = {}
    for path, calls in candidates(graph, names).items():
        built = [build(node, slots, values, modules.get(path)) for node, slots in calls]
        first = built[0]
        same = (
            all(str(layer) == str(first) for layer in built) and len({tuple(slots.values()) for _, slots in calls}) == 1
        )
        if first is None or not same:
            continue
        made[path] = layer_with(first, calls[0][1], values, modules.get(path))
        for node, _ in calls:
            call_instead(graph, node, path)
    return made | dropouts(graph, modules, set(made))


def candidates(graph: fx.Graph, names: dict[fx.Node, tuple[str, ...]]) -> dict[str, list[tuple[fx.Node, Slots]]]:
    """Return the operators that may be calls of one layer, by its path."""
    found: dict[str, list[tuple[fx.Node, Slots]]] = {}
    for node in graph.nodes:
        if node.op != "call_function" or not isinstance(node.target, torch._ops.OpOverload):
            continue
        step = Step(node, None, {}, {})  # type: ignore[arg-type]
        if operator_facts(step.name).layer is None or step.arg("train") is not None:
            continue
        slots = {slot: value for slot in SLOTS if isinstance(value := step.arg(slot), fx.Node)}
        path = call_path(node, slots, names)
        if path:
            found.setdefault(path, []).append((node, slots))
    return found


def call_path(node: fx.Node, slots: Slots, names: dict[fx.Node, tuple[str, ...]]) -> str:
    """Return the path under which all tensors of a call have a layer's names; "" without one."""
    if "weight" not in slots or any(value not in names for value in slots.values()):
        return ""
    paths = [CALLED_AGAIN.sub("", module_of(node))]
    paths += [name.removesuffix(".weight") for name in names[slots["weight"]] if name.endswith(".weight")]
    fits = [path for path in paths if all(f"{path}.{slot}" in names[value] for slot, value in slots.items())]
    return fits[0] if fits else ""


def build(node: fx.Node, slots: Slots, values: dict[fx.Node, Tensor], owner: nn.Module | None) -> nn.Module | None:
    """Return the layer that computes the operator, with empty tensors; None where torch has none."""
    step = Step(node, None, {}, {})  # type: ignore[arg-type]
    shapes = {slot: values[value].shape for slot, value in slots.items()}
    builder = operator_facts(step.name).layer
    layer = None if builder is None else builder(step, shapes, owner)
    if layer is None:
        return None
    learned, all_own = dict(layer.named_parameters()), {**layer._parameters, **layer._buffers}
    own = {slot: value.shape for slot, value in all_own.items() if slot in SLOTS and value is not None}
    alike = own == shapes and all((slot in learned) == isinstance(values[slots[slot]], nn.Parameter) for slot in slots)
    return layer if alike else None


def layer_with(layer: nn.Module, slots: Slots, values: dict[fx.Node, Tensor], owner: nn.Module | None) -> nn.Module:
    """Return a new layer with its tensors."""
    for slot, node in slots.items():
        place(layer, slot, values[node])
    if isinstance(layer, nn.modules.batchnorm._BatchNorm) and isinstance(owner, nn.modules.batchnorm._BatchNorm):
        seen = owner.num_batches_tracked
        layer.num_batches_tracked = torch.zeros((), dtype=torch.int64) if seen is None else seen.clone()
    return layer


def call_instead(graph: fx.Graph, node: fx.Node, path: str) -> None:
    """Replace the operator by a call of the layer at `path`."""
    step = Step(node, None, {}, {})  # type: ignore[arg-type]
    given = step.arg("indices") if step.name == "embedding" else step.arg("input")
    with graph.inserting_before(node):
        call = graph.call_module(path, (given,))
    call.meta = dict(node.meta)
    node.replace_all_uses_with(call)
    graph.erase_node(node)


def dropouts(graph: fx.Graph, modules: dict[str, nn.Module], taken: set[str]) -> dict[str, nn.Module]:
    """Restore dropout layers: at the original layer's path, or as a new one in the module whose code called dropout."""
    made: dict[str, nn.Module] = {}
    for node in list(graph.nodes):
        step = Step(node, None, {}, {})  # type: ignore[arg-type]
        kind = operator_facts(step.name).layer if node.op == "call_function" else None
        if kind is None or step.arg("train") is not False:
            continue
        path = CALLED_AGAIN.sub("", module_of(node))
        if not isinstance(modules.get(path), nn.modules.dropout._DropoutNd):
            stem = f"{path}.dropout_again" if path else "dropout_again"
            path = next(
                name for n in range(len(modules) + len(made) + 1) if (name := f"{stem}_{n}") not in (*modules, *made)
            )
        if path in taken:
            continue
        made[path] = kind(float(step.arg("p")))
        with graph.inserting_before(node):
            call = graph.call_module(path, (node.args[0],))
        call.meta = dict(node.meta)
        node.replace_all_uses_with(call)
        graph.erase_node(node)
    return made
