"""Variables: which entries of which axes are removed together, as integers with union, substitution and marks.

An axis of n entries is an int64 array (n, k): row i lists the variables of entry i, and the entry is removed when ANY
of them is; rows are padded with -1. A row of only -1 is never removed. An axis from which nothing can be removed is
None.
"""

from dataclasses import dataclass, field

import numpy as np

Axis = np.ndarray | None
Gone = np.ndarray
"""For each variable whether it is removed."""
GROWTH = 4096


@dataclass
class Marks:
    """A reason for each variable, "" for none."""

    frozen: dict[int, str] = field(default_factory=dict)
    inexact: dict[int, str] = field(default_factory=dict)
    """Removing entries changes results computed from the others."""
    heads: dict[int, str] = field(default_factory=dict)
    lifted: dict[int, str] = field(default_factory=dict)
    """An entry that is zero may become another value on its way."""
    absorbed: dict[int, str] = field(default_factory=dict)
    """Something other than a weight adds the entry to others."""
    ordered: dict[int, str] = field(default_factory=dict)
    """The place among the entries matters."""

    def all(self) -> tuple[dict[int, str], ...]:
        return (self.frozen, self.inexact, self.heads, self.lifted, self.absorbed, self.ordered)

    def move(self, old: int, new: list[int]) -> None:
        """Copy the mark of `old` to all of `new`; heads, to the first only."""
        for mark in self.all():
            if old in mark:
                reason = mark.pop(old)
                for variable in new[:1] if mark is self.heads else new:
                    mark.setdefault(variable, reason)


