"""Constants: numbers among an operator's arguments that follow from channel counts, and their values after a cut."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import fx

from cortado.network.graph.axes.step import Step, module_of, operator_name, source_of, untracked
from cortado.network.graph.axes.variables import Axis, Gone, staying


@dataclass(frozen=True)
class Constant:
    """One number among an operator's arguments: position `place` inside the argument `argument` (-1: all of it)."""

    node: fx.Node
    argument: str
    place: int
    old: int
    after: Callable[[Gone], int]
    axes: tuple[Axis, ...]

    @property
    def module(self) -> str:
        """Return the path of the module whose forward contains it."""
        return module_of(self.node)

    @property
    def operator(self) -> str:
        return operator_name(self.node)

    @property
    def line(self) -> str:
        return source_of(self.node)


def constant(step: Step, argument: str, place: int, old: int, rows: Axis, sign: int = 1) -> Constant:
    """Return a number that counts the remaining entries of an axis, or of some of its rows; with `sign` -1, from the end."""

    def count(gone: Gone) -> int:
        return 0 if rows is None else sign * int(staying(rows, gone).sum())

    return Constant(step.node, argument, place, old, count, (rows,))


def sizes(step: Step, argument: str, axes: list[Axis]) -> list[Constant]:
    """Return the entries of a list of sizes for the first axes; -1 needs no change."""
    given = step.arg(argument)
    if not isinstance(given, (list, tuple)):
        return []
    return [
        constant(step, argument, place, int(size), axis)
        for place, (size, axis) in enumerate(zip(given, axes[: len(given)], strict=True))
        if axis is not None and isinstance(size, int) and size != -1
    ]


def repeats(step: Step, argument: str) -> list[Constant]:
    """Return repeat counts: output entries divided by input entries."""
    x, out = step.tensors()[0], step.outputs()
    before = untracked(len(out) - len(x)) + step.resolved(x.axis_list)
    given = step.arg(argument)

    def counted(at: int, place: int, times: int) -> Constant:
        return Constant(step.node, argument, at, times, entries_ratio(out[place], before[place], times), (out[place],))

    if isinstance(given, int):
        return [counted(-1, int(step.arg("dim")) % len(x), given)]
    listed = enumerate(given) if len(given) == len(out) else ()
    return [counted(place, place, int(times)) for place, times in listed if times != 1]


def parts(step: Step, argument: str) -> list[Constant]:
    """Return the sizes of parts, one each or one for all."""
    dim = int(step.arg("dim", 0)) % len(step.tensors()[0])
    given = step.arg(argument)
    axes = [step.outputs(number)[dim] for number in range(step.output_count())]
    if isinstance(given, int):
        return [constant(step, argument, -1, given, axes[0])]
    listed = zip(given, axes[: len(given)], strict=True)
    return [constant(step, argument, place, int(size), axis) for place, (size, axis) in enumerate(listed)]


def edges(step: Step) -> list[Constant]:
    """Return the start and end of a slice, which move by the number of removed entries before them."""
    x = step.tensors()[0]
    dim = int(step.arg("dim", 0)) % len(x)
    axis, size = step.resolved(x.axis_list)[dim], x.shape[dim]
    if axis is None:
        return []
    found = []
    start = step.arg("start") or 0
    if step.name == "narrow":
        length = int(step.arg("length"))
        found.append(constant(step, "length", -1, length, axis[start % size :][:length]))
    for argument in ("start", "end"):
        edge = step.arg(argument)
        if isinstance(edge, int) and edge not in (0, size) and -size < edge < size:
            found.append(constant(step, argument, -1, edge, *((axis[:edge], 1) if edge > 0 else (axis[edge:], -1))))
    return found


def padding(step: Step) -> list[Constant]:
    """Return the padding before and after: the number of remaining padded entries."""
    pads, out = step.arg("pad"), step.outputs()
    found = []
    for pair in range(len(pads) // 2):
        place = len(step.shape) - 1 - pair
        axis = out[place] if place < len(out) else None
        before, after = int(pads[2 * pair]), int(pads[2 * pair + 1])
        if axis is None:
            continue
        ends = ((2 * pair, before, axis[:before]), (2 * pair + 1, after, axis[len(axis) - after :]))
        found += [constant(step, "pad", at, old, rows) for at, old, rows in ends if old > 0]
    return found


def entries_ratio(after: Axis, before: Axis, old: int) -> Callable[[Gone], int]:
    """Return the remaining entries of one axis divided by those of another."""

    def of(gone: Gone) -> int:
        if after is None:
            return old
        given = len(after) // old if before is None else int(staying(before, gone).sum())
        return int(staying(after, gone).sum()) // max(1, given)

    return of


def counted_constant(step: Step) -> list[Constant]:
    """Return the argument that counts an axis of its own, such as `groups`, where the walk noted one."""
    if step.node not in step.counted:
        return []
    argument, raw = step.counted[step.node]
    return [constant(step, argument, -1, int(step.arg(argument)), step.variables.resolve(raw))]
