"""quantize/ptq_search: post-training quantization, step by step; a step stays only if it helps."""

import contextlib
import copy
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from cortado.blame.blame import Blame, blame, first_samples
from cortado.engine.stage import apply_stage, start
from cortado.errors import BadTask, BadValue, NothingChanged
from cortado.machine import processor_saturates
from cortado.methods.match_moments import MatchMoments
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.methods.quantize.equalize import QuantizeEqualize
from cortado.methods.quantize.places import edges_of
from cortado.methods.quantize.second_order import QuantizeSecondOrder
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import output_rows
from cortado.network.graph.trace import device_of
from cortado.network.statistics.synthetic import synthetic
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.dense import Dense
from cortado.running.trees import to_device
from cortado.task.task import Task

STEPS = ("match_moments", "range", "equalize", "smooth", "second_order", "adaround", "edges", "fragile")
WIDENS = ("edges", "fragile")
NEED_ACTIVATIONS = ("range", "smooth")
EQUALIZE = {"equalize": "weights", "smooth": "activations"}
ROUNDINGS: dict[str, type[Any]] = {"second_order": QuantizeSecondOrder, "adaround": QuantizeAdaround}
"""Steps that round weights by what their layer reads; the last kept one applies."""
BLAMED = 4
"""Samples on which each layer is rounded alone."""
WIDE, GUARDED = 8, 7
"""Most bits of a weight; and with rounded activations on a processor where 8-bit products saturate."""


@dataclass(frozen=True)
class PtqSearch(Method):
    """Quantize weights and activations after training, adding only the steps that this network needs.

    Steps are tried in order, each on top of the kept ones, and judged by the KL divergence (nats) of the outputs from the
    original's on held-out calibration samples: moment matching; clipped ranges; equalization between layers; smoothing
    between activations and weights; second-order rounding; learned rounding; wider first and last layer; wider fragile
    layers. The report lists each step's gain. Without data (`data` synthetic) samples are made from the batch norms. If
    8-bit products saturate on this processor, weights that meet rounded activations have 7 bits.

    Wider layers cost bytes: one more bit for every weight divides the squared rounding error by four (Bennett, 1948), and
    the divergence with it. So widening by s bits per weight on average must leave less than 4**-s of the divergence.

    With `error`, the fewest layers stay in floats for which the outputs are within this error (`cortado blame` has the
    same order and the same error): no list of layers has to be written by hand. They cost time; the report says which.
    """

    called: ClassVar[str] = "quantize/ptq_search"
    lossy = True
    trains = True
    leaves = (Leaves.FLOATS, Leaves.CODES, Leaves.ROUNDED)

    bits: int = knob(8, low=2, high=8, help="bits of weights")
    activations: int = knob(
        8, low=0, high=8, help="bits of the activations that layers read; 0 keeps activations in floats"
    )
    steps: str = knob(", ".join(STEPS), help="steps to try, always in this order")
    gain: float = knob(0.02, low=0.0, high=1.0, help="least share of the divergence that a step must remove")
    fragile: float = knob(0.1, low=0.0, high=1.0, help="share of the layers that may be wider")
    data: str = knob("calibration", one_of=("calibration", "synthetic"), help="source of the samples")
    error: float = knob(
        0.0,
        low=0.0,
        high=1.0,
        help="root mean square error of the outputs, as a share of their spread, for which layers stay in floats; 0: none",
    )
    images: int = knob(256, low=4, help="number of samples: half to fit, half to judge")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [step for step in self.chosen if step not in STEPS]
        if unknown:
            raise BadValue(f"{self.name()}: no step is called {unknown[0]!r}. Known: {', '.join(STEPS)}.")

    @property
    def chosen(self) -> list[str]:
        """Return the steps to try."""
        return [word.strip() for word in self.steps.split(",") if word.strip()]

    def apply(self, view: View, task: Task) -> None:
        rounder = Rounder(self, view, *self.samples(view, task))
        kept, least = tuple[str, ...](), rounder.divergence(())
        results = [f"nearest rounding: {least:.4f} nats from the original network"]
        for step in STEPS:
            if step not in self.chosen or not rounder.can(step, kept):
                continue
            tried = (*kept, step)
            found = rounder.divergence(tried)
            even = 4.0 ** (rounder.bits_a_weight(kept) - rounder.bits_a_weight(tried)) if step in WIDENS else 1.0
            better = found < least * min(1 - self.gain, even)
            results.append(f"{step}: {least:.4f} -> {found:.4f}, {'kept' if better else 'left out'}")
            kept, least = (tried, found) if better else (kept, least)
        floats = rounder.leave_in_floats(kept) if self.error else []
        view.notes.extend([*rounder.run(kept, view.network), *rounder.notes(kept), *floats, "; ".join(results) + "."])

    def samples(self, view: View, task: Task) -> tuple[Task, Any]:
        """Return the task with half of the samples as calibration data, and the inputs of the other half as one batch."""
        if self.data == "synthetic":
            data = synthetic(view.network, view.example, self.images, 100, task.seed)
        else:
            assert task.calibration is not None
            data = task.calibration.first(min(self.images, len(task.calibration)))
        if len(data) < 4:
            raise BadTask(f"{self.name()}: at least 4 calibration samples are needed, got {len(data)}. Provide more.")
        half = len(data) // 2
        judge = [inputs for inputs, _ in data.batches(half)][1]
        return replace(task, calibration=data.first(half)), to_device(judge, device_of(view.network))


