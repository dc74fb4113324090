"""quantize/ladder: rounding after training, step by step - each step is tried, and kept only if it helps."""

import contextlib
import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, nn

from cortado.errors import BadTask, BadValue, NothingChanged
from cortado.evaluating import evaluating
from cortado.forms.dense import Dense
from cortado.machine import processor_saturates
from cortado.measure import outputs_of
from cortado.method import Method, knob
from cortado.methods.match import Match
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.places import edges_of
from cortado.methods.quantize.second_order import QuantizeSecondOrder
from cortado.methods.quantize.signals import QuantizeSignals
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.imagined import imagined
from cortado.network.trace import device_of, moved, tensors_in
from cortado.network.view import View, Weight, parameter_places
from cortado.task import Task

STEPS = ("match", "range", "equalize", "smooth", "second_order", "adaround", "edges", "fragile")
WIDE, WIDER = 8, 0.3
"""Bits of layers that are wider, and the least share of the divergence that they have to take away: they cost bytes."""
ROUNDINGS: dict[str, Callable[..., Method]] = {
    "nearest": QuantizeWeights,
    "second_order": QuantizeSecondOrder,
    "adaround": QuantizeAdaround,
}


@dataclass(frozen=True)
class Way:
    """One way to round a network, as the steps that were taken so far make it."""

    match: bool = False
    range: str = "full"
    equalize: bool = False
    smooth: bool = False
    rounding: str = "nearest"
    edges: bool = False
    fragile: tuple[str, ...] = ()


@dataclass(frozen=True)
class QuantizeLadder(Method):
    """Round weights and signals after training, and climb from the plainest way to what this network needs.

    Steps are tried in order, each on top of those that were kept, and judged by the divergence (KL, nats) of the
    outputs from the plain network's on calibration samples that no step has looked at: matched moments; clipped ranges;
    equalization between layers; smoothing between signals and weights; rounding of second order; learned rounding;
    first and last product wider; the most fragile layers wider. The report tells of each step's gain. Without data
    (`data` imagined) the samples are made from the batch norms. Where products of 8 bits run over on this processor, weights
    that meet rounded signals have 7.
    """

    lossy = True
    trains = True

    bits: int = knob(8, low=2, high=8, says="bits of weights")
    signals: int = knob(8, low=0, high=8, says="bits of the signals that products read; 0 leaves signals as they are")
    steps: str = knob(", ".join(STEPS), says="which steps are tried, always in this order")
    gain: float = knob(0.02, low=0.0, high=1.0, says="least share of the divergence that a step has to take away")
    fragile: float = knob(0.1, low=0.0, high=1.0, says="share of the layers that may be wider")
    data: str = knob("calibration", one_of=("calibration", "imagined"), says="samples that are looked at")
    images: int = knob(256, low=4, says="of these, half to fit and half to judge")

    def apply(self, view: View, task: Task) -> None:
        fit, judge = self.samples(view, task)
        climb = Climb(self, view, fit, judge)
        way, least = Way(), climb.divergence(Way())
        said = [f"nearest rounding: {least:.4f} nats from the plain network"]
        for step in STEPS:
            tried = climb.with_step(step, way) if step in self.chosen else None
            if tried is None:
                continue
            found = climb.divergence(tried)
            better = found < least * (1 - (max(self.gain, WIDER) if step in ("edges", "fragile") else self.gain))
            said.append(f"{step}: {least:.4f} -> {found:.4f}, {'kept' if better else 'left out'}")
            way, least = (tried, found) if better else (way, least)
        climb.take(way, view)
        view.notes.append("; ".join(said) + ".")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [step for step in self.chosen if step not in STEPS]
        if unknown:
            raise BadValue(f"{self.name()}: no step is called {unknown[0]!r}. Known: {', '.join(STEPS)}.")

    @property
    def chosen(self) -> list[str]:
        """The steps that are tried."""
        return [word.strip() for word in self.steps.split(",") if word.strip()]

    def samples(self, view: View, task: Task) -> tuple[Task, Any]:
        """The task with half of the samples for calibration, and the inputs of the other half, in one batch."""
        if self.data == "imagined":
            data = imagined(view.network, view.example, self.images, 100, task.seed)
        else:
            assert task.calibration is not None
            data = task.calibration.first(min(self.images, len(task.calibration)))
        if len(data) < 4:
            raise BadTask(f"{self.name()}: it needs 4 calibration samples at least, got {len(data)}. Give some more.")
        half = len(data) // 2
        judge = [inputs for inputs, _ in data.batches(half)][1]
        return replace(task, calibration=data.first(half)), moved(judge, device_of(view.network))


