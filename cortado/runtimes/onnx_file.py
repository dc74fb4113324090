"""ONNX: write a network as an .onnx file (opset 20 and up) with torch's exporter, without its debug metadata."""

from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.utils import _pytree as pytree

from cortado.errors import BadNetwork
from cortado.lowering.graph import quiet_exporters
from cortado.running.trees import parts_by_name
from cortado.runtimes.kernels.kernel import Chosen
from cortado.runtimes.kernels.packed import TABLE, step_layer
from cortado.runtimes.own_products import OPERATORS
from cortado.runtimes.padding import fold_pads
from cortado.runtimes.positions import POSITIONS, lower_positions
from cortado.runtimes.rows import COMPACTION, lower_choices

MATMUL_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "MatMulNBits", TABLE, *OPERATORS)
LARGEST_FILE_BYTES = 1_500_000_000
"""An .onnx file holds at most 2 GB; weights of larger networks go into a file beside it."""


def write_onnx(
    network: nn.Module, program: torch.export.ExportedProgram, file: Path, writer: str,
    chosen: Chosen, zeros: bool = True, paths: str = COMPACTION,
) -> Path:  # fmt: skip
    """Write an exported program of a lowered network to `file`; `writer` is the runtime's name.

    The kernels in `chosen` write their products. Without `zeros` symmetric weights have no zero points. `paths` is the form
    of choices of rows (see rows.py). Raises BadNetwork for an operator that ONNX lacks.
    """
    weight_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    try:
        with quiet_exporters():
            made: Any = torch.onnx.export(program, dynamo=True, verbose=False, optimize=True)
            name_batch(made, program)
            name_outputs(made.model.graph, program)
            fold_pads(made.model)
            for kernel, products in chosen.items():
                kernel.emit(made.model, products)
            if not zeros:
                drop_zeros(made.model.graph)
            if paths == POSITIONS:
                lower_positions(made.model)
            lower_choices(made.model, COMPACTION if paths == POSITIONS else paths)
            without_notes(made.model.graph)
            made.save(file, external_data=weight_bytes > LARGEST_FILE_BYTES)
    except OSError:
        raise
    except Exception as error:
        raise BadNetwork(missing_in_onnx(network, error, writer)) from error
    return file


def name_batch(made: Any, program: torch.export.ExportedProgram) -> None:
    """Rename the dynamic axis from s31 to batch."""
    symbols = [str(symbol) for symbol in program.range_constraints]
    if len(symbols) == 1:
        made.rename_axes({symbols[0]: "batch"})


def name_outputs(graph: Any, program: torch.export.ExportedProgram) -> None:
    """Give the outputs of a network that returns a dict or a dataclass the names of its parts: "logits", "heads.0"."""
    spec = program.call_spec.out_spec
    if spec is None or spec.num_leaves != len(graph.outputs):
        return
    names = list(parts_by_name(pytree.tree_unflatten(range(spec.num_leaves), spec)))
    taken = {value.name for value in graph.inputs}
    if (
        len(names) == len(graph.outputs)
        and all(name and not name[0].isdigit() for name in names)
        and not taken & {*names}
    ):
        for value, name in zip(graph.outputs, names, strict=True):
            value.name = name


def drop_zeros(graph: Any) -> None:
    """Drop zero points that are all 0."""
    for node in graph:
        if node.op_type == "DequantizeLinear" and len(node.inputs) == 3 and node.inputs[0].const_value is not None:
            zeros = node.inputs[2].const_value
            if zeros is not None and not zeros.numpy().any():
                node.resize_inputs(2)


def without_notes(graph: Any) -> None:
    """Remove source lines and shapes, most of a small network's file; name each product after its layer."""
    outer, names = {id(value) for value in (*graph.inputs, *graph.outputs)}, set[str]()
    for node in graph.all_nodes():
        if node.op_type in MATMUL_LAYERS:
            name = step_layer(node)
            node.name = node.name if not name or name in names else name
            names.add(name)
        node.metadata_props.clear()
        node.doc_string = None
        for value in node.outputs:
            value.metadata_props.clear()
            if id(value) not in outer:
                value.shape = value.type = None


def missing_in_onnx(network: nn.Module, error: Exception, writer: str) -> str:
    """Return a sentence about the operator that ONNX lacks."""
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    lines = [line.strip() for line in text.splitlines() if "No ONNX function found" in line or "torch.ops" in line]
    first = lines[0] if lines else next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (
        f"{writer}: {type(network).__name__} cannot be written as ONNX: {type(error).__name__}: {first[:300]} "
        "Replace that operator by others, or try another runtime."
    )
