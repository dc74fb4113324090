"""Planned: what files of several sizes will cost a network, before any training."""

from collections.abc import Sequence

from torch import nn

from cortado.engine.options import RunOptions
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.size_accuracy_curve import size_accuracy_curve
from cortado.planner.search.deadline import seconds_of
from cortado.planner.search.goal import CURVE_SHARE
from cortado.progress import Progress
from cortado.task.task import Task


def plan(
    network: nn.Module,
    task: Task,
    limits: Sequence[str] = (),
    progress: Progress | None = None,
    time_limit: str | float | None = None,
) -> Feasibility:
    """Return what files of several sizes will cost `network`, and whether `limits` look reachable, before any training.

    >>> text = cortado.plan(net, task, ["size <= 4 KB"]).text()

    Looks at calibration and validation data alone. Raises BadValue for a limit that says nothing, BadNetwork for a network
    without weights to choose for. A third of the `time_limit` ("5 min", or seconds) goes into it; the rest is left to
    whoever measures more.
    """
    return plan_within(network, task, RunOptions.read(limits, progress=progress), time_limit)


def plan_within(network: nn.Module, task: Task, options: RunOptions, time_limit: str | float | None) -> Feasibility:
    """Do what `plan` does, with options that were read before."""
    wanted = options.check_score(task.metric).limits
    share = None if time_limit is None else CURVE_SHARE * seconds_of(time_limit, "plan")
    size_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    found = size_accuracy_curve(network, network, task, progress=options.progress, time_limit=share)
    return Feasibility(found, size_bytes, task.metric.name, task.metric.unit, wanted)
