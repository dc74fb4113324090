"""Reported: which kernels a runtime says it ran a file's layers with, from the profile of one run."""

import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from cortado.report.record import FLOATS, INT8, Placement
from cortado.runtimes.onnxruntime import MARK
from cortado.runtimes.openvino import EXACT, openvino_package
from cortado.runtimes.own_products import open_session

ORT_KERNELS = {
    "QLinearConv": INT8, "QGemm": INT8, "QLinearMatMul": INT8, "MatMulIntegerToFloat": INT8, "MatMulNBits": "packed",
    "GatherBlockQuantized": "packed", "SparseProduct": "sparse", "SparseConv": "sparse", "CodebookProduct": "codebook",
}  # fmt: skip
"""ONNX Runtime's operators that are no products of floats."""
WITH_WEIGHTS = ("Convolution", "GroupConvolution", "Deconvolution", "FullyConnected", "BinaryConvolution")
"""OpenVINO's operators that multiply by a weight; others multiply activations with each other."""


def agreeing(runtime: str, file: Path, inputs: Tensor, rows: Sequence[Placement]) -> int:
    """Return for how many layers the table says what the runtime reports."""
    if runtime == "openvino":
        # Its names follow outputs of operators, not layers, so kernels are counted.
        found, said = openvino_kernels(file, inputs), Counter(row.kernel for row in rows if row.kernel != FLOATS)
        return len(rows) - min(len(rows), sum(((found - said) + (said - found)).values()))
    reported = onnx_runtime_kernels(file, inputs)
    return sum(row.kernel == reported.get(row.layer, FLOATS) for row in rows)


def onnx_runtime_steps(file: Path, inputs: Tensor, runs: int = 1) -> list[dict[str, Any]]:
    """Return the operators that ONNX Runtime ran, each with its name, type, shapes and microseconds, run by run."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 4
    options.enable_profiling, options.profile_file_prefix = True, str(file.parent / "profile")
    session = open_session(file, options)
    for _ in range(runs):
        session.run(None, {session.get_inputs()[0].name: inputs.numpy()})
    path = session.end_profiling()
    events = json.loads(Path(path).read_text("utf8"))
    os.remove(path)
    end = "_kernel_time"
    ran = [one for one in events if one.get("cat") == "Node" and one["name"].endswith(end)]
    return [
        {
            "name": MARK.sub("", one["name"].removesuffix(end)),
            "us": one["dur"],
            "kind": one["args"]["op_name"],
            **one["args"],
        }
        for one in ran
    ]


def onnx_runtime_kernels(file: Path, inputs: Tensor) -> dict[str, str]:
    """Return the kernel of each operator that is no product of floats, by its name, which is that of the layer."""
    steps = onnx_runtime_steps(file, inputs)
    return {one["name"]: ORT_KERNELS[one["kind"]] for one in steps if one["kind"] in ORT_KERNELS}


def openvino_steps(file: Path, inputs: Tensor, runs: int = 1) -> list[Any]:
    """Return the operators that OpenVINO ran, with their types, kernels and times, run by run."""
    core = openvino_package().Core()
    model = core.read_model(str(file))
    model.reshape({0: list(inputs.shape)})
    settings = {**EXACT, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "PERF_COUNT": True}
    request, steps = core.compile_model(model, "CPU", settings).create_infer_request(), list[Any]()
    for _ in range(runs):
        request.infer({0: inputs.numpy()})
        steps += [one for one in request.get_profiling_info() if one.status.name == "EXECUTED"]
    return steps


def openvino_kernels(file: Path, inputs: Tensor) -> Counter[str]:
    """Return how many layers OpenVINO ran with each kernel, but for products of floats."""
    kernels = (openvino_kernel(one) for one in openvino_steps(file, inputs))
    return Counter(kernel for kernel in kernels if kernel)


def openvino_kernel(step: Any) -> str:
    """Return the kernel of an operator that multiplies by a weight; "" for floats and other operators."""
    if not step.node_type.startswith(WITH_WEIGHTS):
        return ""
    if step.node_type.startswith("Binary"):
        return "binary"
    if "Compressed" in step.node_type:
        return "packed"
    return INT8 if step.exec_type.endswith("I8") else ""
