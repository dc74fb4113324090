"""Constants: numbers in a network's code that follow from channel counts, and their values after a cut."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import fx

from cortado.network.coupling.groups import Gone, Groups, staying
from cortado.network.coupling.step import Step, module_of, operator_name, source_of, untracked
from cortado.network.coupling.variables import Axis
from cortado.network.coupling.walk import axis_lists_of

SIZES = {
    "reshape": "shape",
    **dict.fromkeys(("view", "_unsafe_view", "expand", "zeros", "ones", "full", "empty"), "size"),
    **dict.fromkeys(("new_zeros", "new_ones", "new_full", "new_empty"), "size"),
}


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


def constants_of(groups: Groups) -> list[Constant]:
    """Return every number in the code of a walked network that a cut may change."""
    walked = groups.walked
    found: list[Constant] = []
    for node in walked.captured.graph.nodes:
        if node.op == "call_function" and isinstance(node.target, torch._ops.OpOverload):
            found += ConstantReader(
                Step(node, walked.variables, walked.known, walked.roles), walked.counted
            ).constants()
    return [constant for constant in found if any(axis is not None for axis in constant.axes)]


@dataclass
class ConstantReader:
    """Reads the constants of one operator."""

    step: Step
    counted: dict[fx.Node, tuple[str, Axis]]

    def constants(self) -> list[Constant]:
        name = self.step.name
        if self.step.node in self.counted:
            argument, raw = self.counted[self.step.node]
            axis = self.step.variables.resolve(raw)
            return [self.whole(argument, int(self.step.arg(argument)), self.count(axis), axis)]
        if name in SIZES:
            return self.sizes(SIZES[name], self.outputs())
        if name == "unflatten":
            dim = int(self.step.arg("dim")) % len(self.step.tensors()[0])
            return self.sizes("sizes", self.outputs()[dim:])
        if name in ("layer_norm", "rms_norm"):
            count = len(self.step.arg("normalized_shape"))
            return self.sizes("normalized_shape", self.resolved(self.step.tensors()[0].axis_list)[-count:])
        if name in ("repeat", "tile", "repeat_interleave"):
            return self.repeats()
        if name in ("split_with_sizes", "split", "unsafe_split"):
            return self.parts()
        if name in ("slice", "narrow"):
            return self.edges()
        return self.padding() if name in ("pad", "constant_pad_nd") else []

    def resolved(self, axis_list: list[Axis]) -> list[Axis]:
        return [self.step.variables.resolve(axis) for axis in axis_list]

    def outputs(self, number: int = 0) -> list[Axis]:
        found = axis_lists_of(self.step.known[self.step.node])
        return self.resolved(found[number]) if found else []

    @staticmethod
    def count(axis: Axis) -> Callable[[Gone], int]:
        return lambda gone: 0 if axis is None else int(staying(axis, gone).sum())

    def whole(self, argument: str, old: int, after: Callable[[Gone], int], *axes: Axis) -> Constant:
        return Constant(self.step.node, argument, -1, old, after, axes)

    def sizes(self, argument: str, axes: list[Axis]) -> list[Constant]:
        """Return the entries of a list of sizes for the first axes; -1 needs no change."""
        given = self.step.arg(argument)
        if not isinstance(given, (list, tuple)):
            return []
        return [
            Constant(self.step.node, argument, place, int(size), self.count(axis), (axis,))
            for place, (size, axis) in enumerate(zip(given, axes[: len(given)], strict=True))
            if axis is not None and isinstance(size, int) and size != -1
        ]

    def repeats(self) -> list[Constant]:
        """Return repeat counts: output entries divided by input entries."""
        x, out = self.step.tensors()[0], self.outputs()
        before = untracked(len(out) - len(x)) + self.resolved(x.axis_list)
        given = self.step.arg("repeats") if self.step.name != "tile" else self.step.arg("dims")
        if isinstance(given, int):
            place = int(self.step.arg("dim")) % len(x)
            return [self.whole("repeats", given, entries_ratio(out[place], before[place], given), out[place])]
        argument = "dims" if self.step.name == "tile" else "repeats"
        return [
            Constant(
                self.step.node,
                argument,
                place,
                int(times),
                entries_ratio(out[place], before[place], times),
                (out[place],),
            )
            for place, times in enumerate(given)
            if times != 1 and len(given) == len(out)
        ]

    def parts(self) -> list[Constant]:
        """Return the sizes of parts, one each or one for all."""
        found = axis_lists_of(self.step.known[self.step.node])
        dim = int(self.step.arg("dim", 0)) % len(self.step.tensors()[0])
        argument = "split_sizes" if self.step.name == "split_with_sizes" else "split_size"
        given = self.step.arg(argument)
        axes = [self.resolved(axis_list)[dim] for axis_list in found]
        if isinstance(given, int):
            return [self.whole(argument, given, self.count(axes[0]), axes[0])]
        return [
            Constant(self.step.node, argument, place, int(size), self.count(axis), (axis,))
            for place, (size, axis) in enumerate(zip(given, axes[: len(given)], strict=True))
        ]

    def edges(self) -> list[Constant]:
        """Return the start and end of a slice, which move by the number of removed entries before them."""
        x = self.step.tensors()[0]
        dim = int(self.step.arg("dim", 0)) % len(x)
        axis, size = self.resolved(x.axis_list)[dim], x.shape[dim]
        if axis is None:
            return []
        found = []
        start = self.step.arg("start") or 0
        if self.step.name == "narrow":
            length = int(self.step.arg("length"))
            inside = axis[start % size :][:length]
            found.append(self.whole("length", length, self.count(inside), inside))
        for argument in ("start", "end"):
            edge = self.step.arg(argument)
            if isinstance(edge, int) and edge not in (0, size) and -size < edge < size:
                rows = axis[:edge] if edge > 0 else axis[edge:]
                sign = 1 if edge > 0 else -1
                found.append(self.whole(argument, edge, signed_size(self.count(rows), sign), rows))
        return found

    def padding(self) -> list[Constant]:
        """Return the padding before and after: the number of remaining padded entries."""
        pads, out, shape = self.step.arg("pad"), self.outputs(), self.step.shape
        found = []
        for pair in range(len(pads) // 2):
            place = len(shape) - 1 - pair
            axis = out[place] if place < len(out) else None
            before, after = int(pads[2 * pair]), int(pads[2 * pair + 1])
            if axis is None:
                continue
            edges = ((2 * pair, before, axis[:before]), (2 * pair + 1, after, axis[len(axis) - after :]))
            found += [
                Constant(self.step.node, "pad", at, old, self.count(rows), (rows,))
                for at, old, rows in edges
                if old > 0
            ]
        return found


def entries_ratio(after: Axis, before: Axis, old: int) -> Callable[[Gone], int]:
    """Return the remaining entries of one axis divided by those of another."""

    def of(gone: Gone) -> int:
        if after is None:
            return old
        given = len(after) // old if before is None else int(staying(before, gone).sum())
        return int(staying(after, gone).sum()) // max(1, given)

    return of


def signed_size(count: Callable[[Gone], int], sign: int) -> Callable[[Gone], int]:
    return lambda gone: sign * count(gone)


def changed(constants: list[Constant], gone: Gone) -> list[tuple[Constant, int]]:
    """Return the constants that a cut changes, with their new values."""
    return [(c, new) for c in constants if (new := c.after(gone)) != c.old]


def touching(groups: Groups, constant: Constant) -> set[int]:
    """Return the groups (by id) whose units are on the axes of a constant."""
    owner = {int(v): id(group) for group in groups.all for v in group.variables}
    values = np.unique(np.concatenate([axis.reshape(-1) for axis in constant.axes if axis is not None]))
    return {owner[v] for v in values.tolist() if v in owner}
