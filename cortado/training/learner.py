"""Learner: a network with its objectives: one forward pass gives every term of a batch."""

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask, BadValue, in_own_code
from cortado.running.eval_mode import copied_buffers, keeping_buffers
from cortado.running.trees import shape_text
from cortado.task.ignored import ignored_label
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.outputs import Outputs, float_parts
from cortado.task.task import Task
from cortado.training.batches import Drawn, TrainingBatch
from cortado.training.distributed import Processes
from cortado.training.objectives.objective import UNLABELLED, Objective, Observed, TrainingStep, no_teachers, own_rows
from cortado.training.players import Opponent, detached
from cortado.training.precision import Precision, floats_in_float32
from cortado.training.taps import TapHooks


class Learner(nn.Module):
    """Runs a batch and returns the weighted sum of all terms, with its gradient, and each term without one.

    It holds the network as it runs and the modules that objectives learn along, so that all that gets a gradient is inside.
    `number` and `progress` of the training are set before each batch.
    """

    def __init__(
        self,
        runner: nn.Module,
        objectives: Sequence[Objective],
        precision: Precision,
        task: Task,
        label: str,
    ) -> None:
        """`runner`: the network with low-rank weights as factors."""
        super().__init__()
        self.objectives = [one for one in objectives if one.weight]
        if not self.objectives:
            raise BadValue(f"{label}: there is nothing to learn from. Write objectives: [task], or a weight above 0.")
        self.precision, self.task, self.label = precision, task, label
        self.number, self.progress = 0, 0.0
        self.ask: Callable[[Any], tuple[Observed, ...]] = no_teachers
        self.gathered: Callable[[Tensor], Tensor] = own_rows
        self.along = nn.ModuleList(nn.ModuleDict() for _ in self.objectives)
        self.opponents: list[list[Opponent]] = [[] for _ in self.objectives]
        self.run_on(runner)

    def run_on(self, runner: nn.Module) -> None:
        """Learn with this network from now on."""
        hooks = TapHooks(runner, [tap for one in self.objectives for tap in one.taps().network], "the network")
        self.runner, self.hooks = runner, hooks

    def make_modules(self, batches: Drawn, group: Processes) -> list[nn.Parameter]:
        """Let the objectives make their modules from first batches; return the parameters that move with the network."""
        moved: list[nn.Parameter] = []
        with keeping_buffers(self.runner), torch.no_grad():
            steps = self.steps(batches)
        for number, objective in enumerate(self.objectives):
            made = {
                name: one.to(self.precision.device).train()
                for name, one in objective.modules(detached_step(steps[read_by(objective, steps)])).items()
            }
            self.along[number] = nn.ModuleDict(made)
            players = objective.opponents()
            self.opponents[number] = [Opponent(objective, one, made, group) for one in players]
            against = {name for one in players for name in one.modules}
            moved += [one for name, module in made.items() if name not in against for one in module.parameters()]
        return moved

    def forward(self, batches: Drawn) -> tuple[Tensor, dict[str, Tensor]]:
        steps = self.steps(batches)
        values: dict[str, Tensor] = {}
        total: Tensor | None = None
        for objective, along, opponents in zip(self.objectives, self.along, self.opponents, strict=True):
            read = read_by(objective, steps)
            own = replace(steps[read], modules=dict(along.named_children()), figures={})
            for one in opponents:
                add_terms(values, one.step(detached_step(own), self.number), objective)
            terms = self.terms_of(objective, own)
            # Processes' shares of a batch differ in size: the mean over processes is the mean over samples.
            share = batches[read].share
            drawn = {name: share * value.detach() for name, value in (terms | own.figures).items()}
            add_terms(values, drawn, objective)
            for value in terms.values():
                part = objective.weight * share * value
                total = part if total is None else total + part
        if total is None:
            raise BadValue(f"{self.label}: the objectives have no terms.")
        if torch.is_grad_enabled() and not total.requires_grad:
            raise BadValue(
                f"{self.label}: the loss has no gradient: its terms ({', '.join(values)}) do not depend on anything that "
                "trains. Compute it from the outputs with differentiable functions (not argmax, detach or numpy)."
            )
        return total, values

    def terms_of(self, objective: Objective, step: TrainingStep) -> dict[str, Tensor]:
        """Return an objective's terms.  Raises BadValue where it fails or returns anything but single numbers by name."""
        where = f"{self.label}: the objective {type(objective).__name__}"
        with in_own_code(BadValue, where, "Fix its terms."):
            terms = objective.terms(step)
        if not isinstance(terms, Mapping):
            raise BadValue(f"{where}: terms must return a dict of scalar tensors, got {type(terms).__name__}.")
        for name, value in {**terms, **step.figures}.items():
            if not isinstance(value, Tensor) or value.numel() != 1:
                raise BadValue(
                    f"{where}: the term {name!r} must be one number, a mean over the batch, got {shape_text(value)}. "
                    "Return a tensor of a single number, such as losses.mean()."
                )
        return dict(terms)

    def steps(self, batches: Drawn) -> dict[str, TrainingStep]:
        """Return what the objectives see of each batch, which runs once."""
        return {name: self.seen(name, batch) for name, batch in batches.items()}

    def seen(self, name: str, batch: TrainingBatch) -> TrainingStep:
        where = f"{self.label}: the network, on {name} inputs of {shape_text(batch.inputs)},"
        named = in_own_code(BadNetwork, where, "Prepare them like the training inputs.")
        with named if name == UNLABELLED else contextlib.nullcontext():
            first = self.observed(batch.inputs)
        return TrainingStep(
            batch.inputs, batch.targets, first.outputs, first.taps, batch.teachers, self.progress, {}, self.again, self.loss,
            self.label, stated_kind(self.task, first.outputs), ignored_label(self.task.loss), self.ask,
            gathered=self.gathered,
        )  # fmt: skip

    def observed(self, inputs: Any) -> Observed:
        outputs = self.precision.run(self.runner, inputs)
        return Observed(outputs, floats_in_float32(self.hooks.collect()))

    def again(self, inputs: Any) -> Observed:
        """Run the network once more; running statistics stay."""
        with copied_buffers(self.runner):
            return self.observed(inputs)

    def loss(self, outputs: Any, targets: Any) -> Tensor:
        """Return the task's loss.  Raises BadTask if it cannot be computed."""
        where = (
            f"{self.label}: the task's loss, on outputs of {shape_text(outputs)} and targets of {shape_text(targets)},"
        )
        with in_own_code(BadTask, where, "Check labels, shapes and loss."):
            return self.task.loss(outputs, targets)


def detached_step(step: TrainingStep) -> TrainingStep:
    """Return a step whose outputs and taps have no gradients."""
    return replace(step, outputs=detached(step.outputs), taps=detached(step.taps))


def read_by(objective: Objective, steps: Mapping[str, TrainingStep]) -> str:
    """Return the name of the data whose step an objective sees: its own, or any if it reads none."""
    return objective.data if objective.data in steps else next(iter(steps))


def add_terms(values: dict[str, Tensor], terms: Mapping[str, Tensor], objective: Objective) -> None:
    """Add terms under names of their own: "features", "features 2", "features, unlabelled"."""
    for term, value in terms.items():
        name, number = objective.drawn_as(term), 1
        own = name
        while own in values:
            number += 1
            own = f"{name} {number}"
        values[own] = value


def stated_kind(task: Task, outputs: Any) -> Outputs | None:
    """Return the kind of outputs where the task says it or there are several; None for one tensor of logits."""
    stated = type(task.outputs) is not Automatic
    return task.outputs if stated or len(float_parts(outputs)) > 1 else None
