"""Products: convolutions, linear_rule layers, matrix products and look-ups in a table."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.nets.from_onnx.node import Made, Node, Rule


def layer_for(family: str, spatial: int, node: Node) -> Any:
    """Return torch's class of a family of layers for so many spatial axes: Conv, 2 -> nn.Conv2d."""
    if spatial not in (1, 2, 3):
        raise node.refuse(f"has {spatial} spatial axes", "One to three are read: reshape its input.")
    return getattr(nn, f"{family}{spatial}d")


def window_pads(
    node: Node, spatial: int, kernel: Sequence[int], strides: Sequence[int], gaps: Sequence[int]
) -> list[tuple[int, int]]:
    """Return the padding before and after each spatial axis, which auto_pad computes from the sizes."""
    way = node.attribute("auto_pad", "NOTSET")
    if way in ("NOTSET", ""):
        given = [int(one) for one in node.attribute("pads", [0] * 2 * spatial)]
        return list(zip(given[:spatial], given[spatial:], strict=True))
    if way == "VALID":
        return [(0, 0)] * spatial
    found = []
    for size, width, stride, gap in zip(node.shape()[2:], kernel, strides, gaps, strict=True):
        total = max(0, (math.ceil(size / stride) - 1) * stride + (width - 1) * gap + 1 - size)
        small = total // 2
        found.append((small, total - small) if way == "SAME_UPPER" else (total - small, small))
    return found


def padding_before(pads: Sequence[tuple[int, int]], value: float = 0.0) -> nn.Module:
    """Return the layer that pads each spatial axis before and after."""
    sizes = tuple(size for pair in reversed(pads) for size in pair)
    made = getattr(nn, f"{'Constant' if value else 'Zero'}Pad{len(pads)}d")
    return made(sizes, value) if value else made(sizes)  # type: ignore[no-any-return]


def window(node: Node, kernel: Sequence[int]) -> tuple[list[int], list[int], list[tuple[int, int]]]:
    """Return strides, dilations and padding of an operator that moves a window."""
    strides = [int(one) for one in node.attribute("strides", [1] * len(kernel))]
    gaps = [int(one) for one in node.attribute("dilations", [1] * len(kernel))]
    return strides, gaps, window_pads(node, len(kernel), kernel, strides, gaps)


def convolution_rule(node: Node) -> Made:
    """Return a convolution_rule layer, with a layer before it where padding is uneven."""
    kernel = node.shape(1)[2:]
    strides, gaps, pads = window(node, kernel)
    even = all(before == after for before, after in pads)
    groups = int(node.attribute("group", 1))
    inner = [before for before, _ in pads] if even else [0] * len(kernel)
    if not node.value(1).static:
        return computed_convolution(node, strides, gaps, inner if even else None, groups)
    outputs, width = node.shape(1)[:2]
    made = layer_for("Conv", len(kernel), node)(
        width * groups,
        outputs,
        tuple(kernel),
        tuple(strides),
        tuple(inner),
        tuple(gaps),
        groups,
        node.has(2),
        device="meta",
    )
    fill(made, node)
    return Made((made,) if even else (padding_before(pads), made), (node.value(0),))


def computed_convolution(node: Node, strides: list[int], gaps: list[int], pads: list[int] | None, groups: int) -> Made:
    """Return a convolution_rule whose weights are computed."""
    if pads is None:
        raise node.refuse("has computed weights and uneven padding", "Pad its input in an operator of its own.")
    function = getattr(functional, f"conv{len(strides)}d")
    given = [node.value(place) for place in range(3) if node.has(place)]
    return node.applied(function, given, stride=strides, padding=pads, dilation=gaps, groups=groups)


