"""Units: neurons or channels that one layer makes and known layers read, so that they can be removed or reordered."""

import operator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from cortado.forms.form import Form
from cortado.forms.hold import form_of, hold
from cortado.layers.widths import match_widths, shape_of

MAKERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
# What treats every unit alone, so that fewer units, or other places for them, change nothing for the rest.
UNIT_WISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Identity,
    nn.Dropout, nn.Dropout2d, nn.MaxPool1d, nn.MaxPool2d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.Flatten,
)  # fmt: skip
UNIT_WISE_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.dropout, functional.max_pool2d, functional.avg_pool2d,
    functional.adaptive_avg_pool2d, functional.max_pool1d, functional.avg_pool1d, torch.max_pool2d, torch.flatten,
}  # fmt: skip
UNIT_WISE_METHODS = {"relu", "relu_", "tanh", "sigmoid", "flatten", "contiguous"}


@dataclass
class Units:
    """Units (rows of the maker's weight) that are made in one place, normalised in some and read in others."""

    path: str
    maker: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    readers: list[nn.Module] = field(default_factory=list)

    @property
    def count(self) -> int:
        shape = shape_of(self.maker, "weight")
        assert shape is not None
        return shape[0]

    def read_weights(self) -> list[Tensor]:
        """For each reader its weight as (outputs, units, entries a unit)."""
        return [reader.weight.detach().flatten(1).unflatten(1, (self.count, -1)) for reader in self.readers]  # type: ignore[union-attr, operator]

    def cut(self, keep: Tensor) -> None:
        """Leave only the units `keep` (int64, in that order) in the maker, its norms and its readers."""
        for reader in self.readers:
            width = reader.weight.shape[1] // self.count  # type: ignore[union-attr, operator]
            columns = (keep[:, None] * width + torch.arange(width)).flatten()
            narrow_parameter(reader, "weight", 1, columns)
            match_widths(reader)
        for name in ("weight", "bias"):
            if getattr(self.maker, name, None) is not None:
                narrow_parameter(self.maker, name, 0, keep)
        match_widths(self.maker)
        for norm in self.norms:
            for name in ("weight", "bias"):
                if getattr(norm, name, None) is not None:
                    narrow_parameter(norm, name, 0, keep)
            for name in ("running_mean", "running_var"):
                if norm._buffers.get(name) is not None:
                    norm._buffers[name] = norm._buffers[name][keep].clone()  # type: ignore[index]
            match_widths(norm)


def narrow_parameter(layer: nn.Module, name: str, axis: int, keep: Tensor) -> None:
    """Narrow a parameter, in whatever form it is held."""
    form: Form | None = form_of(layer, name)
    if form is not None:
        hold(layer, name, form.narrow(axis, keep.to(next(iter(form.state_dict().values())).device)))
        return
    old = layer._parameters[name]
    assert old is not None
    layer._parameters[name] = nn.Parameter(old.detach().index_select(axis, keep.to(old.device)), old.requires_grad)


def find_units(network: nn.Module, example: Any) -> list[Units]:
    """The units that can be cut with nothing but the layers named in them.

    Only what is sure is listed: a linear or convolution layer used once, whose output passes unit-wise operations to
    linear or convolution layers used once. Sums, concatenations and anything unknown leave a group out. A network
    that cannot be traced symbolically has none.
    """
    try:
        graph = fx.symbolic_trace(network).graph
    except Exception:  # noqa: BLE001 - whatever a user's forward does when traced, it means: nothing is sure
        return []
    modules = dict(network.named_modules())
    uses: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            uses[str(node.target)] = uses.get(str(node.target), 0) + 1
    shared = {id(p) for p in tied(network)}
    found = []
    for node in graph.nodes:
        if node.op != "call_module" or not is_maker(modules[str(node.target)]) or uses[str(node.target)] > 1:
            continue
        units = Units(str(node.target), modules[str(node.target)])
        if collect(node, modules, uses, units) and units.readers and not touches(units, shared):
            found.append(units)
    return found


def is_maker(layer: nn.Module) -> bool:
    return isinstance(layer, MAKERS) and getattr(layer, "groups", 1) == 1


def tied(network: nn.Module) -> list[Any]:
    """Parameters that more than one layer owns."""
    owners: dict[int, int] = {}
    everything = [value for module in network.modules() for value in module._parameters.values() if value is not None]
    for value in everything:
        owners[id(value)] = owners.get(id(value), 0) + 1
    return [value for value in everything if owners[id(value)] > 1]


def touches(units: Units, shared: set[int]) -> bool:
    layers = [units.maker, *units.norms, *units.readers]
    return any(id(value) in shared for layer in layers for value in layer.parameters())


def collect(node: fx.Node, modules: dict[str, nn.Module], uses: dict[str, int], units: Units) -> bool:
    """Follow the output of `node`; note norms and readers; False when something is not sure."""
    for user in node.users:
        layer = modules.get(str(user.target)) if user.op == "call_module" else None
        if layer is not None and uses[str(user.target)] > 1 and list(layer.parameters()):
            return False
        if layer is not None and is_maker(layer):
            if layer.weight.shape[1] % units.count:  # type: ignore[union-attr, operator]
                return False
            units.readers.append(layer)
            continue
        if isinstance(layer, NORMS):
            units.norms.append(layer)
        elif not is_unit_wise(user, layer):
            return False
        if not collect(user, modules, uses, units):
            return False
    return bool(node.users)


def is_unit_wise(node: fx.Node, layer: nn.Module | None) -> bool:
    """Whether a node leaves every unit apart from the others; flattening must begin at the axis of units."""
    if layer is not None:
        return isinstance(layer, UNIT_WISE_MODULES) and (not isinstance(layer, nn.Flatten) or layer.start_dim == 1)
    if node.op == "call_method":
        return node.target in UNIT_WISE_METHODS and (node.target != "flatten" or flattens_from_one(node))
    if node.op == "call_function":
        if node.target is operator.getitem or node.target not in UNIT_WISE_FUNCTIONS:
            return False
        return node.target is not torch.flatten or flattens_from_one(node)
    return False


def flattens_from_one(node: fx.Node) -> bool:
    return (node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)) == 1