class Variables:
    """Creates and joins variables, and substitutes several for one."""

    def __init__(self) -> None:
        self.parent = np.zeros(0, np.int64)
        self.parts: dict[int, tuple[int, ...]] = {}
        self.has_parts = np.zeros(0, bool)
        self.count = 0
        self.marks = Marks()

    def fresh(self, size: int) -> np.ndarray:
        """Return a new axis of `size` entries, each with its own variable."""
        start, self.count = self.count, self.count + size
        if self.count > len(self.parent):
            wanted = max(self.count, 2 * len(self.parent), GROWTH)
            self.parent = np.concatenate([self.parent, np.arange(len(self.parent), wanted)])
            self.has_parts = np.concatenate([self.has_parts, np.zeros(wanted - len(self.has_parts), bool)])
        return np.arange(start, self.count).reshape(-1, 1)

    def find(self, values: np.ndarray) -> np.ndarray:
        """Return the root of every variable; -1 stays."""
        safe = np.where(values < 0, 0, values)
        roots = self.parent[safe] if len(self.parent) else safe
        while True:
            above = self.parent[roots] if len(self.parent) else roots
            if np.array_equal(above, roots):
                break
            roots = above
        if len(self.parent):
            self.parent[safe] = roots
        return np.where(values < 0, -1, roots)

    def resolve(self, axis: Axis) -> Axis:
        """Return the axis in roots without substitutions and duplicate columns; None when no row can be removed."""
        if axis is None:
            return None
        axis = self.find(axis)
        while True:
            inside = (axis >= 0) & self.has_parts[np.where(axis < 0, 0, axis)] if len(self.has_parts) else axis < -1
            if not inside.any():
                break
            axis = self.find(np.concatenate([self.expanded(axis[:, c], inside[:, c]) for c in range(axis.shape[1])], 1))
        kept: list[np.ndarray] = []
        for column in axis.T:
            if (column >= 0).any() and not any(np.array_equal(column, other) for other in kept):
                kept.append(column)
        return np.stack(kept, 1) if kept else None

    def expanded(self, column: np.ndarray, inside: np.ndarray) -> np.ndarray:
        """Return one column as several, with the parts of each substituted variable."""
        if not inside.any():
            return column[:, None]
        width = max(len(self.parts[int(v)]) for v in np.unique(column[inside]))
        wide = np.full((len(column), width), -1, np.int64)
        wide[:, 0] = column
        for row in np.flatnonzero(inside):
            parts = self.parts[int(column[row])]
            wide[row] = -1
            wide[row, : len(parts)] = parts
        return wide

    def union(self, left: np.ndarray, right: np.ndarray) -> None:
        """Join variables pairwise; -1 on either side joins nothing."""
        both = (left >= 0) & (right >= 0)
        left, right = left[both], right[both]
        while len(left):
            a, b = self.find(left), self.find(right)
            apart = a != b
            if not apart.any():
                return
            low, high = np.minimum(a, b)[apart], np.maximum(a, b)[apart]
            old, first = np.unique(high, return_index=True)
            self.parent[old] = low[first]
            for mark in self.marks.all():
                for gone in (
                    set(mark).intersection(old.tolist())
                    if len(mark) < len(old)
                    else filter(mark.__contains__, old.tolist())
                ):
                    reason = mark.pop(gone)
                    mark.setdefault(int(self.find(np.array([gone]))[0]), reason)

    def mark(self, axis: Axis, mark: dict[int, str], reason: str) -> None:
        """Mark every variable of an axis with `reason`, unless it has one."""
        found = self.resolve(axis)
        if found is not None:
            for variable in np.unique(found[found >= 0]).tolist():
                mark.setdefault(variable, reason)

    def freeze(self, axis: Axis, reason: str) -> None:
        self.mark(axis, self.marks.frozen, reason)

    def join(self, left: Axis, right: Axis, reason: str) -> None:
        """Tie entry i of one axis to entry i of the other; freeze for `reason` what cannot be expressed so."""
        left, right = self.resolve(left), self.resolve(right)
        if left is None or right is None or len(left) != len(right):
            self.freeze(left, reason)
            self.freeze(right, reason)
            return
        if left.shape[1] > right.shape[1]:
            left, right = right, left
        if left.shape[1] == 1 and right.shape[1] > 1 and self.substitute(left[:, 0], right):
            return
        if left.shape[1] == right.shape[1] == 1 and finer(left[:, 0], right[:, 0]):
            self.union(left[:, 0], right[:, 0])
            return
        free = list(range(right.shape[1]))
        for column in left.T:
            match = next((c for c in free if same_pattern(column, right[:, c])), None)
            if match is None:
                self.freeze(column[:, None], reason)
                continue
            free.remove(match)
            other = right[:, match]
            alone = (column >= 0) != (other >= 0)
            self.freeze(np.concatenate([column[alone], other[alone]])[:, None], reason)
            self.union(column, other)
        for c in free:
            self.freeze(right[:, c : c + 1], reason)

    def substitute(self, column: np.ndarray, several: np.ndarray) -> bool:
        """Replace each variable of `column` by those of its row; return False where they are not one to one."""
        distinct = len(np.unique(column)) == len(column) and (column >= 0).all()
        rows = {tuple(row) for row in several.tolist()}
        if not distinct or len(rows) != len(several) or np.isin(column, several).any() or (several < 0).all(1).any():
            return False
        for variable, row in zip(column.tolist(), several.tolist(), strict=True):
            parts = [part for part in row if part >= 0]
            self.parts[variable] = tuple(parts)
            self.has_parts[variable] = True
            self.marks.move(variable, parts)
        return True


def same_pattern(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether two columns repeat in the same way, so that their variables map one to one.

    Entries without a variable may meet any; `join` freezes what they meet.
    """
    both = (left >= 0) & (right >= 0)
    if not both.any():
        return False
    a, b = left[both], right[both]
    pairs = len(np.unique(np.stack([a, b], 1), axis=0))
    return pairs == len(np.unique(a)) == len(np.unique(b))


def finer(left: np.ndarray, right: np.ndarray) -> bool:
    """Return whether each entry of one column has its own variable, so that the other's pattern holds for both.

    So the gates x units rows of a recurrent layer take the variables of its units.
    """
    every = bool((left >= 0).all() and (right >= 0).all())
    return every and max(len(np.unique(left)), len(np.unique(right))) == len(left)


def staying(axis: np.ndarray, gone: Gone) -> np.ndarray:
    """Return for each entry whether none of its variables is removed."""
    return np.logical_not((gone[np.where(axis < 0, 0, axis)] & (axis >= 0)).any(1))
