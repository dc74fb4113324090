"""Reading: an .onnx file as plain Python: its nodes, constants, inputs and outputs."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadFile, BadNetwork, MissingPackage

LEAST_OPSET, LARGEST_OPSET = 9, 21
STANDARD = ("", "ai.onnx", "com.microsoft")
"""Domains of operators that are read by their names."""


@dataclass(frozen=True)
class OnnxNode:
    """One operator of a file: the names of its inputs and outputs, "" for one left out, and its attributes."""

    kind: str
    name: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FileInput:
    """One input of a file; an axis of any length is None, or its name."""

    name: str
    shape: tuple[int | str | None, ...]
    dtype: torch.dtype


@dataclass(frozen=True)
class OnnxFile:
    """What a file holds, in the order in which it runs."""

    path: Path
    opset: int
    nodes: tuple[OnnxNode, ...]
    constants: dict[str, Tensor]
    inputs: tuple[FileInput, ...]
    outputs: tuple[str, ...]


def read_onnx(path: str | Path) -> OnnxFile:
    """Read an .onnx file with its external data.

    Raises MissingPackage without the onnx package, BadFile for what is no ONNX model, BadNetwork for an opset or a domain
    of operators that is not known.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingPackage(
            "onnx: the package that reads .onnx files is not installed. Install it: pip install -e '.[onnx]' in Cortado's folder."
        ) from error
    file = Path(path)
    if not file.is_file():
        raise BadFile(f"onnx: {file} cannot be read. Check the path.")
    try:
        model = onnx.load(file)
        graph, arrays = model.graph, onnx.numpy_helper
        opset = next((one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), 0)
        constants = {one.name: as_tensor_of(arrays.to_array(one)) for one in graph.initializer}
        nodes = [node_of(one, onnx) for one in graph.node]
        constants |= {one.outputs[0]: written_constant(one) for one in nodes if one.kind == "Constant"}
    except Exception as error:
        raise BadFile(
            f"onnx: {file} is not a whole ONNX model ({type(error).__name__}: {error}). Write it again, with its external data."
        ) from error
    if not LEAST_OPSET <= opset <= LARGEST_OPSET:
        raise BadNetwork(
            f"onnx: {file} has opset {opset}, and opsets {LEAST_OPSET} to {LARGEST_OPSET} are read. "
            "Convert it: onnx.version_converter.convert_version(model, 17)."
        )
    foreign = next((one for one in graph.node if one.domain not in STANDARD), None)
    if foreign is not None:
        raise BadNetwork(
            f"onnx: {file} has the operator {foreign.domain}.{foreign.op_type} ({foreign.name or foreign.output[0]}), which is "
            "not ONNX's own. Export the network without it."
        )
    inputs = [input_of(one, onnx) for one in graph.input if one.name not in constants]
    kept, outputs = tuple(one for one in nodes if one.kind != "Constant"), tuple(one.name for one in graph.output)
    return OnnxFile(file, opset, kept, constants, tuple(inputs), outputs)


def node_of(node: Any, onnx: Any) -> OnnxNode:
    """Return a node with its attributes as Python values and tensors."""
    attributes = {one.name: attribute_value(onnx.helper.get_attribute_value(one), onnx) for one in node.attribute}
    return OnnxNode(node.op_type, node.name, tuple(node.input), tuple(node.output), attributes)


def attribute_value(value: Any, onnx: Any) -> Any:
    """Return an attribute as text, numbers, a tensor, or for an inner graph as it is."""
    if isinstance(value, bytes):
        return value.decode("utf8")
    if isinstance(value, onnx.TensorProto):
        return as_tensor_of(onnx.numpy_helper.to_array(value))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [one.decode("utf8") if isinstance(one, bytes) else one for one in value]
    return value


def written_constant(node: OnnxNode) -> Tensor:
    """Return a constant that stands in the file as an operator; text and sparse tensors raise."""
    ((name, value),) = node.attributes.items()
    types = {
        "value_float": torch.float32,
        "value_floats": torch.float32,
        "value_int": torch.int64,
        "value_ints": torch.int64,
    }
    return value if name == "value" else torch.tensor(value, dtype=types[name])


def as_tensor_of(array: Any) -> Tensor:
    """Return an array as a tensor; whole numbers without a counterpart in torch as int64."""
    if array.dtype.kind == "u" and array.dtype.itemsize > 1:
        array = array.astype("int64")
    return torch.from_numpy(array.copy())


def input_of(value: Any, onnx: Any) -> FileInput:
    """Return an input with its shape and type."""
    kind = value.type.tensor_type
    shape = tuple(
        one.dim_value if one.HasField("dim_value") and one.dim_value > 0 else one.dim_param or None
        for one in kind.shape.dim
    )
    dtype = as_tensor_of(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type).type(0).reshape(1)).dtype
    return FileInput(value.name, shape, dtype)
