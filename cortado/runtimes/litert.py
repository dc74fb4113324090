"""LiteRT: .tflite files, run by XNNPACK's kernels; the converter is large and wants an environment of its own."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, MissingPackage
from cortado.lowering.graph import positional, quietly
from cortado.network.trace import undisturbed
from cortado.runtimes.runtime import Port, Runtime

NUMBERED = re.compile(r"args_(\d+)")


class LitertSession:
    """A .tflite file in its interpreter."""

    def __init__(self, file: Path, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(file), num_threads=threads)
        self.interpreter.allocate_tensors()
        given = sorted(self.interpreter.get_input_details(), key=place_of)
        self.places = [detail["index"] for detail in given]
        self.found = [detail["index"] for detail in self.interpreter.get_output_details()]
        self.inputs = tuple(port_of(detail) for detail in given)

    def __call__(self, *signals: Tensor) -> tuple[Tensor, ...]:
        for place, signal in zip(self.places, signals, strict=True):
            self.interpreter.set_tensor(place, signal.detach().numpy())
        self.interpreter.invoke()
        return tuple(torch.from_numpy(self.interpreter.get_tensor(place)) for place in self.found)


class Litert(Runtime):
    """LiteRT on the processor.  Its files hold a batch of one: larger batches run sample by sample."""

    package = "ai_edge_litert"
    distribution = "ai-edge-litert"
    extra = "litert"
    suffix = ".tflite"

    def lowers(self) -> bool:
        return self.available() and importlib.util.find_spec("litert_torch") is not None

    def require_lowering(self) -> None:
        self.require()
        if not self.lowers():
            raise MissingPackage(
                "litert: .tflite files are run here, but the converter is missing. It changes versions of many other packages: "
                "make an environment of its own and write there, in Cortado's folder: "
                "pip install -e . litert-torch ai-edge-litert."
            )

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        self.require_lowering()
        import litert_torch

        one = tuple(part[:1] if isinstance(part, Tensor) and part.dim() else part for part in positional(example))
        try:
            with undisturbed(network), quietly(), contextlib.redirect_stdout(io.StringIO()):
                litert_torch.convert(network, one).export(str(folder / "net.tflite"))
        except Exception as error:
            first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
            raise BadNetwork(
                f"litert: {type(network).__name__} cannot be converted: {type(error).__name__}: {first[:300]} "
                "Replace that operator by others, or try another runtime."
            ) from error
        return folder / "net.tflite"

    def load(self, file: Path, threads: int) -> LitertSession:
        self.require()
        if not file.is_file():
            raise BadFile(f"litert: {file} cannot be read. Check the path.")
        try:
            return LitertSession(file, threads)
        except Exception as error:
            raise BadFile(f"litert: {file} cannot be loaded ({type(error).__name__}: {error}).") from error


def place_of(detail: dict[str, Any]) -> tuple[int, int]:
    """Which argument an input is: the converter numbers them, files of others keep their own order."""
    found = NUMBERED.search(detail["name"])
    return (0, int(found.group(1))) if found else (1, 0)


def port_of(detail: dict[str, Any]) -> Port:
    """An input as we describe it."""
    shape = tuple(None if size < 0 else int(size) for size in detail["shape_signature"])
    return Port(detail["name"], shape, torch.from_numpy(np.zeros(0, detail["dtype"])).dtype)
