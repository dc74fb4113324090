"""Teachers: networks whose outputs and inner layers train another one."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadRecipe, BadTask, in_own_code
from cortado.knobs.knob import SHORT
from cortado.nets.catalog import NETWORKS
from cortado.nets.named import check_keys, named_network
from cortado.network.view import View
from cortado.running.devices import on_device, training_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import pick, shape_text, to_device
from cortado.task.measure import scored_outputs
from cortado.task.metric import correct
from cortado.task.outputs.outputs import first_floats_of
from cortado.task.task import Task
from cortado.training.objectives.objective import Observed
from cortado.training.precision import Precision, floats_in_float32, half_precision
from cortado.training.taps import TapHooks
from cortado.training.trees import joined

SLICE = 32
"""Images per teacher batch on a CPU: few enough for its activations to stay in cache."""
FROM_THE_RUN = ("original", "before")
"""Names of teachers that a run has itself."""
MANY, SCORED = 500, 256
"""A teacher that is right on so many validation samples is suspect; samples that are scored at once."""
FEW = 200
"""With fewer validation samples, nothing is noted about a teacher's score."""


class Teachers:
    """Frozen copies of the teachers on a device, in eval mode: a teacher may be the user's network, which stays as it is."""

    def __init__(
        self,
        networks: Sequence[nn.Module],
        taps: Sequence[str],
        precision: str,
        device: torch.device,
        learner: nn.Module | None = None,
    ) -> None:
        """`taps`: paths in the first teacher. `learner`: what alone will change; parameters apart from its own are shared."""
        copies = [frozen_copy(one, learner).to(device).eval().requires_grad_(False) for one in networks]
        # Teachers only run forward, where even a shallow network gains from bfloat16.
        half = any(half_precision(one, precision, device, deep=1) for one in copies)
        self.networks, self.precision = copies, Precision(device, half, half)
        self.taps = [TapHooks(one, taps if number == 0 else (), "the teacher") for number, one in enumerate(copies)]

    def observe(self, inputs: Any) -> tuple[Observed, ...]:
        """Return what each teacher gives for a batch on its device, without gradients.  Raises BadTask if one cannot take it."""
        where = f"task: the teacher, on inputs of {shape_text(inputs)},"
        with torch.no_grad(), in_own_code(BadTask, where, "Prepare them as the teacher needs, or choose another."):
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


def frozen_copy(network: nn.Module, learner: nn.Module | None) -> nn.Module:
    """Return a copy that shares the memory of all parameters that are not the learner's; without a learner of none."""
    shared: dict[int, Any] = {}
    if learner is not None:
        moving = {one.untyped_storage().data_ptr() for one in (*learner.parameters(), *learner.buffers())}
        shared = {
            id(one): nn.Parameter(one.detach(), requires_grad=False)
            for one in network.parameters()
            if type(one) is nn.Parameter and not vars(one) and one.untyped_storage().data_ptr() not in moving
        }
    return copy.deepcopy(network, shared)


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


def check_teacher(named: Any, where: str) -> None:
    """Raise BadRecipe for what names no teacher, before anything runs.  A maker's module is not imported here."""
    if isinstance(named, (tuple, list)) and named:
        for one in named:
            check_teacher(one, where)
        return
    if isinstance(named, Mapping):
        check_keys(named, f"{where}: teacher")
    inner = named["network"] if isinstance(named, Mapping) else named
    own = () if isinstance(named, Mapping) else FROM_THE_RUN
    if isinstance(inner, str) and ":" not in inner and inner not in (*own, *NETWORKS):
        near = get_close_matches(inner, (*own, *NETWORKS), cutoff=0.5)
        meant = f" Did you mean {' or '.join(near)}?" if near else ""
        raise BadRecipe(
            f"{where}: no teacher is called {inner!r}.{meant} Write {''.join(f'{one}, ' for one in own)}a built-in network or "
            "package.module:maker."
        )
    if not isinstance(inner, str) and not callable(inner):
        raise BadRecipe(
            f"{where}: a teacher is a network or its name, got {SHORT.repr(inner)}. "
            "Write original, before or package.module:maker."
        )


def teacher_of(named: Any, view: View, found: nn.Module) -> nn.Module:
    """Return one teacher; the network as the stage found it is copied."""
    if isinstance(named, str) and named in FROM_THE_RUN:
        return view.original if named == "original" else copy.deepcopy(found)
    return named_network(named, "teacher")


def teacher_note(named: Mapping[str, Any]) -> str:
    """Return which weights a teacher has, with their checksum."""
    path = Path(named["weights"])
    checksum = blake2b(path.read_bytes(), digest_size=8).hexdigest() if path.is_file() else "missing"
    return f"teacher {named.get('network')} with the weights of {path.name}, checksum {checksum}"


def notes_on_teachers(teachers: Sequence[nn.Module], view: View, task: Task) -> list[str]:
    """Return notes on teachers that seem to know the validation data, and on those that answer them by chance.

    Trials are silent on the original network.
    """
    count = len(task.validation)
    asked = [one for one in teachers if not (task.trial and one is view.original)] if count >= FEW else []
    found = [share for share in (right_share(one, task) for one in asked) if share is not None]
    notes = [
        f"the teacher answers {100 * one.share:.1f} % of the {count:,} validation samples right, which is no better than chance "
        f"with {one.classes} classes: it seems untrained, or its classes have another order. Give it weights, as in "
        "teacher: {network: maker, weights: file}"
        for one in found
        if one.by_chance
    ]
    if count >= MANY and any(one.share == 1 for one in found):
        notes.append(
            f"the teacher answers all {count:,} validation samples right, so it may have been trained on them: scores on them "
            "flatter it and what learns from it"
        )
    return notes


@dataclass(frozen=True)
class RightShare:
    """The share of samples that a network answers right, and the number of classes; 0 where they are not known."""

    share: float
    classes: int

    @property
    def by_chance(self) -> bool:
        """Return whether guesses are as good: at most half more than 1 / classes, and nearly nothing of the rest."""
        chance = 1 / max(1, self.classes)
        return self.classes > 1 and self.share <= chance + min(0.5 * chance, 0.05 * (1 - chance))


def right_share(network: nn.Module, task: Task) -> RightShare | None:
    """Return how often a network is right on the validation data; None where it is neither always right nor by chance.

    It reads on only until that is clear. None too for a metric that is not 0 or 1 per sample, and for a teacher of another
    task, whose outputs the metric does not fit.
    """
    metric, count = task.metric, len(task.validation)
    if metric.whole is not None or metric.value is not None or not metric.higher_is_better:
        return None
    right, seen, classes = 0, 0, 0
    device = training_device(network, task.device)
    with on_device(network, device), eval_mode(network):
        for inputs, targets in task.validation.batches(SCORED):
            try:
                outputs, rows = scored_outputs(network, to_device(inputs, device), targets, metric)
            except (BadNetwork, BadTask):
                return None
            if not bool(((rows == 0) | (rows == 1)).all()):
                return None
            logits = first_floats_of(outputs)
            classes = logits.shape[1] if logits.dim() == 2 and metric.each is correct else 0
            right, seen = right + int(rows.sum()), seen + len(rows)
            # Even if all others are wrong, it is above chance.
            if right < seen and not RightShare(right / count, classes).by_chance:
                return None
    return RightShare(right / seen, classes)
