"""distill/hints: first learn a hidden layer of the teacher, then its softened outputs and the labels (FitNets)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cortado.errors import BadNetwork
from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves, Need
from cortado.network.graph.trace import trace
from cortado.network.view import View
from cortado.parts.blocks.block import brought_along
from cortado.task.task import Task
from cortado.training.feeding import Feeding, feeding, only_feeding
from cortado.training.learning import parts_of
from cortado.training.objectives.features import Features
from cortado.training.objectives.layer_pairs import LayerPair, same_places
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.taps import CALL
from cortado.training.teachers import check_teacher, teachers_of
from cortado.training.training import Training


def layers_of_equal_places(method: Any, view: View, task: Task) -> bool:
    """Return True, or raise BadNetwork for a guided layer and a hint layer whose outputs have other places."""
    if method.hint_epochs:
        method.hinted_pair(view, teachers_of(method.teacher, view)[0])
    return True


PLACES = Need(
    "a layer whose outputs have the places of the teacher's", layers_of_equal_places, "name the layers with at and of"
)


@flat_knobs
@dataclass(frozen=True)
class DistillHints(Method):
    """FitNets: hints, then loss = hard x task loss + soft x T^2 x KL(teacher at T || network at T).  Romero et al., 2015.

    The first stage trains only what feeds the guided layer `at`, on the squared error from the teacher's hint layer `of`;
    where the widths differ, a linear regressor is learned along and thrown away. Everything else stays as it is. The second
    stage trains the whole network, while the teacher's term falls. Without `at`, the layers are in the middle of both
    networks, by calls. For networks too deep and thin to learn from labels. The paper's weight of the teacher, 4 falling to
    1 without T^2, is 4/9 here.
    """

    trains = True
    needs = (LEARNS, PLACES)
    leaves = (Leaves.FLOATS,)

    training: Training = knob(Training(), help="how to train, in both stages; epochs are those of the second")
    hint_epochs: float = knob(1.0, low=0.0, help="epochs of the first stage; 0: the second stage alone")
    at: str = knob("", help="the guided layer by path, #2 for its second call; empty: the middle of the network")
    of: str = knob("", help="the hint layer of the first teacher; empty: of the same name, or the middle as for at")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)
    temperature: float = knob(3.0, low=0.05, help="softmax temperature of both outputs")
    hard: float = knob(1.0, low=0.0, help="weight of the task's own loss")
    soft: float = knob(0.44, low=0.0, help="weight of the distillation loss at the start of the second stage")
    falling: float = knob(0.75, low=0.0, high=1.0, help="share of soft that is lost by the end")

    def apply(self, view: View, task: Task) -> None:
        teachers = teachers_of(self.teacher, view)
        if self.hint_epochs:
            self.follow_hints(view, task, teachers)
        learned = TaskLoss(self.hard), Logits(self.soft, self.temperature, falling=self.falling)
        learn(view, task, self.training, learned, teachers, self.where, self.name())

    def follow_hints(self, view: View, task: Task, teachers: Sequence[nn.Module]) -> None:
        """Train the first stage.  Raises BadNetwork for layers that cannot be used, before any training."""
        at, of, guided = self.hinted_pair(view, teachers[0])
        self.check_guided(at, guided, view)
        training = replace(self.training, epochs=self.hint_epochs)
        # The original network's own layer is compared with the channels that survived a cut.
        hints = Features(at=at, of=of if of != at else "")
        with only_feeding(guided):
            learn(view, task, training, (hints,), teachers, self.where, f"{self.name()}, hints")
        view.notes.append(f"guided layer {at}, hint layer {of} of the teacher")

    def hinted_pair(self, view: View, teacher: nn.Module) -> tuple[str, str, Feeding]:
        """Return the guided layer, the hint layer, and what feeds the guided one.  Raises BadNetwork for other places."""
        at, of = self.layers(view, teacher)
        guided, hint = feeding(view.network, at, view.example), feeding(teacher, of, view.example, "the teacher")
        same_places(self.name(), LayerPair(at, of, guided.output, hint.output, None, None))
        return at, of, guided

    def layers(self, view: View, teacher: nn.Module) -> tuple[str, str]:
        """Return the paths of the guided layer and of the hint layer."""
        at = self.at or middle_layer(view.network, view.example)
        # A block may run layers of its own there.
        same = bool(self.at) or (teacher is view.original is view.base and at in dict(teacher.named_modules()))
        return at, self.of or (at if same else middle_layer(teacher, view.example))

    def check_guided(self, at: str, guided: Feeding, view: View) -> None:
        """Raise BadNetwork unless some trainable parameters feed the guided layer, and some do not."""
        chosen = [part for weight in view.weights(self.where) for part in parts_of(weight)]
        known = {id(one) for one in chosen}
        if not any(self.where == "*" or id(one) in known for one in guided.parameters):
            raise BadNetwork(
                f"{self.name()}: nothing that trains feeds the guided layer {at}. Choose a later layer with at, or widen where."
            )
        if not any(one.requires_grad for one in guided.others):
            raise BadNetwork(
                f"{self.name()}: everything that trains feeds the guided layer {at}, so nothing is left for the second stage. "
                "Choose an earlier layer with at, or use finetune with objectives: [task, features]."
            )


def middle_layer(network: nn.Module, example: Any) -> str:
    """Return the layer that runs in the middle of a network, counting calls of layers without inner calls; as a tap."""
    # What blocks bring along, such as scores, is no layer of the network.
    own = brought_along(network)
    calls = trace(network, example).calls
    paths = [call.path for call in calls]
    layers = [call for call in calls if call.path and not any(one.startswith(call.path + ".") for one in paths)]
    inner = [call.path for call in layers if id(call.layer) not in own]
    inner = inner or [call.path for call in layers if any(True for _ in call.layer.parameters())]
    number = (len(inner) - 1) // 2
    if not inner:
        raise BadNetwork("distill/hints: the network has no layers to take a hint from. Use distill/logits.")
    path = inner[number]
    return path if inner.count(path) == 1 else f"{path}{CALL}{inner[: number + 1].count(path)}"
