"""Binary: signs times signs in an OpenVINO model, as BinaryConvolution (xnor and popcount on packed bits).

A product of ternary weights is half the sum of two binary ones. The operator is written into an `openvino.Model` of float
products.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from cortado.lowering.products import SIGNS, Product
from cortado.runtimes.kernels.kernel import NOT_CONCERNED, Kernel

JUST_BELOW_ZERO = -1.1754944e-38
"""The comparison is "above", and zero counts as +1."""
BLOCK = 8
"""Input channels are packed into bytes; a file with any other number of them gives wrong numbers without an error."""
FEWEST_COLUMNS = 8
"""Rows of fewer weights have one magnitude by chance."""
PART = ".signs"
"""Suffix of the operators' names, after the layer's path."""
MATMULS = ("Convolution", "MatMul")


@dataclass(frozen=True)
class BinaryProducts(Kernel):
    """Convolutions and linear layers whose weights and inputs are signs, with a scale a row and a scale a sample."""

    name = "binary"
    lost = "no product of signs in the file belongs to this layer alone"

    def fits(self, product: Product) -> str | None:
        if product.family not in ("conv", "linear"):
            return "only convolutions and linear layers multiply signs" if product.reads == SIGNS else NOT_CONCERNED
        if product.reads != SIGNS:
            signs = product.weight.sign_terms == 1 and product.weight.values[:1].numel() >= FEWEST_COLUMNS
            return "its input is not rounded to signs" if signs else NOT_CONCERNED
        if not product.weight.sign_terms:
            return "its weights are not signs with one scale a row"
        return self.shape_refusal(product.layer, tuple(product.weight.values.shape))

    def shape_refusal(self, layer: Any, shape: tuple[int, ...]) -> str | None:
        """Return why a layer's sizes do not fit, None if they do."""
        if len(shape) not in (2, 4):
            return "products of signs have two dimensions of positions, or none"
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            return f"its {layer.groups} groups have no product of signs"
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            return f"its padding is {layer.padding_mode}, and signs are padded with zeros"
        if shape[1] % BLOCK:
            return f"its {shape[1]} inputs are no multiple of {BLOCK}"
        return None

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        """Replace every product of signs in an openvino.Model that multiplies by the weight of one of `products`."""
        for step in list(model.get_ordered_ops()):
            terms = sign_terms(step.input_value(0)) if step.get_type_name() in MATMULS else None
            product = None if terms is None else owner(step, products)
            if terms is not None and product is not None:
                put_binary(step, terms, product)
        model.validate_nodes_and_infer_types()


Term = tuple[Any, Any]
"""The values whose signs are read, and the factor of each sample (None: 1), as outputs of operators."""


def sign_terms(value: Any) -> list[Term] | None:
    """Return a value as a sum of signs times factors; None if it is anything else."""
    step = unspread(value)
    if step.get_type_name() == "Add":
        parts = [sign_terms(step.input_value(number)) for number in (0, 1)]
        return None if None in parts else [term for part in parts for term in part or ()]
    if step.get_type_name() == "Multiply":
        for one, other in ((0, 1), (1, 0)):
            source = signs_of(step.input_value(one))
            if source is not None:
                return [(source, step.input_value(other))]
    source = signs_of(value)
    return None if source is None else [(source, None)]


def unspread(value: Any) -> Any:
    """Return the operator that makes a value, without a broadcast to the shape that it has already."""
    step = value.get_node()
    same = step.get_type_name() == "Broadcast" and step.get_output_partial_shape(0) == step.get_input_partial_shape(0)
    return unspread(step.input_value(0)) if same else step


def signs_of(value: Any) -> Any:
    """Return the values x of `-1 where x < 0, else 1`; None for any other value."""
    step = unspread(value)
    if step.get_type_name() != "Select" or step.input_value(0).get_node().get_type_name() != "Less":
        return None
    less = step.input_value(0).get_node()
    wanted = ((step.input_value(1), -1), (step.input_value(2), 1), (less.input_value(1), 0))
    if not all(is_constant(one, number) for one, number in wanted):
        return None
    read = less.input_value(0).get_node()
    # Clipping around zero changes no sign.
    clips = read.get_type_name() == "Clamp" and read.get_attributes()["min"] < 0 < read.get_attributes()["max"]
    return read.input_value(0) if clips else less.input_value(0)


def is_constant(value: Any, number: float) -> bool:
    """Return whether a value is this number everywhere."""
    found = constant(value)
    return found is not None and bool(np.all(found == number))


