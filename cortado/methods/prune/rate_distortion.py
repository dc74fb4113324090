"""prune/rate_distortion: train quantized weights with their estimated bits as a penalty."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cortado.knobs.nested import flat_knobs
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.prune.bits import as_planes, bits_of_levels, nonzero_cost
from cortado.methods.prune.units import PruneUnits
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.learned_step import LearnedStep
from cortado.task.task import Task
from cortado.training.learning import only_learning
from cortado.training.loop import train
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.objective import Added, Objective, TrainingStep
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import check_teacher, notes_on_teachers, teachers_of
from cortado.training.training import Training

TEMPERATURE = 2.5


@flat_knobs
@dataclass(frozen=True)
class PruneRateDistortion(Method):
    """Rate-distortion training: loss + strength x estimated bits of the file, over weights rounded to a learned step.

    The single knob `strength` controls sparsity, structure and precision together. Combines entropy-penalised training
    (Oktay et al., 2020) with the learned step of LSQ (Esser et al., 2020). The cost of a nonzero follows the rows,
    columns and kernels as they empty out, and dead units are removed on the way. A final phase freezes the zeros and
    pulls weights towards their rounded values until they converge.
    """

    lossy = True
    trains = True
    leaves = (Leaves.FLOATS, Leaves.ZEROS, Leaves.CODES, Leaves.NARROWER)

    strength: float = knob(1e-5, low=0.0, high=1.0, help="loss that one bit of the file is worth")
    training: Training = knob(
        Training(epochs=10.0, lr=2e-3, average=0.2, warmup=0.02),
        help="how to train with the penalty; steps learn at lr too",
    )
    finish: float = knob(3.0, low=0.0, help="epochs of the final phase with frozen zeros, at a quarter of lr")
    step: float = knob(0.5, low=0.01, high=10.0, help="initial rounding step, in standard deviations of the layer")
    pull: float = knob(1e-4, low=0.0, help="final strength of the pull towards rounded values")
    teacher: Any = knob(
        None,
        help="original, before, a maker, {network, options, weights}, a network, several; or none",
        check=check_teacher,
    )
    soft: float = knob(0.7, low=0.0, high=1.0, help="weight of the distillation loss, at temperature 2.5")
    bias: bool = knob(True, help="quantize biases too, with the step of their layer, and count their bits")

    def apply(self, view: View, task: Task) -> None:
        # Units are found between epochs by tracing the network on the example, which is on the CPU.
        task = replace(task, device="cpu")
        teachers = [] if self.teacher is None else teachers_of(self.teacher, view)
        view.notes += notes_on_teachers(teachers, view, task)
        weights = self.enter(view)
        with only_learning(view, None if self.where == "*" else weights):
            self.train_rate(view, task, weights, teachers)
            freeze_zeros(weights)
            self.train_finish(view, task, weights, teachers)
        for weight in weights:
            weight.set_form(weight.form.finalize())
        PruneUnits(where=self.where).sweep(view)

    def enter(self, view: View) -> list[Weight]:
        """Turn the chosen weights and their biases into latent ones with one step per layer."""
        steps: dict[str, nn.Parameter] = {}
        chosen = view.pieces(self.where)
        for weight in chosen:
            # A single number has no standard deviation.
            spread = float(weight.dense().std() if weight.shape.numel() > 1 else weight.dense().abs()) or 1e-3
            values = weight.dense()
            steps[weight.layer_path] = nn.Parameter(values.new_tensor([self.step * spread]))
            support = weight.form.support()
            weight.set_form(LearnedStep(values, steps[weight.layer_path]))
            if support is not None:
                weight.select(support)
        if not self.bias:
            return chosen
        for weight in view.all_weights:
            if weight.layer_path in steps and weight.name.startswith("bias"):
                weight.set_form(LearnedStep(weight.dense(), steps[weight.layer_path]))
                chosen.append(weight)
        return chosen

    def train_rate(self, view: View, task: Task, weights: list[Weight], teachers: Sequence[nn.Module]) -> None:
        costs = NonzeroCosts(weights)
        sweep = PruneUnits(where=self.where, sort=False)

        def after_epoch(network: nn.Module, epoch: int) -> bool:
            # Each removal restarts the optimizer, so do not remove units at every epoch.
            removed = sweep.sweep(view) if epoch & (epoch - 1) == 0 else 0
            costs.refresh()
            return removed > 0

        trained = train(
            view.network, task, self.training, objectives=self.objectives(lambda step: self.strength * costs.bits()),
            teachers=teachers, groups=self.groups, seed=task.seed, label=f"{self.name()}: rate", progress=view.progress,
            after_batch=lambda network, step: costs.refresh() if step % 50 == 0 else None, after_epoch=after_epoch,
        )  # fmt: skip
        view.curves |= {f"{name}, with the penalty": values for name, values in trained.curves.items()}
        view.notes += trained.traffic.notes()
        sweep.sweep(view)

    def train_finish(self, view: View, task: Task, weights: list[Weight], teachers: Sequence[nn.Module]) -> None:
        if self.finish == 0:
            return
        forms = [weight.form for weight in weights]

        def bits(step: TrainingStep) -> Tensor:
            levels = torch.cat([one.flatten() for form in forms if (one := form.float_levels()) is not None])
            rest = ((levels - levels.detach().round()) ** 2).sum()
            return self.strength * bits_of_levels(levels, torch.ones(())) + self.pull * step.progress * rest

        slower = replace(self.training, epochs=self.finish, lr=self.training.lr / 4, average=0.3, warmup=0.0)
        trained = train(
            view.network, task, slower, objectives=self.objectives(bits), teachers=teachers, groups=self.groups,
            seed=task.seed + 1, label=f"{self.name()}: finish", progress=view.progress,
        )  # fmt: skip
        view.curves |= {f"{name}, final phase": values for name, values in trained.curves.items()}
        view.notes += trained.traffic.notes()

    def objectives(self, bits: Callable[[TrainingStep], Tensor]) -> tuple[Objective, ...]:
        """Return the task's loss, the teachers' logits if there are teachers, and the bits of the file."""
        if self.teacher is None:
            return (TaskLoss(), Added(title="bits", value=bits))
        return (TaskLoss(1.0 - self.soft), Logits(self.soft, TEMPERATURE), Added(title="bits", value=bits))

    def groups(self, network: nn.Module) -> Iterable[dict[str, Any]]:
        """Yield the parameter groups: steps have no weight decay."""
        steps = {id(value) for name, value in network.named_parameters() if name.endswith(".step")}
        learning = [p for p in network.parameters() if p.requires_grad]
        return [
            {"params": [p for p in learning if id(p) not in steps]},
            {"params": [p for p in learning if id(p) in steps], "weight_decay": 0.0},
        ]


class NonzeroCosts:
    """The cost of a nonzero at each place of each latent weight, updated with the current zeros."""

    def __init__(self, weights: list[Weight]) -> None:
        self.weights = weights
        self.refresh()

    def refresh(self) -> None:
        self.forms = [weight.form for weight in self.weights]
        with torch.no_grad():
            self.costs = [nonzero_cost(levels.round() != 0) for levels in self.levels()]

    def levels(self) -> list[Tensor]:
        """Return the values of each latent weight in steps of its grid, as planes."""
        return [as_planes(levels) for form in self.forms if (levels := form.float_levels()) is not None]

    def bits(self) -> Tensor:
        """Return the estimated bits of all weights: a scalar with a gradient."""
        pairs = zip(self.levels(), self.costs, strict=True)
        return torch.stack([bits_of_levels(levels, cost) for levels, cost in pairs]).sum()


def freeze_zeros(weights: list[Weight]) -> None:
    """Keep the weights that round to zero there; the others stay latent."""
    for weight in weights:
        levels = weight.form.float_levels()
        if levels is not None:
            weight.select(levels.detach().round() != 0)
