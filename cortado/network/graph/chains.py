"""Units: neurons or channels that one layer makes and known layers read, so that they can be removed or reordered."""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from cortado.layers.kind import shape_of
from cortado.layers.widths import match_widths
from cortado.parts.blocks.scale_shift import ScaleShift
from cortado.parts.forms.attach import attach, attached_names, form_of
from cortado.parts.forms.form import Form
from cortado.running.call import call_arguments
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device

MAKERS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, ScaleShift)
# Elementwise operations. Only a sigmoid maps zero to something else.
ENTRY_WISE_MODULES = (
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.GELU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Hardswish, nn.Identity,
    nn.Dropout, nn.Dropout2d,
)  # fmt: skip
ENTRY_WISE_FUNCTIONS = {
    torch.relu, torch.tanh, torch.sigmoid, functional.relu, functional.relu6, functional.leaky_relu, functional.elu,
    functional.gelu, functional.silu, functional.dropout,
}  # fmt: skip
ENTRY_WISE_METHODS = {"relu", "relu_", "tanh", "sigmoid", "contiguous"}
# Channelwise operations, by the number of axes after the channels.
POOLS = {
    nn.MaxPool1d: 1, nn.AvgPool1d: 1, nn.MaxPool2d: 2, nn.AvgPool2d: 2, nn.AdaptiveAvgPool2d: 2,
    functional.max_pool1d: 1, functional.avg_pool1d: 1, functional.max_pool2d: 2, functional.avg_pool2d: 2,
    functional.adaptive_avg_pool2d: 2, torch.max_pool2d: 2,
}  # fmt: skip
KERNEL_AXES = {nn.Conv1d: 1, nn.Conv2d: 2, nn.Conv3d: 3}


@dataclass
class Units:
    """Units (rows of the maker's weight) that one layer makes, norms may normalize and other layers read.

    `zero_stays`: where the maker's output is zero, the readers' input is zero.
    """

    path: str
    maker: nn.Module
    norms: list[nn.Module] = field(default_factory=list)
    readers: list[nn.Module] = field(default_factory=list)
    zero_stays: bool = True

    @property
    def count(self) -> int:
        shape = shape_of(self.maker, "weight")
        assert shape is not None
        return shape[0]

    def read_weights(self) -> list[Tensor]:
        """Return each reader's weight as (outputs, units, entries per unit)."""
        return [reader.weight.detach().flatten(1).unflatten(1, (self.count, -1)) for reader in self.readers]  # type: ignore[union-attr, operator]

    def cut(self, keep: Tensor) -> None:
        """Keep only the units `keep` (int64, in that order) in the maker, its norms and its readers."""
        for reader in self.readers:
            read = shape_of(reader, "weight")
            assert read is not None
            width = read[1] // self.count
            columns = (keep[:, None] * width + torch.arange(width, device=keep.device)).flatten()
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
    """Narrow a parameter in any form."""
    form: Form | None = form_of(layer, name)
    if form is not None:
        attach(layer, name, form.narrow(axis, keep.to(next(iter(form.state_dict().values())).device)))
        return
    old = layer._parameters[name]
    assert old is not None
    layer._parameters[name] = nn.Parameter(old.detach().index_select(axis, keep.to(old.device)), old.requires_grad)


class AxisCount(fx.Interpreter):
    """Runs a traced network and records the number of axes of each activation."""

    def __init__(self, traced: fx.GraphModule) -> None:
        super().__init__(traced)
        self.found: dict[fx.Node, int] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if isinstance(value, Tensor):
            self.found[n] = value.dim()
        return value


def traced_axes(network: nn.Module, example: Any) -> tuple[fx.Graph, dict[fx.Node, int]]:
    """Return the graph of a network in eval mode, and the number of axes of each activation on the example."""
    with eval_mode(network):
        traced = fx.symbolic_trace(network)
        axes = AxisCount(traced)
        device = own_device(network)
        inputs = to_device(example, device)
        positional, named = call_arguments(inputs)
        names = [str(node.target) for node in traced.graph.nodes if node.op == "placeholder"][len(positional) :]
        axes.run(*positional, *(named[name] for name in names if name in named))
        return traced.graph, axes.found


def find_units(network: nn.Module, example: Any) -> list[Units]:
    """Return the units that can be cut by changing only the layers they list.

    Only certain cases are listed: a linear or convolution layer used once, whose output reaches linear or convolution
    layers used once through operations that keep units separate. Sums, concatenations and unknown operations exclude
    a group. A network that cannot be traced symbolically, or cannot run the example, has no units.
    """
    try:
        graph, axes = traced_axes(network, example)
    except Exception:  # noqa: BLE001 - whatever a user's forward does when traced, it means: nothing is sure
        return []
    modules = dict(network.named_modules())
    uses: dict[str, int] = {}
    for node in graph.nodes:
        if node.op == "call_module":
            uses[str(node.target)] = uses.get(str(node.target), 0) + 1
    fixed = tied(network) | read_directly(graph, modules)
    walk = ChainWalk(modules, uses, axes)
    found = []
    for node in graph.nodes:
        if node.op != "call_module" or not is_chain_maker(modules[str(node.target)]) or uses[str(node.target)] > 1:
            continue
        units = Units(str(node.target), modules[str(node.target)])
        axis = walk.made_axis(node, units)
        if axis is not None and walk.collect(node, axis, units) and units.readers and not touches(units, fixed):
            found.append(units)
    return found


