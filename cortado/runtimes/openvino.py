"""OpenVINO: the network as an .xml file with its weights in a .bin file beside it, run in float32."""

import sys
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import exported, quiet_exporters
from cortado.lowering.products import products_of
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.rows import chooses_rows
from cortado.parts.forms.attach import PREFIX
from cortado.runtimes.kernels.binary import BinaryProducts, binary_steps, has_binary
from cortado.runtimes.kernels.binary_check import check_binary
from cortado.runtimes.kernels.integers import Integers
from cortado.runtimes.kernels.kernel import Kernel, kernels_for
from cortado.runtimes.kernels.packed import DECODED, TABLE_BITS, TABLES, PackedProducts, reading_layers
from cortado.runtimes.onnx_file import write_onnx
from cortado.runtimes.rows import BRANCHES, COMPACTION
from cortado.runtimes.runtime import Port, Ran, Runtime

EXACT: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0}
"""By default OpenVINO runs in bfloat16 and rounds the inputs of low-bit weights to 8 bits, if the processor can."""


GROUP = 128
"""Values that share a step where a file allows inputs of packed products to be rounded."""
ROUNDS = ("cortado", "rounds_inputs")
"""Where the file says so."""
Shapes = tuple[tuple[int, ...], ...]


@cache
def openvino_package() -> Any:
    """Import OpenVINO without its telemetry, which reports each import and each conversion to a server on the network, from
    a copy of this process."""
    loaded = "openvino_telemetry" in sys.modules
    if not loaded:
        sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
    try:
        import openvino
        import openvino.tools.ovc.convert_impl
    finally:
        if not loaded:
            del sys.modules["openvino_telemetry"]
    return openvino


class OpenvinoSession:
    """A model on the processor, compiled once; with binary convolutions once for each batch size."""

    def __init__(self, file: Path, threads: int) -> None:
        self.core = openvino_package().Core()
        self.settings = {
            **EXACT, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY",
        }  # fmt: skip
        self.model = self.core.read_model(str(file))
        if self.model.has_rt_info([*ROUNDS]):
            self.settings["DYNAMIC_QUANTIZATION_GROUP_SIZE"] = GROUP
        self.inputs = tuple(openvino_port(port) for port in self.model.inputs)
        self.one_batch = has_binary(self.model)
        self.requests: dict[Shapes, Any] = {} if self.one_batch else {(): self.request(())}

    def request(self, shapes: Shapes) -> Any:
        """Return a request of the model compiled for these shapes of the inputs; () for any."""
        if shapes:
            self.model.reshape(dict(enumerate(shapes)))
        return self.core.compile_model(self.model, "CPU", self.settings).create_infer_request()

    def runtime_model(self) -> Any:
        """Return the graph that runs, with each operator's kernel."""
        shapes = tuple(tuple(size or 1 for size in port.shape) for port in self.inputs)
        return self.request(shapes if self.one_batch else ()).get_compiled_model().get_runtime_model()

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        given = dict(enumerate(activation.detach().numpy() for activation in activations))
        shapes = tuple(tuple(value.shape) for value in activations) if self.one_batch else ()
        if shapes not in self.requests:
            self.requests[shapes] = self.request(shapes)
        found = self.requests[shapes].infer(given, share_inputs=True)
        return tuple(torch.from_numpy(np.array(found[place])) for place in range(len(self.model.outputs)))


CODES = f".{PREFIX}weight.codes"
"""Suffix of the constant with a layer's codes, after the layer's path."""
LACKS = {"recurrent": "OpenVINO has no recurrent layer of integers with quantized activations"}
"""Layers that stay in floats, and why."""
CUTS = ("Slice", "StridedSlice")
MATMUL_LAYERS = ("Convolution", "Deconvolution", "FullyConnected", "MatMul")


@dataclass(frozen=True)
class OpenvinoPacked(PackedProducts):
    """Packed products, which OpenVINO has where the last block of a row is whole."""

    lost = "OpenVINO decodes it to floats as it loads the file, as its rows are no multiple of a block"


def fact_text(value: Any) -> str:
    """Return a property of an operator as text."""
    return str(value.value if hasattr(value, "value") else value)


