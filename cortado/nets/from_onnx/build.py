"""Build: the modules and the graph of a network from the nodes of a file.

The operators run twice on tensors without values, for two batch sizes. What does not depend on the inputs is computed at
once; sizes that differ between the two depend on the batch.  (onnx2torch reads sizes while the network runs and branches on
their values, which torch.export refuses.)
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadNetwork, CortadoError
from cortado.nets.from_onnx.names import Paths, placeholder
from cortado.nets.from_onnx.node import BATCHES, Applied, Made, Node, Value
from cortado.nets.from_onnx.reading import OnnxFile, OnnxNode
from cortado.nets.from_onnx.rules.shapes import expanded_values
from cortado.nets.from_onnx.rules.table import RULES

Shapes = dict[str, tuple[int, ...]]


class Builder:
    """Makes one module after the other."""

    def __init__(self, file: OnnxFile, shapes: Shapes, batch: int | None) -> None:
        """`shapes`: of each input, batch first; `batch`: the fixed batch of the file, None for an open one."""
        self.file, self.batch, self.graph, self.root = file, batch, fx.Graph(), nn.Module()
        self.paths, self.parameters = Paths(), dict[Any, nn.Parameter]()
        self.values = {name: Value((value,) * 2, None, name) for name, value in file.constants.items()}
        taken: set[str] = set()
        for given in file.inputs:
            shape = shapes[given.name]
            held = tuple(torch.empty(count, *shape[1:], dtype=given.dtype, device="meta") for count in BATCHES)
            self.values[given.name] = Value(held, self.graph.placeholder(placeholder(given.name, taken)))

    def build(self) -> fx.GraphModule:
        """Return the network."""
        for node in self.file.nodes:
            self.add(node)
        outputs = [self.at_run_time(self.value_of(name, "the file")).place for name in self.file.outputs]
        self.graph.output(outputs[0] if len(outputs) == 1 else tuple(outputs))
        return fx.GraphModule(self.root, self.graph, "OnnxNetwork").eval()

    def add(self, node: OnnxNode) -> None:
        """Compute a node if its inputs are known, else make its modules."""
        reader = f"{node.kind} ({node.name or node.outputs[0]})"
        given = tuple(self.value_of(name, reader) if name else None for name in node.inputs)
        try:
            made = self.shape_values(node, given) or (
                self.folded(node, given)
                if all(one is None or one.static for one in given)
                else self.placed(node, given)
            )
        except CortadoError:
            raise
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise BadNetwork(
                f"onnx: {self.file.path}: {reader} cannot be read: "
                f"{type(error).__name__}: {text}. Simplify the file (onnxsim net.onnx simple.onnx), or export the network again."
            ) from error
        # Last outputs may be missing: in the file, where nobody reads them, or in what a rule makes (value_of says so).
        self.values.update({name: value for name, value in zip(node.outputs, made, strict=False) if name})

    def value_of(self, name: str, reader: str) -> Value:
        """Return the value of a name.  Raises BadNetwork where nothing makes it, or an output that no rule makes."""
        if name in self.values:
            return self.values[name]
        maker = next((one for one in self.file.nodes if name in one.outputs and one.outputs[0] in self.values), None)
        if maker is None:
            raise BadNetwork(
                f"onnx: {self.file.path}: {reader} reads {name!r}, which nothing makes before. "
                "Repair the file: onnx.checker.check_model says where."
            )
        raise BadNetwork(
            f"onnx: {self.file.path}: {reader} reads {name!r}, output {maker.outputs.index(name) + 1} of {maker.kind} "
            f"({maker.name or maker.outputs[0]}), which Cortado does not make. Export the network without it."
        )

    def shape_values(self, node: OnnxNode, given: tuple[Value | None, ...]) -> list[Value] | None:
        """Return the sizes that a Shape or a Size asks for, which are known before anything runs."""
        if node.kind not in ("Shape", "Size") or given[0] is None:
            return None
        shapes = given[0].shapes()
        if node.kind == "Size":
            return [Value(tuple(torch.tensor(torch.Size(shape).numel()) for shape in shapes))]
        start, end = node.attributes.get("start", 0), node.attributes.get("end", None)
        return [Value(tuple(torch.tensor(shape[start:end], dtype=torch.int64) for shape in shapes))]

    def made_by_rule(self, node: OnnxNode, given: tuple[Value | None, ...]) -> Made:
        """Return what the rule of a node's kind makes.  Raises BadNetwork for a kind that has none."""
        if node.kind not in RULES:
            near = get_close_matches(node.kind, RULES, n=1)
            hint = f" Known is {near[0]}." if near else ""
            raise BadNetwork(
                f"onnx: {self.file.path}: the operator {node.kind} ({node.name or node.outputs[0]}) is not read.{hint} "
                "Export the network without it, or cut the file before it: onnx.utils.extract_model(file, part, inputs, outputs)."
            )
        return RULES[node.kind](Node(node, given, self.file.opset, self.file.path, self.batch, self.parameters))

    def folded(self, node: OnnxNode, given: tuple[Value | None, ...]) -> list[Value]:
        """Return the values of a node whose inputs are known."""
        found = []
        if node.kind == "Identity" and given[0] is not None:
            return [given[0]]
        same = all(one is None or one.fixed for one in given)
        for number in range(1 if same else 2):
            alone = tuple(None if one is None else Value((one.held[number],), None, one.name) for one in given)
            found.append(run_modules(self.made_by_rule(node, alone), 0))
        found = found * 2 if same else found
        return [Value(held) for held in zip(*found, strict=True)]

    def placed(self, node: OnnxNode, given: tuple[Value | None, ...]) -> list[Value]:
        """Return the values of a node that runs, and put its modules into the graph."""
        given = tuple(one if one is None or not one.static else self.by_batch(node, one) for one in given)
        made = self.made_by_rule(node, given)
        path, reads = self.paths.of(node), [self.at_run_time(one) for one in made.reads]
        held = [run_modules(Made(made.modules, tuple(reads)), number) for number in range(len(BATCHES))]
        places = tuple(one.place for one in reads)
        for number, module in enumerate(made.modules):
            last = number == len(made.modules) - 1
            places = (self.call(path if last else self.paths.free(f"{path}_pad".split(".")), module, places),)
        whole = places[0]
        if len(held[0]) == 1 and not isinstance(run_raw(Made(made.modules, tuple(reads)), 0), (tuple, list)):
            return [Value((held[0][0], held[1][0]), whole)]
        parts = [self.graph.call_function(operator_getitem, (whole, place)) for place in range(len(held[0]))]
        return [Value(pair, part) for pair, part in zip(zip(*held, strict=True), parts, strict=True)]

    def by_batch(self, node: OnnxNode, value: Value) -> Value:
        """Return a known value as a node reads it: at run time, where it depends on the batch and holds no sizes.

        In a file of a fixed batch, constants with that batch on their first axis are one for each sample.
        """
        shape = value.held[0].shape
        if value.fixed:
            alone = node.kind in SAMPLE_BY_SAMPLE and self.batch == 1 and shape[:1] == (1,)
            if not alone or (node.kind == "Concat" and node.attributes.get("axis", 0) in (0, -len(shape))):
                return value
            pair = (value.held[0], value.held[0].expand(2, *shape[1:]))
            return self.at_run_time(Value(pair), BATCHES)
        return value if node.kind in READ_SIZES and len(shape) <= 1 else self.at_run_time(value)

    def at_run_time(self, value: Value, batches: tuple[int, ...] | None = None) -> Value:
        """Return a known value as a module's output: a buffer, repeated for each sample if it depends on the batch."""
        if not value.static:
            return value
        first, other = value.held
        source = next(iter(self.graph.nodes))
        module: nn.Module = Applied(the_constant, [None, first], {})
        if not value.fixed:
            axes = [axis for axis in range(first.dim()) if first.shape[axis] != other.shape[axis]]
            alike = len(axes) == 1 and bool((first == first.narrow(axes[0], 0, 1)).all())
            if not alike or axes[0]:
                raise BadNetwork(
                    f"onnx: {self.file.path}: a constant of shape {tuple(first.shape)} depends on the batch in a way that is not "
                    "read. Export the network for one batch size."
                )
            module = Applied(for_each_sample, [None, first[:1]], {})
        place = self.call(self.paths.free(["constant"]), module, (source,))
        shapes = (
            [one.shape for one in value.held] if batches is None else [(count, *first.shape[1:]) for count in batches]
        )
        return Value(tuple(torch.empty(shape, dtype=first.dtype, device="meta") for shape in shapes), place)

    def call(self, path: str, module: nn.Module, places: Sequence[Any]) -> fx.Node:
        """Put a module at its path and call it."""
        parts = path.split(".")
        inner = self.root
        for part in parts[:-1]:
            if part not in inner._modules:
                inner.add_module(part, nn.Module())
            inner = inner.get_submodule(part)
        inner.add_module(parts[-1], module)
        return self.graph.call_module(path, tuple(places))