def is_chain_maker(layer: nn.Module) -> bool:
    known = isinstance(layer, MAKERS) and getattr(layer, "groups", 1) == 1
    return known and shape_of(layer, "weight") is not None


def tied(network: nn.Module) -> set[int]:
    """Return the ids of layers that share a parameter or form with another layer."""
    owners: dict[int, list[int]] = {}
    for layer in network.modules():
        own = [value for value in layer._parameters.values() if value is not None]
        for part in (*own, *(form_of(layer, name) for name in attached_names(layer))):
            owners.setdefault(id(part), []).append(id(layer))
    return {layer for layers in owners.values() if len(layers) > 1 for layer in layers}


def read_directly(graph: fx.Graph, modules: dict[str, nn.Module]) -> set[int]:
    """Return the ids of layers whose tensors the network reads directly, not through their forward."""
    paths = [str(node.target).split(".") for node in graph.nodes if node.op == "get_attr"]
    names = {".".join(path[:length]) for path in paths for length in range(1, len(path))}
    return {id(modules[name]) for name in names if name in modules}


def touches(units: Units, fixed: set[int]) -> bool:
    return any(id(layer) in fixed for layer in (units.maker, *units.norms, *units.readers))


@dataclass
class ChainWalk:
    """Follows units from their maker to their readers; `axes` counts the axes of each activation."""

    modules: dict[str, nn.Module]
    uses: dict[str, int]
    axes: dict[fx.Node, int]

    def made_axis(self, node: fx.Node, units: Units) -> int | None:
        """Return the unit axis of a maker's output; None when its input has no batch."""
        if isinstance(units.maker, nn.Linear):
            return self.axes[node] - 1 if self.axes[node] > 1 else None
        return 1 if self.axes[node] == kernel_axes(units.maker) + 2 else None

    def collect(self, node: fx.Node, axis: int, units: Units) -> bool:
        """Follow `node`'s output, with units on `axis`; record norms and readers; return False when not certain."""
        for user in node.users:
            layer = self.modules.get(str(user.target)) if user.op == "call_module" else None
            if layer is not None and self.uses[str(user.target)] > 1 and list(layer.parameters()):
                return False
            if layer is not None and is_chain_maker(layer):
                if not self.reads(layer, node, axis, units):
                    return False
                units.readers.append(layer)
                continue
            if isinstance(layer, NORMS):
                shape = shape_of(layer, "weight")
                if axis != 1 or (layer.num_features if shape is None else shape[0]) != units.count:
                    return False
                units.norms.append(layer)
                units.zero_stays = False
            elif not self.leaves_separate(user, layer, node, axis):
                return False
            elif isinstance(layer, nn.Sigmoid) or user.target in (torch.sigmoid, "sigmoid"):
                units.zero_stays = False
            if user not in self.axes or not self.collect(user, axis, units):
                return False
        return bool(node.users)

    def reads(self, layer: nn.Module, node: fx.Node, axis: int, units: Units) -> bool:
        """Return whether a linear or convolution layer reads the units as inputs, with equally many neighbours each."""
        shape = shape_of(layer, "weight")
        last = axis == self.axes[node] - 1
        placed = last if isinstance(layer, nn.Linear) else axis == 1 and self.axes[node] == kernel_axes(layer) + 2
        return placed and shape is not None and shape[1] % units.count == 0

    def leaves_separate(self, user: fx.Node, layer: nn.Module | None, node: fx.Node, axis: int) -> bool:
        """Return whether an operation keeps units separate and on their axis."""
        what = type(layer) if layer is not None else user.target
        if what in POOLS:
            return axis == 1 and self.axes[node] == POOLS[what] + 2  # type: ignore[index]
        if isinstance(layer, nn.Flatten):
            return axis == 1 and layer.start_dim == 1
        if what in (torch.flatten, "flatten"):
            return axis == 1 and flattens_from_one(user)
        if layer is not None:
            return isinstance(layer, ENTRY_WISE_MODULES)
        return what in (ENTRY_WISE_METHODS if user.op == "call_method" else ENTRY_WISE_FUNCTIONS)


def kernel_axes(layer: nn.Module) -> int:
    """Return the number of kernel axes of a convolution."""
    return next(count for kind, count in KERNEL_AXES.items() if isinstance(layer, kind))


def flattens_from_one(node: fx.Node) -> bool:
    return bool((node.args[1] if len(node.args) > 1 else node.kwargs.get("start_dim", 0)) == 1)
