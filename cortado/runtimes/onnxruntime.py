"""ONNX Runtime: the network as an .onnx file of opset 20, made by torch's own exporter."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import exported, quietly
from cortado.runtimes.runtime import Port, Runtime

DTYPES = {
    "tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64, "tensor(int32)": torch.int32, "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8, "tensor(bool)": torch.bool,
}  # fmt: skip
LARGEST_FILE_BYTES = 1_500_000_000
"""An .onnx file holds at most 2 GB; weights of larger networks lie beside it."""


class OnnxSession:
    """An .onnx file in ONNX Runtime."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that go on spinning after a call would take the processor from whatever is measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # What fails is raised as well, and is told in our words.
        options.log_severity_level = 4
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.inputs = tuple(
            Port(port.name, tuple(size if isinstance(size, int) else None for size in port.shape), DTYPES[port.type])
            for port in self.session.get_inputs()
        )
        self.names = [port.name for port in self.inputs]

    def __call__(self, *signals: Tensor) -> tuple[Tensor, ...]:
        given = {name: signal.detach().numpy() for name, signal in zip(self.names, signals, strict=True)}
        return tuple(torch.from_numpy(value) for value in self.session.run(None, given))


class Onnxruntime(Runtime):
    """ONNX Runtime on the processor, in the precision of the file."""

    package = "onnxruntime"
    distribution = "onnxruntime"
    extra = "onnx"
    suffix = ".onnx"

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require()
        program = exported(network, example)
        weight_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
        try:
            with quietly():
                made: Any = torch.onnx.export(program, dynamo=True, verbose=False, optimize=True)
                made.save(folder / "net.onnx", external_data=weight_bytes > LARGEST_FILE_BYTES)
        except Exception as error:
            raise BadNetwork(refused(network, error)) from error
        return folder / "net.onnx"

    def load(self, file: Path, threads: int) -> OnnxSession:
        self.require()
        if not file.is_file():
            raise BadFile(f"onnxruntime: {file} cannot be read. Check the path.")
        try:
            return OnnxSession(file, threads)
        except Exception as error:
            raise BadFile(f"onnxruntime: {file} cannot be loaded ({type(error).__name__}: {error}).") from error


def name_batch(made: Any, program: torch.export.ExportedProgram) -> None:
    """Let the axis of any length be called batch instead of s31."""
    symbols = [str(symbol) for symbol in program.range_constraints]
    if len(symbols) == 1:
        made.rename_axes({symbols[0]: "batch"})


def refused(network: nn.Module, error: Exception) -> str:
    """Which operator ONNX lacks, in a sentence."""
    text = " ".join(str(part) for part in (error, error.__cause__) if part)
    lines = [line.strip() for line in text.splitlines() if "No ONNX function found" in line or "torch.ops" in line]
    first = lines[0] if lines else next((line.strip() for line in text.splitlines() if line.strip()), "")
    return (
        f"onnxruntime: {type(network).__name__} cannot be written as ONNX: {type(error).__name__}: {first[:300]} "
        "Replace that operator by others, or try another runtime."
    )
