"""Fused: several operators of a file that are one in torch, such as a hard-swish or a linear layer with its bias."""

import math
from collections.abc import Callable
from dataclasses import replace

from cortado.nets.from_onnx.reading import OnnxFile, OnnxNode

Found = tuple[OnnxNode, tuple[OnnxNode, ...]]
"""A node in the place of the last one that it replaces, and the others, which nothing else reads."""
CLOSE = 1e-4


class Pieces:
    """The nodes of a file by what they make and read, and its constants."""

    def __init__(self, file: OnnxFile) -> None:
        self.makers = {name: node for node in file.nodes for name in node.outputs if name}
        self.readers: dict[str, int] = dict.fromkeys(file.outputs, 1)
        for node in file.nodes:
            for name in node.inputs:
                self.readers[name] = self.readers.get(name, 0) + 1
        self.constants = file.constants

    def number(self, name: str) -> float | None:
        """Return a constant of one entry as a number."""
        value = self.constants.get(name)
        return float(value) if value is not None and value.numel() == 1 else None

    def is_number(self, name: str, wanted: float) -> bool:
        found = self.number(name)
        return found is not None and abs(found - wanted) < CLOSE

    def inner(self, name: str, kind: str, times: int = 1) -> OnnxNode | None:
        """Return the node of this kind that makes a value, if it is read so often."""
        node = self.makers.get(name)
        return node if node is not None and node.kind == kind and self.readers.get(name) == times else None

    def with_number(self, node: OnnxNode, wanted: float) -> str | None:
        """Return the other input of a node that has this number as one of two."""
        for place in (0, 1):
            if len(node.inputs) == 2 and self.is_number(node.inputs[place], wanted):
                return node.inputs[1 - place]
        return None

    def ends(self, node: OnnxNode, low: float, high: float) -> bool:
        """Return whether a clip has these ends."""
        attributes = node.attributes
        if "min" in attributes or "max" in attributes:
            return attributes.get("min") == low and attributes.get("max") == high
        return len(node.inputs) == 3 and self.is_number(node.inputs[1], low) and self.is_number(node.inputs[2], high)


def shifted_clip(pieces: Pieces, name: str) -> tuple[str, tuple[OnnxNode, ...]] | None:
    """Return x and the nodes of a value that is clip(x + 3, 0, 6)."""
    clip = pieces.inner(name, "Clip")
    add = pieces.inner(clip.inputs[0], "Add") if clip and pieces.ends(clip, 0, 6) else None
    source = pieces.with_number(add, 3) if add else None
    return (source, (add, clip)) if source is not None and add and clip else None


def sixth_of(pieces: Pieces, node: OnnxNode) -> str | None:
    """Return the value that a node divides by six."""
    if node.kind == "Div" and pieces.is_number(node.inputs[1], 6):
        return node.inputs[0]
    return pieces.with_number(node, 1 / 6) if node.kind == "Mul" else None


def hard_gate(pieces: Pieces, name: str) -> tuple[str, tuple[OnnxNode, ...]] | None:
    """Return x and the nodes of a value that is clip(x + 3, 0, 6) / 6."""
    node = pieces.makers.get(name)
    if node is None or pieces.readers.get(name) != 1:
        return None
    if node.kind == "HardSigmoid":
        alpha, beta = node.attributes.get("alpha", 0.2), node.attributes.get("beta", 0.5)
        return (node.inputs[0], (node,)) if abs(alpha - 1 / 6) < CLOSE and beta == 0.5 else None
    inside = sixth_of(pieces, node)
    found = shifted_clip(pieces, inside) if inside else None
    return (found[0], (*found[1], node)) if found else None


