"""Objective: what a network learns from besides or instead of its labels.  One file per objective."""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, ClassVar

from torch import Tensor, nn

import cortado.training.objectives
from cortado.errors import BadRecipe, BadValue
from cortado.knobs.knob import SHORT, check_knobs, knob
from cortado.knobs.nested import flat_values, knobs_of
from cortado.knobs.reading import Written, read_knobs
from cortado.lookup import lookup_class, names_in
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.task.outputs.outputs import Outputs
from cortado.task.task import Task

TRAIN, UNLABELLED = "train", "unlabelled"
"""The data that objectives read."""
ARGUMENT = "<"
"""In a tap, separates a module's path from the number of what it gets: choose<2 is its second argument."""


@dataclass(frozen=True)
class Taps:
    """Paths of the modules whose outputs an objective reads, of the network and of its first teacher.

    >>> cortado.Taps(network=("layer3", "layer3#2")).teacher
    ()

    "layer3" is the module's only call in one forward pass, "layer3#2" its second. "choose<2" is what a module gets as its
    second argument.
    """

    network: tuple[str, ...] = ()
    teacher: tuple[str, ...] = ()


@dataclass(frozen=True)
class Observed:
    """What one network gave for one batch: its outputs, and those of the tapped modules by path."""

    outputs: Any
    taps: Mapping[str, Any] = field(default_factory=dict)


def own_rows(rows: Tensor) -> Tensor:
    """Return the rows of a training in one process: its own."""
    return rows


def no_teachers(inputs: Any) -> tuple[Observed, ...]:
    """Return what no teachers give."""
    return ()


@dataclass(frozen=True)
class TrainingStep:
    """One batch as an objective sees it.

    >>> def terms(step: cortado.TrainingStep):
    ...     return {"size": step.outputs.square().mean()}

    `outputs` and `taps` are the network's, in float32; `teachers` has what each teacher gave, without gradients;
    `progress` is the share of the training that is done, 0..1; `modules` are those that the objective made. `again(inputs)`
    runs the network once more, and `ask(inputs)` the teachers; `loss(outputs, targets)` is the task's. `label` starts messages.
    `kind` is what the outputs are, where the task says it or the network returns several. `ignored` is the label that the
    task's loss leaves out. Of unlabelled data, `targets` are what the data carry, or None. Scalars that an objective puts into
    `figures` by name are drawn beside its terms and not learned from. `gathered(rows)` returns the rows of all processes, with
    gradients, for what compares the samples of a batch with each other.
    """

    inputs: Any
    targets: Any
    outputs: Any
    taps: Mapping[str, Any]
    teachers: tuple[Observed, ...]
    progress: float
    modules: Mapping[str, nn.Module]
    again: Callable[[Any], Observed]
    loss: Callable[[Any, Any], Tensor]
    label: str = "training"
    kind: Outputs | None = None
    ignored: int = -100
    ask: Callable[[Any], tuple[Observed, ...]] = no_teachers
    figures: dict[str, Tensor] = field(default_factory=dict)
    gathered: Callable[[Tensor], Tensor] = own_rows


Terms = Mapping[str, Tensor]
"""Scalars by name."""


@dataclass(frozen=True)
class Player:
    """Who learns against the network, such as a critic: modules with an optimizer, a loss and a rhythm of their own.

    >>> cortado.Player(("critic",), lambda step: {"critic": (step.modules["critic"])(step.outputs).mean()}, every=2).every
    2

    `modules` names some of the objective's. `terms(step)` is minimised over their parameters alone, on detached outputs and
    taps, before the network's own step, at every `every`-th step. `optimizer` is a name, or a function from parameter groups.
    """

    modules: tuple[str, ...]
    terms: Callable[[TrainingStep], Terms]
    lr: float = 1e-3
    optimizer: str | Callable[[Any], Any] = "adam"
    every: int = 1