def constant(value: Any) -> Any:
    """Return the numbers of a constant value, directly or through operators on constants; None for any other."""
    step = value.get_node()
    name = step.get_type_name()
    if name == "Constant":
        return np.array(step.get_data())
    if name not in ("Convert", "Multiply", "Transpose", "Reshape", "Broadcast"):
        return None
    parts = [constant(step.input_value(number)) for number in range(step.get_input_size())]
    if any(part is None for part in parts):
        return None
    first = parts[0].astype(np.float32)
    made: dict[str, Any] = {
        "Convert": lambda: first,
        "Multiply": lambda: first * parts[1],
        "Transpose": lambda: first.transpose(parts[1]),
        "Reshape": lambda: first.reshape(parts[1]),
        "Broadcast": lambda: first,
    }
    return made[name]()


def owner(step: Any, products: Sequence[Product]) -> Product | None:
    """Return the product by whose weight an operator multiplies; its name decides between equal weights."""
    weight = constant(step.input_value(1))
    if weight is None:
        return None
    if step.get_type_name() == "MatMul" and not step.get_attributes()["transpose_b"]:
        weight = weight.T
    found = [one for one in products if one.weight.values.shape == weight.shape]
    found = [one for one in found if np.allclose(one.weight.values.numpy(), weight, rtol=1e-4, atol=1e-7)]
    named = [one for one in found if one.path == step.get_friendly_name()]
    return next(iter(named or found), None)


def put_binary(step: Any, terms: Sequence[Term], product: Product) -> None:
    """Replace a float product by the sum of the binary products of its terms."""
    from openvino import opset1 as operators

    total, values = None, product.weight.values.numpy()
    scale = np.abs(values).reshape(len(values), -1).max(1) / product.weight.sign_terms
    for source, factor in terms:
        part = None
        for number, above in enumerate((values >= 0, values > 0)[: product.weight.sign_terms]):
            made = convolved(step, source, above, f"{product.path}{PART}{number}")
            part = made if part is None else operators.add(part, made)
        made = in_shape_of(step, source, operators.multiply(part, floats(scale.reshape(1, -1, 1, 1))))
        made = made if factor is None else operators.multiply(made, factor)
        total = made if total is None else operators.add(total, made)
    assert total is not None
    total.set_friendly_name(f"{product.path}{PART}")
    for reader in list(step.output(0).get_target_inputs()):
        reader.replace_source_output(total.output(0))


def convolved(step: Any, source: Any, above: Any, name: str) -> Any:
    """Return the binary convolution of the signs of `source` and of the weights, which are +1 where `above`."""
    from openvino import opset1 as operators

    facts = step.get_attributes()
    if step.get_type_name() == "MatMul":
        source = operators.reshape(source, whole_numbers([-1, above.shape[1], 1, 1]), False).output(0)
        above, facts = above[:, :, None, None], {}
    edge = floats(np.full((1, above.shape[1], 1, 1), JUST_BELOW_ZERO))
    low, high = (floats(np.full((1, 1, 1, 1), value)) for value in (0, 1))
    bits = operators.fake_quantize(source, edge, edge, low, high, 2)
    made = operators.binary_convolution(
        bits, bits_constant(above), list(facts.get("strides", (1, 1))), list(facts.get("pads_begin", (0, 0))),
        list(facts.get("pads_end", (0, 0))), list(facts.get("dilations", (1, 1))), "xnor-popcount", 0.0,
    )  # fmt: skip
    made.set_friendly_name(name)
    return made


def in_shape_of(step: Any, source: Any, made: Any) -> Any:
    """Return a product in the shape of the float one: linear layers were 1 x 1 convolutions of all positions."""
    from openvino import opset1 as operators

    if step.get_type_name() == "Convolution":
        return made
    inner = [axis.get_length() if axis.is_static else 0 for axis in source.get_partial_shape()][1:-1]
    return operators.reshape(made, whole_numbers([-1, *inner, step.get_output_partial_shape(0)[-1].get_length()]), True)


def floats(values: Any) -> Any:
    """Return values as a constant of float32."""
    from openvino import opset1 as operators

    return operators.constant(np.asarray(values, np.float32))


def whole_numbers(values: Any) -> Any:
    """Return whole numbers as a constant."""
    from openvino import opset1 as operators

    return operators.constant(np.asarray(values, np.int64))


def bits_constant(above: Any) -> Any:
    """Return True and False as a constant of one bit each, the first in the lowest bit."""
    import openvino

    packed = np.packbits(above.astype(np.uint8).ravel(), bitorder="little")
    return openvino.op.Constant(openvino.Tensor(packed, openvino.Shape(list(above.shape)), openvino.Type.u1), False)


def binary_steps(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the layer and the operator of every binary convolution in an openvino.Model."""
    for step in model.get_ordered_ops():
        if step.get_type_name() == "BinaryConvolution":
            yield step.get_friendly_name().rpartition(PART)[0], step


def has_binary(model: Any) -> bool:
    """Return whether a model has a binary convolution, which OpenVINO compiles for one batch size at a time."""
    return next(binary_steps(model), None) is not None
