"""Plan: the expected loss at several file sizes, before any training."""

import logging
from collections.abc import Sequence

from torch import nn

from cortado.engine.options import RunOptions
from cortado.planner.allocate.feasibility import Feasibility
from cortado.planner.allocate.size_accuracy_curve import size_accuracy_curve
from cortado.planner.search.goal import MEASURING_SHARE
from cortado.planner.sensitivity.deadline import seconds_of
from cortado.progress import Progress
from cortado.running.brought import accept
from cortado.task.known_data import judged_as_new
from cortado.task.shifts import shifts_in
from cortado.task.task import Task

LOG = logging.getLogger(__name__)


def plan(
    network: nn.Module,
    task: Task,
    limits: Sequence[str] = (),
    progress: Progress | None = None,
    time_limit: str | float | None = None,
) -> Feasibility:
    """Return the expected loss of `network` at several file sizes, and whether `limits` look feasible without training.

    >>> text = cortado.plan(net, task, ["size <= 4 KB"]).text()

    Uses calibration and validation data, noisy copies of the latter where the network knows them by heart (see
    cortado.task.known_data; the original's mean loss on test data tells), and a third of the `time_limit` ("5 min", or
    seconds). Raises BadValue for an invalid limit, BadNetwork for a network without weights to choose for.
    """
    return plan_within(network, task, RunOptions.read(limits, progress=progress), time_limit)


def plan_within(network: nn.Module, task: Task, options: RunOptions, time_limit: str | float | None) -> Feasibility:
    """Run `plan` with parsed options."""
    accept(network, "plan")
    wanted = options.for_task(task).limits
    judged = judged_as_new(network, task)
    if judged.note:
        LOG.warning(judged.note)
    share = None if time_limit is None else MEASURING_SHARE * seconds_of(time_limit, "plan")
    size_bytes = sum(value.numel() * value.element_size() for value in network.state_dict().values())
    found = size_accuracy_curve(
        network, network, judged.task, progress=options.progress, time_limit=share, shifts=shifts_in(wanted)
    )
    return Feasibility(found, size_bytes, task.metric.name, task.metric.unit, wanted, judged.note)