class Rounder:
    """Applies steps to a network and measures the divergence from the original."""

    def __init__(self, asked: PtqSearch, view: View, task: Task, inputs: Any) -> None:
        self.asked, self.view, self.task, self.inputs = asked, view, task, inputs
        self.wide = GUARDED if asked.activations and processor_saturates() else WIDE
        self.bits = min(asked.bits, self.wide)
        self.wanted = output_rows(view.network, inputs, task.outputs)
        self.kind = task.outputs.fitted(self.wanted)
        chosen = [weight for weight in view.weights(asked.where) if len(weight.shape) > 1]
        self.weights = [weight for weight in chosen if is_free(weight)]
        self.left = [weight.path for weight in chosen if not is_free(weight)]
        self.layers = {weight.layer_path for weight in self.weights}
        self.edges = edges_of(view) & self.layers
        self.fragile: set[str] = set()
        self.made: tuple[tuple[str, ...], nn.Module] | None = None
        self.where = asked.where

    def leave_in_floats(self, steps: tuple[str, ...]) -> list[str]:
        """Leave the fewest layers in floats for which the outputs reach the error that is asked for; return a note."""
        before = self.blamed(steps)
        if before.floats:
            self.weights = [one for one in self.weights if one.layer_path not in before.floats]
            self.layers, self.made = self.layers - {*before.floats}, None
            self.where = (
                f"{self.where}, not {naming(f'{path}.weight' for path in before.floats).replace(', ', ', not ')}"
            )
        return [before.answer()]

    def blamed(self, steps: tuple[str, ...]) -> Blame:
        """Return what the rounding of each layer costs after some steps."""
        whole, rounded = copy.deepcopy(self.view.network), self.network(steps)
        self.prepare(steps, whole)
        originals = {
            one.layer_path: one.dense().detach()
            for one in parameter_places(whole)
            if one.layer_path in self.layers and len(one.shape) > 1
        }
        return blame(self.view.network, rounded, first_samples(self.inputs, BLAMED), self.asked.error, originals)

    def can(self, step: str, kept: tuple[str, ...]) -> bool:
        """Return whether a step applies after the kept ones."""
        narrow = self.bits < self.wide
        if step == "fragile":
            self.fragile = self.most_fragile(kept) if narrow else set()
            return bool(self.fragile)
        if step == "edges":
            return bool(self.edges) and (narrow or 0 < self.asked.activations < WIDE)
        return step not in NEED_ACTIVATIONS or bool(self.asked.activations)

    def wider(self, steps: tuple[str, ...]) -> set[str]:
        """Return the wider layers."""
        return {layer for step in WIDENS if step in steps for layer in getattr(self, step)}

    def bits_a_weight(self, steps: tuple[str, ...]) -> float:
        """Return the mean bits of the rounded weights."""
        sizes, wider = [weight.shape.numel() for weight in self.weights], self.wider(steps)
        bits = [self.wide if weight.layer_path in wider else self.bits for weight in self.weights]
        return sum(map(math.prod, zip(sizes, bits, strict=True))) / max(1, sum(sizes))

    def notes(self, steps: tuple[str, ...]) -> list[str]:
        """Return notes on weights left alone, and on weights with 7 bits instead of 8."""
        found = [f"{len(self.left)} weights keep their form: {', '.join(self.left)}."] if self.left else []
        if self.wide < WIDE and (self.wider(steps) or (self.asked.bits > self.wide and self.layers)):
            found.append(
                "8-bit products saturate on this processor, which has no VNNI: weights have 7 bits instead of 8."
            )
        return found

    def divergence(self, steps: tuple[str, ...]) -> float:
        """Return the divergence after some steps."""
        return self.far(self.network(steps))

    def far(self, network: nn.Module) -> float:
        """Return the mean divergence of a network's outputs from the original's, in nats."""
        return float(self.kind.divergence(self.wanted, output_rows(network, self.inputs, self.kind)).mean())

    def network(self, steps: tuple[str, ...]) -> nn.Module:
        """Return the network after some steps; the last one is cached."""
        if self.made is None or self.made[0] != steps:
            copied = copy.deepcopy(self.view.network)
            self.run(steps, copied)
            self.made = (steps, copied)
        return self.made[1]

    def run(self, steps: tuple[str, ...], network: nn.Module) -> list[str]:
        """Apply some steps to a network in place and return the notes."""
        where, notes = self.where, self.prepare(steps, network)
        before = copy.deepcopy(network) if "match_moments" in steps else None
        for stage in self.roundings(steps):
            notes += self.applied(stage, network)
        chosen = {weight.path for weight in self.weights}
        if rest := [one.path for one in parameter_places(network) if one.path in chosen and is_free(one)]:
            notes += self.applied(QuantizeWeights(where=naming(rest), bits=self.bits), network)
        if before is not None:
            notes += self.applied(MatchMoments(where=where), network, before)
        return list(dict.fromkeys(notes))

    def prepare(self, steps: tuple[str, ...], network: nn.Module) -> list[str]:
        """Apply the steps that change no output and return the notes."""
        found = [QuantizeEqualize(where=self.asked.where, by=by) for step, by in EQUALIZE.items() if step in steps]
        return [note for stage in found for note in self.applied(stage, network)]

    def applied(self, stage: Method, network: nn.Module, reference: nn.Module | None = None) -> tuple[str, ...]:
        """Apply a stage to a network, if it changes anything, and return its notes."""
        state = start(network, self.view.base, self.view.example)
        state = state if reference is None else replace(state, reference=reference)
        with contextlib.suppress(NothingChanged):
            state = apply_stage(stage, state, self.task, match_moments=False, check=False)
        return state.notes

    def roundings(self, steps: tuple[str, ...]) -> list[Method]:
        """Return the stages that quantize activations, wider layers, and layers with a better rounding than the nearest."""
        asked, wider, found = self.asked, self.wider(steps), list[Method]()
        if asked.activations:
            edges, span = WIDE if "edges" in steps else asked.activations, "mse" if "range" in steps else "full"
            found.append(QuantizeActivations(where=self.where, bits=asked.activations, edges=edges, range=span))
        if paths := [weight.path for weight in self.weights if weight.layer_path in wider]:
            found.append(QuantizeWeights(where=naming(paths), bits=self.wide))
        careful = [ROUNDINGS[step] for step in steps if step in ROUNDINGS][-1:]
        if paths := [weight.path for weight in self.weights if weight.layer_path not in wider]:
            found += [kind(where=naming(paths), bits=self.bits, edges=2) for kind in careful]
        return found

    def most_fragile(self, steps: tuple[str, ...]) -> set[str]:
        """Return the layers whose original weights, restored one layer at a time, reduce the divergence most."""
        rounded, whole, far = self.network(steps), copy.deepcopy(self.view.network), dict[str, float]()
        self.prepare(steps, whole)
        originals = {weight.path: weight.dense() for weight in parameter_places(whole)}
        for layer in sorted(self.layers - (self.edges if "edges" in steps else set())):
            weights = [one for one in parameter_places(rounded) if one.layer_path == layer and len(one.shape) > 1]
            forms = [weight.form for weight in weights]
            for weight in weights:
                weight.set_form(Dense(originals[weight.path]))
            far[layer] = self.far(rounded)
            for weight, form in zip(weights, forms, strict=True):
                weight.set_form(form)
        count = max(1, round(self.asked.fragile * len(self.layers))) if self.asked.fragile else 0
        return set(sorted(far, key=lambda layer: far[layer])[:count])


def is_free(weight: Weight) -> bool:
    """Return whether a weight can be rounded: it is dense or masked."""
    return weight.form.only_floats or bool(weight.form.support() is not None and weight.form.code_bits() is None)


def naming(paths: Iterable[str]) -> str:
    """Return a pattern that matches exactly these weights, with special characters replaced."""
    return ", ".join("".join("?" if sign in ",*?[" or sign.isspace() else sign for sign in path) for path in paths)
