"""Step: one operator of a traced graph, with the axes of its inputs."""

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from cortado.network.graph.axes.moves import AxisList
from cortado.network.graph.axes.variables import Axis, Variables

Value = AxisList | list[AxisList] | None
"""The axes of a node's tensor, of each tensor of its list, or None for a number."""


@dataclass
class Step:
    """An operator to be followed: `known` holds the axes of the nodes before it."""

    node: fx.Node
    variables: Variables
    known: dict[fx.Node, Value]
    roles: dict[tuple[fx.Node, int], str]
    counted: dict[fx.Node, tuple[str, Axis]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Return the operator without its overload and in-place "_": "add", "conv2d"."""
        return operator_name(self.node)

    @property
    def reason(self) -> str:
        """Return operator and source line, for messages."""
        return f"{self.name} at {source_of(self.node) or 'an unknown line'}"

    def arg(self, name: str, default: Any = None) -> Any:
        """Return an argument by its name in the operator's schema."""
        if name in self.node.kwargs:
            return self.node.kwargs[name]
        for place, argument in enumerate(self.node.target._schema.arguments):  # type: ignore[union-attr]
            if argument.name == name:
                if place < len(self.node.args):
                    return self.node.args[place]
                return argument.default_value if argument.has_default_value() else default
        return default

    def tensor(self, name: str) -> "Input | None":
        """Return a tensor argument with its axes; None where it is not given."""
        value = self.arg(name)
        return Input(value, self.axis_list_of(value)) if isinstance(value, fx.Node) else None

    def tensors(self) -> "list[Input]":
        """Return all tensor arguments in order, including those in lists."""
        return [Input(node, self.axis_list_of(node)) for node in self.node.all_input_nodes if is_tensor(node)]

    def axis_list_of(self, node: fx.Node) -> AxisList:
        found = self.known.get(node)
        shape = node_shape(node)
        return [None] * len(shape) if found is None or (found and isinstance(found[0], list)) else found  # type: ignore[return-value]

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of the (first) output."""
        return node_shape(self.node)

    def resolved(self, axis_list: AxisList) -> AxisList:
        return [self.variables.resolve(axis) for axis in axis_list]

    def outputs(self, number: int = 0) -> AxisList:
        """Return the resolved axes of an output, after the walk."""
        found = axis_lists_of(self.known[self.node])
        return self.resolved(found[number]) if found else []

    def output_count(self) -> int:
        return len(axis_lists_of(self.known[self.node]))

    def join(self, left: Axis, right: Axis) -> None:
        self.variables.join(left, right, self.reason)

    def freeze(self, *axes: Axis) -> None:
        for axis in axes:
            self.variables.freeze(axis, self.reason)

    def keep_whole(self, *axes: Axis) -> None:
        """Freeze axes that nobody would cut, such as kernel positions, without a reason."""
        for axis in axes:
            self.variables.freeze(axis, "")

    def inexact(self, *axes: Axis) -> None:
        """Mark axes on which removing entries changes results computed from the others."""
        for axis in axes:
            self.variables.mark(axis, self.variables.marks.inexact, self.reason)

    def lifts(self, *axes: Axis) -> None:
        """Mark axes whose zero entries may become other values."""
        for axis in axes:
            self.variables.mark(axis, self.variables.marks.lifted, self.reason)

    def absorbs(self, *axes: Axis) -> None:
        """Mark axes whose entries are added up without a weight for each."""
        for axis in axes:
            self.variables.mark(axis, self.variables.marks.absorbed, self.reason)

    def orders(self, *axes: Axis) -> None:
        """Mark axes on which the place of an entry matters."""
        for axis in axes:
            self.variables.mark(axis, self.variables.marks.ordered, self.reason)

    def heads(self, axis: Axis) -> None:
        self.variables.mark(axis, self.variables.marks.heads, self.reason)

    def counts(self, argument: str, axis: Axis) -> None:
        """Record that an argument is the count of an axis that no activation has alone."""
        self.counted[self.node] = (argument, axis)

    def role(self, given: "Input | None", axis: int, role: str) -> None:
        """Record that an axis of a parameter produces or consumes channels."""
        if given is not None:
            self.roles.setdefault((given.node, axis), role)

    def blocked(self) -> Value:
        """Freeze all inputs: this operator is unknown."""
        for given in self.tensors():
            self.freeze(*given.axis_list)
        return blank(self.node)


@dataclass
class Input:
    """One input tensor of an operator."""

    node: fx.Node
    axis_list: AxisList

    @property
    def shape(self) -> tuple[int, ...]:
        return node_shape(self.node)

    @property
    def is_weight(self) -> bool:
        """Return whether it is a parameter or buffer itself; the network's inputs have no tracked axes."""
        return self.node.op == "placeholder"

    def __len__(self) -> int:
        return len(self.axis_list)


def is_tensor(node: fx.Node) -> bool:
    return isinstance(node.meta.get("val"), Tensor)


def node_shape(node: fx.Node) -> tuple[int, ...]:
    """Return the shape of a node's tensor, or of the first of its list; () for anything else."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        value = next((part for part in value if isinstance(part, Tensor)), None)
    return tuple(int(size) for size in value.shape) if isinstance(value, Tensor) else ()


def blank(node: fx.Node) -> Value:
    """Return untracked axes for all outputs of the node."""
    value = node.meta.get("val")
    if isinstance(value, (tuple, list)):
        return [untracked(part.dim()) if isinstance(part, Tensor) else [] for part in value]
    return untracked(value.dim()) if isinstance(value, Tensor) else None


def axis_lists_of(value: Value) -> list[AxisList]:
    """Return the axes of a node's outputs as a list."""
    if value is None:
        return []
    return list(value) if value and isinstance(value[0], list) else [value]  # type: ignore[list-item, arg-type]


def untracked(rank: int) -> AxisList:
    """Return axes from which nothing can be cut."""
    return [None for _ in range(rank)]


def operator_name(node: fx.Node) -> str:
    """Return the short name: aten.add_.Tensor -> "add"; other functions have their own name."""
    schema = getattr(node.target, "_schema", None)
    name = (
        str(schema.name).split("::")[-1] if schema is not None else getattr(node.target, "__name__", str(node.target))
    )
    return name if name.endswith("__") else name.removesuffix("_")


def source_of(node: fx.Node) -> str:
    """Return the line of user code that ran this operator: 'file.py:12: code'.

    It is the innermost line outside torch, so calls of torch layers point to the user's call.
    """
    trace = node.meta.get("stack_trace") or ""
    found = inside = ""
    lines = trace.splitlines()
    for place, line in enumerate(lines):
        if line.strip().startswith("File "):
            path, _, rest = line.strip()[6:].partition('"')
            number = rest.split("line ")[1].split(",")[0] if "line " in rest else "?"
            code = lines[place + 1].strip() if place + 1 < len(lines) else ""
            here = f"{path.rpartition('/')[2]}:{number}: {code}"
            found, inside = (here, inside) if "/torch/" not in path else (found, here)
    return found or inside


def module_of(node: fx.Node) -> str:
    """Return the path of the innermost module in whose forward this operator ran."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values()]
    return paths[-1].removeprefix("L['self'].").removeprefix("L['self']") if paths else ""


def broadcast(step: Step, given: list[tuple[AxisList, tuple[int, ...]]]) -> AxisList:
    """Join right-aligned axes of equal size; those of size 1 follow the others."""
    rank = max(len(axis_list) for axis_list, _ in given)
    out: AxisList = []
    for place in range(-rank, 0):
        here = [(s[place], shape[place]) for s, shape in given if len(s) >= -place and shape[place] != 1]
        for axis, _ in here[1:]:
            step.join(here[0][0], axis)
        out.append(next((axis for axis, _ in here if axis is not None), None))
    return out


def for_each(step: Step, out: AxisList) -> Value:
    """Return the axes of an operator's only output, or of each of several."""
    several = isinstance(step.node.meta.get("val"), (tuple, list))
    return [list(out) for _ in step.node.meta["val"]] if several else out