def hard_swish(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return x * clip(x + 3, 0, 6) / 6, in any order, as a HardSwish."""
    whole = sixth_of(pieces, node)
    inside = pieces.inner(whole, "Mul") if whole else None
    for first, second in both_orders(inside) if inside else ():
        found = shifted_clip(pieces, second)
        if found and found[0] == first and inside:
            return named("HardSwish", node, (first,)), (*found[1], inside)
    for first, second in both_orders(node) if node.kind == "Mul" else ():
        found = hard_gate(pieces, second)
        if found and found[0] == first:
            return named("HardSwish", node, (first,)), found[1]
    return None


def hard_sigmoid_parts(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return clip(x + 3, 0, 6) / 6 as a HardSigmoid."""
    inside = sixth_of(pieces, node)
    found = shifted_clip(pieces, inside) if inside else None
    return (named("HardSigmoid", node, (found[0],), alpha=1 / 6, beta=0.5), found[1]) if found else None


def silu(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return x * sigmoid(x) as a SiLU."""
    for first, second in both_orders(node) if node.kind == "Mul" else ():
        gate = pieces.inner(second, "Sigmoid")
        if gate and gate.inputs[0] == first:
            return named("Silu", node, (first,)), (gate,)
    return None


def gelu(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return x * (1 + erf(x / sqrt 2)) / 2, in any order of the products, as a GELU."""
    if node.kind not in ("Mul", "Div"):
        return None
    factors, used, half = [], list[OnnxNode](), 1.0
    waiting = [(node, True)]
    while waiting:
        one, _ = waiting.pop()
        for place, name in enumerate(one.inputs):
            number, inner = pieces.number(name), pieces.inner(name, "Mul") or pieces.inner(name, "Div")
            if number is not None:
                half *= 1 / number if one.kind == "Div" and place == 1 else number
            elif inner is not None and len(used) < 2:
                used.append(inner)
                waiting.append((inner, True))
            else:
                factors.append(name)
    for first, second in ((factors[0], factors[1]), (factors[1], factors[0])) if len(factors) == 2 else ():
        add = pieces.inner(second, "Add")
        inside = pieces.with_number(add, 1) if add else None
        erf = pieces.inner(inside, "Erf") if inside else None
        scaled = pieces.makers.get(erf.inputs[0]) if erf else None
        if add and erf and scaled and abs(half - 0.5) < CLOSE and is_over_root(pieces, scaled, first):
            return named("Gelu", node, (first,)), (add, erf, scaled, *used)
    return None


def is_over_root(pieces: Pieces, node: OnnxNode, source: str) -> bool:
    """Return whether a node divides a value by the square root of two."""
    root = math.sqrt(2)
    divides = node.kind == "Div" and node.inputs[0] == source and pieces.is_number(node.inputs[1], root)
    return divides or (node.kind == "Mul" and pieces.with_number(node, 1 / root) == source)


def linear_with_bias(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return a product with a constant matrix and the sum with a vector as one Linear."""
    for first, second in both_orders(node) if node.kind == "Add" else ():
        product, bias = pieces.inner(first, "MatMul"), pieces.constants.get(second)
        matrix = pieces.constants.get(product.inputs[1]) if product else None
        if product and bias is not None and matrix is not None and matrix.dim() == 2 and bias.shape == matrix.shape[1:]:
            made = named("LinearWithBias", node, (*product.inputs, second))
            return replace(made, name=product.name or node.name), (product,)
    return None


def rounding_pair(pieces: Pieces, node: OnnxNode) -> Found | None:
    """Return a quantize operator and the dequantize operator that reads it as one Rounding."""
    coded = pieces.makers.get(node.inputs[0]) if node.kind == "DequantizeLinear" else None
    if coded is None or coded.kind != "QuantizeLinear" or not same_grids(pieces, coded, node):
        return None
    return named("Rounding", node, coded.inputs), (coded,)


def same_grids(pieces: Pieces, one: OnnxNode, other: OnnxNode) -> bool:
    """Return whether two quantize operators have one rounding_pair."""
    values = [[pieces.constants.get(name) for name in node.inputs[1:]] for node in (one, other)]
    return len(values[0]) == len(values[1]) and all(
        first is not None and second is not None and first.shape == second.shape and bool((first == second).all())
        for first, second in zip(*values, strict=True)
    )


def both_orders(node: OnnxNode) -> tuple[tuple[str, str], ...]:
    """Return the two inputs of a node in both orders."""
    first, second = node.inputs
    return (first, second), (second, first)


def named(kind: str, last: OnnxNode, inputs: tuple[str, ...], **attributes: float) -> OnnxNode:
    """Return a node of another kind with the name and the outputs of the last one it replaces."""
    return OnnxNode(kind, last.name, inputs, last.outputs, attributes)


PATTERNS: tuple[Callable[[Pieces, OnnxNode], Found | None], ...] = (
    rounding_pair, hard_swish, hard_sigmoid_parts, silu, gelu, linear_with_bias,
)  # fmt: skip


def before_moves(file: OnnxFile) -> OnnxFile:
    """Return the file with roundings in the place of quantize operators whose codes are moved before they are decoded."""
    pieces, made = Pieces(file), dict[int, OnnxNode]()
    for node in file.nodes:
        moved = pieces.inner(node.inputs[0], "Pad") if node.kind == "DequantizeLinear" else None
        coded = pieces.inner(moved.inputs[0], "QuantizeLinear") if moved else None
        if moved and coded and same_grids(pieces, coded, node):
            made[id(coded)] = replace(coded, kind="Rounding")
            # What was padded with the code of zero is padded with zero.
            made[id(moved)] = replace(moved, inputs=(*moved.inputs[:2], "", *moved.inputs[3:]))
            made[id(node)] = named("Identity", node, node.inputs[:1])
    return replace(file, nodes=tuple(made.get(id(node), node) for node in file.nodes))


def fuse(file: OnnxFile) -> OnnxFile:
    """Return the file with what torch has as one operator as one node."""
    file = before_moves(file)
    pieces, made, gone = Pieces(file), dict[int, OnnxNode](), set[int]()
    for node in reversed(file.nodes):
        if id(node) in gone:
            continue
        for pattern in PATTERNS:
            found = pattern(pieces, node)
            if found and not any(id(one) in gone or id(one) in made for one in found[1]):
                made[id(node)] = found[0]
                # A quantize operator may be read by several others, each of which becomes a rounding.
                gone.update(id(one) for one in found[1] if one.kind != "QuantizeLinear")
                break
    return read_only(
        replace(file, nodes=tuple(made.get(id(node), node) for node in file.nodes if id(node) not in gone))
    )


def read_only(file: OnnxFile) -> OnnxFile:
    """Return the file without nodes that nothing reads."""
    wanted, kept = set(file.outputs), list[OnnxNode]()
    for node in reversed(file.nodes):
        if wanted & set(node.outputs):
            kept.append(node)
            wanted.update(node.inputs)
    return replace(file, nodes=tuple(reversed(kept)))
