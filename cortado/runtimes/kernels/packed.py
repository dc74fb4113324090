"""Packed: linear layers and embeddings of an ONNX graph as ONNX Runtime's operators for codes of few bits."""

import ast
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortado.lowering.packed import Packed
from cortado.lowering.products import CODES as QUANTIZED
from cortado.lowering.products import Product
from cortado.runtimes.kernels.kernel import NOT_CONCERNED, Kernel

DOMAIN = "com.microsoft"
PRODUCT, TABLE = "MatMulNBits", "GatherBlockQuantized"
TABLE_BITS = 4
BLOCKED_OPSET = 21
"""The first one whose codes may have a scale for each block."""
FLOATS, INTEGERS = 1, 4
"""Its accuracy levels: the type it may compute in."""
CODES, SCALES, ZEROS = ".packed_codes", ".packed_scales", ".packed_zeros"
"""Suffixes of a packed weight's constants, after the paths of the layers that read it."""
AND = "|"
TABLES = ".table"
"""Suffix of look-ups of decoded rows, and of the constants that only they read."""
BLOCKS, DECODED = "blocks", "decoded"
"""Look-ups of packed rows: ONNX Runtime's operator, or one of rows that the runtime itself decodes as it reads them."""


@dataclass(frozen=True)
class PackedProducts(Kernel):
    """Linear weights and embeddings of at most 4 bits, stored in `least_bits` or more.

    With `rounds_inputs` the runtime may round inputs to 8 bits per block; `tables`: how it reads embeddings packed.
    """

    name = "packed"
    lost = "no matrix product in the file belongs to this layer alone"
    least_bits: int = 4
    rounds_inputs: bool = False
    tables: str = BLOCKS

    def fits(self, product: Product) -> str | None:
        if product.weight.values.dim() != 2 or not product.weight.few_bits:
            return NOT_CONCERNED
        if product.weight.has_codes and product.reads == QUANTIZED:
            return NOT_CONCERNED
        packed = product.weight.packed
        if product.family == "embedding" and isinstance(packed, Packed) and packed.columns % packed.block:
            return f"its rows of {packed.columns} are no multiple of blocks of {packed.block}"
        return packed if isinstance(packed, str) else None

    def emit(self, model: Any, products: Sequence[Product]) -> None:
        """Replace each product or look-up of an ONNX model that reads the decoded codes; others stay."""
        weights = {product.path: product.weight.packed for product in products}
        found: dict[Packed, list[tuple[Any, str]]] = {}
        for node in model.graph:
            path = step_layer(node) if node.op_type in ("Gemm", "MatMul", "Gather") else ""
            packed = weights.get(path)
            if isinstance(packed, Packed) and reads_weight(node, packed.dense()):
                found.setdefault(packed, []).append((node, path))
        for packed, steps in found.items():
            tables = [(node, path) for node, path in steps if node.op_type == "Gather"]
            part = packed.at_least(TABLE_BITS if tables else self.least_bits)
            names = AND.join(dict.fromkeys(path for _, path in steps))
            if self.tables == DECODED:
                read_decoded(model, tables, part)
            rest = [node for node, _ in steps if self.tables == BLOCKS or node.op_type != "Gather"]
            values = constants(model, part, names) if rest else []
            for node in rest:
                if node.op_type == "Gather":
                    put_table(model.graph, node, part, values)
                else:
                    put_packed(model.graph, node, part, values, self.rounds_inputs)
        if found:
            model.opset_imports[DOMAIN] = 1
            drop_unread_weights(model)


def step_layer(node: Any) -> str:
    """Return the path of the innermost layer of an operator, "" if unknown."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def reads_weight(node: Any, weight: Tensor) -> bool:
    """Return whether an operator multiplies by this weight, or looks up its rows."""
    if node.op_type != "Gather":
        return multiplies_by(node, weight)
    table = constant_values(node.inputs[0])
    close = table is not None and table.shape == tuple(weight.shape) and node.attributes.get_int("axis", 0) == 0
    return bool(close and np.allclose(table, weight.numpy(), rtol=1e-4, atol=1e-7))


def multiplies_by(node: Any, weight: Tensor) -> bool:
    """Return whether an operator only multiplies its first input by the transpose of this weight (outputs, inputs)."""
    facts = {name: fact.value for name, fact in node.attributes.items()}
    if any(facts.get(name, usual) != usual for name, usual in (("alpha", 1.0), ("beta", 1.0), ("transA", 0))):
        return False
    found = constant_values(node.inputs[1])
    if found is None:
        return False
    found = found if facts.get("transB") else found.T
    close = found.shape == tuple(weight.shape) and np.allclose(found, weight.numpy(), rtol=1e-4, atol=1e-7)
    return bool(close)


def constant_values(value: Any) -> Any:
    """Return the values of a constant matrix or its transpose; None for anything else."""
    maker = value.producer()
    if maker is not None and maker.op_type == "Transpose" and list(maker.attributes["perm"].value) == [1, 0]:
        inner = constant_values(maker.inputs[0])
        return None if inner is None else inner.T
    constant = None if value.const_value is None else value.const_value.numpy()
    return constant if constant is not None and constant.ndim == 2 else None


def constants(model: Any, packed: Packed, layers: str) -> list[Any]:
    """Add a weight's codes, scales and zeros (unless default) to a model as constants and return them."""
    import onnx_ir

    made = {CODES: in_bytes(packed.codes, packed.bits), SCALES: packed.scales.numpy()}
    if packed.zeros is not None:
        made[ZEROS] = in_bytes(packed.zeros, packed.bits)
    values = [onnx_ir.val(layers + ending, const_value=onnx_ir.tensor(part)) for ending, part in made.items()]
    for value in values:
        model.graph.register_initializer(value)
    return values


