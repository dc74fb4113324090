"""ExecuTorch: .pte files for phones, lowered to XNNPACK's kernels where available."""

import contextlib
import io
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import exported, one_sample, quiet_exporters
from cortado.lowering.signed import unrounded_matmuls, with_floats, with_signed_codes
from cortado.runtimes.runtime import Port, Runtime

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

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require()
        one = one_sample(example)
        program = exported(network, one, any_batch=False)
        floats = unrounded_matmuls(program)
        if floats:
            # XNNPACK ignores the scales of codes if a product's output is not rounded: results are far off.
            program = exported(with_floats(network, floats), one, any_batch=False)
        with_signed_codes(program.graph)
        program.graph_module.recompile()
        try:
            with (
                quiet_exporters(),
                contextlib.redirect_stdout(io.StringIO()),
                contextlib.redirect_stderr(io.StringIO()),
            ):
                (folder / "net.pte").write_bytes(lowered_bytes(program))
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise BadNetwork(
                f"executorch: {type(network).__name__} cannot be lowered: {type(error).__name__}: {first[:300]} "
                "Replace that operator by others, or try another runtime."
            ) from error
        return folder / "net.pte"

    def load(self, file: Path, threads: int) -> ExecutorchSession:
        self.require()
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
