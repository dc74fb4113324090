"""conditional/ponder: stages whose samples or positions pass as many blocks as they need."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.prune.blocks import taken
from cortado.network.graph.record import Shape
from cortado.network.profile.execution import rows_run
from cortado.network.view import View
from cortado.parts.blocks.block import Block, blocks_in
from cortado.parts.blocks.exit import CHANNEL_AXIS
from cortado.parts.blocks.ponder import BY, POSITION, SAMPLE, Ponder
from cortado.task.task import Task
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.ponder import PonderCost
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import check_teacher
from cortado.training.training import Training

MAP = 4
"""The axes of (N, C, H, W)."""
BATCH = 128


@dataclass(frozen=True)
class Halts:
    """A chain of blocks: its path, and the shape of the values between them."""

    path: str
    shape: Shape


def stages_for(method: Any, view: View, task: Task) -> list[Halts]:
    """Return the chains whose blocks but the first keep their shape, and whose matrices `where` selects."""
    chosen = {weight.path for weight in view.weights(method.where)}
    blocks, found = set(view.blocks), []
    for path in dict.fromkeys(block.rpartition(".")[0] for block in view.blocks):
        stage = view.network.get_submodule(path)
        inside = [f"{path}.{name}".lstrip(".") for name, _ in stage.named_children()]
        chain = type(stage).forward is nn.Sequential.forward and len(inside) > 1 and not isinstance(stage, Block)
        if chain and path and blocks.issuperset(inside[1:]) and taken(view, path, chosen):
            shape = view.graph.of(inside[-1])[0].outputs[0]
            if len(shape) in CHANNEL_AXIS and (method.by == SAMPLE or len(shape) == MAP):
                found.append(Halts(path, shape))
    return found


STAGES = Need(
    "a stage (an nn.Sequential of two blocks or more, of which all but the first return the shape that they read)",
    stages_for,
    "put the blocks of a stage into an nn.Sequential",
)


@flat_knobs
@dataclass(frozen=True)
class ConditionalPonder(Method):
    """Let each sample (Graves, 2016), or position of a map (Figurnov et al., 2017), halt after some block of a stage.

    A score after each block is added up, and where the sum reaches 1 the place is done; the output is the sum of what the
    blocks gave, weighted by the scores. `tau` is the cost of a block and of the remainder: the loss gains tau times their
    mean over places. All is trained with the teacher. Samples that halted gain time wherever blocks run for chosen rows;
    positions only in wide layers, with few places left.
    """

    trains = True
    needs = (STAGES,)
    leaves = (Leaves.FLOATS, Leaves.HALTING)

    training: Training = knob(Training(), help="how to train the network with its scores")
    by: str = knob(SAMPLE, one_of=BY, help="what halts: whole samples, or each position of a map")
    tau: float = knob(0.005, low=0.0, help="weight of the ponder cost, in blocks")
    kernel: int = knob(3, low=1, high=3, help="width of the convolution in the scores of positions: 1 or 3")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)
    temperature: float = knob(4.0, low=0.05, help="softmax temperature of both outputs")
    hard: float = knob(0.3, low=0.0, help="weight of the task's own loss")
    soft: float = knob(0.7, low=0.0, help="weight of the teacher's outputs")

    def apply(self, view: View, task: Task) -> None:
        stages = STAGES.require(self, view, task)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            for stage in stages:
                inner = view.network.get_submodule(stage.path)
                channels = stage.shape[CHANNEL_AXIS[len(stage.shape)]]
                view.wrap(stage.path, Ponder(inner, len(stage.shape), channels, self.by, 1 if self.kernel < 3 else 3))
        learned = [TaskLoss(self.hard), Logits(self.soft, self.temperature), PonderCost(self.tau)]
        learn(view, task, self.training, learned, self.teacher, self.where, self.name())
        self.tell(view, task, stages)

    def tell(self, view: View, task: Task, stages: list[Halts]) -> None:
        """Note how many blocks places pass on validation data."""
        ran = rows_run(view.network, (inputs for inputs, _ in task.validation.batches(BATCH)))
        placed = {path: block for path, block in blocks_in(view.network) if isinstance(block, Ponder)}
        for stage in stages:
            block = placed[stage.path]
            passed = 1 + sum(float(ran[id(choice)].mean()) for choice in block.ponder_choices)
            places = "a position" if self.by == POSITION else "a sample"
            view.notes.append(f"{stage.path}: {places} passes {passed:.2f} of {block.blocks} blocks on average")
