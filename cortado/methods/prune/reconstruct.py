"""Reconstruct: refit the layers that read removed channels, one after another, by least squares on their outputs."""

from typing import Any

import torch
from torch import Tensor

from cortado.network.coupling.groups import Group
from cortado.network.statistics.activations import rows_into
from cortado.network.statistics.channel_gradients import consuming_layers
from cortado.network.view import View
from cortado.parts.forms.dense import Dense
from cortado.task.task import Data, Task

ROWS, IMAGES, RIDGE = 24, 512, 1.0
"""Positions per sample, samples, and the ridge over the mean second moment. With a ridge of 0.01 the deep layers of
ResNet-20 and 56 overfitted, and validation accuracy after the cut was 6 and 1 points lower."""


def readers_of(view: View, groups: list[Group]) -> list[str]:
    """Return the layers that read units of these groups, in execution order."""
    paths = {slot.layer for group in groups for slot, _ in consuming_layers(view, group)}
    return list(dict.fromkeys(call.path for call in view.graph.calls if call.path in paths))


def reconstruct(view: View, task: Task, paths: list[str], ridge: float = RIDGE) -> None:
    """Set each layer's weight to the one whose outputs are closest to those of the reference network.

    He, Zhang, Sun, 2017 (their second step), on the inputs that the pruned network really gives the layer. The ridge
    pulls towards the current weight; moment matching corrects the means. Weights in a form are refitted if dense.
    """
    assert task.calibration is not None
    weights = {weight.path: weight for weight in view.all_weights}
    data = task.calibration.first(IMAGES)
    for number, path in enumerate(paths):
        weight = weights.get(f"{path}.weight")
        if weight is None or len(weight.places) > 1 or not weight.form.only_floats:
            continue
        layer = view.network.get_submodule(path)
        gram, cross = second_moments(view, task, path, data, number)
        kept = view.kept.get(path)
        cross = cross if kept is None else cross[:, kept]
        old = weight.dense()
        pull = ridge * gram.diagonal().mean().clamp(min=1e-12)
        gram = gram + pull * torch.eye(len(gram), dtype=gram.dtype)
        wanted = cross + pull * old.flatten(1).T.double().cpu()
        found = torch.linalg.solve(gram, wanted).T.reshape(old.shape).to(old)
        with torch.no_grad():
            own = layer._parameters.get(weight.places[0][1])
            weight.set_form(Dense(found)) if own is None else own.copy_(found)


def second_moments(view: View, task: Task, path: str, data: Data, number: int) -> tuple[Tensor, Tensor]:
    """Return centred second moments: (inputs, inputs) of the layer's inputs now, (inputs, outputs) with the reference's."""
    before: Any = view.reference.get_submodule(path)
    matrix = before.weight.detach().flatten(1).T.double()
    inputs = rows_into(view.network, path, data, ROWS, task.generator(9001 + number))
    outputs = rows_into(view.reference, path, data, ROWS, task.generator(9001 + number)) @ matrix.cpu()
    inputs, outputs = inputs - inputs.mean(0), outputs - outputs.mean(0)
    return inputs.T @ inputs / len(inputs), inputs.T @ outputs / len(inputs)
