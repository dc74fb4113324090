"""What a cut must compute, and how many parameters it must leave: the laws that cuts are tested by."""

import copy

import numpy as np
import torch
from torch import nn

from cortado.network.coupling.groups import Groups, Keeps
from cortado.network.graph.axes.step import node_shape


def zeroed(network: nn.Module, groups: Groups, keeps: Keeps) -> nn.Module:
    """Return a copy of the uncut network with zeros in every entry of the removed units and in their consumers' columns.

    Where all groups are exact, its outputs equal those of the cut network.
    """
    duplicate = copy.deepcopy(network)
    modules = dict(duplicate.named_modules(remove_duplicate=False))
    for (node, axis), rows in groups.kept_rows(groups.gone(keeps)).items():
        path, _, name = groups.walked.captured.tensors[node][0].rpartition(".")
        tensor = modules[path]._parameters.get(name, modules[path]._buffers.get(name))
        assert tensor is not None
        lost = torch.ones(tensor.shape[axis], dtype=torch.bool)
        lost[torch.as_tensor(rows)] = False
        with torch.no_grad():
            tensor.index_fill_(axis, lost.nonzero().squeeze(1).to(tensor.device), 0)
    return duplicate


def count_after(groups: Groups, keeps: Keeps) -> int:
    """Return how many parameters the network has after the cut; tied ones count once."""
    kept, total = groups.kept_rows(groups.gone(keeps)), 0
    captured = groups.walked.captured
    parameters = set(captured.program.graph_signature.inputs_to_parameters)
    counted: set[tuple[str, ...]] = set()
    for node, names in captured.tensors.items():
        if node.name in parameters and names not in counted:
            counted.add(names)
            sizes = node_shape(node)
            total += int(np.prod([len(kept.get((node, d), range(s))) for d, s in enumerate(sizes)]))
    return total
