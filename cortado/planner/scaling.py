"""Scaling: how depth, width and resolution of a network grow together, found on a small grid and carried to any cost."""

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import nn

from cortado.errors import BadRecipe, BadValue
from cortado.knobs.knob import accepts
from cortado.nets.named import named_network, named_text
from cortado.network.profile.profile import profile
from cortado.planner.search.options import hint_of, parameters_of
from cortado.progress import Progress, quiet
from cortado.quantities import count_text
from cortado.running.trees import tensors_in
from cortado.table import aligned
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.training import Training

DEPTH, WIDTH, RESOLUTION = NAMES = ("depth", "width", "resolution")
"""The options of a maker that are scaled."""
STEPS = (1.0, 1.1, 1.2, 1.3, 1.4)
"""Factors of width and resolution on the grid; the factor of depth follows from a product of 2."""
NEAR = 0.15
"""How far the multiply-adds of a candidate may be from twice the base's: channels and blocks are whole."""
PHI, FURTHEST = 0.05, 10.0
WARM, TIMED = 2, 4
"""Steps that are not timed, and steps that are, before a candidate is trained."""
Options = dict[str, Any]


@dataclass(frozen=True)
class Scaled:
    """A candidate: the factors of depth, width and resolution, the maker's options, the cost, and what training it gave."""

    factors: Mapping[str, float]
    options: Options
    multiply_adds: float
    epochs: float = 0.0
    score: float = math.nan