def in_bytes(codes: Tensor, bits: int) -> Any:
    """Return codes (..., count) packed into bytes (..., bytes), the first code in the low bits, zero-padded."""
    each = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    shifts = torch.arange(each, dtype=torch.uint8) * bits
    return (padded << shifts).sum(-1).to(torch.uint8).numpy()


def put_packed(graph: Any, node: Any, packed: Packed, values: list[Any], rounds_inputs: bool) -> None:
    """Replace a product, with or without a bias, by a product on packed codes."""
    import onnx_ir

    facts = {
        "K": packed.columns, "N": len(packed.codes), "bits": packed.bits, "block_size": packed.block,
        "accuracy_level": INTEGERS if rounds_inputs else FLOATS,
    }  # fmt: skip
    given = [node.inputs[0], *values, *[None] * (4 - len(values)), *node.inputs[2:]]
    exchange(graph, node, onnx_ir.node(PRODUCT, given, attributes=facts, domain=DOMAIN, num_outputs=1, name=node.name))


def put_table(graph: Any, node: Any, packed: Packed, values: list[Any]) -> None:
    """Replace a look-up of rows by one that reads packed codes; the codes of a product with the same weight are shared."""
    import onnx_ir

    codes, scales, *zeros = values
    rows = len(packed.codes)
    parts = [(codes, packed.columns * packed.bits // 8)]
    parts += [(zero, -(-packed.codes.shape[1] * packed.bits // 8)) for zero in zeros]
    shaped = []
    for value, width in parts:
        shape = onnx_ir.val(f"{value.name}.table", const_value=onnx_ir.tensor(np.array([rows, width], np.int64)))
        if shape.name not in graph.initializers:
            graph.register_initializer(shape)
        reshape = onnx_ir.node("Reshape", [value, graph.initializers[shape.name]], num_outputs=1)
        graph.insert_before(node, reshape)
        shaped.append(reshape.outputs[0])
    facts = {"block_size": packed.block, "gather_axis": 0, "quantize_axis": 1, "bits": packed.bits}
    given = [shaped[0], node.inputs[1], scales, *shaped[1:]]
    exchange(graph, node, onnx_ir.node(TABLE, given, attributes=facts, domain=DOMAIN, num_outputs=1, name=node.name))


def read_decoded(model: Any, steps: Sequence[tuple[Any, str]], packed: Packed) -> None:
    """Let look-ups, named after their layers, read rows that are decoded from 4-bit codes and scales; the runtime fuses both."""
    import onnx_ir

    if not steps:
        return
    layers = AND.join(path for _, path in steps)
    shape = (len(packed.codes), packed.columns)
    middle = torch.full_like(packed.scales, 2 ** (packed.bits - 1)).to(torch.uint8)
    zeros = middle if packed.zeros is None else packed.zeros
    made = []
    for ending, codes in ((CODES, packed.codes.reshape(shape)), (ZEROS, zeros)):
        tensor = onnx_ir.Tensor(codes.numpy().astype(ml_dtype()), dtype=onnx_ir.DataType.UINT4)
        made.append(onnx_ir.val(layers + TABLES + ending, const_value=tensor))
    made.insert(1, onnx_ir.val(layers + TABLES + SCALES, const_value=onnx_ir.tensor(packed.scales.numpy())))
    for value in made:
        model.graph.register_initializer(value)
    facts = {"axis": 1, "block_size": packed.block}
    decoded = onnx_ir.node("DequantizeLinear", made, attributes=facts, num_outputs=1)
    model.graph.insert_before(steps[0][0], decoded)
    for node, path in steps:
        node.replace_input_with(0, decoded.outputs[0])
        node.name = path + TABLES
    model.opset_imports[""] = max(model.opset_imports[""], BLOCKED_OPSET)


def ml_dtype() -> Any:
    """Return NumPy's type of 4-bit integers without a sign."""
    import ml_dtypes

    return ml_dtypes.uint4


def exchange(graph: Any, node: Any, new: Any) -> None:
    """Put a new operator of one output in the place of an old one."""
    new.metadata_props.update(node.metadata_props)
    before, after = node.outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    graph.insert_after(node, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def drop_unread_weights(model: Any) -> None:
    """Remove weights that nothing reads any more."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def reading_layers(name: str) -> list[str]:
    """Return the layers that read packed codes, from the constant's name; [] for other names."""
    return name.removesuffix(CODES).split(AND) if name.endswith(CODES) else []


def packed_in(file: Path) -> dict[str, int]:
    """Return the layers with packed codes in an .onnx file, and their bits."""
    import onnx

    graph = onnx.load(file, load_external_data=False).graph
    shaped = {step.output[0]: step.input[0] for step in graph.node if step.op_type == "Reshape"}
    read = {PRODUCT: lambda step: step.input[1], TABLE: lambda step: shaped[step.input[0]]}
    steps = [step for step in graph.node if step.op_type in read]
    bits = {read[step.op_type](step): next(fact.i for fact in step.attribute if fact.name == "bits") for step in steps}
    return {path: count for name, count in bits.items() for path in reading_layers(name)}
