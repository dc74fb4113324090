"""conditional/exits: heads on inner layers, which answer for samples that are sure early."""

from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from cortado.errors import BadNetwork
from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves, Need
from cortado.network.graph.record import Call
from cortado.network.view import View
from cortado.parts.blocks.block import brought_along
from cortado.parts.blocks.exit import CHANNEL_AXIS, Exit, exit_head, head_name
from cortado.parts.blocks.rows import RULES
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.task import Task
from cortado.training.objectives.exits import Exits
from cortado.training.teachers import check_teacher
from cortado.training.training import Training


def classes_of(view: View) -> int:
    """Return the number of classes; 0 for outputs that are not one tensor (samples, classes)."""
    with eval_mode(view.network):
        outputs = call(view.network, to_device(view.example, own_device(view.network)))
    return outputs.shape[1] if isinstance(outputs, Tensor) and outputs.dim() == 2 and outputs.shape[1] > 1 else 0


def refusal(one: Call, view: View) -> str:
    """Return why samples cannot leave after a call; "" if they can."""
    if len(view.graph.of(one.path)) > 1:
        return "it runs more than once"
    if not one.tensor or len(one.outputs[0]) not in CHANNEL_AXIS or one.outputs[0][0] != view.graph.batch:
        shapes = ", ".join(str(shape) for shape in one.outputs) or "no tensor"
        return (
            f"it returns {shapes}, and a head reads one tensor (samples, channels), (samples, places, channels) or (samples, "
            "channels, height, width)"
        )
    return ""


def middle_place(method: Any, view: View, task: Task | None = None) -> str:
    """Return the module in the middle of those after which samples can leave, by calls; "" without one."""
    if not classes_of(view):
        return ""
    # After the last two layers nothing would be saved.
    own = brought_along(view.network)
    calls = [one for one in view.graph.calls if one.path and id(one.layer) not in own]
    possible = [one.path for one in calls if not refusal(one, view)][:-2]
    return possible[len(possible) // 2] if possible else ""


LEAVES_AFTER = Need(
    "one output (samples, classes), and a module before the end after which samples can leave", middle_place,
    "name modules with at",
)  # fmt: skip


@flat_knobs
@dataclass(frozen=True)
class ConditionalExits(Method):
    """Put early exits after modules of any trained network, and train them.  BranchyNet, Teerapittayanon et al., 2016.

    By default the heads learn alone, from the labels and from the network's own last answer, and the network stays as it is;
    with `joint` everything learns. At first every sample goes to the end: conditional/thresholds, the last stage, says who
    leaves. An exit pays if the share of samples that leave there is larger than its part of the work from there on: on deep
    networks after half of them or later. A small network in front (conditional/cascade) mostly does better.
    """

    trains = True
    needs = (LEAVES_AFTER, LEARNS)
    leaves = (Leaves.FLOATS,)

    training: Training = knob(Training(), help="how to train")
    at: str = knob("", help="modules after which samples may leave, with commas; empty: the middle of the network")
    convolutions: int = knob(
        2, low=0, high=3, help="convolutions of stride 2 in each head; 0 for values that are no pictures"
    )
    width: int = knob(64, low=1, help="their channels")
    joint: bool = knob(False, help="true: train the whole network along with the heads")
    distill: float = knob(
        0.5, low=0.0, high=1.0, help="share that heads learn from the last answer instead of the labels"
    )
    temperature: float = knob(3.0, low=0.05, help="softmax temperature of that")
    rule: str = knob("top", one_of=RULES, help="confidence: the largest probability, or its distance from the second")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)

    @property
    def places(self) -> list[str]:
        """Return the paths of the modules, in the order of the knob."""
        return [path.strip() for path in self.at.split(",") if path.strip()]

    def apply(self, view: View, task: Task) -> None:
        view.weights(self.where)
        classes = classes_of(view)
        places = self.places or [LEAVES_AFTER.require(self, view, task)]
        found = sorted((self.call_of(view, path) for path in places), key=lambda one: one.index)
        for one in reversed(found):
            # The earliest stands outermost: what follows it holds the others.
            view.wrap("", self.exit_after(one, view, classes))
        heads = ", ".join(f"{head_name(one.path)}.*" for one in found)
        # Every exit hands the last answer on, which counts once.
        learned = Exits(weights=(1.0, 1.0 / len(found)), distill=self.distill, temperature=self.temperature)
        # Heads alone learn from the network as it is: its statistics stay too.
        training = self.training if self.joint else replace(self.training, statistics="kept")
        learn(view, task, training, (learned,), self.teacher, self.where if self.joint else heads, self.name())

    def call_of(self, view: View, path: str) -> Call:
        """Return the one call of a module.  Raises BadNetwork where samples cannot leave after it."""
        calls = view.graph.of(path)
        why = "it never runs" if not calls else refusal(calls[0], view)
        if why:
            near = middle_place(self, view)
            way_out = f"Name another, such as {near}." if near else "Leave the stage out."
            raise BadNetwork(f"{self.name()}: samples cannot leave after {path!r}: {why}. {way_out}")
        return calls[0]

    def exit_after(self, one: Call, view: View, classes: int) -> Exit:
        """Return the exit after a call, on the network's device."""
        shape = one.outputs[0]
        convolutions = min(self.convolutions, int(max(shape[2:], default=1)).bit_length() - 1) if len(shape) == 4 else 0
        made = Exit(
            view.network,
            one.path,
            len(shape),
            shape[CHANNEL_AXIS[len(shape)]],
            classes,
            convolutions,
            self.width,
            self.rule,
        )
        exit_head(made).to(own_device(view.network))
        return made
