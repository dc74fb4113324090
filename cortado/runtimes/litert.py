"""LiteRT: .tflite files, run by XNNPACK's kernels; the converter is large and needs its own environment."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from cortado.errors import BadFile, BadNetwork, MissingPackage
from cortado.lowering.graph import exported, float_graph, one_sample, quiet_exporters
from cortado.lowering.in_order import one_reader_each
from cortado.lowering.integers import QUANTIZE
from cortado.lowering.signed import round_weights, with_signed_codes
from cortado.lowering.stages import cut_in_stages
from cortado.network.graph.trace import undisturbed
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.rows import chooses_rows
from cortado.report.record import Edge
from cortado.running.call import call_arguments
from cortado.running.trees import map_tensors
from cortado.runtimes.edges import ChannelsLast, restored
from cortado.runtimes.runtime import Port, Runtime, Session
from cortado.runtimes.staged import EVERYTHING, LOOP, STAGES, StagedSession, has_stages, part_names, write_stages

BETWEEN = ("QUANTIZE", "DEQUANTIZE", "DELEGATE")
"""Operators that convert between floats and integers, or stand for nodes that are listed too."""
NUMBERED = re.compile(r"args_(\d+)")


class LitertSession:
    """A .tflite file in its interpreter."""

    def __init__(self, file: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(file), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.given = sorted(self.interpreter.get_input_details(), key=place_of)
        self.found = self.interpreter.get_output_details()
        self.inputs = tuple(litert_port(detail) for detail in self.given)

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        for detail, activation in zip(self.given, activations, strict=True):
            self.interpreter.set_tensor(detail["index"], input_codes(detail, activation.detach().numpy()))
        self.interpreter.invoke()
        return tuple(
            torch.from_numpy(values_of(detail, self.interpreter.get_tensor(detail["index"]))) for detail in self.found
        )


class Litert(Runtime):
    """LiteRT on the processor.  Its files hold a batch of one: larger batches run sample by sample.

    Files of networks with quantized activations have 8-bit inputs, and 8-bit outputs where those are quantized; the session
    converts from and to floats. `layout="nhwc"`: pictures (N, H, W, C); `edges="int8"`: 8 bits on all sides.
    """

    package = "ai_edge_litert"
    distribution = "ai-edge-litert"
    extra = "litert"
    suffix = ".tflite"
    edge_options = ("layout", "edges")
    path_forms = (EVERYTHING, STAGES)
    script = f'''
import re

from ai_edge_litert.interpreter import Interpreter


def load(path):
    """A function from the inputs of a file to its outputs, in floats where the file has integers of 8 bits."""
    network = Interpreter(str(path))
    network.allocate_tensors()
    # The converter numbers the arguments.
    number = re.compile(r"args_(\\d+)")
    ports = sorted(network.get_input_details(), key=lambda port: int(number.search(port["name"]).group(1)))

    def outputs(given):
        for port, values in zip(ports, given):
            step, zero = port["quantization"]
            if step:
                codes, limits = np.round(values / np.float32(step)) + zero, np.iinfo(port["dtype"])
                values = np.clip(codes, limits.min, limits.max).astype(port["dtype"])
            network.set_tensor(port["index"], values)
        network.invoke()
        found = []
        for port in network.get_output_details():
            (step, zero), values = port["quantization"], network.get_tensor(port["index"])
            found.append((values.astype(np.float32) - zero) * np.float32(step) if step else values)
        return found

    return outputs


{LOOP.strip()}
'''

    def lowers(self) -> bool:
        return self.available() and importlib.util.find_spec("litert_torch") is not None

    def require_lowering(self) -> None:
        self.require()
        if not self.lowers():
            raise MissingPackage(
                "litert: .tflite files run here, but the converter is missing. It changes versions of many other packages: "
                "make a separate environment and run there, in Cortado's folder: "
                "pip install -e . litert-torch ai-edge-litert."
            )

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require_lowering()
        one = one_sample(example)
        if self.layout:
            # The converter turns pictures for its convolutions anyway: turned here, its own turns drop out.
            network, one = ChannelsLast(network), map_tensors(restored, one)
        file = folder / "net.tflite"
        if self.paths == STAGES and chooses_rows(network):
            stages = cut_in_stages(exported(network, one, any_batch=False), type(network).__name__)
            return write_stages(stages, file, convert_part)
        try:
            with undisturbed(network):
                convert(network, one, file, bool(sites(network)))
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise BadNetwork(
                f"litert: {type(network).__name__} cannot be converted: {type(error).__name__}: {first[:300]} "
                "Replace that operator by others, or try another runtime."
            ) from error
        return file

    def load(self, file: Path, threads: int) -> Session:
        self.require()
        if has_stages(file):
            return StagedSession(file, lambda part: self.open(part, threads))
        return self.open(file, threads)

    def open(self, file: Path, threads: int) -> LitertSession:
        """Load one file."""
        if not file.is_file():
            raise BadFile(f"litert: {file} cannot be read. Check the path.")
        try:
            return LitertSession(file, threads)
        except Exception as error:
            raise BadFile(f"litert: {file} cannot be loaded ({type(error).__name__}: {error}).") from error

    def edges(self, file: Path) -> tuple[Edge, ...]:
        parts = self.parts(file)
        return tuple(
            edge_of(detail, side, "" if len(parts) == 1 else f"{name}: ")
            for name, session in parts.items()
            for side, details in (("input", session.given), ("output", session.found))
            for detail in details
        )

    def float_operators(self, file: Path) -> tuple[str, ...]:
        return tuple(found for session in self.parts(file).values() for found in float_operators_in(session))

    def parts(self, file: Path) -> dict[str, LitertSession]:
        """Return the sessions of a file, or of those that it stands for, by their names."""
        return {name: self.open(file.with_name(name), 1) for name in part_names(file)}


def float_operators_in(session: LitertSession) -> list[str]:
    """Return the operators of a file that compute in floats."""
    tensors = {detail["index"]: detail for detail in session.interpreter.get_tensor_details()}
    floats = {number for number, detail in tensors.items() if detail["dtype"] == np.float32}
    return [
        f"{node['op_name']} ({tensors[node['outputs'][0]]['name']})"
        for node in session.interpreter._get_ops_details()
        if node["op_name"] not in BETWEEN and floats.intersection(node["outputs"])
    ]


def convert_part(part: fx.GraphModule, given: tuple[Tensor, ...], file: Path) -> None:
    """Write one of several files."""
    rounded = any(node.target == QUANTIZE for node in part.graph.nodes)
    convert(part, given, file, rounded)


def convert(network: nn.Module, one: Any, file: Path, rounded: bool) -> None:
    """Write a network for one sample, in integers if it is `rounded`."""
    import litert_torch

    positional, named = call_arguments(one)
    with quiet_exporters(), contextlib.redirect_stdout(io.StringIO()):
        if rounded:
            convert_integers(network, one, file)
        else:
            litert_torch.convert(network, positional, named or None).export(str(file))


def convert_integers(network: nn.Module, one: Any, file: Path) -> None:
    """Write a lowered network with quantize operators as integers.  Raises BadNetwork if the converter made all floats."""
    import litert_torch
    from litert_torch.quantize.pt2e_quantizer import PT2EQuantizer, get_symmetric_quantization_config
    from litert_torch.quantize.quant_config import QuantConfig

    module = float_graph(exported(network, one, any_batch=False))
    with_signed_codes(module.graph)
    # The converter turns pictures in place: an output that a layer reads too would come out channels last.
    one_reader_each(module.graph)
    round_weights(module)
    # Everything is rounded already; the setting only makes such operators integer.
    setting = get_symmetric_quantization_config(is_per_channel=True, is_dynamic=False)
    positional, named = call_arguments(one)
    quantizer = QuantConfig(PT2EQuantizer().set_global(setting))
    litert_torch.convert(module, positional, named or None, quant_config=quantizer).export(str(file))
    details = LitertSession(file, 1).interpreter.get_tensor_details()
    if not any(detail["dtype"] == np.int8 for detail in details):
        raise BadNetwork("the converter turned all integers into floats.")


def step_of(detail: dict[str, Any]) -> tuple[float, int] | None:
    """Return the scale and zero point of a quantized input or output; None for floats and plain integers."""
    step, zero = detail["quantization"]
    return (float(step), int(zero)) if step and np.issubdtype(detail["dtype"], np.integer) else None


def edge_of(detail: dict[str, Any], side: str, before: str = "") -> Edge:
    """Return an input or output of the file as an Edge; `before` stands before its name."""
    scale, zero = step_of(detail) or (None, None)
    return Edge(before + detail["name"], side, np.dtype(detail["dtype"]).name, scale, zero)


def input_codes(detail: dict[str, Any], values: Any) -> Any:
    """Return values as the input of a file expects them."""
    grid = step_of(detail)
    if grid is None:
        return values
    limits = np.iinfo(detail["dtype"])
    codes = np.round(values / np.float32(grid[0])) + grid[1]
    return np.clip(codes, limits.min, limits.max).astype(detail["dtype"])


def values_of(detail: dict[str, Any], found: Any) -> Any:
    """Return the values of a file's output."""
    grid = step_of(detail)
    return found if grid is None else (found.astype(np.float32) - grid[1]) * np.float32(grid[0])


def place_of(detail: dict[str, Any]) -> tuple[int, int]:
    """Return a sort key: the argument's number in our files, the file's order in others."""
    found = NUMBERED.search(detail["name"])
    return (0, int(found.group(1))) if found else (1, 0)


def litert_port(detail: dict[str, Any]) -> Port:
    """Return an input of the file as a Port."""
    shape = tuple(None if size < 0 else int(size) for size in detail["shape_signature"])
    dtype = detail["dtype"] if step_of(detail) is None else np.float32
    return Port(detail["name"], shape, torch.from_numpy(np.zeros(0, dtype)).dtype)