@dataclass
class Scaling:
    """A maker whose options are scaled for a task.  `options` are those of the base network.

    >>> Scaling("cifar_resnet", {"width": 8, "depth": 1}, task, Training(lr=0.1, optimizer="sgd")).scaled(40e6, seconds=60)

    EfficientNet's compound scaling (Tan and Le, 2019): depth grows by alpha ** phi, width by beta ** phi and resolution by
    gamma ** phi, with alpha * beta ** 2 * gamma ** 2 near 2, so that phi doubles the multiply-adds.
    """

    maker: Any
    options: Options
    task: Task
    training: Training
    progress: Progress = field(default_factory=quiet)
    clock: Callable[[], float] = time.process_time
    """Seconds that count as training: by default those of this process's own work."""
    counted: dict[str, float] = field(default_factory=dict)
    """The multiply-adds of networks that were counted before."""

    def __post_init__(self) -> None:
        known = parameters_of(self.maker, "scale")
        self.names = tuple(name for name in NAMES if name in known)
        if len(self.names) < 2:
            raise BadRecipe(
                f"scale: {named_text(self.maker)} has {', '.join(self.names) or 'none'} of the options depth, width and "
                "resolution. It needs two of them or more."
            )
        self.whole = {name: not accepts_fractions(known[name], self.options.get(name)) for name in self.names}
        self.base = {name: self.start_of(name, known[name].default) for name in self.names}

    def start_of(self, name: str, default: Any) -> float:
        """Return the base's value of an option: as given, the maker's own, or for a resolution the size of the inputs."""
        value = self.options.get(name, default)
        if value is None and name == RESOLUTION:
            value = tensors_in(self.task.example)[0].shape[-1]
        if not isinstance(value, (int, float)) or isinstance(value, bool) or value <= 0:
            raise BadValue(f"scale: {name} of the base must be a number above 0, got {value!r}. Write it in options.")
        return float(value)

    def at(self, factors: Mapping[str, float], power: float = 1.0) -> Options:
        """Return the options at factors ** power.  Whole numbers are rounded, resolutions to even ones."""
        found = dict(self.options)
        for name in self.names:
            value = self.base[name] * factors[name] ** power
            step = 2 if name == RESOLUTION else 1
            found[name] = max(step, round(value / step) * step) if self.whole[name] else round(value, 4)
        return found

    def cost(self, options: Options) -> float:
        """Return the multiply-adds of the network with these options, which has no values."""
        mark = repr(sorted(options.items()))
        if mark not in self.counted:
            with torch.device("meta"):
                network = named_network(self.maker, "scale", options)
            self.counted[mark] = float(profile(network.eval(), self.task.example).total("multiply_adds").value)
        return self.counted[mark]

    def grid(self) -> list[Scaled]:
        """Return the candidates: combinations whose product is 2 and whose multiply-adds are near twice the base's."""
        base, found = self.cost(self.at(dict.fromkeys(self.names, 1.0))), dict[float, Scaled]()
        steps = {name: STEPS if name in self.names else (1.0,) for name in (WIDTH, RESOLUTION)}
        for width in steps[WIDTH]:
            for resolution in steps[RESOLUTION]:
                depth = 2 / (width**2 * resolution**2)
                if depth < 0.97 or (DEPTH not in self.names and depth > 1.03):
                    continue
                factors = {DEPTH: max(1.0, depth), WIDTH: width, RESOLUTION: resolution}
                options = self.at(factors)
                made = Scaled(factors, options, self.cost(options))
                if abs(made.multiply_adds / (2 * base) - 1) <= NEAR:
                    # Options that a maker rounds to the same network cost the same.
                    found.setdefault(made.multiply_adds, made)
        if not found:
            raise BadValue(
                f"scale: no combination of {', '.join(self.names)} comes near twice the {count_text(base)} multiply-adds of the "
                "base, because its options are whole numbers. Give a base with larger ones."
            )
        return list(found.values())

    def tried(self, one: Scaled, seconds: float) -> Scaled:
        """Return a candidate with its score on validation data after so many seconds of training."""
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.task.seed)
            network = named_network(self.maker, "scale", one.options)
        epochs = self.epochs_in(network, seconds)
        self.trained(network, epochs)
        return replace(one, epochs=epochs, score=mean_score(network.eval(), self.task.validation, self.task.metric))

    def trained(self, network: nn.Module, epochs: float) -> None:
        train(network, self.task, replace(self.training, epochs=epochs), seed=self.task.seed, label="scale")

    def epochs_in(self, network: nn.Module, seconds: float) -> float:
        """Return the epochs that fit into so many seconds, by the time of a few steps of a copy."""
        spare, step = copy.deepcopy(network), self.step()
        self.trained(spare, WARM * step)
        start = self.clock()
        self.trained(spare, TIMED * step)
        each = max(self.clock() - start, 1e-9) / TIMED
        return max(1, round(seconds / each)) * step

    def step(self) -> float:
        """Return the share of an epoch that one step is."""
        return (self.training.batch or self.task.batch) / len(self.task.train)

    def ranked(self, seconds: float) -> list[Scaled]:
        """Return all candidates of the grid, trained, the best first."""
        candidates, sign = self.grid(), 1 if self.task.metric.higher_is_better else -1
        found = []
        with self.progress.bar("candidates", len(candidates)) as bar:
            for one in candidates:
                found.append(self.tried(one, seconds))
                bar.advance()
        return sorted(found, key=lambda one: (-sign * one.score, one.multiply_adds))

    def carried(self, best: Scaled, limit: float) -> tuple[float, Scaled]:
        """Return the largest phi within a limit of multiply-adds, and the options there.  Raises BadValue if there is none."""
        found, phi = None, 0.0
        while phi <= FURTHEST:
            options = self.at(best.factors, phi)
            cost = self.cost(options)
            if cost <= limit and (found is None or cost >= found[1].multiply_adds):
                found = round(phi, 2), Scaled(best.factors, options, cost)
            if cost > 2 * limit:
                break
            phi += PHI
        if found is None:
            base = self.cost(self.at(best.factors, 0.0))
            raise BadValue(
                f"scale: the base alone has {count_text(base)} multiply-adds, more than {count_text(limit)}. Raise the limit, or "
                "give a smaller base."
            )
        return found

    def scaled(self, limit: float, seconds: float) -> tuple[list[Scaled], float, Scaled]:
        """Return the trained candidates, the best first; phi; and the network that the limit allows."""
        ranked = self.ranked(seconds)
        return ranked, *self.carried(ranked[0], limit)


def accepts_fractions(parameter: Any, value: Any) -> bool:
    """Return whether an option takes numbers with a fraction."""
    return accepts(hint_of(parameter, value), 0.5)


def scale_table(ranked: Sequence[Scaled], unit: str) -> str:
    """Return the candidates as a table."""
    head = ["depth", "width", "resolution", "multiply-adds", "epochs", "score on validation data"]
    rows = [
        [*(f"{one.factors[name]:.2f}" for name in NAMES), count_text(one.multiply_adds), f"{one.epochs:.3g}",
         f"{one.score:.2f} {unit}".rstrip()]
        for one in ranked
    ]  # fmt: skip
    return aligned([head, *rows], ">" * len(head))
