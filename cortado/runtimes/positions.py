"""Positions: convolutions of which only some positions are needed, as gathered rows and a product, in an ONNX graph.

A network chooses positions with `ChoosePositions` (cortado/parts/blocks/ponder.py), which becomes one Where. What only its
chosen positions need is computed for them alone: the rows (channels) of the positions that a kernel sees are gathered, one
Gemm multiplies them, and the results are scattered back. A convolution before another one is computed at the neighbours too,
so that every number is that of the dense file. Maps stand as rows of positions with an edge of zeros. Only wide layers gain:
Gather moves as many bytes as the kernel has taps.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cortado.lowering.rows import CHOSEN, MASK, OTHERWISE
from cortado.parts.blocks.ponder import ChoosePositions
from cortado.runtimes.rows import HIERARCHY, made, steps_inside, take_place, whole_numbers

POSITIONS = "positions"
CLASS = f"{ChoosePositions.__module__}.{ChoosePositions.__qualname__}"
POINTWISE = ("Relu", "Add", "Sub", "Mul", "Clip", "Sigmoid", "LeakyRelu", "HardSwish")
FEWEST_CHANNELS = 48
"""With fewer, no share of positions that halting leaves has paid."""
EDGE = 1


def chooses_positions(network: Any) -> bool:
    """Return whether positions of a network halt."""
    return any(isinstance(module, ChoosePositions) for module in network.modules())


def lower_positions(model: Any) -> int:
    """Rewrite the choices of positions that can be, in place, and return how many there were."""
    graph, done = model.graph, 0
    padded: dict[Any, Any] = {}
    graph.sort()
    for number, choice in enumerate(
        [node for node in graph if node.op_type == "Where" and CLASS in node.metadata_props.get(HIERARCHY, "")]
    ):
        inside = steps_inside(choice)
        if inside and all(runs_at_positions(node, choice) for node in inside):
            Rewrite(graph, choice, inside, f"positions_{number}", padded).run()
            graph.sort()
            done += 1
    return done


def runs_at_positions(node: Any, choice: Any) -> bool:
    """Return whether an operator can run at single positions of a map as large as that of the choice."""
    if any(value.shape is None for value in (*node.outputs, *node.inputs) if value is not None):
        return False
    if len(node.outputs) != 1 or list(node.outputs[0].shape)[2:] != list(choice.outputs[0].shape)[2:]:
        return False
    if node.op_type in POINTWISE:
        return all(value is None or is_map(value) or is_scale(value) for value in node.inputs)
    return node.op_type == "Conv" and kernel_fits(node)


def is_map(value: Any) -> bool:
    """Return whether a value is maps (N, C, H, W) that depend on the input."""
    return value.const_value is None and len(value.shape) == 4


def is_scale(value: Any) -> bool:
    """Return whether a value is one constant, or one for each channel."""
    return value.const_value is not None and value.const_value.size in (
        1,
        value.shape[-3] if len(value.shape) > 2 else 1,
    )


def kernel_fits(node: Any) -> bool:
    """Return whether a convolution keeps the size of maps, with a kernel of 1 or 3 and enough channels."""
    weight, facts = node.inputs[1], node.attributes
    if weight.const_value is None or len(weight.shape) != 4 or min(weight.shape[:2]) < FEWEST_CHANNELS:
        return False
    size = weight.shape[2]
    ones = all(list(facts[name].as_ints()) == [1, 1] for name in ("strides", "dilations") if name in facts) and (
        "group" not in facts or facts["group"].as_int() == 1
    )
    pads = list(facts["pads"].as_ints()) if "pads" in facts else [0] * 4
    square = tuple(weight.shape[2:]) in ((1, 1), (3, 3)) and pads == [size // 2] * 4
    return ones and square and ("auto_pad" not in facts or facts["auto_pad"].as_string() == "NOTSET")


class Rewrite:
    """One choice: its mask at each distance, and the rows of what is computed."""

    def __init__(self, graph: Any, choice: Any, inside: Sequence[Any], name: str, padded: dict[Any, Any]) -> None:
        """`padded` has the rows of maps that are known already, for the choices to come."""
        self.graph, self.choice, self.inside, self.name, self.padded = graph, choice, inside, name, padded
        self.far = distances(choice, inside)
        self.places: dict[int, Any] = {}
        self.rows: dict[Any, Any] = {}
        self.spread: dict[Any, Any] = {}

    def op(self, operator: str, *given: Any, **attributes: Any) -> Any:
        """Return the value of a new operator before the choice."""
        return made(self.graph, self.choice, operator, list(given), **attributes)

    def whole(self, ending: str, *numbers: int) -> Any:
        return whole_numbers(self.graph, self.name, ending, list(numbers))

    def run(self) -> None:
        """Compute the chosen positions, and let them stand among the others."""
        for node in self.inside:
            value = node.outputs[0]
            self.rows[value] = self.convolved(node) if node.op_type == "Conv" else self.pointwise(node)
        chosen = self.taken(self.choice.inputs[CHOSEN], 0)
        edged = self.op("ScatterND", self.edged(self.choice.inputs[OTHERWISE]), self.column(0), chosen)
        take_place(self.graph, self.choice, self.as_map(edged, self.choice))
        read = [value for node in self.inside for value in node.inputs if value is not None and value.is_initializer()]
        self.graph.remove(list(self.inside), safe=True)
        for value in read:
            if not value.uses():
                # Its numbers stand in a matrix now.
                self.graph.initializers.pop(value.name, None)

    def index(self, far: int) -> Any:
        """Return the places among all rows, edges counted, that are needed at a distance from chosen ones, (places,)."""
        if far not in self.places:
            mask = self.op("Cast", self.choice.inputs[MASK], to=1)
            if far:
                size = 2 * far + 1
                mask = self.op("MaxPool", mask, kernel_shape=[size, size], pads=[far] * 4)
            mask = self.op("Pad", mask, self.whole("edge", 0, 0, EDGE, EDGE, 0, 0, EDGE, EDGE))
            flat = self.op("NonZero", self.op("Reshape", mask, self.whole("flat", -1)))
            self.places[far] = self.op("Reshape", flat, self.whole("flat", -1))
        return self.places[far]

    def column(self, far: int) -> Any:
        return self.op("Reshape", self.index(far), self.whole("column", -1, 1))

    def edged(self, value: Any) -> Any:
        """Return maps as rows (positions with their edges, channels)."""
        if value not in self.padded:
            last = self.op("Transpose", value, perm=[0, 2, 3, 1])
            wide = self.op("Pad", last, self.whole("edge_last", 0, EDGE, EDGE, 0, 0, EDGE, EDGE, 0))
            self.padded[value] = self.op("Reshape", wide, self.whole("rows", -1, value.shape[1]))
        return self.padded[value]

    def as_map(self, edged: Any, like: Any) -> Any:
        """Return rows with edges as maps (N, C, H, W)."""
        _, channels, height, width = like.outputs[0].shape
        tall, wide = height + 2 * EDGE, width + 2 * EDGE
        maps = self.op("Reshape", edged, self.whole("maps", -1, tall, wide, channels))
        inner = self.op(
            "Slice",
            maps,
            self.whole("begin", EDGE, EDGE),
            self.whole("end", EDGE + height, EDGE + width),
            self.whole("axes", 1, 2),
        )
        found = self.op("Transpose", inner, perm=[0, 3, 1, 2])
        self.padded[found] = edged
        return found

    def taken(self, value: Any, far: int) -> Any:
        """Return the rows of a value at a distance; those computed stand there already."""
        if value not in self.rows:
            return self.op("Gather", self.edged(value), self.index(far), axis=0)
        if self.far[value] == far:
            return self.rows[value]
        return self.op("Gather", self.scattered(value), self.index(far), axis=0)

    def scattered(self, value: Any) -> Any:
        """Return computed rows among zeros, (positions with edges, channels)."""
        if value not in self.spread:
            channels = value.shape[1]
            like = self.op("Shape", self.edged(self.choice.inputs[OTHERWISE]))
            count = self.op("Slice", like, self.whole("first", 0), self.whole("second", 1))
            shape = self.op("Concat", count, self.whole(f"channels_{channels}", channels), axis=0)
            zeros = self.op("Expand", self.number(0.0), shape)
            self.spread[value] = self.op("ScatterND", zeros, self.column(self.far[value]), self.rows[value])
        return self.spread[value]

    def pointwise(self, node: Any) -> Any:
        """Return the rows of an operator that looks at single numbers."""
        import onnx_ir

        far = self.far[node.outputs[0]]
        given = [
            value if value is None else self.taken(value, far) if is_map(value) else self.scale(value)
            for value in node.inputs
        ]
        new = onnx_ir.node(node.op_type, given, attributes=node.attributes, num_outputs=1)
        self.graph.insert_before(self.choice, new)
        return new.outputs[0]

    def scale(self, value: Any) -> Any:
        """Return a constant for rows: one number, or one for each channel in the last axis."""
        numbers = value.const_value.numpy()
        return value if numbers.size == 1 else self.floats(numbers.reshape(1, -1), value.name)

    def convolved(self, node: Any) -> Any:
        """Return the rows of a convolution: the product of what its kernel sees at each position."""
        weight, far = node.inputs[1].const_value.numpy(), self.far[node.outputs[0]]
        outputs, channels, size, _ = weight.shape
        matrix = self.floats(weight.transpose(2, 3, 1, 0).reshape(-1, outputs), node.inputs[1].name)
        if size == 1:
            seen = self.taken(node.inputs[0], far)
        else:
            wide = node.outputs[0].shape[3] + 2 * EDGE
            steps = [down * wide + right for down in (-1, 0, 1) for right in (-1, 0, 1)]
            near = self.op("Add", self.column(far), self.whole("near", *steps))
            whole = self.scattered(node.inputs[0]) if node.inputs[0] in self.rows else self.edged(node.inputs[0])
            seen = self.op("Reshape", self.op("Gather", whole, near, axis=0), self.whole("seen", -1, 9 * channels))
        bias = node.inputs[2] if len(node.inputs) > 2 and node.inputs[2] is not None else None
        return self.op("Gemm", seen, matrix, *([] if bias is None else [bias]))

    def number(self, value: float) -> Any:
        return self.floats(np.array(value, np.float32), "zero")

    def floats(self, numbers: np.ndarray, ending: str) -> Any:
        """Return a constant of floats, once."""
        import onnx_ir

        name = f"{ending}.rows"
        if name not in self.graph.initializers:
            made_value = onnx_ir.val(name, const_value=onnx_ir.tensor(np.ascontiguousarray(numbers, np.float32)))
            self.graph.register_initializer(made_value)
        return self.graph.initializers[name]


def distances(choice: Any, inside: Sequence[Any]) -> dict[Any, int]:
    """Return how far from the chosen positions each value is needed: 1 before a kernel of 3, 2 before two of them."""
    found = {choice.inputs[CHOSEN]: 0}
    for node in reversed(inside):
        far = found[node.outputs[0]]
        reach = node.inputs[1].shape[2] // 2 if node.op_type == "Conv" else 0
        for value in node.inputs[: 1 if node.op_type == "Conv" else None]:
            if value is not None:
                found[value] = max(found.get(value, 0), far + reach)
    return found
