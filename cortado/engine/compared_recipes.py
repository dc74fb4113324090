"""Compared recipes: several recipes on one network, each with several seeds, as one table and as charts."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadValue
from cortado.progress import Progress
from cortado.quantities import size_text, time_text
from cortado.report.pages.cost_chart import CostLine, cost_chart, picture
from cortado.report.pages.markup import Markup, tag
from cortado.report.pages.words import NOTHING, points, quantity, signed_text
from cortado.report.report import Report
from cortado.table import aligned
from cortado.task.task import Task

SEEDS = (0, 1, 2)
COSTS = {"size": "bytes of the file", "latency": "milliseconds of one sample"}
"""What a chart may have across."""


@dataclass(frozen=True)
class ComparedRecipes:
    """The reports of each recipe, one for each seed, in the order given; `base` is the recipe that others are compared with."""

    reports: Mapping[str, tuple[Report, ...]]
    base: str

    def scores(self, name: str) -> list[float]:
        """Return the test score of each seed."""
        return [report.test.compressed for report in self.reports[name]]

    def costs(self, name: str, cost: str = "size") -> list[float]:
        """Return the bytes, or the milliseconds in the first runtime, of each seed; [] where it was not timed."""
        if cost == "size":
            return [float(report.size_bytes) for report in self.reports[name]]
        lines = [next((line for line in report.lines if line.unit == "ms"), None) for report in self.reports[name]]
        return [line.compressed for line in lines if line is not None and line.compressed is not None]

    def text(self) -> str:
        """Return a table: means over the seeds, the deviation of the scores, and the mean difference from the base."""
        first = self.reports[self.base][0]
        timed, limited = bool(self.costs(self.base, "latency")), any(line.limit for line in first.lines)
        heads = ["", "file", *["latency"] * timed, first.metric_name, f"minus {self.base}", *["limits met"] * limited]
        rows = [tuple(heads), *(self.cells(name, timed, limited) for name in self.reports)]
        unit = f" in {points(first.metric_unit)}" if first.metric_unit else ""
        count = len(self.reports[self.base])
        over = f"Means over {count} seeds, ± the deviation of one seed" if count > 1 else "One seed"
        return f"{aligned(rows)}\n\n{over}; differences{unit}, seed by seed, on {first.test.samples:,} test samples."

    __str__ = text

    def cells(self, name: str, timed: bool, limited: bool) -> tuple[str, ...]:
        """Return the row of one recipe."""
        own, scores, base = self.reports[name], self.scores(name), self.scores(self.base)
        taken = self.costs(name, "latency")
        latency = [time_text(mean(taken)) if taken else NOTHING] * timed
        score = f"{quantity(mean(scores), own[0].metric_unit)}{deviation_text(scores)}"
        gaps = [one - other for one, other in zip(scores, base, strict=True)]
        change = NOTHING if name == self.base else f"{signed_text(mean(gaps))}{deviation_text(gaps)}"
        met = [f"{sum(report.met for report in own)} of {len(own)}"] * limited
        return (name, size_text(mean(self.costs(name))), *latency, score, change, *met)

    def drawing(self, cost: str = "size") -> Markup:
        """Return the chart of scores against "size" or "latency": a point for each run, and the original network.

        Raises BadValue for another cost, and for latency where nothing was timed.
        """
        if cost not in COSTS:
            raise BadValue(f"compare_recipes: a chart has {' or '.join(COSTS)} across, got {cost!r}.")
        found = {name: self.costs(name, cost) for name in self.reports}
        if not any(found.values()):
            raise BadValue("compare_recipes: nothing was timed. Name a runtime: runtimes=['onnxruntime'].")
        lines = [
            CostLine(name, tuple(zip(costs, self.scores(name), strict=True)), joined=False)
            for name, costs in found.items()
            if costs
        ]
        first = self.reports[self.base][0]
        line = first.lines[0] if cost == "size" else next(line for line in first.lines if line.unit == "ms")
        if line.original is not None:
            lines.append(CostLine("original network", ((line.original, first.test.original),), joined=False))
        return cost_chart(lines, COSTS[cost], f"{first.metric_name} {first.metric_unit}".rstrip())

    def svg(self, cost: str = "size") -> str:
        """Return the chart as the text of an SVG file; raises as `drawing` does."""
        return picture(self.drawing(cost))

    def _repr_html_(self) -> str:
        """Return table and charts for a notebook."""
        charts = ["size", *["latency"] * bool(self.costs(self.base, "latency"))]
        drawn = [tag("div", Markup(self.svg(cost))) for cost in charts]
        return tag("div", tag("pre", self.text()), *drawn)


def compare_recipes(
    network: nn.Module | Callable[[int], nn.Module],
    task: Task,
    recipes: Mapping[str, Any],
    *,
    seeds: Sequence[int] = SEEDS,
    base: str | None = None,
    limits: Sequence[str] = (),
    folder: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
    runtimes: Sequence[str] = (),
    threads: int = 1,
) -> ComparedRecipes:
    """Return the results of several recipes with several seeds, each compared with `base`, by default the first.

    >>> found = cortado.compare_recipes(net, task, {"8 bits": "quantize/weights", "4 bits": "quantize/weights bits=4"}, seeds=[0])

    `network` is a network, or a function that returns one for a seed. The seed is that of the task: of training, of what is
    drawn, of calibration. With `folder`, each run has its stages in `folder/NAME/SEED`, and `resume` continues there. Each run
    is scored on the test data, so that the table is for a comparison of methods, not for choosing one of many. Raises
    BadValue for anything but recipes by name, for an unknown base and for no or repeated seeds, and what compress raises.
    """
    base = check_named(recipes, seeds, base)
    found: dict[str, list[Report]] = {name: [] for name in recipes}
    for seed in seeds:
        made = network if isinstance(network, nn.Module) else network(seed)
        for name, recipe in recipes.items():
            place = None if folder is None else Path(folder) / name / str(seed)
            _, report = compress(
                made, replace(task, seed=seed), recipe, limits=limits, folder=place, resume=resume, progress=progress,
                runtimes=runtimes, threads=threads,
            )  # fmt: skip
            found[name].append(report)
    return ComparedRecipes({name: tuple(reports) for name, reports in found.items()}, base)


def check_named(recipes: Any, seeds: Sequence[int], base: str | None) -> str:
    """Return the name of the base.  Raises BadValue as `compare_recipes` does."""
    if not isinstance(recipes, Mapping) or not recipes or not all(isinstance(name, str) for name in recipes):
        raise BadValue(
            f"compare_recipes: recipes must be a dict of names and recipes, got {type(recipes).__name__}. Write "
            '{"mine": "my_method:Mine keep=0.3", "baseline": "prune/weights keep=0.3"}.'
        )
    odd = [name for name in recipes if name in ("", ".", "..") or set(name) & set("/\\")]
    if odd:
        raise BadValue(f"compare_recipes: {odd[0]!r} is no name of a folder. Leave out / and \\.")
    if not seeds or len(set(seeds)) < len(seeds):
        raise BadValue(
            f"compare_recipes: seeds must be different whole numbers, got {list(seeds)}. Write seeds=(0, 1, 2)."
        )
    if base is not None and base not in recipes:
        raise BadValue(f"compare_recipes: there is no recipe {base!r}. Given: {', '.join(recipes)}.")
    return base or next(iter(recipes))


def deviation_text(values: Sequence[float]) -> str:
    """Return " ± 0.12", the deviation of one value; "" for one alone."""
    return f" ± {stdev(values):.2f}" if len(values) > 1 else ""