class Climb:
    """Makes the network of a way, and tells how far it is from the plain one."""

    def __init__(self, method: QuantizeLadder, view: View, task: Task, inputs: Any) -> None:
        self.method, self.view, self.task, self.inputs = method, view, task, inputs
        self.edges = sorted(edges_of(view))
        self.bits = min(method.bits, 7) if method.signals and processor_saturates() else method.bits
        self.made: tuple[Way, nn.Module] | None = None
        self.wanted = self.answers(view.network)
        chosen = [weight for weight in view.weights(method.where) if len(weight.shape) > 1]
        self.layers = {weight.layer_path for weight in chosen if isinstance(weight.form, Dense)}

    def answers(self, network: nn.Module) -> Tensor:
        """The outputs on the samples that judge, (rows, classes): those of (N, classes, H, W) pixel by pixel."""
        with evaluating(network):
            found = tensors_in(outputs_of(network, self.inputs))[0].float()
        found = found.movedim(1, -1) if found.dim() > 3 else found
        return found.reshape(-1, found.shape[-1] if found.dim() > 1 else 1)

    def divergence(self, way: Way) -> float:
        """How far the network of a way is from the plain one."""
        return self.far(self.network(way))

    def far(self, network: nn.Module) -> float:
        """Mean KL from the plain network's outputs, in nats; of outputs that are one number half the squared error."""
        found = self.answers(network)
        if self.wanted.shape[-1] == 1:
            return float(0.5 * (found - self.wanted).square().mean())
        plain, other = self.wanted.log_softmax(-1), found.log_softmax(-1)
        return float((plain.exp() * (plain - other)).sum(-1).mean())

    def network(self, way: Way) -> nn.Module:
        """The network of a way; the last one that was made is kept."""
        if self.made is None or self.made[0] != way:
            copied = copy.deepcopy(self.view.network)
            self.run(way, View(copied, self.view.plain, self.view.example, self.view.progress))
            self.made = (way, copied)
        return self.made[1]

    def take(self, way: Way, view: View) -> None:
        """Do it to the working network itself."""
        self.run(way, view)

    def run(self, way: Way, view: View) -> None:
        """All stages of a way, on the network of a view."""
        for stage in self.stages_before(way):
            with contextlib.suppress(NothingChanged):
                stage.apply(view, self.task)
        reference = copy.deepcopy(view.network)
        inner = View(view.network, view.plain, view.example, view.progress, reference)
        for stage in self.stages(way):
            stage.apply(inner, self.task)
        if way.match:
            Match(where=self.method.where).apply(inner, self.task)
        view.notes.extend(note for note in inner.notes if note not in view.notes)

    def stages_before(self, way: Way) -> list[Method]:
        """What changes no output."""
        where = self.method.where
        taken = (("weights", way.equalize), ("signals", way.smooth))
        return [QuantizeEqualize(where=where, by=by) for by, yes in taken if yes]

    def stages(self, way: Way) -> list[Method]:
        """What rounds: signals, layers that are wider, and the rest."""
        method, wider = self.method, set(way.fragile) | (set(self.edges) & self.layers if way.edges else set())
        found: list[Method] = []
        if method.signals:
            edges = WIDE if way.edges else method.signals
            found.append(QuantizeSignals(where=method.where, bits=method.signals, edges=edges, range=way.range))
        if wider:
            found.append(QuantizeWeights(where=", ".join(sorted(wider)), bits=max(self.bits, 7)))
        rest = sorted(self.layers - wider)
        if rest:
            kind = ROUNDINGS[way.rounding]
            own = {} if way.rounding == "nearest" else {"edges": 2}
            found.append(kind(where=", ".join(rest), bits=self.bits, **own))
        return found

    def with_step(self, step: str, way: Way) -> Way | None:
        """The way with one step more; None where it makes no sense."""
        method = self.method
        if step == "match":
            return replace(way, match=True)
        if step == "range":
            return replace(way, range="mse") if method.signals else None
        if step == "equalize":
            return replace(way, equalize=True)
        if step == "smooth":
            return replace(way, smooth=True) if method.signals else None
        if step in ("second_order", "adaround"):
            return replace(way, rounding=step)
        if step == "edges":
            return replace(way, edges=True) if self.edges and min(method.bits, method.signals or 8) < 7 else None
        chosen = self.most_fragile(way) if self.bits < 7 else ()
        return replace(way, fragile=chosen) if chosen else None

    def most_fragile(self, way: Way) -> tuple[str, ...]:
        """The layers whose plain weights, one at a time, bring the outputs back most."""
        rounded, left = self.network(way), {}
        weights, plain = self.rounded_by_layer(rounded), self.rounded_by_layer(self.before(way))
        for path in sorted(self.layers - (set(self.edges) if way.edges else set())):
            forms = [weight.form for weight in weights[path]]
            for weight, whole in zip(weights[path], plain[path], strict=True):
                weight.put(Dense(whole.dense()))
            left[path] = self.far(rounded)
            for weight, form in zip(weights[path], forms, strict=True):
                weight.put(form)
        count = max(1, round(self.method.fragile * len(self.layers))) if self.method.fragile and left else 0
        return tuple(sorted(left, key=lambda path: left[path])[:count])

    @staticmethod
    def rounded_by_layer(network: nn.Module) -> dict[str, list[Weight]]:
        """The weights of two and more axes, by the paths of their layers."""
        found: dict[str, list[Weight]] = {}
        for weight in parameter_places(network):
            if len(weight.shape) > 1:
                found.setdefault(weight.layer_path, []).append(weight)
        return found

    def before(self, way: Way) -> nn.Module:
        """The network after what changes no output."""
        copied = copy.deepcopy(self.view.network)
        for stage in self.stages_before(way):
            with contextlib.suppress(NothingChanged):
                stage.apply(View(copied, self.view.plain, self.view.example, self.view.progress), self.task)
        return copied
