"""In order: networks for runtimes that take the order of axes in memory from the strides of the tensors they are shown.

Such a runtime writes that order into its file, and refuses two tensors of different orders in one operator, or misreads the
inputs of a later call. Memory orders change no value, so each is written as the order of the axes.
"""

import copy
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.lowering.integers import DEQUANTIZE
from cortado.lowering.signed import UNROUND
from cortado.running.trees import map_tensors

FORMAT = "memory_format"


def restrided(value: Tensor) -> Tensor:
    """Return a copy whose strides are those of its axes in order, also along axes of length 1."""
    return torch.empty(value.shape, dtype=value.dtype, device=value.device).copy_(value)


def example_in_order(example: Any) -> Any:
    """Return the example with each tensor in the order of its axes."""
    return map_tensors(lambda part: restrided(part.detach()), example)


def network_in_order(network: nn.Module) -> nn.Module:
    """Return the network, or a copy if a parameter or buffer is in another order in memory, such as channels last."""
    if all(value.is_contiguous() for value in (*network.parameters(), *network.buffers())):
        return network
    made = copy.deepcopy(network)
    for value in (*made.parameters(), *made.buffers()):
        value.data = restrided(value.data)
    return made


def without_formats(graph: fx.Graph) -> None:
    """Let each operator that asks for an order in memory ask for that of the axes, in place."""
    for node in graph.nodes:
        if node.op == "call_function" and isinstance(node.kwargs.get(FORMAT), torch.memory_format):
            node.kwargs = {**node.kwargs, FORMAT: torch.contiguous_format}


def one_reader_each(graph: fx.Graph) -> None:
    """Give every reader of dequantized values a dequantize operator of its own, in place.

    A runtime that changes the order of axes for one reader changes the shared operator, and with it what the others read.
    """
    for node in list(graph.nodes):
        if node.op == "call_function" and node.target in (DEQUANTIZE, UNROUND):
            for reader in list(node.users)[1:]:
                with graph.inserting_before(reader):
                    again = graph.call_function(node.target, node.args, node.kwargs)
                again.meta = dict(node.meta)
                reader.replace_input_with(node, again)
    graph.lint()
