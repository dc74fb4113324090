"""conditional/gates: gates that let each sample skip residual blocks."""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.knobs.nested import flat_knobs
from cortado.layers.kinds import is_convolution
from cortado.methods.learn import learn
from cortado.methods.learns_from import LearnsFrom
from cortado.methods.method import knob
from cortado.methods.needs import LEARNS, Leaves, Need
from cortado.methods.prune.blocks import taken
from cortado.network.graph.where import read_patterns
from cortado.network.profile.execution import rows_run
from cortado.network.view import View
from cortado.parts.blocks.block import clash_of
from cortado.parts.blocks.gate import OPENS, Gate
from cortado.running.call import call
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.task import Task
from cortado.training.objectives.open_share import OpenShare
from cortado.training.optimizers import stretch_of

BATCH = 128
PREPARED = 256
"""Calibration samples from which gates learn how their inputs differ, before the training."""


def without_gates(method: Any, view: View, task: Task) -> list[str]:
    """Return the blocks whose matrices and kernels `where` selects, and that have no gate yet."""
    return [path for path in chosen_blocks(method, view) if can_stand(view.network.get_submodule(path))]


def chosen_blocks(method: Any, view: View) -> list[str]:
    """Return the blocks without a gate that `where` selects."""
    chosen = {weight.path for weight in view.weights(method.where)}
    free = [path for path in view.blocks if not isinstance(view.network.get_submodule(path), Gate)]
    return [path for path in free if taken(view, path, chosen)]


def can_stand(inner: nn.Module) -> bool:
    """Return whether a gate can stand around a module: no name in it is also one of the gate's."""
    return clash_of(Gate(inner, 1, 1), inner) is None


BLOCKS = Need(
    "a block without a gate, whose output has the shape of its input, and that is no chain of layers",
    without_gates,
    "use prune/channels or prune/weights",
)


