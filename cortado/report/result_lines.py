"""Result lines: the rows of a report's result: size, score, and parameters of a student."""

from torch import nn

from cortado.network.profile.profile import profile
from cortado.network.weight import parameter_places
from cortado.report.record import Compared, Line
from cortado.task.limits import MULTIPLY_ADDS, Limit
from cortado.task.task import Task


def lines_of(
    task: Task, original_bytes: int, size_bytes: int, compared: Compared, limits: tuple[Limit, ...]
) -> tuple[Line, ...]:
    """Return the report's lines for size and score: original | compressed | limit | met."""
    by_what = {limit.what: limit for limit in limits}
    sign = 1 if task.metric.higher_is_better else -1
    size, score = by_what.get("size"), by_what.get("score")
    kept_score = None
    if score is not None:
        kept_score = score.kept(
            sign * compared.compressed if score.relative else compared.compressed, sign * compared.original
        )
        if not task.metric.higher_is_better and not score.relative:
            kept_score = compared.compressed <= score.value
    kept_size = None if size is None else size.kept(size_bytes, original_bytes)
    size_text, score_text = (limit.text if limit else "" for limit in (size, score))
    return (
        Line("size of the file", "B", original_bytes, size_bytes, size_text, kept_size),
        Line(task.metric.name, task.metric.unit, compared.original, compared.compressed, score_text, kept_score),
    )


def parameter_line(original: nn.Module, network: nn.Module) -> Line:
    """Return the line for the numbers of parameters, zeros included."""
    before, now = (sum(one.shape.numel() for one in parameter_places(net)) for net in (original, network))
    return Line("parameters", "", before, now)


def limited_costs(original: nn.Module, network: nn.Module, task: Task, limits: tuple[Limit, ...]) -> tuple[Line, ...]:
    """Return the line for the multiply-adds of one sample, where they are limited."""
    limit = next((one for one in limits if one.what == MULTIPLY_ADDS), None)
    if limit is None:
        return ()
    before, now = (float(profile(net, task.example).total(MULTIPLY_ADDS).value) for net in (original, network))
    return (Line("multiply-adds", "", before, now, limit.text, limit.kept(now, before)),)
