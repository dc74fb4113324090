"""Time by kind: what kinds of operators take in integers by the runtime's own profile, and what they gain over floats."""

from collections import defaultdict
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.reported import onnx_runtime_steps, openvino_steps
from bench.result import row
from cortado.runtimes.onnxruntime import MARK, optimized_steps

RUNS = 60
DEPTHWISE, POINTWISE, WIDE, LINEAR, REST = (
    "depthwise convolutions", "1 x 1 convolutions", "other convolutions", "linear layers", "all else",
)  # fmt: skip
LINEAR_STEPS = ("Gemm", "FusedGemm", "MatMul", "QGemm", "QLinearMatMul", "MatMulIntegerToFloat")


def kind_rows(what: str, runtime: str, floats: Path, integers: Path, inputs: Tensor) -> list[dict[str, Any]]:
    """Return a row for each kind of operator: its share of the time in integers, and how many times faster it became."""
    before, after = (time_by_kind(runtime, file, inputs) for file in (floats, integers))
    whole = sum(after.values())
    return [
        row(
            f"{what}: {kind} take {taken / whole:.0%} of the time in integers, times faster than in floats",
            before.get(kind, 0.0) / taken, "x", better="higher",
            share=taken / whole, floats_us=before.get(kind), integers_us=taken,
        )
        for kind, taken in sorted(after.items(), key=lambda one: -one[1])
    ]  # fmt: skip


def time_by_kind(runtime: str, file: Path, inputs: Tensor) -> dict[str, float]:
    """Return the microseconds of one run by kind of operator: for each operator the fastest of its runs.

    Profiles are of the wall clock, in which a busy machine would count.
    """
    taken, kinds = defaultdict[str, list[float]](list), dict[str, str]()
    if runtime == "openvino":
        for step in openvino_steps(file, inputs, RUNS):
            kinds[step.node_name] = openvino_kind(step.node_type, step.exec_type)
            taken[step.node_name].append(1e6 * step.real_time.total_seconds())
    else:
        kinds = onnx_runtime_kinds(file)
        for one in onnx_runtime_steps(file, inputs, RUNS):
            taken[one["name"]].append(one["us"])
    found = defaultdict[str, float](float)
    for name, times in taken.items():
        found[kinds.get(name, REST)] += min(times)
    return dict(found)


def openvino_kind(node: str, kernel: str) -> str:
    """Return the kind of one of OpenVINO's operators."""
    if node == "GroupConvolution":
        return DEPTHWISE
    if node == "Convolution":
        return POINTWISE if "1x1" in kernel else WIDE
    return LINEAR if node.startswith("FullyConnected") else REST


def onnx_runtime_kinds(file: Path) -> dict[str, str]:
    """Return the kind of each of ONNX Runtime's operators for a file, by its name."""
    return {MARK.sub("", step.name): onnx_runtime_kind(step) for step in optimized_steps(file)}


def onnx_runtime_kind(step: Any) -> str:
    """Return the kind of one of ONNX Runtime's operators."""
    if "Conv" not in step.op_type:
        return LINEAR if step.op_type in LINEAR_STEPS else REST
    facts = {fact.name: fact for fact in step.attribute}
    if "group" in facts and facts["group"].i > 1:
        return DEPTHWISE
    return POINTWISE if max(facts["kernel_shape"].ints) == 1 else WIDE
