"""First look: what a network and its data are, whether they fit each other, and which methods find work there."""

from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import fill, wrap

from torch import nn

from cortado.engine.recipe import known_methods, method_class
from cortado.engine.stage import start, view_of
from cortado.errors import BadNetwork, CortadoError
from cortado.methods.method import Method
from cortado.network.profile.profile import profile
from cortado.progress import Progress, quiet
from cortado.quantities import size_text
from cortado.running.brought import accept
from cortado.running.trees import shape_text
from cortado.table import aligned
from cortado.task.measure import check_calibration, mean_score
from cortado.task.task import Task

SCORED = 2_000
"""Samples of each part that are scored at most."""
KNOWN = 0.5
"""So many points between training and validation score, or fewer, are suspicious where hardly an answer is wrong."""
PERFECT = 99.0
WIDE = 90
"""Letters of a line of reasons."""


@dataclass(frozen=True)
class FirstLook:
    """What a job brings.  `methods`: for each whether it finds work, or the sentence why not; `cuttable`: of its channels."""

    network: str
    parameters: float
    size_bytes: float
    multiply_adds: str
    samples: tuple[int, int, int]
    inputs: str
    metric: str
    unit: str
    train_score: float
    validation_score: float
    cuttable: str
    methods: tuple[tuple[str, str], ...]

    @property
    def known_by_heart(self) -> bool:
        """Return whether the network may have been trained on the validation data."""
        perfect = self.unit == "%" and self.validation_score >= PERFECT
        return perfect and self.validation_score >= self.train_score - KNOWN

    def text(self) -> str:
        """Return all findings as text."""
        train, validation, test = self.samples
        facts = [
            ("network", f"{self.network}, {self.parameters:,.0f} parameters, {size_text(self.size_bytes)}, "
                        f"{self.multiply_adds} multiply-adds a sample"),
            ("data", f"{train:,} samples to train on, {validation:,} to choose on, {test:,} to test on; inputs {self.inputs}"),
            ("score", f"{self.metric} {self.validation_score:.2f} {self.unit} on validation data, {self.train_score:.2f} "
                      f"{self.unit} on training data ({SCORED:,} samples each at most)".replace("  ", " ")),
            ("channels", self.cuttable),
        ]  # fmt: skip
        lines = [f"{name:<9} {what}" for name, what in facts]
        if self.known_by_heart:
            lines.append(
                "warning   hardly an answer on the validation data is wrong: the network may have been trained on them. Then "
                "limits that hold there say little about new data. Hold out other samples."
            )
        able = [name for name, why in self.methods if not why]
        rows = [
            (name if number == 0 else "", line)
            for name, why in self.methods if why
            for number, line in enumerate(wrap(why.removeprefix(f"{name}: "), WIDE))
        ]  # fmt: skip
        found = fill(f"Methods that find work: {', '.join(able)}.", WIDE + 20)
        table = [aligned([("method", "finds none, because"), *rows], "<")] if rows else []
        return "\n\n".join(["\n".join(lines), found, *table])


def first_look(network: nn.Module, task: Task, progress: Progress | None = None) -> FirstLook:
    """Return what a network and its data are.  Raises what compress would raise at once: BadNetwork, BadTask."""
    accept(network, "check")
    check_calibration(task)
    costs = profile(network, task.example)
    train, validation = (
        mean_score(network, data.original().first(SCORED), task.metric) for data in (task.train, task.validation)
    )
    shown = costs.total("multiply_adds").text()
    return FirstLook(
        type(network).__name__, costs.total("parameters").value, costs.total("size_bytes").value, shown,
        (len(task.train), len(task.validation), len(task.test)), shape_text(task.example), task.metric.name, task.metric.unit,
        train, validation, cuttable_text(network, task), tuple(asked_methods(network, task, progress or quiet())),
    )  # fmt: skip


def cuttable_text(network: nn.Module, task: Task) -> str:
    """Return which channels can be cut, or the line of code that prevents it."""
    try:
        groups = view_of(start(network, network, task.example)).groups
    except BadNetwork as error:
        return f"none can be cut. {error}"
    free = groups.free
    if not free:
        return f"none can be cut: {groups.reasons()}"
    units = sum(group.count for group in free)
    left = f"; left whole: {groups.reasons()}" if groups.frozen else ""
    return f"{units:,} in {len(free)} groups can be cut{left}"


def asked_methods(network: nn.Module, task: Task, progress: Progress) -> Sequence[tuple[str, str]]:
    """Return for each method that has no knob to be filled in whether it finds work, "", or why not."""
    found, names = [], [name for name in known_methods() if name not in ("allocate", "repeat")]
    with progress.bar("methods", len(names)) as bar:
        for name in names:
            bar.advance()
            kind = method_class(name)
            try:
                method: Method = kind()
            except (CortadoError, TypeError):
                # It needs something that only the user can name.
                continue
            if not method.needs or method.trains:
                continue
            view = view_of(start(network, network, task.example))
            try:
                found.append((name, reason_in(method.unmet(view, task)).removeprefix("a ").removeprefix("an ")))
            except CortadoError as error:
                found.append((name, str(error)))
    return found


def reason_in(sentence: str) -> str:
    """Return what a network does not have, out of the sentence of a need."""
    return sentence.partition(" has none under where")[0].rpartition(", and ")[0].removeprefix("it needs ")
