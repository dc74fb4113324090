"""finetune: train what the forms leave trainable (remaining weights, shared values, scales, biases)."""

from dataclasses import dataclass

from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import learn
from cortado.methods.learns_from import LearnsFrom
from cortado.methods.needs import LEARNS, Leaves
from cortado.network.view import View
from cortado.task.task import Task


@flat_knobs
@dataclass(frozen=True)
class Finetune(LearnsFrom):
    """Train on the sum of the terms of `objectives`, each times its weight; by default on the task's loss alone.

    Masks, codes and codebook assignments stay fixed; only floats learn. `objectives: [task, logits: {temperature: 4},
    features: {at: layer3}]` learns from the labels, the teacher's outputs and one of its layers. Penalties such as
    group_lasso prepare weights for pruning or factorization afterwards.
    """

    trains = True
    needs = (LEARNS,)
    leaves = (Leaves.FLOATS,)

    def apply(self, view: View, task: Task) -> None:
        learn(view, task, self.training, self.objectives, self.teacher, self.where, self.name())
