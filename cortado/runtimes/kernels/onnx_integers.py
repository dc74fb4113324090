"""ONNX integers: the two forms of a layer of 8-bit codes that ONNX Runtime has no fast product for, written as ones it has.

Its products of integers add a bias of floats only where their output is quantized, and its convolutions without a copy of
every patch take channels in fours. Both rewrites leave outputs as they were, to the last bit of the integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cortado.lowering.products import CODES, Product
from cortado.runtimes.kernels.integers import Integers
from cortado.runtimes.kernels.packed import drop_unread_weights, exchange, step_layer
from cortado.runtimes.own_products import own_constant

IN_FOURS, FEWEST_ROWS = 4, 16
"""Channels that such a convolution reads at once, and the fewest that it can write."""
CLIPS = ("Relu", "Clip")


@dataclass(frozen=True)
class OnnxIntegers(Integers):
    """8-bit products as ONNX Runtime fuses them best."""

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        """Add biases after products whose output stays in floats; fill the channels of convolutions with zeros."""
        own = {product.path for product in products if product.reads == CODES}
        for node in [node for node in model.graph if step_layer(node) in own]:
            if node.op_type == "Gemm" and len(node.inputs) > 2 and not ends_in_codes(node.outputs[0]):
                add_bias_after(model.graph, node)
            elif node.op_type == "Conv" and missing_channels(node) and ends_in_codes(node.outputs[0]):
                fill_channels(model.graph, node, missing_channels(node))
        drop_unread_weights(model)


def is_decoded(value: Any) -> bool:
    """Return whether a value of the graph is the output of a dequantize operator."""
    maker = None if value is None else value.producer()
    return maker is not None and maker.op_type == "DequantizeLinear"


def ends_in_codes(value: Any) -> bool:
    """Return whether all that reads a value is a quantize operator, or clips it for one."""
    readers = [use.node for use in value.uses()]
    return bool(readers) and all(
        one.op_type == "QuantizeLinear" or (one.op_type in CLIPS and ends_in_codes(one.outputs[0])) for one in readers
    )


def add_bias_after(graph: Any, node: Any) -> None:
    """Replace a product of codes with a bias by a product and a sum."""
    import onnx_ir

    if not all(map(is_decoded, node.inputs[:2])) or node.attributes.get_float("beta", 1.0) != 1:
        return
    product = onnx_ir.node("Gemm", node.inputs[:2], attributes=node.attributes, num_outputs=1, name=node.name)
    product.metadata_props.update(node.metadata_props)
    graph.insert_before(node, product)
    exchange(graph, node, onnx_ir.node("Add", [product.outputs[0], node.inputs[2]], num_outputs=1))


def missing_channels(node: Any) -> int:
    """Return how many input channels a convolution of codes lacks to a multiple of four; 0 if that would not help."""
    if not all(map(is_decoded, node.inputs[:2])) or node.attributes.get_int("group", 1) != 1:
        return 0
    constant = node.inputs[1].producer().inputs[0].const_value
    return -constant.shape[1] % IN_FOURS if constant is not None and constant.shape[0] >= FEWEST_ROWS else 0


def fill_channels(graph: Any, node: Any, count: int) -> None:
    """Let a convolution read `count` more channels: the code of zero, times weights of zero."""
    import onnx_ir

    read, weight = node.inputs[0].producer(), node.inputs[1].producer()
    codes = weight.inputs[0].const_value.numpy()
    ends = np.zeros((codes.ndim, 2), np.int64)
    ends[1, 1] = count
    name = node.outputs[0].name
    wider = own_constant(graph, f"{name}.filled_codes", np.pad(codes, ends.tolist()))
    sizes = own_constant(graph, f"{name}.filled_channels", ends.T.reshape(-1))
    padded = onnx_ir.node("Pad", [read.inputs[0], sizes, *read.inputs[2:]], num_outputs=1)
    steps = [padded, decoded_by(read, padded.outputs[0]), decoded_by(weight, wider)]
    for step in steps:
        graph.insert_before(node, step)
    for place, step in enumerate(steps[1:]):
        node.replace_input_with(place, step.outputs[0])


def decoded_by(node: Any, codes: Any) -> Any:
    """Return a new dequantize operator like `node` that reads other codes."""
    import onnx_ir

    return onnx_ir.node(node.op_type, [codes, *node.inputs[1:]], attributes=node.attributes, num_outputs=1)