@flat_knobs
@dataclass(frozen=True)
class ConditionalGates(LearnsFrom):
    """Put gates around residual blocks, so that each sample runs only some of them; gates and network learn together.

    ConvNet-AIG, Veit and Belongie, 2018. A gate reads the mean of each channel of what enters its block; where it is shut,
    the sample keeps its values. The loss has strength x the mean over gates of (share of the batch for which the gate is
    open - target)^2; the paper's sum over gates is a strength of as many as there are. At first gates draw their answers, as
    in the paper; in the rest of the training they answer as in use, since a gate that is open with a probability of 0.6 for
    every sample would be open for all. Gates that are never shut are taken off again. `where` selects a block if it selects
    all its matrices; what it selects learns, and all gates do. A gate costs time too: on small blocks it may be more than it
    saves, which an export measures. Gates learn on in later trainings; the objective open_share holds them to a target.
    """

    trains = True
    needs = (BLOCKS, LEARNS)
    leaves = (Leaves.FLOATS, Leaves.GATES)

    target: float = knob(0.6, low=0.0, high=1.0, help="share of the samples that should run each block")
    strength: float = knob(10.0, low=0.0, help="factor of the squared distance from the target in the loss")
    hidden: int = knob(16, low=1, help="hidden units of a gate")
    temperature: float = knob(1.0, low=0.05, help="of the soft answer in training, which has the gradient")
    start: float = knob(0.85, low=0.01, high=0.99, help="probability with which a gate is open at first")
    drawn: float = knob(0.6, low=0.0, high=1.0, help="first share of the training in which gates draw their answers")
    samples: int = knob(2048, low=1, help="validation samples on which it is counted how often gates open")

    def apply(self, view: View, task: Task) -> None:
        found, paths = copy.deepcopy(view.network), BLOCKS.require(self, view, task)
        others = [path for path in chosen_blocks(self, view) if path not in paths]
        if others:
            view.notes.append(f"left without a gate, since a name in them is also one of a gate's: {', '.join(others)}")
        gates = self.put(view, paths, task)
        learned = (*self.objectives, OpenShare(self.strength, target=self.target, at=", ".join(gates)))
        where = with_gates(self.where)
        curves: dict[str, list[float]] = {}
        for start, end, noise in ((0.0, self.drawn, 1.0), (self.drawn, 1.0, 0.0)):
            if start < end:
                set_noise(gates.values(), noise)
                part = replace(task, seed=task.seed + (start > 0))
                learn(
                    view, part, stretch_of(self.training, start, end), learned, self.teacher, where, self.name(), found
                )
                curves = {name: [*curves.get(name, []), *values] for name, values in view.curves.items()}
        view.curves |= curves
        set_noise(gates.values(), 0.0)
        self.count(view, gates, task)

    def put(self, view: View, paths: list[str], task: Task) -> dict[str, Gate]:
        """Put a gate around the module at each path, and return them.  Raises BadNetwork where rows are no samples."""
        shapes = {path: view.graph.of(path)[0].outputs[0] for path in paths}
        strange = next((path for path in paths if shapes[path][0] != view.graph.batch), None)
        if strange is not None:
            raise BadNetwork(
                f"{self.name()}: the first axis of what enters {strange} has {shapes[strange][0]} entries for "
                f"{view.graph.batch} samples, so that a gate cannot tell samples apart. Leave the block out: where: "
                f"not {strange}.*."
            )
        gates = {}
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(task.seed)
            for path, shape in shapes.items():
                gates[path] = around(view.network.get_submodule(path), shape, self.hidden)
                gates[path].gate_opens.temperature = self.temperature
                view.wrap(path, gates[path])
        prepare(view.network, gates.values(), task, self.start)
        return gates

    def count(self, view: View, gates: Mapping[str, Gate], task: Task) -> None:
        """Note how often each gate opens, and take off those that are never shut."""
        data = task.validation.first(self.samples)
        ran = rows_run(view.network, (inputs for inputs, _ in data.batches(BATCH)))
        shares = {path: float(ran[id(gate.gate_rows)].mean()) for path, gate in gates.items()}
        always = [path for path in gates if shares[path] == 1]
        never = [path for path in gates if shares[path] == 0]
        for path in always:
            view.unwrap(path)
        mean = sum(shares.values()) / len(shares)
        each = ", ".join(f"{path} {share:.0%}" for path, share in shares.items())
        view.notes.append(
            f"{len(gates)} gates, open for {mean:.0%} of {len(data):,} validation samples (target {self.target:.0%}): {each}"
        )
        if always:
            view.notes.append(f"always open, so that the gate was taken off: {', '.join(always)}")
        if never:
            view.notes.append(
                f"never open on these samples: {', '.join(never)}. prune/blocks can remove the block with its gate"
            )
        if len(always) == len(gates):
            view.hindrances.append("no gate is ever shut: raise strength, epochs or lr, or lower target")


def with_gates(where: str) -> str:
    """Return the patterns of a stage with those of all gates."""
    named = where != "*" and any(positive for positive, _ in read_patterns(where))
    return f"{where}, *.{OPENS}.*, *.{OPENS}.*.bias" if named else where


def around(inner: nn.Module, shape: tuple[int, ...], hidden: int) -> Gate:
    """Return a gate around a module that returns values of this shape."""
    last = not any(is_convolution(one) for one in inner.modules())
    gate = Gate(inner, shape[-1 if last else 1], hidden, last)
    gate.gate_opens.to(next(one for one in inner.parameters() if one.is_floating_point()))
    return gate


def set_noise(gates: Iterable[Gate], noise: float) -> None:
    """Set how far answers are drawn in training."""
    for gate in gates:
        gate.gate_opens.noise = noise


def prepare(network: nn.Module, gates: Iterable[Gate], task: Task, start: float) -> None:
    """Let each gate see how samples differ where it stands."""
    assert task.calibration is not None
    inputs, _ = next(task.calibration.batches(PREPARED))
    handles = [
        gate.gate_opens.register_forward_pre_hook(lambda module, given: module.prepare(given[0], start))
        for gate in gates
    ]
    try:
        with eval_mode(network):
            call(network, to_device(inputs, own_device(network)))
    finally:
        for handle in handles:
            handle.remove()
