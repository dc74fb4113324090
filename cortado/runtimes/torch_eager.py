"""PyTorch without compilation, the baseline; its file is an exported program (.pt2)."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadFile, BadNetwork
from cortado.lowering.graph import exported, float_graph, quiet_exporters
from cortado.lowering.rows import run_chosen_rows
from cortado.running.trees import tensors_in
from cortado.runtimes.runtime import Port, Ran, Runtime


class TorchSession:
    """A torch module that runs with `threads` threads and restores the process's number after each call."""

    def __init__(self, network: nn.Module, inputs: tuple[Port, ...], threads: int) -> None:
        self.network, self.inputs, self.threads = network, inputs, threads

    def __call__(self, *activations: Any, **named: Any) -> tuple[Tensor, ...]:
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.no_grad():
                return tuple(tensors_in(self.network(*activations, **named)))
        finally:
            torch.set_num_threads(before)


class TorchEager(Runtime):
    """PyTorch without compilation."""

    suffix = ".pt2"
    floats = (*Runtime.floats, torch.bfloat16)

    def lower(self, network: nn.Module, example: Any, folder: Path) -> Path:
        program = exported(network, example)
        try:
            with quiet_exporters():
                torch.export.save(program, folder / "net.pt2")
        except Exception as error:
            raise BadNetwork(
                f"torch_eager: {type(network).__name__} cannot be saved as an exported program: {type(error).__name__}: {error} "
                "Make it return tensors, tuples or dicts."
            ) from error
        return folder / "net.pt2"

    def placed(self, file: Path) -> dict[str, Ran]:
        return {}

    def load(self, file: Path, threads: int) -> TorchSession:
        network = read_program(file)
        given = ports(network)
        # A file has both ways, since torch.export cannot trace batches whose size depends on values.
        run_chosen_rows(network)
        return TorchSession(network, given, threads)


def read_program(file: Path) -> fx.GraphModule:
    """Return the graph of a .pt2 file.  Raises BadFile."""
    try:
        with quiet_exporters():
            return float_graph(torch.export.load(file))
    except Exception as error:
        # For errors inside an archive torch only refers to its log.
        describe = "" if "warnings above" in str(error) else f" ({type(error).__name__}: {error})"
        raise BadFile(
            f"torch_eager: {file} cannot be read{describe}: it is no exported program, was cut short, or needs another version "
            f"than torch {torch.__version__}. Write it again with torch.export.save."
        ) from error


def ports(network: fx.GraphModule) -> tuple[Port, ...]:
    """Return the inputs of a graph."""
    values = [(node.name, node.meta["val"]) for node in network.graph.nodes if node.op == "placeholder"]
    return tuple(
        Port(name, tuple(size if isinstance(size, int) else None for size in value.shape), value.dtype)
        for name, value in values
        if isinstance(value, Tensor)
    )
