"""Integers: quantized activations and weights as the operators that runtimes turn into integer arithmetic.

Activations become a quantize and a dequantize operator; weights become 8-bit codes followed by a dequantize operator.
Runtimes fuse these with the product, sum or average between them. Operators that only move values are placed between
two quantizers of the same grid, which is exact.
"""

from collections.abc import Iterable
from operator import getitem
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401 - defines the operators
from torch import Tensor, fx, nn

from cortado.layers.roles import MATMUL
from cortado.network.graph.axes.step import operator_name
from cortado.network.graph.flow import Flow, flow_of
from cortado.network.graph.operators.table import operator_facts
from cortado.network.graph.trace import trace
from cortado.network.quantizers.on_grid import inputs_on_grid
from cortado.parts.activations.affine import Affine
from cortado.parts.activations.quantizer import PREFIX, sites
from cortado.parts.forms.attach import attach, attached_names, form_of
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import Quantized

operators: Any = torch.ops.quantized_decomposed
QUANTIZE, DEQUANTIZE = operators.quantize_per_tensor.default, operators.dequantize_per_tensor.default
NARROW = 8
"""Bits of the integers that runtimes compute with."""


class Emitted(nn.Module):
    """An activation quantizer as two operators.  Grids of fewer than 8 bits use the first codes of an 8-bit grid."""

    def __init__(self, quantizer: Affine) -> None:
        super().__init__()
        self.step, self.zero, self.top = float(quantizer.size.detach()), int(quantizer.zero), quantizer.top
        self.clipped = (
            (-self.zero * self.step, (self.top - self.zero) * self.step) if quantizer.width < NARROW else None
        )

    def forward(self, values: Tensor) -> Tensor:
        if self.clipped is not None:
            values = values.clamp(*self.clipped)
        settings = (self.step, self.zero, 0, 2**NARROW - 1, torch.uint8)
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(values, *settings), *settings)


class Codes(Quantized):
    """8-bit codes with a scale per channel; the exporter sees them as such."""

    zeros: Tensor

    def __init__(self, codes: Tensor, scale: Tensor) -> None:
        super().__init__(codes, scale, None, "channel")
        # Scales and zero points must be tensors in the graph: some exporters fail on computed ones.
        self.register_buffer("zeros", torch.zeros(len(self.scale), dtype=torch.int64, device=codes.device))

    def dense(self) -> Tensor:
        return operators.dequantize_per_channel(self.codes, self.scale, self.zeros, 0, -127, 127, torch.int8)


def codes_of_form(form: Form | None) -> Tensor | None:
    """Return the weight as 8-bit integers, 0 for zero, if its form has them; scales are recomputed later."""
    lattice = None if form is None else form.lattice()
    if lattice is None or not lattice.codes.numel():
        return None
    steps = lattice.steps()
    return steps.to(torch.int8) if int(steps.min()) >= -128 and int(steps.max()) <= 127 else None


def weight_codes(network: nn.Module) -> dict[str, Tensor]:
    """Return the codes of every layer whose weight has them, by path."""
    layers = ((path, layer) for path, layer in network.named_modules() if "weight" in attached_names(layer))
    found = {path: codes_of_form(form_of(layer, "weight")) for path, layer in layers}
    return {path: codes for path, codes in found.items() if codes is not None}


def regridded(codes: Tensor, weight: Tensor) -> Codes | None:
    """Return the codes with one scale per row that reproduce `weight`, with any folded norm; None if none fit."""
    rows, values = codes.flatten(1).float(), weight.flatten(1)
    largest = rows.abs().argmax(1, keepdim=True)
    at, real = rows.gather(1, largest)[:, 0], values.gather(1, largest)[:, 0]
    dead = (at == 0) | (real == 0)
    scale = torch.where(dead, torch.ones_like(real), real / torch.where(dead, torch.ones_like(at), at))
    # A norm with a negative scale flips the sign of a row; a step is never negative.
    turned = torch.where(dead[:, None], torch.zeros_like(rows), rows * scale.sign()[:, None])
    if (
        not torch.allclose(turned * scale.abs()[:, None], values, rtol=1e-5, atol=1e-12)
        or int(turned.abs().max()) > 127
    ):
        return None
    return Codes(turned.reshape(codes.shape).to(torch.int8), scale.abs())


def emit_quantizers(network: nn.Module, example: Any, codes: dict[str, Tensor]) -> None:
    """Express a lowered network's quantizers, and weights they meet, as quantize operators, in place."""
    flow = flow_of(trace(network, example))
    for path in matmuls_on_grid(flow, sites(network)):
        layer = network.get_submodule(path)
        weight = layer._parameters.get("weight")
        made = regridded(codes[path], weight.detach()) if path in codes and weight is not None else None
        if made is not None:
            attach(layer, "weight", made)
    emitted: dict[int, nn.Module] = {}
    modules = dict(network.named_modules())
    for (path, side), quantizer in sites(network).items():
        if isinstance(quantizer, Affine) and quantizer.bits() <= NARROW:
            new = emitted.setdefault(id(quantizer), Emitted(quantizer))
            modules[path]._modules[PREFIX + side] = new


