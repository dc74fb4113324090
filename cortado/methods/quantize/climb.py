"""Climb: the networks that the steps of quantize/ladder make, how far they are from the plain one, and their bits."""

import contextlib
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cortado.errors import NothingChanged
from cortado.forms.dense import Dense
from cortado.forms.masked import Masked
from cortado.machine import processor_saturates
from cortado.method import Method
from cortado.methods.match import Match
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.layerwise import products
from cortado.methods.quantize.places import edges_of
from cortado.methods.quantize.second_order import QuantizeSecondOrder
from cortado.methods.quantize.signals import QuantizeSignals
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.divergence import answers, nats_of
from cortado.network.view import View, Weight, parameter_places
from cortado.task import Task

STEPS = ("match", "range", "equalize", "smooth", "second_order", "adaround", "edges", "fragile")
WIDENS = ("edges", "fragile")
WIDE, GUARDED = 8, 7
"""Most bits of a weight, and of one that meets rounded signals where products of 8 bits run over."""
ROUNDINGS: dict[str, Callable[..., Method]] = {"second_order": QuantizeSecondOrder, "adaround": QuantizeAdaround}
"""Ways to round that look at what a layer reads."""


@dataclass(frozen=True)
class Aim:
    """What a ladder is to round, to how many bits, and which share of the layers may be wider."""

    where: str
    bits: int
    signals: int
    fragile: float


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


class Climb:
    """Makes the network of a way, and tells how far it is from the plain one."""

    def __init__(self, aim: Aim, view: View, task: Task, inputs: Any) -> None:
        self.aim, self.view, self.task, self.inputs = aim, view, task, inputs
        self.edges = edges_of(view)
        self.wide = GUARDED if aim.signals and processor_saturates() else WIDE
        self.bits = min(aim.bits, self.wide)
        self.made: tuple[Way, nn.Module] | None = None
        self.wanted = answers(view.network, inputs)
        self.nats = nats_of(self.wanted, task.answers)
        chosen = [weight for weight in view.weights(aim.where) if len(weight.shape) > 1]
        self.layers: dict[str, list[Weight]] = {}
        self.left: list[str] = []
        """Weights that have a form already, and keep it."""
        for weight in chosen:
            if isinstance(weight.form, (Dense, Masked)):
                self.layers.setdefault(weight.layer_path, []).append(weight)
            else:
                self.left.append(weight.path)
        self.careful = self.rounded_with_care()

    def rounded_with_care(self) -> set[str]:
        """The layers that more than rounding to the nearest is known for."""
        if not self.layers:
            return set()
        try:
            found, _ = products(QuantizeSecondOrder(where=self.naming(self.layers)), self.view)
        except NothingChanged:
            return set()
        return {weight.layer_path for _, weight in found}

    def naming(self, layers: Iterable[str]) -> str:
        """A pattern that takes the weights of these layers and no others, whatever their names are made of."""
        paths = [weight.path for layer in sorted(layers) for weight in self.layers[layer]]
        return ", ".join("".join("?" if sign in ",*?[" or sign.isspace() else sign for sign in path) for path in paths)

    def wider(self, way: Way) -> set[str]:
        """The layers that have more bits than the others."""
        return set(way.fragile) | (self.edges & set(self.layers) if way.edges else set())

    def bits_a_weight(self, way: Way) -> float:
        """On average over the weights that are rounded."""
        wider = self.wider(way)
        sizes = {layer: sum(one.shape.numel() for one in weights) for layer, weights in self.layers.items()}
        bits = sum(size * (self.wide if layer in wider else self.bits) for layer, size in sizes.items())
        return bits / max(1, sum(sizes.values()))

    def guarded(self, way: Way) -> bool:
        """Whether some weights have fewer bits than they would have on another processor."""
        wider = self.wider(way)
        return self.wide < WIDE and bool(wider or (self.aim.bits > self.wide and self.layers))

    def divergence(self, way: Way) -> float:
        """How far the network of a way is from the plain one."""
        return self.far(self.network(way))

    def far(self, network: nn.Module) -> float:
        """Mean divergence from the plain network's answers, in nats."""
        return float(self.nats.apart(self.wanted, answers(network, self.inputs)).mean())

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
            Match(where=self.aim.where).apply(inner, self.task)
        view.notes.extend(note for note in inner.notes if note not in view.notes)

    def stages_before(self, way: Way) -> list[Method]:
        """What changes no output."""
        where = self.aim.where
        taken = (("weights", way.equalize), ("signals", way.smooth))
        return [QuantizeEqualize(where=where, by=by) for by, yes in taken if yes]

    def stages(self, way: Way) -> list[Method]:
        """What rounds: signals, layers that are wider, and the rest."""
        aim, wider = self.aim, self.wider(way)
        found: list[Method] = []
        if aim.signals:
            edges = WIDE if way.edges else aim.signals
            found.append(QuantizeSignals(where=aim.where, bits=aim.signals, edges=edges, range=way.range))
        if wider:
            found.append(QuantizeWeights(where=self.naming(wider), bits=self.wide))
        rest = set(self.layers) - wider
        careful = rest & self.careful if way.rounding in ROUNDINGS else set()
        if rest - careful:
            found.append(QuantizeWeights(where=self.naming(rest - careful), bits=self.bits))
        if careful:
            found.append(ROUNDINGS[way.rounding](where=self.naming(careful), bits=self.bits, edges=2))
        return found

    def with_step(self, step: str, way: Way) -> Way | None:
        """The way with one step more; None where it makes no sense."""
        aim = self.aim
        if step == "match":
            return replace(way, match=True)
        if step == "range":
            return replace(way, range="mse") if aim.signals else None
        if step == "equalize":
            return replace(way, equalize=True)
        if step == "smooth":
            return replace(way, smooth=True) if aim.signals else None
        if step in ("second_order", "adaround"):
            return replace(way, rounding=step) if self.careful else None
        if step == "edges":
            narrow = self.bits < self.wide or 0 < aim.signals < WIDE
            return replace(way, edges=True) if self.edges and narrow else None
        chosen = self.most_fragile(way) if self.bits < self.wide else ()
        return replace(way, fragile=chosen) if chosen else None

    def most_fragile(self, way: Way) -> tuple[str, ...]:
        """The layers whose plain weights, one at a time, bring the outputs back most."""
        rounded, left = self.network(way), {}
        weights, plain = self.rounded_by_layer(rounded), self.rounded_by_layer(self.before(way))
        for path in sorted(set(self.layers) - (self.edges if way.edges else set())):
            forms = [weight.form for weight in weights[path]]
            for weight, whole in zip(weights[path], plain[path], strict=True):
                weight.put(Dense(whole.dense()))
            left[path] = self.far(rounded)
            for weight, form in zip(weights[path], forms, strict=True):
                weight.put(form)
        count = max(1, round(self.aim.fragile * len(self.layers))) if self.aim.fragile and left else 0
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
