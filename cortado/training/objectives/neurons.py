"""neurons: the teacher's most informative neurons of a layer."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadTask, BadValue
from cortado.knobs.knob import knob
from cortado.network.graph.trace import device_of
from cortado.network.view import View
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.task import Task
from cortado.training.objectives.counted import unpadded
from cortado.training.objectives.layer_pairs import LayerPairs, mean_of_pairs, pooled, tensor_of_tap
from cortado.training.objectives.matching import SelectChannels, tapped_survivors
from cortado.training.objectives.objective import Objective, Terms, TrainingStep

BATCH = 64
TINY = 1e-12


@dataclass(frozen=True)
class Neurons(LayerPairs):
    """The mean squared error from the teacher's most informative neurons.  Luo et al., 2016.

    A neuron is a channel averaged over places. Neurons are chosen one after the other on the calibration data: the next is
    the one whose share of variance between the classes, less `redundancy` times its mean |correlation| with those chosen,
    is largest; the paper minimises an energy of such terms over attributes of faces. Averaged over samples, neurons and
    pairs of layers; padding does not count. A network of the teacher's width, or cut from it, learns the same neurons
    directly, any other through a linear map that is learned along.
    """

    chosen: ClassVar[tuple[Tensor, ...]] = ()
    """The numbers of the teacher's neurons of each pair, set on a copy."""

    keep: float = knob(0.5, low=0.0, high=1.0, help="share of the layer's neurons that are chosen")
    redundancy: float = knob(1.0, low=0.0, help="weight of the correlation with neurons chosen before")

    def with_teachers(self, teachers: Sequence[nn.Module], view: View, task: Task) -> Objective:
        survivors = {} if self.of else tapped_survivors(self.taps().network, teachers, view)
        chosen = []
        for at, of in self.pairs():
            values, labels = neurons_on_data(teachers[0], of, task)
            able = survivors.get(at, torch.arange(values.shape[1]))
            numbers = informative(values[:, able], labels, max(1, round(self.keep * len(able))), self.redundancy)
            chosen.append(able[numbers])
        made = self.knowing(survivors)
        vars(made)["chosen"] = tuple(chosen)
        return made

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        if not self.chosen:
            raise BadValue(
                "objectives/neurons: it has not chosen neurons yet. Train with what with_teachers(teachers, view, task) returns."
            )
        made: dict[str, nn.Module] = {}
        for number, (pair, chosen) in enumerate(zip(self.both(step), self.chosen, strict=True)):
            mine, wanted = (pooled(one, None).shape[1] for one in (pair.mine, pair.wanted))
            made[f"wanted{number}"] = SelectChannels(chosen)
            able = self.survivors.get(pair.at, torch.arange(wanted))
            if mine == len(able):
                made[f"mine{number}"] = SelectChannels(torch.searchsorted(able, chosen))
            else:
                made[f"mine{number}"] = nn.Linear(mine, len(chosen))
        return made

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for number, pair in enumerate(self.both(step)):
            mine = step.modules[f"mine{number}"](pooled(pair.mine, pair.counted))
            wanted = step.modules[f"wanted{number}"](pooled(pair.wanted, pair.counted_wanted))
            found.append(functional.mse_loss(mine, wanted))
        return {"neurons": mean_of_pairs(found)}


def neurons_on_data(network: nn.Module, tap: str, task: Task) -> tuple[Tensor, Tensor]:
    """Return what each neuron of a layer gives for the calibration data, (N, C), and the classes, (N,).

    Raises BadTask unless the targets are classes, BadValue for a layer that is missing or does not run.
    """
    path, _, number = tap.partition("#")
    layer = dict(network.named_modules()).get(path)
    if layer is None or task.calibration is None:
        raise BadValue(f"objectives/neurons: the teacher has no module {path!r}. Name one as cortado profile lists it.")
    given: list[Any] = []
    values, classes = [], []
    hook = layer.register_forward_hook(lambda module, inputs, outputs: given.append(outputs))
    try:
        with eval_mode(network):
            for inputs, targets in task.calibration.batches(BATCH):
                given.clear()
                call(network, to_device(inputs, device_of(network)))
                if len(given) < int(number or 1):
                    raise BadValue(f"objectives/neurons: the teacher's {tap} did not run. Tap a module that runs.")
                made = tensor_of_tap("objectives/neurons", given[int(number or 1) - 1], tap).float().cpu()
                values.append(pooled(made, unpadded(inputs, tuple(made.shape[:2])) if made.dim() == 3 else None))
                if not isinstance(targets, Tensor) or targets.dim() != 1 or targets.is_floating_point():
                    raise BadTask("objectives/neurons: it needs one class for each sample as target. Use features.")
                classes.append(targets.long())
    finally:
        hook.remove()
    return torch.cat(values), torch.cat(classes)


def informative(values: Tensor, labels: Tensor, count: int, redundancy: float) -> Tensor:
    """Return the numbers, ascending, of `count` neurons, chosen greedily from values (N, C) and classes (N,).

    The next neuron is the one whose share of variance between the classes, less `redundancy` times its mean |correlation|
    with those chosen before, is largest.
    """
    power, alike = between_classes(values, labels), correlation_sizes(values)
    chosen: list[int] = []
    for _ in range(count):
        gain = power - (redundancy * alike[:, chosen].mean(1) if chosen else 0.0)
        gain[chosen] = -torch.inf
        chosen.append(int(gain.argmax()))
    return torch.tensor(chosen).sort().values


def between_classes(values: Tensor, labels: Tensor) -> Tensor:
    """Return the share of each neuron's variance between the classes, (C,), in 0..1, of values (N, C)."""
    centred = (values - values.mean(0)).double()
    _, places = labels.unique(return_inverse=True)
    member = functional.one_hot(places).double()
    sums = member.T @ centred
    between = (sums.square() / member.sum(0)[:, None]).sum(0)
    return between / centred.square().sum(0).clamp(min=TINY)


def correlation_sizes(values: Tensor) -> Tensor:
    """Return the absolute correlations of neurons, (C, C), of values (N, C); 0 for one that is constant."""
    centred = (values - values.mean(0)).double()
    units = centred / centred.square().sum(0).sqrt().clamp(min=TINY)
    return (units.T @ units).abs()
