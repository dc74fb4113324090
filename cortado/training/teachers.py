"""Teachers: networks whose outputs and inner layers train another one."""

import copy
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask
from cortado.nets.named import named_network
from cortado.network.view import View
from cortado.running.devices import on_device, training_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import pick, to_device
from cortado.task.measure import scored_outputs
from cortado.task.task import Task
from cortado.training.objectives.objective import Observed
from cortado.training.precision import Precision, floats_in_float32, half_precision
from cortado.training.taps import TapHooks
from cortado.training.trees import joined

SLICE = 32
"""Images per teacher batch on a CPU: few enough for its activations to stay in cache."""
MANY, SCORED = 500, 256
"""A teacher that is right on so many validation samples is suspect; samples that are scored at once."""


class Teachers:
    """Frozen copies of the teachers on a device, in eval mode: a teacher may be the user's network, which stays as it is."""

    def __init__(
        self, networks: Sequence[nn.Module], taps: Sequence[str], precision: str, device: torch.device
    ) -> None:
        """`taps`: paths in the first teacher."""
        copies = [copy.deepcopy(one).to(device).eval().requires_grad_(False) for one in networks]
        # Teachers only run forward, where even a shallow network gains from bfloat16.
        half = any(half_precision(one, precision, device, deep=1) for one in copies)
        self.networks, self.precision = copies, Precision(device, half, half)
        self.taps = [TapHooks(one, taps if number == 0 else (), "the teacher") for number, one in enumerate(copies)]

    def observe(self, inputs: Any) -> tuple[Observed, ...]:
        """Return what each teacher gives for a batch on its device, without gradients."""
        with torch.no_grad():
            return tuple(
                self.observed(network, taps, inputs) for network, taps in zip(self.networks, self.taps, strict=True)
            )

    def observed(self, network: nn.Module, taps: TapHooks, inputs: Any) -> Observed:
        """Return what one teacher gives; for images on a CPU, slice by slice."""
        sliced = isinstance(inputs, Tensor) and inputs.device.type == "cpu" and inputs.dim() == 4
        starts = range(0, len(inputs), SLICE) if sliced else (0,)
        parts = []
        for start in starts:
            few = pick(inputs, slice(start, start + SLICE)) if sliced else inputs
            outputs = self.precision.run(network, few)
            parts.append(Observed(outputs, floats_in_float32(taps.collect())))
        return parts[0] if len(parts) == 1 else joined(parts)

    def remove(self) -> None:
        """Take the hooks off the copies."""
        for one in self.taps:
            one.remove()


def teachers_of(named: Any, view: View, found: nn.Module | None = None) -> list[nn.Module]:
    """Return the networks for `named`: "original", "before", package.module:maker, the name of a built-in network, {network:
    one of these, options: {...}, weights: file}, a network, or several of those. A note has the checksum of files of weights.

    `found` is the network as the stage found it, where it has changed since. Raises BadRecipe if one cannot be made,
    BadNetwork for weights that do not fit.
    """
    several = named if isinstance(named, (tuple, list)) else (named,)
    for one in several:
        if isinstance(one, Mapping) and one.get("weights"):
            view.notes.append(teacher_note(one))
    return [teacher_of(one, view, view.network if found is None else found) for one in several]


def teacher_of(named: Any, view: View, found: nn.Module) -> nn.Module:
    """Return one teacher; the network as the stage found it is copied."""
    if isinstance(named, str) and named in ("original", "before"):
        return view.original if named == "original" else copy.deepcopy(found)
    return named_network(named, "teacher")


def teacher_note(named: Mapping[str, Any]) -> str:
    """Return which weights a teacher has, with their checksum."""
    path = Path(named["weights"])
    checksum = blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else "missing"
    return f"teacher {named.get('network')} with the weights of {path.name}, checksum {checksum}"


def notes_on_teachers(teachers: Sequence[nn.Module], view: View, task: Task) -> list[str]:
    """Return a note where a teacher seems to know the validation data.  Trials are silent on the original network."""
    count = len(task.validation)
    asked = [one for one in teachers if not (task.trial and one is view.original)] if count >= MANY else []
    if not any(all_right(one, task) for one in asked):
        return []
    return [
        f"the teacher answers all {count:,} validation samples right, so it may have been trained on them: scores on them "
        "flatter it and what learns from it"
    ]


def all_right(network: nn.Module, task: Task) -> bool:
    """Return whether a network answers every validation sample right, by a metric of 0 and 1 per sample.

    It reads on only as long as all are right. A network whose outputs the metric does not fit is a teacher of another task.
    """
    metric = task.metric
    if metric.whole is not None or metric.value is not None or not metric.higher_is_better:
        return False
    device = training_device(network, task.device)
    with on_device(network, device), eval_mode(network):
        for inputs, targets in task.validation.batches(SCORED):
            try:
                _, rows = scored_outputs(network, to_device(inputs, device), targets, metric)
            except (BadNetwork, BadTask):
                return False
            if not bool((rows == 1).all()):
                return False
    return True
