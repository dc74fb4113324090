"""Black box: a search by trials for the mix of bits at a size, with evaluations as cheap as they can be made.

What it is given: for each weight the planner's own candidates, those that others beat left out; their values, made before
its clock starts; and a shape of the search in which every trial has the bytes that are allowed: it draws how much finer or
coarser each weight is held than the others (in octaves of bits an entry), and the common level follows from the bytes.
An evaluation is one forward pass of the images that `match_moments` looks at, in which moments are matched as well.
"""

import copy
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.methods.match_moments import MATMUL_LAYERS, NORMS, MatchMoments, layers_before_norms, original_moments
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.planner.allocate.plan import Plan
from cortado.planner.sensitivity.candidate_recipes import carried_out
from cortado.planner.sensitivity.candidates import Candidate, Choices
from cortado.task.outputs.classes import Classes
from cortado.task.task import Task

REACH, HALVINGS = 2.0, 40
"""Octaves of bits an entry that a weight may lie above or below the common level; steps to find that level."""
POPULATION, FIRST, UNIFORM = 24, 10, 8
"""Of NSGA-II; random trials before TPE learns; uniform settings that are tried first."""
EPS = 1e-10
"""Added to variances; `match_moments` leaves channels below it alone."""
BEST = 8
"""Trials that are looked at again at the end, on all validation data."""


@dataclass(frozen=True)
class Options:
    """The ways to hold one weight, smallest first: candidates, octaves of bits an entry, values, and which forms can scale
    their rows."""

    path: str
    candidates: tuple[Candidate, ...]
    octaves: Tensor
    values: tuple[Tensor, ...]
    scales: tuple[bool, ...]


def changed_by(network: nn.Module, original: nn.Module, task: Task, way: str) -> list[Weight]:
    """The weights of a copy after the stages of a way, nothing matched or trained: those that every stage has changed."""
    return next(carried_out(network, original, task, [way]))[1]


def options_of(choices: Sequence[Choices], original: nn.Module, task: Task) -> list[Options]:
    """All candidates with their values."""
    made: dict[str, dict[str, Any]] = {}
    for way in {one.way for validation in choices for one in validation.candidates if one.way}:
        made[way] = {weight.path: weight for weight in changed_by(original, original, task, way)}
    at_first = {weight.path: weight.dense().clone() for weight in parameter_places(original)}
    found = []
    for validation in choices:
        some = tuple(sorted(validation.candidates, key=lambda one: one.size_bytes))
        values = tuple(
            made[one.way][validation.path].dense().clone() if one.way else at_first[validation.path] for one in some
        )
        scales = tuple(
            bool(one.way) and made[one.way][validation.path].form.scale_rows(torch.ones(len(value)))
            for one, value in zip(some, values, strict=True)
        )
        entries = at_first[validation.path].numel()
        octaves = torch.tensor([math.log2(8 * one.size_bytes / entries) for one in some])
        found.append(Options(validation.path, some, octaves, values, scales))
    return found


def levelled(options: Sequence[Options], relative: Sequence[float], room: float) -> list[int] | None:
    """For each weight the candidate nearest to a common level plus its own, the level as high as the bytes allow."""
    low, high = -12.0, 12.0
    found: list[int] | None = None
    for _ in range(HALVINGS):
        level = (low + high) / 2
        picked = [int((one.octaves - level - own).abs().argmin()) for one, own in zip(options, relative, strict=True)]
        if sum(one.candidates[at].size_bytes for one, at in zip(options, picked, strict=True)) <= room:
            found, low = picked, level
        else:
            high = level
    return found


