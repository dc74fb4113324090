"""A user's own runtime: it stores the network's weights and operators as torch's exported program, and runs it in two halves."""

import torch

from cortado.lowering.graph import exported, float_graph
from cortado.running.trees import tensors_in
from cortado.runtimes.runtime import Port, Runtime


class HalvesSession:
    """Runs each batch in two halves."""

    def __init__(self, network, inputs):
        self.network, self.inputs = network, inputs

    def __call__(self, *activations):
        half = len(activations[0]) // 2
        parts = [tuple(one[:half] for one in activations), tuple(one[half:] for one in activations)]
        with torch.no_grad():
            found = [tensors_in(self.network(*part)) for part in parts if len(part[0])]
        return tuple(torch.cat(column) for column in zip(*found, strict=True))


class Halves(Runtime):
    """Two halves of a batch, one after the other."""

    suffix = ".halves"
    quick = False

    def lower(self, network, example, folder):
        torch.export.save(exported(network, example), folder / "net.pt2")
        return (folder / "net.pt2").rename(folder / f"net{self.suffix}")

    def load(self, file, threads):
        with file.open("rb") as stream:
            network = float_graph(torch.export.load(stream))
        values = [(node.name, node.meta["val"]) for node in network.graph.nodes if node.op == "placeholder"]
        return HalvesSession(
            network, tuple(Port(name, (None, *value.shape[1:]), value.dtype) for name, value in values)
        )
