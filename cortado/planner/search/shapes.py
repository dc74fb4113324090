"""Shapes: cuts of a network before its weights are coded, with the measured KL, time and size of each."""

import copy
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from cortado.engine.recipe import read_recipe
from cortado.engine.stage import apply_stage, start
from cortado.errors import CortadoError
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.machine import processor_saturates
from cortado.methods.method import Method
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.compare.divergence import divergence_for
from cortado.network.weight import parameter_places
from cortado.planner.allocate.measured_plans import mean_divergences
from cortado.planner.allocate.size_accuracy_curve import chosen
from cortado.progress import Progress, quiet
from cortado.quantities import time_text
from cortado.runtimes.speed import multiply_adds_a_sample
from cortado.runtimes.stopwatch import Stopwatch
from cortado.table import aligned
from cortado.task.task import Task

FEWER = "of=multiply_adds by=curvature multiple=8"
CHANNELS = tuple(f"prune/channels keep={keep} across=true {FEWER}" for keep in (0.75, 0.55, 0.4))
EVENLY = tuple(f"prune/channels keep={keep} {FEWER}" for keep in (0.5, 0.35))
BLOCKS = "prune/blocks keep=0.67 samples=128"
TIMES = (0.8, 0.65)
"""Shares of the layers' time for prune/widths."""
TAIL = ("simplify/norms", "quantize/floats")
"""Stages that shrink the rest of a file: norms as two numbers per channel, 16-bit floats."""


@dataclass(frozen=True)
class Shape:
    """A cut as a one-line recipe ("" for none), and whether the network then runs in integers.

    `kl`: nats on validation data after the cut and moment matching, untrained; `latency_ms`: one sample in the chosen
    runtime, None without one; `work`: share of the original's multiply-adds, 1 if unknown; `rest_bytes`: bytes of the
    final file besides matrices and kernels.
    """

    cut: str
    integers: bool
    kl: float
    rest_bytes: int
    work: float = 1.0
    latency_ms: float | None = None

    def text(self) -> str:
        """Return a short label: each stage with its first knob."""
        return ", ".join([words(self.cut), *(["integers"] if self.integers else [])])


def integers() -> tuple[Method, Method]:
    """Return the stages that quantize weights and activations; 7-bit weights if 8-bit products saturate on this processor."""
    return QuantizeWeights(bits=7 if processor_saturates() else 8), QuantizeActivations(range="mse")


def words(cut: str) -> str:
    """Return the name of each stage with its first knob."""
    stages = [stage.split()[:2] for stage in cut.split("|") if stage]
    return ", ".join(" ".join([name.rpartition(":")[2], *knobs]) for name, *knobs in stages) or "no cut"


def cuts_for(runtime: str, threads: int) -> tuple[str, ...]:
    """Return the cuts to try if latency counts, the cheapest to compute first."""
    widths = [f"prune/widths keep={keep} runtime={runtime} threads={threads}" for keep in TIMES]
    both = [f"{BLOCKS} | {cut}" for cut in (CHANNELS[1], EVENLY[0])]
    return (CHANNELS[0], *EVENLY, *widths, CHANNELS[2], "factorize/tucker keep=0.5", BLOCKS, *both)


@dataclass(frozen=True)
class Shapes:
    """The measured cuts, the original network first, and the refused ones with the reason."""

    found: tuple[Shape, ...]
    refused: dict[str, str]

    def text(self, runtime: str, limit_ms: float | None = None) -> str:
        """Return a table, fastest first: time of one sample and KL before any training."""
        original = self.found[0].latency_ms or 1.0
        rows = [[f"one sample in {runtime}", "time", "speed-up", "KL, nats", *["limit"] * (limit_ms is not None)]]
        for one in sorted(self.found, key=lambda one: one.latency_ms or 0.0):
            taken = one.latency_ms or 0.0
            kept = [] if limit_ms is None else ["met" if taken <= limit_ms else "too slow"]
            rows.append([one.text(), time_text(taken), f"{original / max(taken, 1e-9):.2f}x", f"{one.kl:.3g}", *kept])
        left_out = [f"{words(cut)}: {why}" for cut, why in self.refused.items()]
        note = "KL right after the cut; finetuning recovers from up to about 0.3."
        return "\n".join([aligned(rows), "", note, *left_out])


