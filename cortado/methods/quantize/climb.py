"""Climb: the networks that the steps of quantize/ptq_search make, how far they are from the original, and their bits."""

import contextlib
import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cortado.errors import NothingChanged
from cortado.machine import processor_saturates
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.layerwise import matmul_layers
from cortado.methods.quantize.places import edges_of
from cortado.methods.quantize.second_order import QuantizeSecondOrder
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import answers, divergence_of
from cortado.network.view import View, Weight, parameter_places
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.task.task import Task

STEPS = ("match_moments", "range", "equalize", "smooth", "second_order", "adaround", "edges", "fragile")
WIDENS = ("edges", "fragile")
WIDE, GUARDED = 8, 7
"""Most bits of a weight, and of one that meets rounded activations where products of 8 bits run over."""
ROUNDINGS: dict[str, Callable[..., Method]] = {"second_order": QuantizeSecondOrder, "adaround": QuantizeAdaround}
"""Ways to round that look at what a layer reads."""


@dataclass(frozen=True)
class PtqTarget:
    """What a PTQ search is to round, to how many bits, and which share of the layers may be wider."""

    where: str
    bits: int
    activations: int
    fragile: float


@dataclass(frozen=True)
class PtqConfig:
    """One way to round a network, as the steps that were taken so far make it."""

    match: bool = False
    range: str = "full"
    equalize: bool = False
    smooth: bool = False
    rounding: str = "nearest"
    edges: bool = False
    fragile: tuple[str, ...] = ()


