"""PyTorch's compiler: the exported program through torch.compile, weights frozen into the code."""

from pathlib import Path
from typing import Any

import torch
from torch import nn

from cortado.runtimes.runtime import Ran, Runtime
from cortado.runtimes.torch_eager import TorchEager, TorchSession, ports, read_program


class TorchCompiled(Runtime):
    """torch.compile with the inductor; compiles at the first call for each input shape, with the system's compiler."""

    suffix = ".pt2"
    floats = (*Runtime.floats, torch.bfloat16)
    quick = False

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        return TorchEager().lower(network, example, folder)

    def placed(self, file: Path) -> dict[str, Ran]:
        return {}

    def load(self, file: Path, threads: int) -> TorchSession:
        network = read_program(file)
        compiled = torch.compile(network, options={"freezing": True})
        return TorchSession(compiled, ports(network), threads)  # type: ignore[arg-type]
