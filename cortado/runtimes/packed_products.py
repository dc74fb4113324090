"""Packed products: linear layers of an ONNX graph as MatMulNBits, an operator of ONNX Runtime that holds codes of few bits."""

import ast
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.lowering.packed import Packed, narrow_weights

DOMAIN = "com.microsoft"
OPERATOR = "MatMulNBits"
FLOATS, INTEGERS = 1, 4
"""Its levels of accuracy: what it may compute with."""
CODES, SCALES, ZEROS = ".packed_codes", ".packed_scales", ".packed_zeros"
"""How the constants of a packed weight end, behind the paths of the layers that read it."""
AND = "|"


def pack_matmuls(model: Any, network: nn.Module, least_bits: int, rounds_inputs: bool) -> None:
    """Let the products of an ONNX model whose weights have codes in `network`, a lowered one, read those; in place.

    Codes of fewer than `least_bits` bits are held in that many. With `rounds_inputs` the runtime may round what comes in
    to 8 bits, block by block. A product is left alone when its weight is not the one that the codes stand for.
    """
    codes = {path: packed for path, packed in narrow_weights(network).items() if isinstance(packed, Packed)}
    matmul_layers: dict[Packed, list[tuple[Any, str]]] = {}
    for node in model.graph:
        path = step_layer(node) if node.op_type in ("Gemm", "MatMul") else ""
        if path in codes and multiplies_by(node, codes[path].dense()):
            matmul_layers.setdefault(codes[path], []).append((node, path))
    for packed, found in matmul_layers.items():
        part = packed.at_least(least_bits)
        values = constants(model, part, AND.join(dict.fromkeys(path for _, path in found)))
        for node, _ in found:
            put_packed(model.graph, node, part, values, rounds_inputs)
    if matmul_layers:
        model.opset_imports[DOMAIN] = 1
        drop_unread_weights(model)


def step_layer(node: Any) -> str:
    """The path of the innermost layer that a step stands in, "" when it was not noted."""
    scopes = ast.literal_eval(node.metadata_props.get("pkg.torch.onnx.name_scopes", "[]"))
    return str(scopes[-2]) if len(scopes) > 1 else ""


def multiplies_by(node: Any, weight: Tensor) -> bool:
    """Whether a step multiplies its first input by this weight, (outputs, inputs), turned, and nothing else."""
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
    """The numbers of a constant matrix, or of one that is turned around first; None for anything computed."""
    maker = value.producer()
    if maker is not None and maker.op_type == "Transpose" and list(maker.attributes["perm"].value) == [1, 0]:
        inner = constant_values(maker.inputs[0])
        return None if inner is None else inner.T
    attached = None if value.const_value is None else value.const_value.numpy()
    return attached if attached is not None and attached.ndim == 2 else None


def constants(model: Any, packed: Packed, layers: str) -> list[Any]:
    """Codes, scales and zeros of a weight as constants of a model; no zeros where they are the usual ones."""
    import onnx_ir

    made = {CODES: in_bytes(packed.codes, packed.bits), SCALES: packed.scales.numpy()}
    if packed.zeros is not None:
        made[ZEROS] = in_bytes(packed.zeros, packed.bits)
    values = [onnx_ir.val(layers + ending, const_value=onnx_ir.tensor(part)) for ending, part in made.items()]
    for value in values:
        model.graph.register_initializer(value)
    return values


def in_bytes(codes: Tensor, bits: int) -> Any:
    """Codes (..., count) of so many bits as bytes, (..., bytes), the first one lowest; a last byte is filled with zeros."""
    each = 8 // bits
    padded = torch.nn.functional.pad(codes, (0, -codes.shape[-1] % each)).unflatten(-1, (-1, each))
    shifts = torch.arange(each, dtype=torch.uint8) * bits
    return (padded << shifts).sum(-1).to(torch.uint8).numpy()


def put_packed(graph: Any, node: Any, packed: Packed, values: list[Any], rounds_inputs: bool) -> None:
    """Put the product on packed codes in the place of a product, which has no more than a bias besides."""
    import onnx_ir

    facts = {
        "K": packed.columns, "N": len(packed.codes), "bits": packed.bits, "block_size": packed.block,
        "accuracy_level": INTEGERS if rounds_inputs else FLOATS,
    }  # fmt: skip
    given = [node.inputs[0], *values, *[None] * (4 - len(values)), *node.inputs[2:]]
    new = onnx_ir.node(OPERATOR, given, attributes=facts, domain=DOMAIN, num_outputs=1, name=node.name)
    new.metadata_props.update(node.metadata_props)
    before, after = node.outputs[0], new.outputs[0]
    after.name, after.type, after.shape = before.name, before.type, before.shape
    graph.insert_after(node, new)
    before.replace_all_uses_with(after, replace_graph_outputs=True)
    graph.remove(node, safe=True)


def drop_unread_weights(model: Any) -> None:
    """Without the weights that nothing reads any more."""
    from onnx_ir.passes.common import RemoveUnusedNodesPass

    RemoveUnusedNodesPass()(model)


def reading_layers(name: str) -> list[str]:
    """The layers that read the packed codes of this name; none for the name of anything else."""
    return name.removesuffix(CODES).split(AND) if name.endswith(CODES) else []


def packed_in(file: Path) -> dict[str, int]:
    """The layers whose codes an .onnx file holds packed, and their bits."""
    import onnx

    steps = [step for step in onnx.load(file, load_external_data=False).graph.node if step.op_type == OPERATOR]
    bits = {step.input[1]: next(fact.i for fact in step.attribute if fact.name == "bits") for step in steps}
    return {path: count for name, count in bits.items() for path in reading_layers(name)}
