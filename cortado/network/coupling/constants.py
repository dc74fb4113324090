"""Constants of a network: the numbers in its code that a cut changes, and the groups on their axes."""

import numpy as np
import torch

from cortado.network.coupling.groups import Groups
from cortado.network.graph.axes.constants import Constant
from cortado.network.graph.axes.step import Step
from cortado.network.graph.axes.variables import Gone
from cortado.network.graph.operators.table import operator_facts


def constants_of(groups: Groups) -> list[Constant]:
    """Return every number in the code of a walked network that a cut may change."""
    walked = groups.walked
    found: list[Constant] = []
    for node in walked.captured.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            step = Step(node, walked.variables, walked.known, walked.roles, walked.counted)
            constants = operator_facts(step.name).constants
            found += [] if constants is None else constants(step)
    return [constant for constant in found if any(axis is not None for axis in constant.axes)]


def changed(constants: list[Constant], gone: Gone) -> list[tuple[Constant, int]]:
    """Return the constants that a cut changes, with their new values."""
    return [(c, new) for c in constants if (new := c.after(gone)) != c.old]


def touching(groups: Groups, constant: Constant) -> set[int]:
    """Return the groups (by id) whose units are on the axes of a constant."""
    owner = {int(v): id(group) for group in groups.all for v in group.variables}
    values = np.unique(np.concatenate([axis.reshape(-1) for axis in constant.axes if axis is not None]))
    return {owner[v] for v in values.tolist() if v in owner}
