"""ExecuTorch: .pte files for phones, lowered to XNNPACK's kernels where available."""

import contextlib
import io
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import exported, float_graph, one_sample, quiet_exporters
from cortado.lowering.in_order import example_in_order, network_in_order, one_reader_each, without_formats
from cortado.lowering.signed import unrounded_matmuls, with_floats, with_signed_codes
from cortado.lowering.stages import cut_in_stages
from cortado.parts.blocks.rows import chooses_rows
from cortado.running.trees import tensors_in
from cortado.runtimes.refused import first_refused, place_text
from cortado.runtimes.runtime import Port, Runtime, Session
from cortado.runtimes.staged import EVERYTHING, LOOP, STAGES, StagedSession, has_stages, write_stages

DTYPES = {
    0: torch.uint8, 1: torch.int8, 2: torch.int16, 3: torch.int32, 4: torch.int64, 5: torch.float16,
    6: torch.float32, 7: torch.float64, 11: torch.bool,
}  # fmt: skip
"""Type codes of its files."""


class ExecutorchSession:
    """The method `forward` of a .pte file."""

    def __init__(self, file: Path, threads: int) -> None:
        from executorch.extension.pybindings.portable_lib import _unsafe_reset_threadpool
        from executorch.runtime import Runtime as Executor

        # One pool serves the whole process.
        _unsafe_reset_threadpool(threads)
        self.program = Executor.get().load_program(str(file))
        self.method = self.program.load_method("forward")
        facts = self.method.metadata
        metas = [facts.input_tensor_meta(place) for place in range(facts.num_inputs())]
        self.inputs = tuple(
            Port(f"input_{place}", tuple(meta.sizes()), DTYPES[meta.dtype()]) for place, meta in enumerate(metas)
        )

    def __call__(self, *activations: Tensor) -> tuple[Tensor, ...]:
        # The next call overwrites the memory of the outputs.
        return tuple(
            value.clone() for value in self.method.execute([activation.contiguous() for activation in activations])
        )


class Executorch(Runtime):
    """ExecuTorch on the processor.  Its files hold a batch of one: larger batches run sample by sample."""

    package = "executorch"
    distribution = "executorch"
    extra = "executorch"
    suffix = ".pte"
    path_forms = (EVERYTHING, STAGES)
    script = f'''
import torch
from executorch.runtime import Runtime


def load(path):
    """A function from the inputs of a file to its outputs."""
    method = Runtime.get().load_program(str(path)).load_method("forward")
    return lambda given: [made.numpy().copy() for made in method.execute([torch.from_numpy(part) for part in given])]


{LOOP.strip()}
'''

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require()
        one, network = example_in_order(one_sample(example)), network_in_order(network)
        program = exported(network, one, any_batch=False)
        floats = unrounded_matmuls(program)
        if floats:
            # XNNPACK ignores the scales of codes if a product's output is not rounded: results are far off.
            network = with_floats(network, floats)
            program = exported(network, one, any_batch=False)
        file = folder / "net.pte"
        if self.paths == STAGES and chooses_rows(network):
            return write_stages(cut_in_stages(program, type(network).__name__), file, self.write_part)
        try:
            return self.checked(program, tuple(tensors_in(one)), file)
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            where = self.first_place(exported(network, one, any_batch=False), tuple(tensors_in(one)))
            raise BadNetwork(
                f"executorch: {type(network).__name__} cannot be lowered: {type(error).__name__}: {first[:300]}.{where} "
                "Replace that operator by others, or try another runtime."
            ) from error

    def write_part(self, part: fx.GraphModule, given: tuple[Tensor, ...], file: Path) -> Path:
        """Write one of several files."""
        given = example_in_order(given)
        return self.checked(exported(part, given, any_batch=False), given, file)

    def checked(self, program: torch.export.ExportedProgram, one: tuple[Tensor, ...], file: Path) -> Path:
        """Write a program, and run it once: some operators are refused only then."""
        with_signed_codes(program.graph)
        without_formats(program.graph)
        one_reader_each(program.graph)
        program.graph_module.recompile()
        with quiet_exporters(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            file.write_bytes(lowered_bytes(program))
        ExecutorchSession(file, 1)(*one)
        return file

    def first_place(self, program: torch.export.ExportedProgram, one: tuple[Tensor, ...]) -> str:
        """Return a sentence that names the first operator that is refused, with its layer and line; "" if no part is."""

        def tries(part: fx.GraphModule) -> None:
            with tempfile.TemporaryDirectory() as folder:
                self.checked(exported(part, one, any_batch=False), one, Path(folder) / "part.pte")

        node = first_refused(float_graph(program), tries)
        return f" It begins at {place_text(node)}." if node else ""

    def load(self, file: Path, threads: int) -> Session:
        self.require()
        if has_stages(file):
            return StagedSession(file, lambda part: self.open(part, threads))
        return self.open(file, threads)

    def open(self, file: Path, threads: int) -> ExecutorchSession:
        """Load one file."""
        if not file.is_file():
            raise BadFile(f"executorch: {file} cannot be read. Check the path.")
        try:
            return ExecutorchSession(file, threads)
        except Exception as error:
            raise BadFile(f"executorch: {file} cannot be loaded ({type(error).__name__}: {error}).") from error


def lowered_bytes(program: torch.export.ExportedProgram) -> bytes:
    """Return the file's bytes, delegated to XNNPACK where possible."""
    import executorch.kernels.quantized  # noqa: F401 - operators that XNNPACK lacks
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    return bytes(to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch().buffer)
