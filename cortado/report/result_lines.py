"""Result lines: the rows of a report's result: size, score, and parameters of a student."""

from collections.abc import Mapping

from torch import nn

from cortado.network.profile.profile import profile
from cortado.network.weight import parameter_places
from cortado.report.record import Compared, Line
from cortado.task.limits import MULTIPLY_ADDS, Limit
from cortado.task.task import Task


def lines_of(
    task: Task, original_bytes: int, size_bytes: int, compared: Compared, limits: tuple[Limit, ...],
    shifts: Mapping[str, Compared],
) -> tuple[Line, ...]:  # fmt: skip
    """Return the report's lines for size and scores: original | compressed | limit | met; a shifted score if it is limited."""
    size = next((limit for limit in limits if limit.what == "size"), None)
    kept_size = None if size is None else size.kept(size_bytes, original_bytes)
    scores = {limit.shift: limit for limit in limits if limit.what == "score"}
    return (
        Line("size of the file", "B", original_bytes, size_bytes, "" if size is None else size.text, kept_size),
        score_line(task, task.metric.name, compared, scores.pop("", None)),
        *(score_line(task, shifted_name(task, name), shifts[name], limit) for name, limit in scores.items()),
    )


def shifted_name(task: Task, shift: str) -> str:
    """Return what the line of a shifted score is called."""
    return f"{task.metric.name} under {shift}"


def score_line(task: Task, what: str, compared: Compared, limit: Limit | None) -> Line:
    """Return the line of a score."""
    kept, higher = None, task.metric.higher_is_better
    if limit is not None and limit.relative:
        sign = 1 if higher else -1
        kept = limit.kept(sign * compared.compressed, sign * compared.original)
    elif limit is not None:
        kept = limit.kept(compared.compressed, compared.original) if higher else compared.compressed <= limit.value
    text = "" if limit is None else limit.text
    return Line(what, task.metric.unit, compared.original, compared.compressed, text, kept)


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
