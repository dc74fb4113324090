"""Own products: layers of an ONNX graph as operators of Cortado, and the library beside the file that computes them."""

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cortado.errors import BadFile
from cortado.native.build import (
    PRODUCTS_LIBRARY,
    PRODUCTS_SOURCE,
    build_command,
    product_library,
    product_source,
)
from cortado.native.product_layouts import ProductArrays, SparseArrays
from cortado.runtimes.kernels.packed import AND, constant_values, drop_unread_weights, multiplies_by, step_layer

DOMAIN = "cortado"
SPARSE, CONVOLUTION, CODEBOOK = "SparseProduct", "SparseConv", "CodebookProduct"
OPERATORS = (SPARSE, CONVOLUTION, CODEBOOK)
STARTS, CODES = ".own_starts", ".own_codes"
"""Suffixes of a weight's first constant, after the paths of the layers that read it."""
SUM = f"{PRODUCTS_LIBRARY}.sha256"


def with_own_products(model: Any, layers: Mapping[str, ProductArrays], rounds_inputs: bool = False) -> tuple[str, ...]:
    """Replace products of an ONNX model by ours, in place; return the paths of the layers replaced.

    `layers` are weights by layer path; a product stays if it has another weight, groups, or a bias that is no constant. With
    `rounds_inputs` codebook products round inputs to 8 bits. A ReLU that follows becomes part of the product. `library`
    makes the library that runs the file.
    """
    found: dict[int, list[tuple[Any, str]]] = {}
    for node in model.graph:
        path = step_layer(node)
        if path in layers and replaceable_by(node, layers[path]):
            found.setdefault(id(layers[path]), []).append((node, path))
    for matches in found.values():
        arrays, names = layers[matches[0][1]], AND.join(dict.fromkeys(path for _, path in matches))
        values = weight_constants(model.graph, arrays, names)
        for number, (node, _) in enumerate(matches):
            put_own(model.graph, node, arrays, values, f"{names}.own_bias{number or ''}", rounds_inputs)
    if found:
        model.opset_imports[DOMAIN] = 1
        drop_unread_weights(model)
    return tuple(path for matches in found.values() for _, path in matches)


def replaceable_by(node: Any, arrays: ProductArrays) -> bool:
    """Return whether an operator multiplies by this weight and adds a constant, so that ours can stand there."""
    if node.op_type in ("Gemm", "MatMul"):
        weight = constant_values(node.inputs[1])
        fits = weight is not None and weight.dtype == np.float32
        fits = fits and multiplies_by(node, torch.from_numpy(arrays.dense()))
    else:
        fits = node.op_type == "Conv" and isinstance(arrays, SparseArrays) and convolves_with(node, arrays)
    return fits and constant_bias(node, arrays.rows) is not None


def convolves_with(node: Any, arrays: SparseArrays) -> bool:
    """Return whether an operator is a convolution of images with this weight, without groups."""
    weight = node.inputs[1].const_value
    facts = {name: fact.value for name, fact in node.attributes.items()}
    if weight is None or arrays.block != 1 or facts.get("group", 1) != 1 or facts.get("auto_pad", "NOTSET") != "NOTSET":
        return False
    values = weight.numpy()
    alike = values.ndim == 4 and values.dtype == np.float32 and values.size == arrays.rows * arrays.columns
    return alike and np.allclose(values.reshape(arrays.rows, -1), arrays.dense(), rtol=1e-4, atol=1e-7)


def constant_bias(node: Any, rows: int) -> Any:
    """Return the bias (rows,) float32 of a product, zeros if it has none; None if it is no constant of that shape."""
    given = node.inputs[2] if len(node.inputs) > 2 else None
    if given is None:
        return np.zeros(rows, np.float32)
    value = None if given.const_value is None else given.const_value.numpy()
    return value if value is not None and value.shape == (rows,) and value.dtype == np.float32 else None


def weight_constants(graph: Any, arrays: ProductArrays, layers: str) -> list[Any]:
    """Add the arrays of a weight to a graph as constants and return them in the operator's order."""
    if isinstance(arrays, SparseArrays):
        parts = {STARTS: arrays.starts, ".own_places": arrays.places, ".own_values": arrays.values}
    else:
        parts = {CODES: arrays.codes, ".own_codebook": arrays.codebook}
    return [own_constant(graph, layers + ending, part) for ending, part in parts.items()]


def own_constant(graph: Any, name: str, array: Any) -> Any:
    """Add an array to a graph as a constant and return it."""
    import onnx_ir

    value = onnx_ir.val(name, const_value=onnx_ir.tensor(array))
    graph.register_initializer(value)
    return value


