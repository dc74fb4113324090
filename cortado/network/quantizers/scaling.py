"""Scaling: scale an activation's channels down and their readers up, without changing any output."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_known_matrix, is_matrix, kind_of
from cortado.layers.roles import MATMUL, MOVE, NORM
from cortado.network.graph.flow import Flow, FlowStep, step_role
from cortado.network.graph.operators.table import operator_facts
from cortado.parts.activations.quantizer import INPUT, OUTPUT, sites
from cortado.parts.forms.attach import attached_names


@dataclass(frozen=True)
class Link:
    """A layer that makes channels and all layers that read them; `before` is the layer that a norm normalizes."""

    maker: str
    readers: tuple[str, ...]
    before: str | None = None


def links_of(network: nn.Module, flow: Flow) -> list[Link]:
    """Return all links between layers that run once, have original weights, and share them with no other layer.

    An activation that is rounded on the way has a grid that does not follow its channels, and makes no link.
    """
    modules = dict(network.named_modules())
    rounded = {(path, side) for path, side in sites(network) if is_known_step(modules[path])}
    owners: dict[int, int] = {}
    for module in network.modules():
        for value in module._parameters.values():
            owners[id(value)] = owners.get(id(value), 0) + 1

    def free(path: str, suits: Callable[[nn.Module], bool]) -> bool:
        layer = modules.get(path)
        if layer is None or not suits(layer) or flow.calls.get(path) != 1 or attached_names(layer):
            return False
        # A norm over several axes has no weight per channel.
        if layer.weight is None or (not is_matrix(layer) and layer.weight.dim() > 1):
            return False
        return all(owners[id(p)] == 1 for p in layer.parameters(recurse=False))

    made_by = {value: step for step in flow.steps for value in step.outputs}
    readers, found = flow.readers(), []
    for step in flow.steps:
        maker = maker_of(step, flow, modules)
        ends = ends_of(maker, step, flow, readers, rounded) if maker else []
        if maker and ends and free(maker, is_maker) and all(free(end.path, is_known_matrix) for end in ends):
            source = made_by.get(step.inputs[0]) if step.inputs and step.kind == NORM else None
            before = source.path if source is not None and source.kind == MATMUL else None
            found.append(Link(maker, tuple(dict.fromkeys(end.path for end in ends)), before))
    return found


def maker_of(step: FlowStep, flow: Flow, modules: Mapping[str, nn.Module]) -> str | None:
    """Return the path of the layer whose output a step makes, if its weights may scale each channel of that."""
    if step.kind in (MATMUL, NORM):
        return step.path
    # A norm may run as many operators: the last of them makes its output.
    places = flow.places.get(step.outputs[0], ()) if step.outputs else ()
    paths = [path for path, side in places if side == OUTPUT and scales_channels(modules.get(path))]
    # Inside a norm of the user's own, anything but a product or a sum may come after its weight.
    arithmetic = operator_facts(step.name).pair
    return next((path for path in paths if arithmetic or kind_of(modules[path]) is not None), None)


def is_maker(layer: nn.Module) -> bool:
    """Return whether a layer's channels can be scaled by its own weights: a matrix, or a norm."""
    return is_known_matrix(layer) or scales_channels(layer)


def scales_channels(layer: nn.Module | None) -> bool:
    """Return whether a layer may multiply each channel by its weight last: a norm, known or of the user's own."""
    if layer is None or any(True for _ in layer.children()):
        return False
    kind, names = kind_of(layer), {name for name, value in layer._parameters.items() if value is not None}
    known = kind is None or kind.family == "norm"
    return known and "weight" in names and names <= {"weight", "bias"} and layer.weight.dim() == 1  # type: ignore[operator, union-attr]


def is_known_step(layer: nn.Module) -> bool:
    """Return whether a layer is one step on the way of an activation."""
    return type(layer) is nn.LayerNorm or step_role(layer) is not None


