"""Positions: a convolution whose filters share zero columns, as a gather of the other columns and one dense product."""

from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.layers.conv import CONVOLUTIONS
from cortado.lowering.fold import untouched
from cortado.network.graph.graph import Graph
from cortado.network.graph.trace import trace
from cortado.parts.forms.attach import original_class

CACHED_BYTES = 512 * 1024
"""Bytes of gathered columns that a processor's L2 cache holds until the product has read them."""
MOST, FEWEST_FILTERS = 0.3, 32
"""Limits within which gathering was faster than the dense kernel: largest share of kept columns, fewest filters."""


def gather_positions(network: nn.Module, example: Any, most: float = MOST) -> tuple[str, ...]:
    """Replace such convolutions by Gathered layers, in place, and return their paths.

    Replaced are torch's convolutions with their own forward, with or without forms, called once on the example, whose
    weight no other layer reads, and with at least `FEWEST_FILTERS` filters per group: fewer do not pay for gathering.
    """
    graph = trace(network, example)
    made: dict[int, Gathered] = {}
    paths = []
    for path, layer in network.named_modules():
        if path and can_gather(layer, graph) and used_columns(layer).float().mean() <= most:
            made[id(layer)] = Gathered(layer, graph.calls_of(layer)[0].inputs[0][-len(layer.kernel_size) :])  # type: ignore
            paths.append(path)
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if id(child) in made:
                parent._modules[name] = made[id(child)].train(network.training)
    return tuple(paths)


def can_gather(layer: Any, graph: Graph) -> bool:
    """Return whether a layer can be replaced, and would be faster with few columns."""
    if original_class(layer) not in CONVOLUTIONS or not untouched(layer) or len(graph.calls_of(layer)) != 1:
        return False
    return graph.keeps_to_itself(layer) and layer.out_channels // layer.groups >= FEWEST_FILTERS


def used_columns(layer: Any) -> Tensor:
    """Return True for columns that some filter of a group reads: (groups, inputs / groups x taps)."""
    return (layer.weight.detach().unflatten(0, (layer.groups, -1)) != 0).any(1).flatten(1)


class Gathered(nn.Module):
    """A convolution that gathers and multiplies only the columns that some filter reads.  Lebedev, Lempitsky, 2016.

    Per sample, multiplies a dense (filters, kept) by the kept columns of the patch matrix (im2col), (kept,
    positions). Where groups keep different numbers of columns, zero weights pad the shorter ones.
    """

    def __init__(self, layer: Any, sizes: tuple[int, ...]) -> None:
        """`sizes`: the activation's axes to prepare for; other sizes recompute the indices."""
        super().__init__()
        weight, used = layer.weight.detach(), used_columns(layer)
        self.shape, self.kernel_size, self.groups = weight.shape, layer.kernel_size, layer.groups
        self.stride, self.dilation = layer.stride, layer.dilation
        self.pads = list(layer._reversed_padding_repeated_twice)
        self.mode = "constant" if layer.padding_mode == "zeros" else layer.padding_mode
        count = max(1, int(used.sum(1).max()))
        columns = weight.unflatten(0, (self.groups, -1)).flatten(2)
        # Stable sort: kept columns in order, followed by columns that are zero in all filters.
        self.register_buffer("taps", used.int().sort(dim=1, descending=True, stable=True).indices[:, :count])
        chosen = columns.gather(2, self.taps[:, None].expand(-1, columns.shape[1], -1))  # type: ignore[operator, index]
        self.matmul = nn.Parameter(chosen.contiguous(), requires_grad=False)
        bias = layer.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone(), requires_grad=False)
        self.sizes = self.around(sizes)
        self.register_buffer("index", self.entries(self.sizes), persistent=False)

    @property
    def weight(self) -> Tensor:
        """Return the kernel (filters, inputs / groups, ...), zeros included."""
        columns = self.matmul.new_zeros(self.groups, self.matmul.shape[1], prod(self.shape[1:]))
        return columns.scatter(2, self.taps[:, None].expand_as(self.matmul), self.matmul).view(self.shape)  # type: ignore

    def around(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of the axes with padding."""
        # torch pads the last axis first.
        axes = range(len(sizes))
        return tuple(sizes[axis] + self.pads[-2 * axis - 2] + self.pads[-2 * axis - 1] for axis in axes)

    def made(self, sizes: tuple[int, ...]) -> tuple[int, ...]:
        """Return the sizes of the output's axes for a padded activation."""
        settings = zip(sizes, self.kernel_size, self.dilation, self.stride, strict=True)
        return tuple((size - step * (kernel - 1) - 1) // stride + 1 for size, kernel, step, stride in settings)

    def entries(self, sizes: tuple[int, ...]) -> Tensor:
        """Return the index of each gathered entry in a flat padded sample, (groups x kept x positions,)."""
        taps: Any = self.taps
        inputs, *at = torch.unravel_index(taps, self.shape[1:])
        first = (torch.arange(self.groups, device=taps.device)[:, None] * self.shape[1] + inputs) * prod(sizes)
        offsets = torch.zeros((), dtype=torch.int64, device=taps.device)
        for axis, count in enumerate(self.made(sizes)):
            wide = prod(sizes[axis + 1 :])
            first = first + at[axis] * self.dilation[axis] * wide
            places = torch.arange(count, device=taps.device) * self.stride[axis] * wide
            offsets = offsets[..., None] + places
        return (first[..., None] + offsets.flatten()).flatten()

    def forward(self, activation: Tensor) -> Tensor:
        """Convolve (samples, inputs, ...) to (samples, filters, ...), or both without samples."""
        if activation.dim() == len(self.kernel_size) + 1:
            return self(activation[None])[0]
        sizes = self.around(activation.shape[2:])
        index: Any = self.index if sizes == self.sizes else self.entries(sizes)
        traced = torch.compiler.is_exporting() or torch.compiler.is_compiling() or torch.jit.is_tracing()
        if traced or torch.is_grad_enabled():
            made = self.multiplied(activation, index)
        else:
            each = max(1, CACHED_BYTES // (index.numel() * activation.element_size()))
            parts = (
                [self.multiplied(part, index) for part in activation.split(each)] if each < len(activation) else None
            )
            made = self.multiplied(activation, index) if parts is None else torch.cat(parts)
        return made.view(-1, self.shape[0], *self.made(sizes))

    def multiplied(self, activation: Tensor, index: Tensor) -> Tensor:
        """Return the product for some samples, (samples x groups, filters / groups, positions)."""
        groups, filters, kept = self.matmul.shape
        padded = functional.pad(activation, self.pads, mode=self.mode) if any(self.pads) else activation
        columns = padded.flatten(1).index_select(1, index).view(-1, kept, index.shape[0] // (groups * kept))
        matmul = self.matmul.expand(activation.shape[0], groups, filters, kept).reshape(-1, filters, kept)
        if self.bias is None:
            return torch.bmm(matmul, columns)
        bias = self.bias.view(groups, filters, 1).expand(activation.shape[0], groups, filters, 1)
        return torch.baddbmm(bias.reshape(-1, filters, 1), matmul, columns)

    def extra_repr(self) -> str:
        return f"{tuple(self.shape)}, {self.matmul.shape[2]} of {prod(self.shape[1:])} columns"
