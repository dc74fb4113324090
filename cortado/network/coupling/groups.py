"""Groups: channels, heads and other entries that can only be cut together, and the result of a cut."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx

from cortado.errors import BadValue
from cortado.network.coupling.walk import OUTPUT, Walked
from cortado.network.graph.axes.constants import Constant
from cortado.network.graph.axes.variables import Gone, staying


@dataclass(frozen=True)
class Slot:
    """One axis of a parameter or buffer with units of a group.

    `names` are all names of the tensor, `units` the unit of each entry (-1: of another group, or never cut). `role`
    says whether the tensor produces the channels, consumes them, or rides along (norms, biases).
    """

    names: tuple[str, ...]
    axis: int
    units: Tensor
    role: str

    @property
    def layer(self) -> str:
        """Return the path of the layer that owns the tensor."""
        return self.names[0].rpartition(".")[0]


@dataclass(eq=False)
class Group:
    """Units on the same axes of the same tensors; each can be cut, with all its entries.

    `exact`: cutting units that are all zero changes no output; otherwise `reason` names the operator and line.
    `heads`: the units are attention heads. `variables` are the units in the analysis. The other reasons name an operator
    too: `lifted`, why a unit that its layers leave at zero may be another value where it is read; `absorbed`, what reads
    units other than weights; `ordered`, why units cannot change places.
    """

    name: str
    variables: np.ndarray
    slots: tuple[Slot, ...]
    heads: bool = False
    reason: str = ""
    lifted: str = ""
    absorbed: str = ""
    ordered: str = ""

    @property
    def count(self) -> int:
        return len(self.variables)

    @property
    def exact(self) -> bool:
        return not self.reason

    def of_role(self, role: str) -> list[Slot]:
        """Return the slots that produce, consume, or ride along."""
        return [slot for slot in self.slots if slot.role == role]


@dataclass(frozen=True)
class Frozen:
    """Entries that cannot be cut, and the operator and line that prevent it.  `tried`: a trial cut showed it."""

    name: str
    count: int
    reason: str
    tried: bool = False


Keeps = Mapping[Group, Tensor]
"""The indices of the units that stay, for each group that is cut."""


@dataclass
class Groups:
    """All groups of a network.  `free` can be cut together; the others are alternatives to them, or frozen."""

    walked: Walked
    all: list[Group] = field(default_factory=list)
    frozen: list[Frozen] = field(default_factory=list)
    refused: dict[int, str] = field(default_factory=dict)
    """Groups (their first variable) that the network's own code cannot follow, and the line that prevents it."""
    constants: list[Constant] = field(default_factory=list)
    """Numbers in the network's code that follow from channel counts."""
    seen: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    """Attributes that reached operators, by module and function."""
    made_axes: dict[tuple[fx.Node, int], np.ndarray] | None = field(default=None, repr=False)

    @property
    def free(self) -> list[Group]:
        """Return the groups to cut: of those that share an axis, exact ones first, then heads, then the larger."""
        return self.apart([g for g in self.all if g.count > 1 and int(g.variables[0]) not in self.refused])

    @property
    def tried(self) -> list[Frozen]:
        """Return the groups that the analysis could cut and the network's own code could not."""
        return [frozen for frozen in self.frozen if frozen.tried]

    def reasons(self) -> str:
        """Return why the others cannot be cut: results of trial cuts, or else the analysis, outputs last."""
        named: dict[str, list[str]] = {}
        for frozen in self.tried or sorted(self.frozen, key=lambda frozen: frozen.reason == OUTPUT):
            named.setdefault(frozen.reason, []).append(frozen.name)
        shown, rest = list(named.items())[:3], list(named.values())[3:]
        more = f"; and {sum(map(len, rest))} more" if rest else ""
        return (
            "; ".join(f"{names[0]}{f' and {len(names) - 1} more' * (len(names) > 1)}: {why}" for why, names in shown)
            + more
        )

    @property
    def in_graph(self) -> list[Group]:
        """Return the groups that are free if the network's own code need not follow: see graph_net.py."""
        return self.apart([g for g in self.all if g.count > 1])

    def apart(self, able: list[Group]) -> list[Group]:
        """Return one of each set of groups that share an axis."""
        order = sorted(able, key=lambda g: (not g.exact, not g.heads, -g.count))
        taken: list[Group] = []
        rivals = self.rivals()
        for group in order:
            if not any(id(other) in rivals[id(group)] for other in taken):
                taken.append(group)
        return [group for group in self.all if any(group is other for other in taken)]

    def rivals(self) -> dict[int, set[int]]:
        """Return, for each group (by id), those that share an axis crosswise with it, as heads and their widths do."""
        owner = {int(v): id(group) for group in self.all for v in group.variables}
        found: dict[int, set[int]] = {id(group): set() for group in self.all}
        for axis in self.axes().values():
            if axis.shape[1] < 2:
                continue
            for row in np.unique(axis[:, :], axis=0)[:4096]:
                here = {owner[v] for v in row.tolist() if v in owner}
                for one in here:
                    found[one] |= here - {one}
        return found

    def axes(self) -> dict[tuple[fx.Node, int], np.ndarray]:
        """Return every tracked axis of every parameter and buffer, resolved."""
        if self.made_axes is None:
            self.made_axes = tracked_axes(self.walked)
        return self.made_axes

    def gone(self, keeps: Keeps) -> Gone:
        """Return the removed variables.  Raises BadValue when a group would keep no unit, or an unknown one."""
        gone = np.zeros(max(1, self.walked.variables.count), bool)
        for group, keep in keeps.items():
            numbers = np.unique(torch.as_tensor(keep).cpu().numpy())
            if not len(numbers) or numbers[0] < 0 or numbers[-1] >= group.count:
                raise BadValue(
                    f"groups: {group.name} has units 0..{group.count - 1}, got {len(numbers)} to keep"
                    f"{f' in {numbers[0]}..{numbers[-1]}' if len(numbers) else ''}. Keep at least one of them."
                )
            lost = np.ones(group.count, bool)
            lost[numbers] = False
            gone[group.variables[lost]] = True
        return gone

    def kept_rows(self, gone: Gone) -> dict[tuple[fx.Node, int], np.ndarray]:
        """Return the indices of the entries that stay on each axis that loses some.  Raises BadValue when none would."""
        found = {}
        for (node, place), axis in self.axes().items():
            stays = staying(axis, gone)
            if not stays.any():
                name = self.walked.captured.tensors[node][0]
                raise BadValue(f"groups: axis {place} of {name} would be empty. Keep more units.")
            if not stays.all():
                found[node, place] = np.flatnonzero(stays)
        return found


def tracked_axes(walked: Walked) -> dict[tuple[fx.Node, int], np.ndarray]:
    """Return the resolved axes of all tensors of the network."""
    found = {}
    for node in walked.captured.tensors:
        for place, axis in enumerate(walked.known[node] or []):
            resolved = walked.variables.resolve(axis)  # type: ignore[arg-type]
            if resolved is not None:
                found[node, place] = resolved
    return found