def ends_of(
    maker: str, step: FlowStep, flow: Flow, readers: dict[int, list[FlowStep]], rounded: set[tuple[str, str]]
) -> list[FlowStep]:
    """Return the products that read a step's output, unrounded, through steps that keep a scale, if nothing else does."""
    found, open_values, scaled, passed = [], [step.outputs[0]], set[int](), list[FlowStep]()
    if (maker, OUTPUT) in rounded:
        return []
    while open_values:
        value = open_values.pop()
        scaled.add(value)
        if value in flow.results or not readers.get(value):
            return []
        for reader in readers[value]:
            if (reader.path, INPUT) in rounded:
                return []
            if reader.kind == MATMUL:
                found.append(reader)
            elif reader.kind == MOVE or value in reader.homogeneous:
                if (reader.path, OUTPUT) in rounded:
                    return []
                passed.append(reader)
                open_values.append(reader.outputs[0])
            else:
                return []
    # A product of two values that both have the factors would have their squares.
    squared = any(sum(value in scaled for value in one.inputs) > 1 for one in passed)
    return [] if squared else found


def range_of_maker(network: nn.Module, link: Link) -> Tensor:
    """Return the largest weight of each output channel; for a norm, the layer's before it times its scale."""
    layer: Any = network.get_submodule(link.maker)
    if is_matrix(layer):
        return largest(layer.weight.detach(), 0)
    gain = layer.weight.detach().abs()  # type: ignore[union-attr, operator]
    spread = getattr(layer, "running_var", None)
    before = network.get_submodule(link.before) if link.before else None
    rows = None if before is None else before.weight.detach()  # type: ignore[operator, union-attr]
    if spread is None or rows is None or len(rows) != len(gain):
        return gain
    return gain / (spread + layer.eps).sqrt() * largest(rows, 0)  # type: ignore[operator]


def range_of_readers(network: nn.Module, link: Link, channels: int) -> Tensor | None:
    """Return the largest weight by which each channel is read; None where weights and channels do not match."""
    found = []
    for path in link.readers:
        layer = network.get_submodule(path)
        found.append(by_channel(layer, layer.weight.detach(), channels))  # type: ignore[arg-type, operator]
    if any(one is None for one in found):
        return None
    return torch.stack([largest(one, 0) for one in found if one is not None]).amax(0)


def by_channel(layer: nn.Module, weight: Tensor, channels: int) -> Tensor | None:
    """Return a reader's weight as (channels, ...), a view: columns, or rows of a layer with one group per channel."""
    groups = getattr(layer, "groups", 1)
    if groups == channels and channels > 1:
        return weight.view(channels, -1)
    if groups != 1 or weight.shape[1] % channels:
        return None
    # After flattening, each channel has one column per position.
    return weight.transpose(0, 1).unflatten(0, (channels, -1))


def largest(values: Tensor, axis: int) -> Tensor:
    """Return the largest magnitude of each slice along an axis."""
    return values.abs().transpose(0, axis).flatten(1).amax(1)


def touched(network: nn.Module, link: Link) -> list[Tensor]:
    """Return the tensors that `rescale` changes."""
    maker = network.get_submodule(link.maker)
    found = [maker.weight, getattr(maker, "bias", None), *(network.get_submodule(path).weight for path in link.readers)]
    return [one.data for one in found if isinstance(one, Tensor)]  # type: ignore[misc, union-attr]


def rescale(network: nn.Module, link: Link, factors: Tensor) -> None:
    """Divide the maker's output by `factors` (channels,) and multiply the readers' weights by them, in place."""
    layer = network.get_submodule(link.maker)
    with torch.no_grad():
        layer.weight.div_(factors.view(-1, *[1] * (layer.weight.dim() - 1)))  # type: ignore[union-attr, operator, arg-type]
        bias = getattr(layer, "bias", None)
        if isinstance(bias, Tensor):
            bias.div_(factors)
        for path in link.readers:
            reader = network.get_submodule(path)
            columns = by_channel(reader, reader.weight, len(factors))  # type: ignore[arg-type]
            assert columns is not None
            columns.mul_(factors.view(-1, *[1] * (columns.dim() - 1)))