def put_own(
    graph: Any, node: Any, arrays: ProductArrays, values: list[Any], bias_name: str, rounds_inputs: bool
) -> None:
    """Replace a product, and what follows it alone (an added bias, a ReLU), by ours."""
    import onnx_ir

    bias, steps = constant_bias(node, arrays.rows), [node]
    added = only_reader(node.outputs[0], "Add") if node.op_type == "MatMul" else None
    if added is not None:
        shift = constant_beside(added, node.outputs[0])
        if shift is not None and shift.shape == (arrays.rows,):
            bias = bias + shift
            steps.append(added)
    relu = only_reader(steps[-1].outputs[0], "Relu")
    steps += [relu] if relu is not None else []
    operator, facts = operator_of(node, arrays, rounds_inputs)
    given = [node.inputs[0], *values, own_constant(graph, bias_name, bias)]
    facts["relu"] = int(relu is not None)
    new = onnx_ir.node(operator, given, attributes=facts, domain=DOMAIN, num_outputs=1, name=node.name)
    new.metadata_props.update(node.metadata_props)
    before, after = steps[-1].outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    graph.insert_after(steps[-1], new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    for step in reversed(steps):
        graph.remove(step, safe=True)


def operator_of(node: Any, arrays: ProductArrays, rounds_inputs: bool) -> tuple[str, dict[str, Any]]:
    """Return the operator that takes a product's place, and its attributes but for `relu`."""
    if not isinstance(arrays, SparseArrays):
        return CODEBOOK, {"columns": arrays.columns, "rounds_inputs": int(rounds_inputs)}
    if node.op_type != "Conv":
        return SPARSE, {"columns": arrays.columns, "block": arrays.block}
    facts = {name: list(fact.value) for name, fact in node.attributes.items() if fact.name != "group"}
    kernel = list(node.inputs[1].const_value.numpy().shape[2:])
    usual = {"strides": [1, 1], "pads": [0, 0, 0, 0], "dilations": [1, 1]}
    geometry = {name: facts.get(name, value) for name, value in usual.items()}
    return CONVOLUTION, {"columns": arrays.columns, "kernel_shape": kernel, **geometry}


def only_reader(value: Any, kind: str) -> Any:
    """Return the operator that reads a value if it is the only one and of this kind, else None."""
    uses = list(value.uses())
    alone = len(uses) == 1 and not value.is_graph_output()
    return uses[0].node if alone and uses[0].node.op_type == kind else None


def constant_beside(node: Any, value: Any) -> Any:
    """Return the float32 constant that an operator reads beside `value`, or None."""
    (other,) = [one for one in node.inputs if one is not value] or [None]
    found = None if other is None or other.const_value is None else other.const_value.numpy()
    return found if found is not None and found.dtype == np.float32 else None


def own_layers_in(file: Path) -> dict[str, tuple[str, int]]:
    """Return the layers of an .onnx file that our operators compute: the operator of each, and the bits of a weight."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    lengths = {one.name: one.dims[0] for one in graph.initializer if one.dims}
    steps = [step for step in graph.node if step.domain == DOMAIN]
    names = {
        step.input[1].removesuffix(STARTS).removesuffix(CODES): (step.op_type, stored_bits(step, lengths))
        for step in steps
    }
    return {path: found for name, found in names.items() for path in name.split(AND)}


def stored_bits(step: Any, lengths: Mapping[str, int]) -> int:
    """Return the bits of a weight that one of our operators reads: those of its codes, or of a float."""
    return (lengths[step.input[2]] - 1).bit_length() if step.op_type == CODEBOOK else 32


def library(folder: Path) -> Path | str:
    """Put the library into the folder of an .onnx file, with its source and checksum; or return why there is none."""
    made = product_library()
    if isinstance(made, str):
        return made
    path = folder / PRODUCTS_LIBRARY
    shutil.copyfile(made, path)
    (folder / PRODUCTS_SOURCE).write_text(product_source(), encoding="utf8")
    (folder / SUM).write_text(f"{digest_of(path)}  {PRODUCTS_LIBRARY}\n", encoding="utf8")
    return path


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def open_session(file: Path, options: Any) -> Any:
    """Return ONNX Runtime's session of a file; where a library stands beside it, our operators run in Cortado's own.

    The library beside the file is for programs without Cortado. Its code is not run here, as files come from strangers. Raises
    BadFile where it is missing or altered, or where this machine has no library of ours.
    """
    import onnxruntime

    path = file.with_name(PRODUCTS_LIBRARY)
    if path.exists():
        check_library(path)
        own = product_library()
        if isinstance(own, str):
            raise BadFile(
                f"onnxruntime: {file.name} has operators of Cortado, and there is no library for them here: {own}. Or install a "
                "wheel of Cortado that was built with a compiler."
            )
        options.register_custom_ops_library(str(own))
    try:
        return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        if not path.exists() and f"{DOMAIN}:" in str(error):
            raise BadFile(
                f"onnxruntime: {file.name} has operators of Cortado, but {PRODUCTS_LIBRARY} is missing beside it. "
                f"{way_out(file.parent)}"
            ) from error
        raise


def check_library(path: Path) -> None:
    """Raise BadFile where a library is not the one whose checksum stands beside it."""
    note = path.with_name(SUM)
    wanted = note.read_text(encoding="utf8").split() if note.is_file() else []
    if not wanted or wanted[0] != digest_of(path):
        raise BadFile(
            f"onnxruntime: {path} was altered, or was not made with {SUM}: its checksum is another one. "
            f"{way_out(path.parent)}"
        )


def way_out(folder: Path) -> str:
    """Return what to do about a library that cannot be used."""
    if (folder / PRODUCTS_SOURCE).is_file():
        return f"Build it again in {folder}: {build_command()}"
    return "Export the network again."