def transposed_convolution(node: Node) -> Made:
    """Return a transposed convolution_rule layer."""
    kernel, groups = node.shape(1)[2:], int(node.attribute("group", 1))
    strides, gaps, pads = window(node, kernel)
    extra = [int(one) for one in node.attribute("output_padding", [0] * len(kernel))]
    if node.attribute("output_shape") is not None or node.attribute("auto_pad", "NOTSET") not in (
        "NOTSET",
        "VALID",
        "",
    ):
        raise node.refuse("computes its padding from its output", "Export it with the attribute pads.")
    # More padding after than before takes rows off the end, which output_padding gives back.
    extra = [size + before - after for size, (before, after) in zip(extra, pads, strict=True)]
    if any(size < 0 for size in extra):
        raise node.refuse("has uneven padding", "Export it with even padding and slice its output.")
    inputs, width = node.shape(1)[:2]
    made = layer_for("ConvTranspose", len(kernel), node)(
        inputs, width * groups, tuple(kernel), tuple(strides), tuple(before for before, _ in pads), tuple(extra), groups,
        node.has(2), tuple(gaps), device="meta",
    )  # fmt: skip
    fill(made, node)
    return Made((made,), (node.value(0),))


def fill(layer: Any, node: Node, turn: Any = None, turned: str = "") -> None:
    """Give a layer the weight and bias of a node's second and third input."""
    layer.weight = node.parameter(1, turn, turned)
    if node.has(2):
        layer.bias = node.parameter(2, lambda values: values.reshape(-1), "bias")


def general_product(node: Node) -> Made:
    """Return a linear_rule layer for a constant matrix, else alpha * A B + beta * C."""
    alpha, beta = float(node.attribute("alpha", 1.0)), float(node.attribute("beta", 1.0))
    over, turned = bool(node.attribute("transA", 0)), bool(node.attribute("transB", 0))
    flat = not node.has(2) or (
        node.value(2).fixed and node.value(2).held[0].numel() == node.shape(1)[0 if turned else 1]
    )
    if not over and alpha == beta == 1 and node.value(1).fixed and flat and not node.value(0).static:
        return linear_rule(node, turned)

    given = [node.value(place) for place in range(3) if node.has(place)]
    return node.applied(general, given, scale=alpha, share=beta, first_turned=over, second_turned=turned)


def general(
    one: Tensor, two: Tensor, bias: Tensor | None = None, *, scale: float, share: float, first_turned: bool, second_turned: bool
) -> Tensor:  # fmt: skip
    made = (one.t() if first_turned else one) @ (two.t() if second_turned else two) * scale
    return made if bias is None else made + bias * share


def linear_rule(node: Node, turned: bool) -> Made:
    """Return a linear layer; `turned`: the matrix is as torch has it, outputs first."""
    outputs, inputs = node.shape(1) if turned else node.shape(1)[::-1]
    made = nn.Linear(inputs, outputs, node.has(2), device="meta")
    fill(made, node, None if turned else Tensor.t, "" if turned else "turned")
    return Made((made,), (node.value(0),))


def product(node: Node) -> Made:
    """Return a linear_rule layer for a constant matrix, else a matrix product; a third input is a bias."""
    if node.value(1).fixed and node.rank(1) == 2 and node.rank() > 1 and not node.value(0).static:
        return linear_rule(node, False)
    return node.applied(product_and_bias, [node.value(place) for place in range(len(node.inputs))])


def product_and_bias(one: Tensor, two: Tensor, bias: Tensor | None = None) -> Tensor:
    return one @ two if bias is None else one @ two + bias


def embedding_of(node: Node) -> Made | None:
    """Return an embedding for a Gather from a constant table of floats; None for any other Gather."""
    table, indices = node.value(0), node.value(1)
    if (
        not table.fixed
        or indices.static
        or node.rank() != 2
        or node.axis() != 0
        or not table.held[0].is_floating_point()
    ):
        return None
    rows, columns = node.shape()
    made = nn.Embedding(rows, columns, device="meta")
    made.weight = node.parameter(0)
    return Made((made,), (indices,))


def einstein_sum(*given: Tensor, equation: str) -> Tensor:
    return torch.einsum(equation, *given)


def einsum_rule(node: Node) -> Made:
    text = str(node.attribute("equation")).replace(" ", "")

    return node.applied(einstein_sum, [node.value(place) for place in range(len(node.inputs))], equation=text)


RULES: dict[str, Rule] = {
    "Conv": convolution_rule, "ConvTranspose": transposed_convolution, "Gemm": general_product, "MatMul": product,
    "LinearWithBias": product, "Einsum": einsum_rule,
}  # fmt: skip
