"""conditional/gates: gates that let each sample skip residual blocks."""

import copy
import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cortado.knobs.nested import flat_knobs
from cortado.layers.kinds import is_convolution
from cortado.methods.finetune import LEARNS_FROM, TASK_ALONE, TEACHER, write_out
from cortado.methods.learn import learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves, Need
from cortado.methods.prune.blocks import taken
from cortado.network.profile.execution import execution_shares
from cortado.network.view import View
from cortado.parts.blocks.gate import Gate
from cortado.task.task import Task
from cortado.training.objectives.open_share import OpenShare
from cortado.training.training import Training

BATCH = 128


def without_gates(method: Any, view: View, task: Task) -> list[str]:
    """Return the blocks whose matrices and kernels `where` selects, and that have no gate yet."""
    chosen = {weight.path for weight in view.weights(method.where)}
    free = [path for path in view.blocks if not isinstance(view.network.get_submodule(path), Gate)]
    return [path for path in free if taken(view, path, chosen)]


BLOCKS = Need(
    "a block without a gate whose output has the shape of its input, and is no chain of layers",
    without_gates,
    "use prune/channels or prune/weights",
)


@flat_knobs
@dataclass(frozen=True)
class ConditionalGates(Method):
    """Put a gate around residual blocks, so that each sample runs only some of them; gates and network learn together.

    ConvNet-AIG, Veit and Belongie, 2018.
    """

    trains = True
    needs = (BLOCKS, LEARNS)
    leaves = (Leaves.FLOATS, Leaves.GATES)

    training: Training = knob(Training(), help="how to train gates and network")
    target: float = knob(0.6, low=0.0, high=1.0, help="share of the samples that runs each block")
    strength: float = knob(2.0, low=0.0, help="factor of the squared distance from the target in the loss")
    hidden: int = knob(16, low=1, help="hidden units of a gate")
    temperature: float = knob(1.0, low=0.05, help="of a gate's soft answer in training, which its gradient is of")
    start: float = knob(0.85, low=0.01, high=0.99, help="probability with which a gate is open at first")
    samples: int = knob(2048, low=1, help="validation samples on which it is counted how often gates open")
    teacher: float | str | nn.Module | dict[str, Any] | tuple[Any, ...] | list[Any] = knob(
        "original", low=0.0, high=1.0, help=TEACHER
    )
    objectives: tuple[Any, ...] | list[Any] = knob(TASK_ALONE, help=LEARNS_FROM)

    def __post_init__(self) -> None:
        super().__post_init__()
        write_out(self)

    def apply(self, view: View, task: Task) -> None:
        found = copy.deepcopy(view.network)
        gates = self.put(view, BLOCKS.require(self, view, task), task)
        learned = (*self.objectives, OpenShare(self.strength, target=self.target, gates=tuple(gates)))
        import os
        self.standardise(view, task)
        settled = float(os.environ.get("SETTLED", "0.4"))
        for start, end, noise in ((0, 1 - settled, 1.0), (1 - settled, 1, 0.0)):
            if end > start:
                for path in gates: view.network.get_submodule(path).gate_opens.noise = noise
                part = replace(self.training, epochs=self.training.epochs * (end - start), warmup=0.0, schedule=lambda p: 0.5 + 0.5 * math.cos(math.pi * (start + p * (end - start))))
                learn(view, replace(task, seed=task.seed + (start > 0)), part, learned, self.teacher, "*", self.name(), found)
                print(view.curves)
        shares = execution_shares(view.network, (x for x, _ in task.validation.first(self.samples).batches(BATCH)))
        print({k: round(v, 3) for k, v in shares.items()}, sum(shares.values()) / len(shares))

    def put(self, view: View, paths: list[str], task: Task) -> list[str]:
        """Put a gate around the module at each path, and return the paths."""
        shapes = {path: view.graph.of(path)[0].outputs[0] for path in paths}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            for path, shape in shapes.items():
                view.wrap(path, self.around(view.network.get_submodule(path), shape))
        return paths

    def around(self, inner: nn.Module, shape: tuple[int, ...]) -> Gate:
        """Return a gate around a module that returns values of this shape, open with the probability `start`."""
        last = not any(is_convolution(one) for one in inner.modules())
        gate = Gate(inner, shape[-1 if last else 1], self.hidden, last)
        gate.gate_opens.temperature = self.temperature
        nn.init.constant_(gate.gate_opens.decide.bias, math.log(self.start / (1 - self.start)))
        gate.gate_opens.to(next(inner.parameters()))
        return gate

    def standardise(self, view, task):
        from cortado.running.eval_mode import eval_mode
        x, _ = next(task.calibration.batches(512))
        with eval_mode(view.network), torch.no_grad():
            for m in view.network.modules():
                if isinstance(m, Gate):
                    def hook(mod, given):
                        rows = mod.means(given[0])
                        made = mod.read(rows)
                        mod.read.weight.div_(made.std(0)[:, None])
                        mod.read.bias.sub_(made.mean(0)).div_(made.std(0))
                    m._h = m.gate_opens.register_forward_pre_hook(hook)
            view.network(x)
            for m in view.network.modules():
                if isinstance(m, Gate): m._h.remove()