class Openvino(Runtime):
    """OpenVINO on the processor, in float32."""

    package = "openvino"
    distribution = "openvino"
    extra = "openvino"
    suffix = ".xml"
    path_forms = (COMPACTION, BRANCHES)
    channel_block = 16
    script = f'''
import openvino

core = openvino.Core()
model, compiled = core.read_model(str(FILE)), {{}}
settings = {{**{EXACT}, **({{"DYNAMIC_QUANTIZATION_GROUP_SIZE": {GROUP}}} if model.has_rt_info({list(ROUNDS)}) else {{}})}}


def predict(*inputs):
    """The first output for one batch; compiled once for each shape of the inputs."""
    shapes = tuple(tuple(value.shape) for value in inputs)
    if shapes not in compiled:
        model.reshape(dict(enumerate(shapes)))
        compiled[shapes] = core.compile_model(model, "CPU", settings)
    return compiled[shapes](inputs)[0]
'''

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        return BinaryProducts(), Integers(LACKS), OpenvinoPacked(least_bits=2, tables=DECODED)

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require()
        openvino = openvino_package()
        program, found = exported(network, example), products_of(network, example)
        binary, *others = self.kernels
        chosen = kernels_for(self.kernels, found)
        try:
            with quiet_exporters(), tempfile.TemporaryDirectory() as scratch:
                # Only its ONNX frontend supports codes with a scale per channel or block.
                source: Any = program
                if sites(network) or any(chosen.values()) or chooses_rows(network):
                    file = Path(scratch) / "net.onnx"
                    # Shared zero points would keep products in floats.
                    codes = {kernel: chosen[kernel] for kernel in others}
                    source = write_onnx(network, program, file, self.name(), codes, False, self.paths or COMPACTION)
                model = openvino.convert_model(source)
                binary.emit(model, chosen[binary])
                if self.rounds_inputs:
                    model.set_rt_info("true", [*ROUNDS])
                # The converter makes every axis dynamic; static ones run faster.
                model.reshape(dict(enumerate(input_shapes(program))))
                openvino.save_model(model, folder / "net.xml", compress_to_fp16=False)
                check_binary(folder / "net.xml", chosen[binary])
        except BadNetwork:
            raise
        except Exception as error:
            raise BadNetwork(missing_in_openvino(network, error)) from error
        return folder / "net.xml"

    def placed(self, file: Path) -> dict[str, Ran] | None:
        steps = openvino_package().Core().read_model(str(file))
        if any(step.get_type_name() == "If" for step in steps.get_ops()):
            # It says nothing of what runs inside branches.
            return None
        return {
            **dict.fromkeys(self.integer_layers(file), Ran(Integers.name, 8)),
            **{path: Ran(PackedProducts.name, bits) for path, bits in packed_constants(steps).items()},
            **{path: Ran(BinaryProducts.name, 1) for path, _ in binary_steps(steps)},
        }

    def integer_layers(self, file: Path) -> frozenset[str]:
        """Return the layers that the runtime's own graph computes in integers, and names of other operators."""
        found: set[str] = set()
        for step in OpenvinoSession(file, 1).runtime_model().get_ordered_ops():
            facts = {key: fact_text(value) for key, value in step.get_rt_info().items()}
            if facts.get("layerType") in MATMUL_LAYERS and facts.get("runtimePrecision") in ("i8", "u8"):
                # Rewritten operators get other names ("0/WithoutBiases"), but the codes keep theirs.
                read = [value.get_node().get_friendly_name() for value in step.input_values()]
                found.update(name.partition("/")[0] for name in facts.get("originalLayersNames", "").split(","))
                found.update(name.removesuffix(CODES) for name in read if name.endswith(CODES))
        return frozenset(found)

    def load(self, file: Path, threads: int) -> OpenvinoSession:
        self.require()
        if not file.is_file():
            raise BadFile(f"openvino: {file} cannot be read. Check the path.")
        if not is_model(file):
            raise BadFile(
                f"openvino: {file} is not an OpenVINO model, or was cut short. Write it again with save_model."
            )
        try:
            return OpenvinoSession(file, threads)
        except Exception as error:
            describe = " ".join(str(error).split())
            raise BadFile(f"openvino: {file} cannot be loaded ({type(error).__name__}: {describe}).") from error


def packed_constants(model: Any) -> dict[str, int]:
    """Return the layers whose weights a model keeps as packed codes, and their bits.

    Codes of rows with a part of a block are decoded when the model is compiled.
    """
    steps = model.get_ordered_ops()
    kept = [step for step in steps if step.get_type_name() == "Constant" and not is_cut(step)]
    found = {path: one.get_element_type().bitwidth for one in kept for path in reading_layers(one.get_friendly_name())}
    tables = [step for step in steps if step.get_type_name() == "Gather" and step.get_friendly_name().endswith(TABLES)]
    return found | {step.get_friendly_name().removesuffix(TABLES): TABLE_BITS for step in tables}


def is_cut(constant: Any) -> bool:
    """Return whether what is made of a constant is cut before a product reads it."""
    step = constant
    while step.get_type_name() not in (*MATMUL_LAYERS, "Result"):
        readers = [reader.get_node() for output in step.outputs() for reader in output.get_target_inputs()]
        if len(readers) != 1 or readers[0].get_type_name() in CUTS:
            return len(readers) == 1
        step = readers[0]
    return False


def is_model(file: Path) -> bool:
    """Return whether OpenVINO's own frontend accepts the file; other frontends would print to their log."""
    from openvino.frontend import FrontEndManager

    return bool(FrontEndManager().load_by_framework("ir").supported(str(file)))


def input_shapes(program: torch.export.ExportedProgram) -> list[list[int]]:
    """Return the shape of each input, -1 for an axis of any length."""
    user = set(program.graph_signature.user_inputs)
    values = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder" and node.name in user]
    return [[size if isinstance(size, int) else -1 for size in value.shape] for value in values]


def openvino_port(port: Any) -> Port:
    """Return an input of a model as a Port."""
    shape = tuple(axis.get_length() if axis.is_static else None for axis in port.get_partial_shape())
    dtype = torch.from_numpy(np.zeros(0, port.get_element_type().to_dtype())).dtype
    return Port(port.get_any_name(), shape, dtype)


def missing_in_openvino(network: nn.Module, error: Exception) -> str:
    """Return a sentence about the operator that OpenVINO lacks."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    missing = [line for line in lines if "No conversion rule" in line] or [line for line in lines if "aten" in line]
    describe = next(iter(missing or lines), "").removeprefix("-- ")
    return (
        f"openvino: {type(network).__name__} cannot be converted: {type(error).__name__}: {describe[:300]}. "
        "Replace that operator by others, or try another runtime."
    )
