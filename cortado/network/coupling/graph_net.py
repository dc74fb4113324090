"""Graph net: a cut network as its traced graph, for cuts that the network's own code cannot follow."""

import torch
from torch import Tensor, fx, nn

from cortado.errors import BadNetwork
from cortado.network.coupling.answers import difference, flat_outputs
from cortado.network.coupling.batches import Following, following_batch, samples_in, with_samples
from cortado.network.coupling.capture import first_line
from cortado.network.coupling.cut import TOLERANCE
from cortado.network.coupling.graph_module import GraphNet
from cortado.network.coupling.graph_writer import GraphWriter
from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.coupling.rewritten import Rewritten, tensors_at
from cortado.network.graph.axes.step import operator_name, source_of
from cortado.network.graph.axes.variables import Gone


def cut_as_graph(network: nn.Module, groups: Groups, keeps: Keeps, axis: int = 0) -> GraphNet:
    """Return a copy of the network as a graph with only these units of some groups (`groups.in_graph`); `network` is
    kept.

    The groups must come from `find_groups` on this network. `axis` is the batch axis of the inputs; the network is
    traced again with one more sample to find the numbers that follow the batch. Parameters and forms are copied; code
    that never runs is omitted. Two checks run: the uncut graph must agree with the network, also for other batch
    sizes, and the cut graph with the interpreted graph on narrowed tensors. Raises BadNetwork, with the line, when
    the network's code depends on the batch in another way or the graph cannot follow the cut, and BadValue for units
    that do not exist.
    """
    gone, holder = groups.gone(keeps), groups.walked.captured.holder
    if holder:
        raise BadNetwork(
            f"graph: {type(network).__name__} returns its outputs in {holder}, which a graph cannot create. "
            "Return a tuple or a dict, or register the class with torch.export.register_dataclass."
        )
    following = following_batch(network, groups.walked.captured, axis)
    prove_any_batch(network, groups, following, axis)
    found = GraphWriter(network, groups, gone, following, axis).net()
    prove_cut(network, groups, gone, found, axis)
    return found.train(network.training)


def prove_any_batch(network: nn.Module, groups: Groups, following: Following, axis: int) -> None:
    """Raise BadNetwork unless the uncut graph agrees with the network for two more samples."""
    captured = groups.walked.captured
    count = samples_in(captured, axis)
    inputs = with_samples(captured, count + 2, axis)
    whole = GraphWriter(network, groups, groups.gone({}), following, axis, copies=False).net()
    try:
        far = difference(flat_outputs(whole, inputs), flat_outputs(network, inputs))
    except Exception as error:  # noqa: BLE001 - whatever it raises, the graph does not fit this batch
        raise BadNetwork(f"{other_batch(network, count)}: {first_line(error)}.") from error
    if not far <= TOLERANCE:
        raise BadNetwork(f"{other_batch(network, count)}: relative difference {far:.2g}.")


def other_batch(network: nn.Module, count: int) -> str:
    return (
        f"graph: traced with {count} and {count + 1} samples, {type(network).__name__} computes something else with {count + 2}. "
        "Derive sizes from the input by multiplication alone"
    )


def prove_cut(network: nn.Module, groups: Groups, gone: Gone, net: GraphNet, axis: int) -> None:
    """Raise BadNetwork unless the cut graph agrees with the interpreted one and runs with another batch size."""
    read, kept = tensors_at(network, groups), groups.kept_rows(gone)
    buffers = groups.walked.captured.program.graph_signature.inputs_to_buffers

    def narrow(node: fx.Node) -> Tensor:
        # The code may write to its buffers; keep the network's own.
        value = read(node).clone() if node.name in buffers else read(node)
        for (where, d), rows in kept.items():
            if where is node:
                value = value.index_select(d, torch.as_tensor(rows, dtype=torch.int64, device=value.device))
        return value

    interpreted = Rewritten(groups, gone, narrow)
    captured = groups.walked.captured
    try:
        wanted = interpreted.answer()
    except Exception as error:
        line = source_of(interpreted.current) or operator_name(interpreted.current)
        raise BadNetwork(
            f"graph: this cut cannot be made in the graph either: {line} says {first_line(error)}. "
            "Exclude the group, or cut other amounts."
        ) from error
    far = difference(flat_outputs(net, captured.program.example_inputs), wanted)
    if not far <= TOLERANCE:
        raise BadNetwork(
            f"graph: the cut graph computes something else (relative difference {far:.2g}). Please report a bug."
        )
    flat_outputs(net, with_samples(captured, samples_in(captured, axis) + 1, axis))
