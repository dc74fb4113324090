"""prune/channels: remove whole channels from the layers that produce, normalise and read them."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue, CannotFollow, NothingChanged
from cortado.importance.importance import Importance, score
from cortado.methods.method import Method, knob
from cortado.methods.prune.reconstruct import readers_of, reconstruct
from cortado.network.coupling.groups import Group
from cortado.network.graph.where import choose, original_first
from cortado.network.profile.pruned_cost import Costs
from cortado.network.view import View
from cortado.task.task import Task

STEPS = 24


@dataclass(frozen=True)
class PruneChannels(Method):
    """Remove the least important channels; layers become narrower and run faster on any hardware.

    Li et al., 2017 (by magnitude), Hu et al., 2016 (zeros), Liu et al., 2017 (gains), Molchanov et al., 2017 (taylor),
    LeCun et al., 1990 (curvature), He, Zhang, Sun, 2017 (reconstruction). Channels coupled by residual sums,
    concatenations, grouped convolutions and norms form groups and go together. `keep` is a share of each group's
    channels or, with `of`, of the network's predicted multiply-adds or parameters. With `across`, the channels of all
    groups compete by importance per cost; otherwise each group loses the same share. Every group keeps at least the
    share `least`, and counts are multiples of `multiple` where possible.
    """

    lossy = True
    what = "channels"

    keep: float = knob(0.5, low=0.0, high=1.0, help="share kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure that ranks the channels")
    of: str = knob("channels", one_of=("channels", "multiply_adds", "parameters"), help="what keep is a share of")
    across: bool = knob(False, help="rank across groups, so that some lose more than others")
    least: float = knob(0.1, low=0.0, high=1.0, help="minimum share of each group's channels kept")
    multiple: int = knob(1, low=1, help="round channel counts to multiples of this, for fast kernels")

    reconstruct: bool = knob(False, help="refit the layers that read removed channels by least squares")

    def apply(self, view: View, task: Task) -> None:
        groups, known = self.chosen(view), view.groups
        worth = [units.double() for units in score(self.by).of_units(groups, view, task)]
        while True:
            keeps = {g: keep for g, keep in self.keeps(view, groups, worth).items() if len(keep) < g.count}
            readers = readers_of(view, list(keeps)) if self.reconstruct else []
            try:
                view.cut(keeps)
                break
            except CannotFollow:
                # The groups at fault are frozen now; cut the others.
                free = {id(group) for group in self.chosen(view)}
                able = [id(group) in free for group in groups]
                groups, worth = list(compress(groups, able)), list(compress(worth, able))
        if known.tried:
            view.notes.append(f"Not cut: {known.reasons()}")
        if readers:
            reconstruct(view, task, readers)

    def chosen(self, view: View) -> list[Group]:
        """Return the groups whose weights `where` selects completely.

        Raises NothingChanged if the network has no groups, BadValue if `where` leaves none of them.
        """
        view.weights(self.where)
        groups = self.candidates(view)
        describe = f" Groups that cannot be cut: {view.groups.reasons()}." if view.groups.frozen else ""
        if not groups:
            raise NothingChanged(
                f"{self.name()}: {type(view.network).__name__} has no {self.what} that can be cut.{describe} "
                f"Leave the stage out, or use prune/weights.{original_first(weight.path for weight in view.all_weights)}"
            )
        if self.where == "*":
            return groups
        names = {weight.path: len(weight.shape) for weight in view.all_weights}
        taken = set(choose(self.where, names))
        found = [g for g in groups if all(s.names[0] in taken for s in g.of_role("producer") or g.slots)]
        if not found:
            raise BadValue(
                f"{self.name()}: where {self.where!r} selects no complete group of {self.what}. These go together: "
                f"{'; '.join(', '.join(s.layer for s in g.of_role('producer') or g.slots) for g in groups[:3])}."
                f"{describe if view.groups.refused else ''} Widen where."
            )
        return found

    def candidates(self, view: View) -> list[Group]:
        """Return the groups that this method may cut; whole attention heads are left to prune/heads."""
        return [group for group in view.groups.free if not group.heads]

    def keeps(self, view: View, groups: list[Group], worth: list[Tensor]) -> dict[Group, Tensor]:
        """Return the units to keep: exactly the share of channels, to rounding; at most the share of a cost."""
        if self.of == "channels":
            if not self.across:
                self.leave_some(groups)
                return self.best(groups, worth, [self.keep] * len(groups))
            return self.mildest(lambda share: self.best(groups, worth, shares_of(worth, share)), Channels(groups))
        costs = self.costs(view)
        if not self.across:
            return self.searched(lambda share: self.best(groups, worth, [share] * len(groups)), costs)
        full = {group: torch.arange(group.count) for group in groups}
        gains_each = [costs.after(full) - costs.after(full | {g: torch.arange(1, g.count)}) for g in groups]
        rates = [w / max(worth_each, 1e-9) for w, worth_each in zip(worth, gains_each, strict=True)]
        return self.searched(lambda share: self.best(groups, rates, shares_of(rates, share)), costs)

    def costs(self, view: View) -> Any:
        """Return an object that predicts the remaining cost of a selection of units, with `after` and `share` as in Costs."""
        return Costs(view, self.of)

    def leave_some(self, groups: list[Group]) -> None:
        """Raise BadValue if a group would keep nothing."""
        for group in groups:
            if round(max(self.keep, self.least) * group.count) < 1:
                raise BadValue(
                    f"{self.name()}: keep={self.keep:g} would leave no {self.what} of {group.name}, which has {group.count}. "
                    "Raise keep or least, or exclude it with where."
                )

    def searched(self, at: Callable[[float], dict[Group, Tensor]], costs: Costs) -> dict[Group, Tensor]:
        """Return the mildest cut whose predicted cost is at most `keep`.  Raises BadValue if even the hardest costs more."""
        hardest = at(0.0)
        if costs.share(hardest) > self.keep:
            raise BadValue(
                f"{self.name()}: the smallest cut still keeps {costs.share(hardest):.1%} of the {self.of.replace('_', '-')}, "
                f"more than keep={self.keep:g}. Lower least (now {self.least:g}) or multiple (now {self.multiple}), "
                "or widen where."
            )
        return self.mildest(at, costs)

    def mildest(self, at: Callable[[float], dict[Group, Tensor]], costs: "Costs | Channels") -> dict[Group, Tensor]:
        """Return the mildest cut within `keep`, or the hardest if there is none."""
        low, high = 0.0, 1.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if costs.share(at(middle)) <= self.keep else (low, middle)
        return at(low)

    def best(self, groups: list[Group], worth: list[Tensor], shares: list[float]) -> dict[Group, Tensor]:
        """Return the most important units of each group, as many as its share, `least` and `multiple` allow."""
        found = {}
        for group, units, share in zip(groups, worth, shares, strict=True):
            count = max(share, self.least) * group.count
            step = self.multiple if group.count > self.multiple else 1
            fewest = max(1, math.ceil(self.least * group.count / step - 1e-9))
            kept = min(group.count, max(fewest, round(count / step)) * step)
            found[group] = torch.sort(units, descending=True, stable=True).indices[:kept].sort().values
        return found


@dataclass(frozen=True)
class Channels:
    """Counts channels, with the interface of Costs."""

    groups: list[Group]

    def share(self, keeps: dict[Group, Tensor]) -> float:
        """Return the share of the groups' channels, less half a channel because counts are rounded."""
        return (sum(len(keep) for keep in keeps.values()) - 0.5) / sum(group.count for group in self.groups)


def shares_of(worth: list[Tensor], keep: float) -> list[float]:
    """Return each group's share when the best of all units are kept; ties go to the lower index in each group."""
    places = torch.cat([(torch.arange(len(units)) + 0.5) / len(units) for units in worth])
    ranked = torch.cat(worth)
    order = places.argsort(stable=True)
    order = order[ranked[order].argsort(descending=True, stable=True)]
    stays = torch.zeros(len(ranked), dtype=torch.bool)
    stays[order[: max(1, round(keep * len(ranked)))]] = True
    return [float(part.double().mean()) for part in stays.split([len(units) for units in worth])]