@dataclass
class Explorer:
    """Cuts, matches moments and measures; `watch` is None if latency does not count; `tail` ends every recipe."""

    original: nn.Module
    task: Task
    watch: Stopwatch | None = None
    tail: str = ""

    def explored(
        self, cuts: Sequence[str] | None = None, seconds: float = float("inf"), progress: Progress | None = None
    ) -> Shapes:
        """Return the original network and each of `cuts`, in floats and, if timed, in integers too.

        `cuts` defaults to `cuts_for` the timing runtime, or to none without one. Refused cuts are listed with the
        reason. No cut starts after `seconds`.
        """
        if cuts is None:
            cuts = cuts_for(self.watch.runtime.name(), self.watch.threads) if self.watch is not None else ()
        start, found, refused = time.perf_counter(), list[Shape](), dict[str, str]()
        kept: dict[str, nn.Module] = {"": self.original}
        with (progress or quiet()).bar("shapes", len(cuts) + 1) as bar:
            for cut in ("", *cuts):
                bar.advance()
                if cut and time.perf_counter() - start > seconds:
                    refused[cut] = "time was up"
                    continue
                try:
                    made = self.made(cut, kept)
                    found.append(self.measured(made, cut, False))
                    if any(other.startswith(f"{cut} | ") for other in cuts):
                        kept[f"{cut} | "] = made
                    if self.watch is not None:
                        found.append(self.measured(shaped(made, self.original, self.task, integers()), cut, True))
                except CortadoError as error:
                    refused[cut] = str(error)
        return Shapes(tuple(found), refused)

    def made(self, cut: str, kept: dict[str, nn.Module]) -> nn.Module:
        """Return the network after a cut, starting from the longest earlier cut that is its prefix."""
        begun = max((line for line in kept if cut.startswith(line)), key=len)
        return shaped(kept[begun], self.original, self.task, cut.removeprefix(begun))

    def measured(self, network: nn.Module, cut: str, integers: bool) -> Shape:
        """Return the measured shape of a cut network."""
        before, now = multiply_adds_a_sample(self.original, self.task), multiply_adds_a_sample(network, self.task)
        (kl,) = mean_divergences(self.original, [network], chosen(self.task), divergence_for(self.original, self.task))
        return Shape(
            cut, integers, kl,
            rest_bytes(network, self.original, self.task, self.tail),
            now / before if before and now is not None else 1.0,
            None if self.watch is None else self.watch.ms(network),
        )  # fmt: skip


def shaped(network: nn.Module, original: nn.Module, task: Task, recipe: Any, match: bool = True) -> nn.Module:
    """Return a copy after the stages of a recipe ("" for none), with moments matched after each, as in compress."""
    state = start(copy.deepcopy(network), original, task.example)
    for stage in read_recipe(recipe).stages if recipe else ():
        state = apply_stage(stage, state, task, match_moments=match, check=False)
    return state.network


def rest_bytes(network: nn.Module, original: nn.Module, task: Task, tail: str) -> int:
    """Return the bytes of a network's file besides its matrices and kernels, after the tail."""
    made = shaped(network, original, task, tail, match=False)
    attached = {weight.path for weight in parameter_places(made) if len(weight.shape) > 1}
    return len(encode(made, original)) - sum(
        row.size_bytes for row in layer_rows(made, original) if row.path in attached
    )


def tail_of(original: nn.Module, task: Task) -> str:
    """Return the stages of TAIL that shrink the network's file, as a one-line recipe."""
    kept, least = list[str](), len(encode(original, original))
    for stage in TAIL:
        line = " | ".join([*kept, stage])
        try:
            size = len(encode(shaped(original, original, task, line, match=False), original))
        except CortadoError:
            continue
        if size < least:
            kept, least = [*kept, stage], size
    return " | ".join(kept)
