"""Vertical: fuse a convolution or linear layer with its bias and the activation after it."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn import functional

from cortado.lowering.graph import drop_unread, free_name, tensor_at
from cortado.lowering.horizontal import arguments

aten = torch.ops.aten
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda activation: activation,
    "relu": torch.relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "swish": functional.silu,
    "gelu": functional.gelu,
}
"""oneDNN's names and PyTorch's functions."""
OPERATORS = {
    aten.relu.default: "relu", aten.relu_.default: "relu", aten.sigmoid.default: "sigmoid", aten.tanh.default: "tanh",
    aten.silu.default: "swish", aten.silu_.default: "swish", aten.gelu.default: "gelu",
}  # fmt: skip


KEPT_LAYOUTS = 4


class Fused(nn.Module):
    """A layer with its activation fused.

    On a CPU without gradients, one oneDNN call does everything, with the weight packed once in the kernel's layout.
    Elsewhere, and during tracing, the operators run one after the other.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.detach().clone(), requires_grad=False)
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.activation, self.algorithm = activation, "none" if activation == "gelu" else ""
        self.layouts: dict[Any, Tensor] = {}

    def __getstate__(self) -> dict[str, Any]:
        """Return the state without the kernel's packed weights, which can be neither copied nor pickled."""
        return self.__dict__ | {"layouts": {}}

    def native(self, activation: Tensor) -> bool:
        """Return whether oneDNN can run this call."""
        original = (
            activation.device.type == "cpu" and activation.dtype is torch.float32 and self.weight.dtype is torch.float32
        )
        traced = torch.compiler.is_compiling() or torch.compiler.is_exporting()
        return original and not traced and not torch.is_grad_enabled() and torch.backends.mkldnn.is_available()

    def prepared(self, shape: torch.Size) -> Tensor:
        """Return the weight packed for inputs of this shape: the layout for another shape may be slow."""
        key = (self.weight.data_ptr(), self.weight._version, shape)
        if key not in self.layouts:
            if len(self.layouts) == KEPT_LAYOUTS:
                self.layouts.clear()
            self.layouts[key] = self.laid_out(shape)
        return self.layouts[key]

    @abstractmethod
    def laid_out(self, shape: torch.Size) -> Tensor:
        """Return the weight in the kernel's layout for inputs of this shape."""

    def extra_repr(self) -> str:
        return f"{tuple(self.weight.shape)}, activation={self.activation!r}"


class FusedConvolution(Fused):
    """2D convolution, bias and activation."""

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: str, settings: tuple[Any, ...]) -> None:
        """`settings` are stride, padding, dilation (pairs) and groups."""
        super().__init__(weight, bias, activation)
        *pairs, self.groups = settings
        self.stride, self.padding, self.dilation = (list(pair) for pair in pairs)

    def laid_out(self, shape: torch.Size) -> Tensor:
        settings = (self.padding, self.stride, self.dilation, self.groups)
        return torch.ops.mkldnn._reorder_convolution_weight(self.weight.detach(), *settings, list(shape))

    def forward(self, activation: Tensor) -> Tensor:
        if self.native(activation) and activation.dim() == 4:
            settings = (self.padding, self.stride, self.dilation, self.groups)
            return torch.ops.mkldnn._convolution_pointwise(
                activation, self.prepared(activation.shape), self.bias, *settings, self.activation, [], self.algorithm
            )
        settings = (self.stride, self.padding, self.dilation, self.groups)
        return ACTIVATIONS[self.activation](functional.conv2d(activation, self.weight, self.bias, *settings))


class FusedLinear(Fused):
    """Linear layer, bias and activation."""

    def laid_out(self, shape: torch.Size) -> Tensor:
        return self.weight.detach().to_mkldnn()

    def forward(self, activation: Tensor) -> Tensor:
        if self.native(activation):
            weight = self.prepared(activation.shape[-1:])
            return torch.ops.mkldnn._linear_pointwise(
                activation, weight, self.bias, self.activation, [], self.algorithm
            )
        return ACTIVATIONS[self.activation](functional.linear(activation, self.weight, self.bias))


def fuse_activations(network: fx.GraphModule) -> tuple[str, ...]:
    """Fuse every 2D convolution or linear layer with the activation that is its only reader.

    In place; returns the names of the nodes fused with an activation. A convolution without one is replaced as well,
    so that its weight is packed once instead of at every call. Layers with computed weights are left alone.
    """
    graph, fused = network.graph, []
    for node in list(graph.nodes):
        layer, last = fused_layer(network, node)
        if layer is None:
            continue
        name = free_name(network, "fused")
        network.add_submodule(name, layer)
        with graph.inserting_before(node):
            made = graph.call_module(name, (node.args[0],))
        made.meta = dict(last.meta)
        last.replace_all_uses_with(made)
        if last is not node:
            graph.erase_node(last)
            fused.append(node.name)
        graph.erase_node(node)
    drop_unread(network)
    return tuple(fused)


def fused_layer(network: fx.GraphModule, node: fx.Node) -> tuple[Fused | None, fx.Node]:
    """Return the layer that computes `node` and the activation after it, and the node of its output."""
    if node.op != "call_function" or node.kwargs or node.target not in (aten.conv2d.default, aten.linear.default):
        return None, node
    weight = tensor_at(network, node.args[1])
    bias_node = node.args[2] if len(node.args) > 2 else None
    bias = tensor_at(network, bias_node)
    if weight is None or (bias_node is not None and bias is None):
        return None, node
    activation, last = "none", node
    users = list(node.users)
    if len(users) == 1 and users[0].target in OPERATORS and len(users[0].args) == 1 and not users[0].kwargs:
        activation, last = OPERATORS[users[0].target], users[0]
    if node.target is aten.linear.default:
        if last is node:
            return None, node
        return FusedLinear(weight, bias, activation), last
    return FusedConvolution(weight, bias, activation, arguments(node)[3:]), last
