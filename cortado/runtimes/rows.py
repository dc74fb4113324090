"""Rows: what only the chosen rows of a network need runs for them alone, in an ONNX graph.

A network chooses rows with `ChooseRows` (cortado/parts/blocks/rows.py), which becomes one Where. There are two forms.
Compaction gathers the chosen rows of every value that enters, runs the rest on the smaller batch, which may be empty, and
scatters the result back: each row goes its own way. Branches put the rest into an If, which runs for the whole batch as soon
as one row needs it.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from cortado.lowering.rows import CHOSEN, CLASS, MASK, OTHERWISE

COMPACTION, BRANCHES = "compaction", "branches"
HIERARCHY = "pkg.torch.onnx.class_hierarchy"


def lower_choices(model: Any, form: str) -> int:
    """Rewrite the choices of rows in a model in one of the two forms, in place, and return how many there were.

    The operators need the notes and shapes that torch's exporter leaves on them.
    """
    model.graph.sort()
    # The outermost comes last: what its rows need holds the others.
    found = [node for node in reversed(list(model.graph)) if is_choice(node)]
    for number, choice in enumerate(found):
        inside, graph = steps_inside(choice), choice.graph
        if inside:
            (compact if form == COMPACTION else branch)(graph, choice, inside, f"rows_{number}")
            graph.sort()
    return len(found)


def is_choice(node: Any) -> bool:
    """Return whether an operator is the one of ChooseRows."""
    return node.op_type == "Where" and CLASS in node.metadata_props.get(HIERARCHY, "")


def steps_inside(choice: Any) -> list[Any]:
    """Return the operators whose values only the chosen rows of a choice need, in order."""
    inside: set[Any] = set()
    for node in reversed(list(choice.graph)):
        uses = [use for value in node.outputs for use in value.uses()]
        leaves = any(value.is_graph_output() for value in node.outputs)
        if uses and not leaves and all(use.node in inside or use == (choice, CHOSEN) for use in uses):
            inside.add(node)
    return [node for node in choice.graph if node in inside]


def compact(graph: Any, choice: Any, inside: Sequence[Any], name: str) -> None:
    """Run operators on the chosen rows alone, and scatter their result into what the other rows get."""
    mask = choice.inputs[MASK]
    places = made(
        graph, choice, "NonZero", [made(graph, choice, "Reshape", [mask, whole_numbers(graph, name, "flat", [-1])])]
    )
    index = made(graph, choice, "Reshape", [places, whole_numbers(graph, name, "flat", [-1])])
    column = made(graph, choice, "Reshape", [places, whole_numbers(graph, name, "column", [-1, 1])])
    entering = Entering(graph, choice, mask.shape[0], index, name)
    made_inside = {value for node in inside for value in node.outputs}
    for node in inside:
        for place, value in enumerate(node.inputs):
            if value is not None and value not in made_inside:
                node.replace_input_with(place, entering.taken(value))
    for value in made_inside:
        entering.note_rows(value)
    result = made(graph, choice, "ScatterND", [choice.inputs[OTHERWISE], column, choice.inputs[CHOSEN]])
    take_place(graph, choice, result)


class Entering:
    """The values that chosen rows take along: their rows where the first axis is as long as the mask, else the whole."""

    def __init__(self, graph: Any, before: Any, rows: Any, index: Any, name: str) -> None:
        self.graph, self.before, self.rows, self.index, self.name = graph, before, rows, index, name
        self.known: dict[Any, Any] = {}

    def taken(self, value: Any) -> Any:
        """Return what stands for a value among the chosen rows."""
        if value not in self.known:
            self.known[value] = self.made(value)
        return self.known[value]

    def made(self, value: Any) -> Any:
        maker = value.producer()
        if maker is None and not value.is_graph_input() or value.const_value is not None:
            return value
        if maker is not None and maker.op_type == "DequantizeLinear" and self.has_rows(maker.inputs[0], value):
            # Rows of codes are a quarter of the bytes, and a product of integers stays beside its scales.
            return self.again(maker, [self.taken_rows(maker.inputs[0], value), *maker.inputs[1:]], value)
        if is_size(value):
            return value if maker is None else self.again(maker, [self.taken(one) for one in maker.inputs], value)
        return self.taken_rows(value, value) if self.has_rows(value, value) else value

    def has_rows(self, value: Any, like: Any) -> bool:
        """Return whether a value has a row for each entry of the mask."""
        shape = value.shape if value.shape is not None else like.shape
        return shape is None or len(shape) > 0 and shape[0] == self.rows

    def taken_rows(self, value: Any, like: Any) -> Any:
        """Return the chosen rows of a value."""
        taken = made(self.graph, self.before, "Gather", [value, self.index], axis=0)
        taken.type, taken.shape = value.type, value.shape if value.shape is not None else like.shape
        self.note_rows(taken)
        return taken

    def again(self, node: Any, given: list[Any], like: Any) -> Any:
        """Return the value of an operator on other inputs."""
        import onnx_ir

        copied = onnx_ir.Node(
            node.domain, node.op_type, given, list(node.attributes.values()), num_outputs=len(node.outputs),
            metadata_props=dict(node.metadata_props),
        )  # fmt: skip
        self.graph.insert_before(self.before, copied)
        value = copied.outputs[like.index()]
        value.type, value.shape = like.type, like.shape
        self.note_rows(value)
        return value

    def note_rows(self, value: Any) -> None:
        """Note in a value's shape that its rows are the chosen ones."""
        import onnx_ir

        if value.shape is not None and len(value.shape) and value.shape[0] == self.rows:
            value.shape = onnx_ir.Shape([onnx_ir.SymbolicDim(self.name), *value.shape[1:]])