def matmuls_on_grid(flow: Flow, rounded: Iterable[tuple[str, str]]) -> list[str]:
    """Return the layers whose products read quantized activations."""
    whole = inputs_on_grid(flow, set(rounded))
    return [
        step.path for step in flow.steps if step.kind == MATMUL and step.inputs and (step.path, step.inputs[0]) in whole
    ]


def tidy(graph: fx.Graph) -> None:
    """Move quantize operators next to the operators they fuse with, around those that only move values.

    A graph without quantize operators is left as is.
    """
    if not any(node.op == "call_function" and node.target == QUANTIZE for node in graph.nodes):
        return
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target == QUANTIZE:
            hoist(graph, node)
    for node in list(graph.nodes):
        if is_relu(node):
            drop_clip(graph, node)
        elif moves(node) or (node.op == "call_function" and node.target == getitem):
            requantize_moved(graph, node)
    merge_quantizers(graph)
    graph.eliminate_dead_code()
    graph.lint()


def moves(node: fx.Node) -> bool:
    """Return whether an operator's only output has just its input values and zeros, which every grid has."""
    if node.op != "call_function" or not isinstance(node.meta.get("val"), Tensor):
        return False
    facts = operator_facts(operator_name(node))
    return facts.keeps_grid and not facts.fills(node.args, node.kwargs)


def is_relu(node: fx.Node) -> bool:
    return node.op == "call_function" and operator_name(node) == "relu"


def moved_sources(node: fx.Node) -> list[fx.Node]:
    """Return the inputs that a moving operator moves; for a part of a value, the whole value."""
    given: Any = node.args[0]
    if node.target == getitem:
        given = given.args[0] if operator_facts(operator_name(given)).keeps_grid else []
    return [one for one in (given if isinstance(given, (list, tuple)) else [given]) if isinstance(one, fx.Node)]


def settings_of(node: Any) -> tuple[Any, ...] | None:
    """Return the step, zero point and so on of a dequantize operator; None for any other."""
    is_one = isinstance(node, fx.Node) and node.op == "call_function" and node.target == DEQUANTIZE
    return tuple(node.args[1:]) if is_one else None


def pair_after(graph: fx.Graph, node: fx.Node, settings: tuple[Any, ...]) -> fx.Node:
    """Insert quantize and dequantize right after a node, for all its readers."""
    readers = list(node.users)
    with graph.inserting_after(node):
        first = graph.call_function(QUANTIZE, (node, *settings))
    with graph.inserting_after(first):
        second = graph.call_function(DEQUANTIZE, (first, *settings))
    for reader in readers:
        reader.replace_input_with(node, second)
    second.meta |= dict(node.meta)
    first.meta |= {**node.meta, "val": node.meta["val"].to(torch.uint8)}
    return second


def hoist(graph: fx.Graph, node: fx.Node) -> None:
    """Quantize an activation before it is moved as well as after, where no other reader would see the difference."""
    source, settings = node.args[0], tuple(node.args[1:])
    while isinstance(source, fx.Node) and moves(source) and len(source.users) == 1:
        before = moved_sources(source)
        if any(settings_of(one) is not None or not only_rounded(one, source, settings) for one in before):
            return
        for one in dict.fromkeys(before):
            pair_after(graph, one, settings)
        if len(before) != 1:
            return
        source = before[0]


def only_rounded(node: fx.Node, reader: fx.Node, settings: tuple[Any, ...]) -> bool:
    """Return whether all readers of a value but `reader` quantize it on this same grid."""
    others = [user for user in node.users if user is not reader]
    return all(user.target == QUANTIZE and tuple(user.args[1:]) == settings for user in others)


def drop_clip(graph: fx.Graph, node: fx.Node) -> None:
    """Remove a ReLU where the grid starts at zero; elsewhere mark its outputs as values of the grid."""
    settings = settings_of(node.args[0])
    if settings is None:
        return
    if settings[1] == settings[2]:
        node.replace_all_uses_with(node.args[0])  # type: ignore[arg-type]
        graph.erase_node(node)
    else:
        requantize_moved(graph, node)


def requantize_moved(graph: fx.Graph, node: fx.Node) -> None:
    """Requantize the output of an operator that moves values of one grid on that same grid."""
    found = {settings_of(one) for one in moved_sources(node)}
    settings = found.pop() if len(found) == 1 else None
    if settings is None or all(user.target == QUANTIZE and tuple(user.args[1:]) == settings for user in node.users):
        return
    pair_after(graph, node, settings)


def merge_quantizers(graph: fx.Graph) -> None:
    """Merge the quantizer pairs that read a value on the same grid."""
    seen: dict[Any, fx.Node] = {}
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target == QUANTIZE and settings_of(node.args[0]) == node.args[1:]:
            # Values that are on the grid already.
            again: Any = node.args[0]
            node.replace_all_uses_with(again.args[0])
            graph.erase_node(node)
        elif node.op == "call_function" and node.target in (QUANTIZE, DEQUANTIZE):
            first = seen.setdefault((node.target, *node.args), node)
            if first is not node:
                node.replace_all_uses_with(first)
                graph.erase_node(node)
