"""Divergence: how far the outputs of two networks are apart, by the task's kind of outputs."""

from typing import Any

import torch
from torch import nn

from cortado.network.graph.trace import call_with, device_of
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import map_tensors, to_device
from cortado.task.outputs.outputs import Outputs, Rows, all_places
from cortado.task.task import Task

SPREAD_SAMPLES = 128


def output_rows(network: nn.Module, inputs: Any, kind: Outputs) -> Rows:
    """Return the rows of a network's outputs for `inputs` in eval mode."""
    with eval_mode(network):
        return kind.rows(call_with(network, inputs))


def divergence_for(original: nn.Module, task: Task) -> Outputs:
    """Return the task's kind of outputs, fitted to the original network's outputs on some calibration data."""
    assert task.calibration is not None
    if type(task.outputs).fitted is Outputs.fitted:
        # It learns nothing from outputs, which may be large, as those of texts are.
        return task.outputs
    found: list[Rows] = []
    for inputs, _ in task.calibration.first(SPREAD_SAMPLES).batches(32):
        found.append(output_rows(original, to_device(inputs, device_of(original)), task.outputs))
        if task.outputs.fitted(found[0]) == task.outputs.fitted(map_tensors(torch.zeros_like, found[0])):
            # Nothing of it depends on the values.
            break
    return task.outputs.fitted(all_places(found))