def is_size(value: Any) -> bool:
    """Return whether a value only says how large others are."""
    maker = value.producer()
    if maker is None:
        return value.const_value is not None or value.is_initializer()
    return maker.op_type == "Shape" or all(one is None or is_size(one) for one in maker.inputs)


def branch(graph: Any, choice: Any, inside: Sequence[Any], name: str) -> None:
    """Put operators into an If that runs where any row is chosen."""
    import onnx_ir

    number = made(graph, choice, "Cast", [choice.inputs[MASK]], to=onnx_ir.DataType.FLOAT)
    most = made(graph, choice, "ReduceMax", [number], keepdims=0)
    some = made(graph, choice, "Cast", [most], to=onnx_ir.DataType.BOOL)
    graph.remove(list(inside))
    mixed = onnx_ir.node("Where", list(choice.inputs), num_outputs=1)
    same = onnx_ir.node("Identity", [choice.inputs[OTHERWISE]], num_outputs=1)
    for node, branch_name in ((mixed, "chosen"), (same, "otherwise")):
        node.outputs[0].name = f"{name}.{branch_name}"
        node.outputs[0].type, node.outputs[0].shape = choice.outputs[0].type, choice.outputs[0].shape
    result = made(
        graph, choice, "If", [some],
        then_branch=onnx_ir.Graph([], [mixed.outputs[0]], nodes=[*inside, mixed], name=f"{name}.then"),
        else_branch=onnx_ir.Graph([], [same.outputs[0]], nodes=[same], name=f"{name}.else"),
    )  # fmt: skip
    take_place(graph, choice, result)


def take_place(graph: Any, choice: Any, result: Any) -> None:
    """Let a value stand for that of a choice, which goes."""
    before = choice.outputs[0]
    result.name, result.type, result.shape = before.name, before.type, before.shape
    before.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(choice, safe=True)


def made(graph: Any, before: Any, operator: str, given: list[Any], **attributes: Any) -> Any:
    """Return the value of a new operator, which stands before another one."""
    import onnx_ir

    node = onnx_ir.node(operator, given, attributes=attributes, num_outputs=1)
    graph.insert_before(before, node)
    return node.outputs[0]


def whole_numbers(graph: Any, name: str, ending: str, numbers: list[int]) -> Any:
    """Return a constant of whole numbers."""
    import onnx_ir

    value = onnx_ir.val(f"{name}.{ending}", const_value=onnx_ir.tensor(np.array(numbers, np.int64)))
    if value.name not in graph.initializers:
        graph.register_initializer(value)
    return graph.initializers[value.name]
