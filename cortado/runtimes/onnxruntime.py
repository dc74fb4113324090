"""ONNX Runtime: the network as an .onnx file."""

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadFile
from cortado.lowering.graph import exported
from cortado.lowering.products import products_of
from cortado.runtimes.kernels.integers import Integers
from cortado.runtimes.kernels.kernel import Kernel, kernels_for
from cortado.runtimes.kernels.native import CodebookProducts, SparseProducts
from cortado.runtimes.kernels.onnx_integers import OnnxIntegers
from cortado.runtimes.kernels.packed import PRODUCT, PackedProducts, packed_in
from cortado.runtimes.onnx_file import write_onnx
from cortado.runtimes.own_products import CODEBOOK, CONVOLUTION, SPARSE, library, open_session, own_layers_in
from cortado.runtimes.positions import POSITIONS
from cortado.runtimes.rows import BRANCHES, COMPACTION
from cortado.runtimes.runtime import Port, Ran, Runtime

DTYPES = {
    "tensor(float)": torch.float32, "tensor(double)": torch.float64, "tensor(float16)": torch.float16,
    "tensor(int64)": torch.int64, "tensor(int32)": torch.int32, "tensor(int8)": torch.int8,
    "tensor(uint8)": torch.uint8, "tensor(bool)": torch.bool,
}  # fmt: skip


class OnnxSession:
    """An .onnx file in ONNX Runtime."""

    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # Threads that keep spinning after a call would slow down whatever is measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        # Errors are raised as well, so the log is redundant.
        options.log_severity_level = 4
        self.session = open_session(file, options)
        self.inputs = tuple(
            Port(port.name, tuple(size if isinstance(size, int) else None for size in port.shape), DTYPES[port.type])
            for port in self.session.get_inputs()
        )
        self.names = [port.name for port in self.inputs]

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        given = {name: activation.detach().numpy() for name, activation in zip(self.names, activations, strict=True)}
        return tuple(torch.from_numpy(value) for value in self.session.run(None, given))


INTEGER_STEPS = ("QLinearConv", "QLinearMatMul", "QGemm", "MatMulInteger", "ConvInteger", "MatMulIntegerToFloat")
LACKS = {
    "transposed conv": "ONNX Runtime has no transposed convolution of integers",
    "recurrent": "ONNX Runtime has no recurrent layer of integers with quantized activations",
}
"""Layers that stay in floats, and why."""
SIGNS_HERE = "ONNX Runtime multiplies signs as floats; openvino has a product for them"
NAMES = {SPARSE: SparseProducts.name, CONVOLUTION: SparseProducts.name, CODEBOOK: CodebookProducts.name}
"""The kernel of each of our operators."""
MARK = re.compile(r"_token_\d+$")
"""Suffix that ONNX Runtime appends to the names of rewritten operators."""


class Onnxruntime(Runtime):
    """ONNX Runtime on the processor, in the precision of the file.

    Linear weights of at most 4 bits stay packed.  With `rounds_inputs` their kernels may round inputs to 8 bits in blocks
    of 32 to 128 values: several times faster, with an error of about 1 %.  Without it 2-bit weights are stored in 4 bits,
    as 2-bit products have no fast kernel.  Weights of mostly zeros, or of at most 16 values on no even grid, become operators
    of Cortado, and the library that computes them stands beside the file.
    """

    package = "onnxruntime"
    distribution = "onnxruntime"
    extra = "onnx"
    suffix = ".onnx"
    path_forms = (COMPACTION, BRANCHES, POSITIONS)
    channel_block = 16
    script = '''
import onnxruntime

options = onnxruntime.SessionOptions()
PRODUCTS = FILE.with_name("libcortado_products.so")
if PRODUCTS.exists():
    # Made for another machine? The first line of cortado_products.cpp builds it for this one.
    options.register_custom_ops_library(str(PRODUCTS))
session = onnxruntime.InferenceSession(str(FILE), options, providers=["CPUExecutionProvider"])


def predict(*inputs):
    """The first output for one batch."""
    names = [port.name for port in session.get_inputs()]
    return session.run(None, dict(zip(names, inputs, strict=True)))[0]
'''

    @property
    def kernels(self) -> tuple[Kernel, ...]:
        own = SparseProducts(), CodebookProducts(self.rounds_inputs)
        packed = PackedProducts(2 if self.rounds_inputs else 4, self.rounds_inputs)
        return (OnnxIntegers(LACKS, SIGNS_HERE), packed, *(own if self.own_operators else ()))

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require()
        program, chosen = exported(network, example), kernels_for(self.kernels, products_of(network, example))
        file = write_onnx(network, program, folder / "net.onnx", self.name(), chosen, paths=self.paths or COMPACTION)
        if own_layers_in(file):
            library(folder)
        return file

    def placed(self, file: Path) -> dict[str, Ran]:
        steps = optimized_steps(file)
        return {
            **{path: Ran(NAMES[operator], bits) for path, (operator, bits) in own_layers_in(file).items()},
            **{MARK.sub("", one.name): Ran(Integers.name, 8) for one in steps if one.op_type in INTEGER_STEPS},
            # It also packs codes of 8 bits whose activations are floats.
            **{
                MARK.sub("", one.name): Ran(PackedProducts.name, bits_of(one))
                for one in steps
                if one.op_type == PRODUCT
            },
            **{path: Ran(PackedProducts.name, bits) for path, bits in packed_in(file).items()},
        }

    def load(self, file: Path, threads: int) -> OnnxSession:
        self.require()
        if not file.is_file():
            raise BadFile(f"onnxruntime: {file} cannot be read. Check the path.")
        try:
            return OnnxSession(file, threads)
        except BadFile:
            raise
        except Exception as error:
            raise BadFile(f"onnxruntime: {file} cannot be loaded ({type(error).__name__}: {error}).") from error


def optimized_steps(file: Path) -> list[Any]:
    """Return the operators of the graph that ONNX Runtime makes of a file."""
    import onnx
    import onnxruntime

    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.optimized_model_filepath = str(Path(folder) / "optimized.onnx")
        open_session(file, options)
        return list(every_step(onnx.load(options.optimized_model_filepath, load_external_data=False).graph))


def bits_of(step: Any) -> int:
    """Return the bits of the codes that a packed product reads."""
    return next(int(fact.i) for fact in step.attribute if fact.name == "bits")


def every_step(graph: Any) -> Iterator[Any]:
    """Yield the operators of an ONNX graph, those inside branches too."""
    for step in graph.node:
        yield step
        for fact in step.attribute:
            if fact.HasField("g"):
                yield from every_step(fact.g)
