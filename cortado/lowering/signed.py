"""Signed: networks for XNNPACK - signed activation codes, weight codes only where outputs are quantized."""

import copy
from typing import Any

import torch
from torch import fx, nn

from cortado.lowering.integers import DEQUANTIZE, QUANTIZE, is_relu, operators
from cortado.parts.forms.attach import PREFIX, release

HALF = 128
ROUND, UNROUND = operators.quantize_per_channel.default, operators.dequantize_per_channel.default
CODES = f".{PREFIX}weight.codes"


def with_signed_codes(graph: fx.Graph) -> None:
    """Count the codes of activations from -128 instead of 0, in place, without changing their values."""
    for node in graph.nodes:
        if node.op == "call_function" and node.target in (QUANTIZE, DEQUANTIZE) and node.args[5] == torch.uint8:
            value, step, zero, low, high, _ = node.args
            node.args = (value, step, zero - HALF, low - HALF, high - HALF, torch.int8)
            if node.target == QUANTIZE and "val" in node.meta:
                node.meta["val"] = node.meta["val"].to(torch.int8)


def unrounded_matmuls(program: torch.export.ExportedProgram) -> list[str]:
    """Return the paths of layers that multiply by 8-bit codes and whose product stays in floats."""
    buffers = program.graph_signature.inputs_to_buffers
    found: dict[str, None] = {}
    for node in program.graph.nodes:
        name = buffers.get(node.name, "") if node.op == "placeholder" else ""
        weights = [user for user in node.users if user.target == UNROUND] if name.endswith(CODES) else []
        if not all(is_rounded_everywhere(matmul) for weight in weights for matmul in weight.users):
            found[name.removesuffix(CODES)] = None
    return list(found)


def is_rounded_everywhere(matmul: fx.Node) -> bool:
    """Return whether every reader of a value, directly or after a ReLU, quantizes it."""
    return bool(matmul.users) and all(
        user.target == QUANTIZE or (is_relu(user) and is_rounded_everywhere(user)) for user in matmul.users
    )


def with_floats(network: nn.Module, paths: list[str]) -> nn.Module:
    """Return the network, or a copy in which the layers at `paths` have plain weights."""
    if not paths:
        return network
    made = copy.deepcopy(network)
    for path in paths:
        release(made.get_submodule(path), "weight").requires_grad_(False)
    return made


def round_weights(module: fx.GraphModule) -> None:
    """Store weights in a graph as floats followed by quantize operators, in place: some converters need this."""
    graph = module.graph
    for node in [node for node in graph.nodes if node.op == "call_function" and node.target == UNROUND]:
        codes, scale, zeros, axis, *rest = node.args
        settings: Any = (axis, *rest)
        values = UNROUND(*(attached(module, str(one.target)) for one in (codes, scale, zeros)), *settings)
        name = f"floats_of_{codes.name}"
        module.register_buffer(name, values.detach())
        with graph.inserting_before(node):
            again = graph.call_function(ROUND, (graph.get_attr(name), scale, zeros, *settings))
        node.replace_input_with(codes, again)
    graph.eliminate_dead_code()
    module.recompile()


def attached(module: fx.GraphModule, name: str) -> torch.Tensor:
    """Return a parameter or buffer of a graph."""
    path, _, last = name.rpartition(".")
    return getattr(module.get_submodule(path), last)