READ_SIZES = ("Reshape", "Expand", "Tile", "Slice", "Resize", "Upsample")
"""Operators whose rules read sizes that depend on the batch."""
SAMPLE_BY_SAMPLE = ("Concat", "GatherElements")
"""Operators whose inputs need the same batch, as they do not broadcast."""


def operator_getitem(values: Sequence[Tensor], place: int) -> Tensor:
    """Return one of an operator's outputs."""
    return values[place]


def the_constant(given: Tensor, constant: Tensor) -> Tensor:
    """Return a constant."""
    return constant


def for_each_sample(given: Tensor, constant: Tensor) -> Tensor:
    """Return a constant once for each sample."""
    return expanded_values(constant, [given.shape[0], *constant.shape[1:]])


def run_raw(made: Made, number: int) -> Any:
    """Return what modules make of their inputs for one of the batches."""
    values: tuple[Any, ...] = tuple(one.held[number] for one in made.reads)
    meta = any(one.is_meta for one in values)
    for module in made.modules:
        module.eval()
        if meta:
            with torch.no_grad(), torch.device("meta"):
                values = (on_meta(module)(*values),)
        else:
            with torch.no_grad():
                values = (module(*values),)
    return values[0]


def run_modules(made: Made, number: int) -> list[Tensor]:
    """Return the tensors that modules make of their inputs for one of the batches."""
    found = run_raw(made, number)
    return list(found) if isinstance(found, (tuple, list)) else [found]


def on_meta(module: nn.Module) -> Any:
    """Return a function that runs a module on tensors without values."""
    tensors = {
        name: torch.empty_like(one, device="meta")
        for name, one in (*module.named_parameters(), *module.named_buffers())
    }

    def called(*given: Tensor) -> Any:
        return torch.func.functional_call(module, tensors, given)

    return called
