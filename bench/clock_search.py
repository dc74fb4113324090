"""Clock search: how far ResNet-56 has to be cut, in one way or another, to be so many times faster in ONNX Runtime.

For each way the share of multiply-adds is halved in on the measured ratio, the original network and the cut one in turns on
one thread; of the ways that reach the aim the one is taken that is best on the validation data before recovery.
"""

import copy
import dataclasses
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from bench.clock_prices import PruneByClock, measured_prices
from bench.kept import kept
from cortado.engine.compress import compress
from cortado.engine.recipe import read_recipe, stage_data
from cortado.errors import BadValue
from cortado.lowering.lower import lowered
from cortado.methods.method import Method
from cortado.methods.prune.blocks import PruneBlocks
from cortado.methods.prune.channels import PruneChannels
from cortado.methods.prune.groups import worth_of
from cortado.methods.prune.quota import Kept, Worth
from cortado.nets.resnet import resnet_56
from cortado.network.coupling.cut import cut
from cortado.network.profile.pruned_cost import cost_of
from cortado.network.view import View
from cortado.report.report import Ratio
from cortado.runtimes.measured import batch_of, bound
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.timing import Call, interleaved, is_noisy, speed_ratio
from cortado.task.task import Task

BATCH, THREADS = 32, 1
RECIPE = "recipes/channels_resnet_56.yaml"
AIM = 2.03
"""The search stays this far above the bar, so that the noise of a later measurement does not take it below."""
LOWEST, HIGHEST, STEPS = 0.15, 0.75, 5
"""Shares of multiply-adds between which the search halves, and how often."""
SECONDS, TRIES = 6.0, 3
IMAGES = 2000
"""How much of the validation data tells one way from another."""


@dataclass(frozen=True)
class PtqConfig:
    """How an arm cuts: the multiple of its channel counts; ours, the share of blocks that stays before, and whether time is
    the price of a channel; uniform, which groups: the streams too, or only what lies inside blocks."""

    multiple: int
    blocks: float = 1.0
    where: str = "*"
    rated: bool = False

    def before(self) -> list[Method]:
        """What comes before the channels."""
        return [PruneBlocks(keep=self.blocks, samples=128)] if self.blocks < 1 else []

    def channels(self, arm: str, keep: float, sensitivities: str = "") -> PruneChannels | PruneByClock:
        """The cut of channels: to a share of multiply-adds, or of channels where they are priced."""
        if arm == "uniform":
            return PruneChannels(keep=keep, of="multiply_adds", multiple=self.multiple, where=self.where)
        ours = read_recipe(RECIPE).stages[0]
        assert isinstance(ours, PruneChannels)
        if self.rated:
            return PruneByClock(
                keep=keep,
                by=str(ours.by),
                least=ours.least,
                reconstruct=ours.reconstruct,
                multiple=self.multiple,
                sensitivities=sensitivities,
            )
        return dataclasses.replace(ours, keep=keep, multiple=self.multiple)


CANDIDATE_RECIPES = {
    "ours": {
        "multiples of 8": PtqConfig(8),
        "priced by the clock, multiples of 8": PtqConfig(8, rated=True),
        "a third of the blocks, then priced by the clock, multiples of 8": PtqConfig(8, blocks=2 / 3, rated=True),
        "four ninths of the blocks, then priced by the clock, multiples of 8": PtqConfig(8, blocks=5 / 9, rated=True),
    },
    "uniform": {
        "multiples of 8": PtqConfig(8),
        "inside blocks, multiples of 8": PtqConfig(8, where="*.conv1"),
    },
}


def original() -> nn.Module:
    return resnet_56(weights=True).eval()


def without_verdict(task: Task) -> Task:
    """The task for trials: few validation data, and the test data left alone."""
    few = task.validation.first(IMAGES)
    return dataclasses.replace(task, validation=few).for_trial()


class OnTheClock:
    """The original network in ONNX Runtime, and how many times faster others are, in turns with it."""

    def __init__(self, network: nn.Module, example: Any) -> None:
        self.example, self.inputs = example, batch_of(example, BATCH)
        self.original = self.call(network)

    def call(self, network: nn.Module) -> Call:
        with tempfile.TemporaryDirectory() as folder:
            runtime = Onnxruntime()
            file = runtime.lower(lowered(network, self.example), self.example, Path(folder))
            return bound(runtime.load(file, THREADS), self.inputs)

    def measure(self, network: nn.Module) -> tuple[Ratio, Ratio]:
        """The ratio, and the original network's to itself; again where the machine was restless, the quietest counts."""
        call, found = self.call(network), []
        for _ in range(TRIES):
            taken = interleaved([self.original, call, self.original], SECONDS)
            found.append((speed_ratio(taken[:, 0], taken[:, 1]), speed_ratio(taken[:, 0], taken[:, 2])))
            if not is_noisy(found[-1][1]):
                break
        return min(found, key=lambda pair: pair[1].high - pair[1].low + abs(pair[1].median - 1))