@dataclass(frozen=True)
class Objective(Written):
    """One thing that a network learns from at each step.  Its knobs are fields, as a method's are.

    >>> from cortado.training.objectives.logits import Logits
    >>> Logits(temperature=4.0).name()
    'logits'

    A subclass is a frozen dataclass; `terms` returns its scalars, whose sum times `weight` is added to the loss. All else
    is optional. `taught`: it needs a teacher. `recordable`: a step may be replayed as a CUDA graph, because nothing depends
    on `progress` or on values. `labelled`: it needs the task's targets. `reads`: it reads a batch at all.

    With `data: unlabelled` a step is a batch of `Task.unlabelled`: one is drawn at each step and runs through the network once
    for all such objectives, after the batch of training data and apart from it, so that both may differ in size. In training,
    batch norms so normalise each over itself, and both move the running statistics. Names of its terms end in ", unlabelled".
    """

    recordable: ClassVar[bool] = False
    taught: ClassVar[bool] = False
    labelled: ClassVar[bool] = False
    reads: ClassVar[bool] = True

    weight: float = knob(1.0, low=0.0, help="factor of the objective's terms in the loss")
    _: KW_ONLY
    data: str = knob(TRAIN, one_of=(TRAIN, UNLABELLED), help="what it learns from: the task's data of this name")

    def __post_init__(self) -> None:
        check_knobs(self, f"objectives/{self.name()}")
        if self.labelled and self.data == UNLABELLED:
            raise BadValue(
                f"objectives/{self.name()}: it learns from labels, which unlabelled data do not have. Leave out data: "
                "unlabelled, or learn from a teacher, as logits and pseudo_labels do."
            )

    @classmethod
    def name(cls) -> str:
        """Return the name in recipes: the name of the file, or module:Class for a user's own."""
        head, _, tail = cls.__module__.partition("cortado.training.objectives.")
        return tail if tail and not head else f"{cls.__module__}:{cls.__name__}"

    def on(self, view: View, weights: list[Weight], task: Task) -> "Objective":
        """Return the objective for these weights of this network, before the training; itself where it needs none."""
        return self

    def with_teachers(self, teachers: Sequence[nn.Module], view: View, task: Task) -> "Objective":
        """Return the objective for these teachers of the view's network, before the training; itself where it needs none."""
        return self

    def taps(self) -> Taps:
        """Return whose outputs it reads."""
        return Taps()

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        """Return the modules that are learned along, made from a first batch of two samples.

        They are seeded, moved to the device, trained in a parameter group of their own, and thrown away after the stage.
        """
        return {}

    def opponents(self) -> tuple[Player, ...]:
        """Return who learns against the network, with modules of `modules`."""
        return ()

    @abstractmethod
    def terms(self, step: TrainingStep) -> Terms:
        """Return scalars with gradients, by name."""

    def hindrances(self, curves: Mapping[str, Sequence[float]]) -> list[str]:
        """Return sentences on why it could teach little, from the mean of each term and figure in every epoch."""
        return []

    def drawn_as(self, term: str) -> str:
        """Return the name under which a term or figure is drawn: "features", "features, unlabelled"."""
        return term if self.data == TRAIN else f"{term}, {self.data}"

    def as_data(self) -> Any:
        """Return the name, with the knobs that are not at their defaults."""
        known = knobs_of(type(self))
        changed = {name: value for name, value in flat_values(self).items() if value != known[name].default}
        return {self.name(): changed} if changed else self.name()


@dataclass(frozen=True)
class Added(Objective):
    """A term from a function, for callers in Python: `terms` of (title, value(step))."""

    title: str = knob("added", help="the name of the term")
    value: Callable[[TrainingStep], Tensor] | None = knob(None, help="the function")

    def terms(self, step: TrainingStep) -> Terms:
        return {} if self.value is None else {self.title: self.value(step)}


@dataclass(frozen=True)
class AddedPenalty(Added):
    """A term from a function of weights, which reads no batch."""

    reads: ClassVar[bool] = False


def known_objectives() -> dict[str, type[Objective]]:
    """Return the built-in objectives by name."""
    return names_in(cortado.training.objectives, Objective)


def read_objectives(given: Any, where: str) -> tuple[Objective, ...]:
    """Return objectives from instances, names, or {name: {knob: value}}.  Raises BadRecipe, BadValue."""
    several = given if isinstance(given, (tuple, list)) else (given,)
    return tuple(read_objective(one, where) for one in several)


def read_objective(given: Any, where: str) -> Objective:
    """Return one objective: "logits" is the class in objectives/logits.py, "my_pkg.mine:Mine" yours."""
    if isinstance(given, Objective):
        return given
    named = {given: {}} if isinstance(given, str) else given
    if (
        not isinstance(named, dict)
        or len(named) != 1
        or not all(isinstance(one, dict | None) for one in named.values())
    ):
        raise BadRecipe(
            f"{where}: an objective is a name or one name with its knobs, got {SHORT.repr(given)}. "
            "Write objectives: [task, logits: {temperature: 4}]."
        )
    name, knobs = next(iter(named.items()))
    kind = lookup_class(cortado.training.objectives, Objective, str(name))
    made: Objective = kind(**read_knobs(kind, knobs or {}, f"{where}, objective {name}"))
    return made