class PtqSearch:
    """Makes the network of a way, and tells how far it is from the original."""

    def __init__(self, target: PtqTarget, view: View, task: Task, inputs: Any) -> None:
        self.target, self.view, self.task, self.inputs = target, view, task, inputs
        self.edges = edges_of(view)
        self.wide = GUARDED if target.activations and processor_saturates() else WIDE
        self.bits = min(target.bits, self.wide)
        self.made: tuple[PtqConfig, nn.Module] | None = None
        self.wanted = answers(view.network, inputs)
        self.kl = divergence_of(self.wanted, task.answers)
        chosen = [weight for weight in view.weights(target.where) if len(weight.shape) > 1]
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
            found, _ = matmul_layers(QuantizeSecondOrder(where=self.naming(self.layers)), self.view)
        except NothingChanged:
            return set()
        return {weight.layer_path for _, weight in found}

    def naming(self, layers: Iterable[str]) -> str:
        """A pattern that takes the weights of these layers and no others, whatever their names are made of."""
        paths = [weight.path for layer in sorted(layers) for weight in self.layers[layer]]
        return ", ".join("".join("?" if sign in ",*?[" or sign.isspace() else sign for sign in path) for path in paths)

    def wider(self, way: PtqConfig) -> set[str]:
        """The layers that have more bits than the others."""
        return set(way.fragile) | (self.edges & set(self.layers) if way.edges else set())

    def bits_a_weight(self, way: PtqConfig) -> float:
        """On average over the weights that are rounded."""
        wider = self.wider(way)
        sizes = {layer: sum(one.shape.numel() for one in weights) for layer, weights in self.layers.items()}
        bits = sum(size * (self.wide if layer in wider else self.bits) for layer, size in sizes.items())
        return bits / max(1, sum(sizes.values()))

    def guarded(self, way: PtqConfig) -> bool:
        """Whether some weights have fewer bits than they would have on another processor."""
        wider = self.wider(way)
        return self.wide < WIDE and bool(wider or (self.target.bits > self.wide and self.layers))

    def divergence(self, way: PtqConfig) -> float:
        """How far the network of a way is from the original."""
        return self.far(self.network(way))

    def far(self, network: nn.Module) -> float:
        """Mean divergence from the original network's answers, in nats."""
        return float(self.kl.between(self.wanted, answers(network, self.inputs)).mean())

    def network(self, way: PtqConfig) -> nn.Module:
        """The network of a way; the last one that was made is kept."""
        if self.made is None or self.made[0] != way:
            copied = copy.deepcopy(self.view.network)
            self.run(way, View(copied, self.view.original, self.view.example, self.view.progress))
            self.made = (way, copied)
        return self.made[1]

    def take(self, way: PtqConfig, view: View) -> None:
        """Do it to the working network itself."""
        self.run(way, view)

    def run(self, way: PtqConfig, view: View) -> None:
        """All stages of a way, on the network of a view."""
        for stage in self.stages_before(way):
            with contextlib.suppress(NothingChanged):
                stage.apply(view, self.task)
        reference = copy.deepcopy(view.network)
        inner = View(view.network, view.original, view.example, view.progress, reference)
        for stage in self.stages(way):
            stage.apply(inner, self.task)
        if way.match:
            MatchMoments(where=self.target.where).apply(inner, self.task)
        view.notes.extend(note for note in inner.notes if note not in view.notes)

    def stages_before(self, way: PtqConfig) -> list[Method]:
        """What changes no output."""
        where = self.target.where
        taken = (("weights", way.equalize), ("activations", way.smooth))
        return [QuantizeEqualize(where=where, by=by) for by, yes in taken if yes]

    def stages(self, way: PtqConfig) -> list[Method]:
        """What rounds: activations, layers that are wider, and the rest."""
        target, wider = self.target, self.wider(way)
        found: list[Method] = []
        if target.activations:
            edges = WIDE if way.edges else target.activations
            found.append(QuantizeActivations(where=target.where, bits=target.activations, edges=edges, range=way.range))
        if wider:
            found.append(QuantizeWeights(where=self.naming(wider), bits=self.wide))
        rest = set(self.layers) - wider
        careful = rest & self.careful if way.rounding in ROUNDINGS else set()
        if rest - careful:
            found.append(QuantizeWeights(where=self.naming(rest - careful), bits=self.bits))
        if careful:
            found.append(ROUNDINGS[way.rounding](where=self.naming(careful), bits=self.bits, edges=2))
        return found

    def with_step(self, step: str, way: PtqConfig) -> PtqConfig | None:
        """The way with one step more; None where it makes no sense."""
        target = self.target
        if step == "match_moments":
            return replace(way, match=True)
        if step == "range":
            return replace(way, range="mse") if target.activations else None
        if step == "equalize":
            return replace(way, equalize=True)
        if step == "smooth":
            return replace(way, smooth=True) if target.activations else None
        if step in ("second_order", "adaround"):
            return replace(way, rounding=step) if self.careful else None
        if step == "edges":
            narrow = self.bits < self.wide or 0 < target.activations < WIDE
            return replace(way, edges=True) if self.edges and narrow else None
        chosen = self.most_fragile(way) if self.bits < self.wide else ()
        return replace(way, fragile=chosen) if chosen else None

    def most_fragile(self, way: PtqConfig) -> tuple[str, ...]:
        """The layers whose original weights, one at a time, bring the outputs back most."""
        rounded, left = self.network(way), {}
        weights, original = self.rounded_by_layer(rounded), self.rounded_by_layer(self.before(way))
        for path in sorted(set(self.layers) - (self.edges if way.edges else set())):
            forms = [weight.form for weight in weights[path]]
            for weight, whole in zip(weights[path], original[path], strict=True):
                weight.set_form(Dense(whole.dense()))
            left[path] = self.far(rounded)
            for weight, form in zip(weights[path], forms, strict=True):
                weight.set_form(form)
        count = max(1, round(self.target.fragile * len(self.layers))) if self.target.fragile and left else 0
        return tuple(sorted(left, key=lambda path: left[path])[:count])

    @staticmethod
    def rounded_by_layer(network: nn.Module) -> dict[str, list[Weight]]:
        """The weights of two and more axes, by the paths of their layers."""
        found: dict[str, list[Weight]] = {}
        for weight in parameter_places(network):
            if len(weight.shape) > 1:
                found.setdefault(weight.layer_path, []).append(weight)
        return found

    def before(self, way: PtqConfig) -> nn.Module:
        """The network after what changes no output."""
        copied = copy.deepcopy(self.view.network)
        for stage in self.stages_before(way):
            with contextlib.suppress(NothingChanged):
                stage.apply(View(copied, self.view.original, self.view.example, self.view.progress), self.task)
        return copied