def searched(arm: str, name: str, task: Task) -> dict[str, Any]:
    """The mildest cut of one way that reaches the aim on the clock, with every trial; keep is None where none does."""
    way = CANDIDATE_RECIPES[arm][name]
    settings = [aim_settings(), plan_of(arm, way, 0.0)]
    return kept(f"cut_clock/{arm}_{name}".replace(" ", "_").replace(",", ""), settings, lambda: fresh(arm, way, task))


def aim_settings() -> list[float]:
    return [AIM, LOWEST, HIGHEST, STEPS, BATCH, THREADS]


def plan_of(arm: str, way: PtqConfig, keep: float) -> list[Any]:
    """The stages as data."""
    return [stage_data(stage) for stage in (*way.before(), way.channels(arm, keep))]


def fresh(arm: str, way: PtqConfig, task: Task) -> dict[str, Any]:
    """Search now: scores are taken once, as shapes alone decide the time; weights are left out until the end."""
    network = original()
    clock, trials = OnTheClock(network, task.example), []
    cut_to, sensitivities = shapes(arm, way, task, network, clock)
    low, high, best = LOWEST, HIGHEST, None
    seen: dict[tuple[int, ...], tuple[Ratio, Ratio]] = {}
    for _ in range(STEPS):
        keep = round((low + high) / 2, 4)
        small = cut_to(keep)
        if small is None:
            low = keep
            continue
        shape = widths(small)
        # Rounded to multiples, neighbouring shares often give one shape.
        found, again = seen[shape] = seen[shape] if shape in seen else clock.measure(small)
        trials.append({"keep": keep, "ratio": dataclasses.asdict(found), "again": dataclasses.asdict(again)})
        print(f"{arm} {way}: keep {keep:g}, measured {found.median:.3f}, A/A {again.median:.3f}", flush=True)
        low, high, best = (keep, high, keep) if found.median >= AIM else (low, keep, best)
    validation = None if best is None else tried([*way.before(), way.channels(arm, best, sensitivities)], task)
    return {"keep": best, "prices": sensitivities, "trials": trials, "validation": validation}


def widths(network: nn.Module) -> tuple[int, ...]:
    """The output channels of each convolution."""
    return tuple(layer.out_channels for layer in network.modules() if isinstance(layer, nn.Conv2d))


def shapes(
    arm: str, way: PtqConfig, task: Task, network: nn.Module, clock: OnTheClock
) -> tuple[Callable[[float], nn.Module | None], str]:
    """A function from a share to a network of that shape, None where no cut goes so far; and the prices it took."""
    base = network
    if way.before():
        base, _ = compress(network, without_verdict(task), way.before())
    view = View(base, network, task.example)
    where = way.where if arm == "uniform" else "*"
    groups = PruneChannels(where=where).groups(view)
    worth = worth_of(way.channels(arm, HIGHEST).by, groups, view, task)
    sensitivities = ""
    if way.rated:
        sensitivities = measured_prices(base, view.groups, groups, lambda small: clock.measure(small)[0].median)
        print(f"{arm} {way}: prices {sensitivities}", flush=True)

    def of(keep: float) -> nn.Module | None:
        try:
            keeps = allocated(way.channels(arm, keep, sensitivities), view, worth)
        except BadValue:
            return None
        small = copy.deepcopy(base)
        cut(small, view.groups, {group: units for group, units in keeps.items() if len(units) < group.count})
        return small

    return of, sensitivities


def allocated(method: PruneChannels | PruneByClock, view: View, worth: Worth) -> Kept:
    """The units of each group that stay."""
    if isinstance(method, PruneByClock):
        return method.allocate(worth)
    return method.quota().allocate(worth, cost_of(view, method.of))


def tried(stages: list[Method], task: Task) -> float:
    """The choice score of a cut before recovery."""
    _, report = compress(original(), without_verdict(task), stages)
    return report.stages[-1].score


def chosen(arm: str, task: Task) -> tuple[str, dict[str, Any]]:
    """The way of an arm that is best on the validation data, of those that reach the aim."""
    found = {name: searched(arm, name, task) for name in CANDIDATE_RECIPES[arm]}
    able = {name: one for name, one in found.items() if one["keep"] is not None}
    if not able:
        raise SystemExit(f"bench: no way of {arm} is {AIM:g} times faster in ONNX Runtime. Lower LOWEST.")
    best = max(able, key=lambda name: able[name]["validation"])
    return best, able[best]