class MatchedPass:
    """The divergence of a choice from the original network, from one pass over `match_moments`'s images, matched on the way.

    Batch norms give each channel the original network's moments, whatever comes in; so do layers with a bias and no norm behind
    them, but for the deviation where the form cannot scale its rows.
    """

    def __init__(self, original: nn.Module, task: Task) -> None:
        assert task.calibration is not None
        self.kind = Classes()
        self.inputs, _ = next(task.calibration.batches(min(MatchMoments().images, len(task.calibration))))
        self.network = copy.deepcopy(original).eval()
        view = View(self.network, original, task.example, reference=original)
        wanted, followed = original_moments(view, self.inputs, self.kind).moments, layers_before_norms(view)
        with torch.no_grad():
            self.original = self.kind.rows(original(self.inputs))
        self.scales: dict[str, bool] = {}
        self.weights = dict(self.network.named_parameters())
        for path, layer in self.network.named_modules():
            if path not in wanted:
                continue
            mean, deviation = wanted[path][0].float(), wanted[path][1].sqrt().float()
            if isinstance(layer, NORMS):
                # A norm may turn a channel over.
                turned = deviation if layer.weight is None else deviation * layer.weight.detach().sign()
                layer.weight, layer.bias = nn.Parameter(turned), nn.Parameter(mean)
                layer.running_mean = layer.running_var = None
                # The original network's own is in its moments already, and is no small part of a spread near zero.
                layer.eps = EPS
            elif isinstance(layer, MATMUL_LAYERS) and layer.bias is not None and path not in followed:
                layer.register_forward_hook(self.matching(f"{path}.weight", mean, deviation))

    def matching(self, path: str, mean: Tensor, deviation: Tensor) -> Any:
        def hook(layer: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            if self.scales.get(path):
                return functional.batch_norm(output, None, None, deviation, mean, training=True, eps=EPS)
            axes = [axis for axis in range(output.dim()) if axis != 1]
            shape = [-1 if axis == 1 else 1 for axis in range(output.dim())]
            return output + (mean - output.mean(axes)).view(shape)

        return hook

    def kl(self, options: Sequence[Options], picked: Sequence[int]) -> float:
        """Nats."""
        with torch.no_grad():
            for one, at in zip(options, picked, strict=True):
                self.weights[one.path].copy_(one.values[at])
                self.scales[one.path] = one.scales[at]
            return float(self.kind.divergence(self.original, self.kind.rows(self.network(self.inputs))).mean())


def beginnings(options: Sequence[Options], room: float) -> list[list[float]]:
    """All weights alike, and the profiles of the uniform settings nearest in bytes: one way for all weights that have it."""
    candidate_recipes = {one.way for option in options for one in option.candidates if one.way}
    profiles = []
    for way in sorted(candidate_recipes):
        places = [next((n for n, c in enumerate(one.candidates) if c.way == way), None) for one in options]
        known = [one.octaves[at] for one, at in zip(options, places, strict=True) if at is not None]
        middle = float(torch.stack(known).mean())
        profile = [
            0.0 if at is None else min(REACH, max(-REACH, float(one.octaves[at]) - middle))
            for one, at in zip(options, places, strict=True)
        ]
        size = sum(
            one.candidates[at].size_bytes if at is not None else 2**middle * one.values[0].numel() / 8
            for one, at in zip(options, places, strict=True)
        )
        profiles.append((abs(math.log(size / room)), profile))
    return [[0.0] * len(options), *(profile for _, profile in sorted(profiles)[:UNIFORM])]


def searched(
    sampler: str, options: Sequence[Options], network: MatchedPass, room: float, seconds: float, seed: int
) -> tuple[list[Plan], int]:
    """The best plans found within so many seconds of the processor, best first, and how many trials there were."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    made: Any = {
        "TPE": lambda: optuna.samplers.TPESampler(seed=seed, multivariate=True, n_startup_trials=FIRST),
        "NSGA-II": lambda: optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION),
    }[sampler]()
    study, found = optuna.create_study(sampler=made), dict[tuple[int, ...], float]()
    for profile in beginnings(options, room):
        study.enqueue_trial({one.path: own for one, own in zip(options, profile, strict=True)})
    start, trials = time.process_time(), 0
    while time.process_time() - start < seconds:
        trial = study.ask()
        relative = [trial.suggest_float(one.path, -REACH, REACH) for one in options]
        picked = levelled(options, relative, room)
        if picked is None:
            study.tell(trial, state=optuna.trial.TrialState.PRUNED)
            continue
        place = tuple(picked)
        if place not in found:
            found[place] = network.kl(options, picked)
        study.tell(trial, found[place])
        trials += 1
    best = sorted(found, key=lambda place: found[place])[:BEST]
    return [plan_of(options, place) for place in best], trials


def plan_of(options: Sequence[Options], picked: Sequence[int]) -> Plan:
    return Plan({one.path: one.candidates[at] for one, at in zip(options, picked, strict=True)})
