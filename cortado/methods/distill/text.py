"""distill/text: train a decoder on the teacher's tokens, for texts that the network writes itself (on-policy distillation)."""

from copy import copy
from dataclasses import dataclass, replace
from typing import Any

from cortado.errors import BadValue
from cortado.knobs.nested import flat_knobs
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves, Need
from cortado.network.view import View
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Task
from cortado.training.objectives.logits import FORWARD, JENSEN, REVERSE, Logits
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.training.own_texts import OwnTexts, TextWriter, check_decoders, tokens_in_inputs
from cortado.training.teachers import check_teacher, teachers_of
from cortado.training.training import Training

TOKENS = Need(
    "token numbers as inputs",
    lambda method, view, task: len(tokens_in_inputs(task.example, method.name())[0]),
    "use distill/logits",
)


@flat_knobs
@dataclass(frozen=True)
class DistillText(Method):
    """loss = hard x task loss + T^2 x divergence of the teacher's tokens and the network's, on data and on own texts.

    Agarwal et al., 2024 (generalized knowledge distillation). A share `on_policy` of the batches is written by the network as
    it is at that step, from the first tokens of the training sequences; no gradient passes through the drawing, and labels
    do not count there. So the teacher corrects what the network will say itself. `direction: reverse` is MiniLLM's
    divergence (Gu et al., 2024), `jensen` stands between. Inputs are token numbers (N, L), or a dict of input_ids and
    attention_mask; outputs are logits (N, L, vocabulary), or as `outputs` of the task says. Sequences are run as a whole for
    each new token.
    """

    trains = True
    needs = (TOKENS, LEARNS)
    leaves = (Leaves.FLOATS,)

    training: Training = knob(Training(), help="how to train")
    teacher: Any = knob("original", help=SEVERAL, check=check_teacher)
    on_policy: float = knob(0.5, low=0.0, high=1.0, help="share of the batches that the network writes itself")
    direction: str = knob(FORWARD, one_of=(FORWARD, REVERSE, JENSEN), help="which divergence of the two softmaxes")
    temperature: float = knob(1.0, low=0.05, help="softmax temperature T of both outputs")
    prompt: int | None = knob(None, low=1, help="tokens of each sequence that are kept; if none is given, half of them")
    new_tokens: int | None = knob(
        None, low=1, help="tokens that are written; if none is given, up to the sequences' length"
    )
    sampling_temperature: float = knob(1.0, low=0.05, help="softmax temperature at which the network writes")
    end: int | None = knob(None, low=0, help="number of the token that ends a text; what follows does not count")
    hard: float = knob(0.0, low=0.0, help="weight of the task's own loss, on batches of the data")

    def apply(self, view: View, task: Task) -> None:
        # A pattern that selects nothing is the first thing to mend.
        view.weights(self.where)
        kind = Tokens() if isinstance(task.outputs, Automatic) else task.outputs
        writer = TextWriter(kind, self.prompt, self.new_tokens, self.sampling_temperature, self.end, self.name())
        teachers = teachers_of(self.teacher, view)
        check_decoders(view.network, teachers, writer, task.example)
        texts, train = OwnTexts(view.network, writer, self.on_policy, task.train.vary), task.train
        if self.on_policy:
            self.check_whole()
            train = copy(task.train)
            train.vary = texts.vary
        learned = LabelsOfData(self.hard, texts), Logits(1.0, self.temperature, self.direction)
        learn(view, replace(task, train=train, outputs=kind), self.training, learned, teachers, self.where, self.name())
        if self.on_policy:
            view.notes.append(f"the network wrote {texts.written} of {texts.batches} batches itself")

    def check_whole(self) -> None:
        """Raise BadValue for a training in which no process has the whole network."""
        if self.training.shard:
            raise BadValue(
                f"{self.name()}: shard must be false, because a split network cannot write texts, got true. "
                "Set shard: false, or on_policy: 0."
            )


@dataclass(frozen=True)
class LabelsOfData(Objective):
    """The task's loss, for batches that the network did not write itself."""

    texts: OwnTexts | None = knob(None, help="what knows who wrote the last batch")

    def terms(self, step: TrainingStep) -> Terms:
        own = self.texts is not None and self.texts.own
        return {} if own else {"task": step.loss(step.outputs, step.targets)}
