"""Groups: the groups of units that a method may cut, and a cut that leaves out what the network cannot follow."""

from functools import partial
from typing import Any

from cortado.errors import BadValue, CannotFollow, NothingChanged
from cortado.importance.importance import Importance, score
from cortado.methods.needs import Need
from cortado.methods.prune.quota import Quota, UnitCost, Worth
from cortado.methods.prune.reconstruct import readers_of, reconstruct
from cortado.network.coupling.groups import Group
from cortado.network.graph.where import choose, original_first
from cortado.network.view import View
from cortado.task.task import Task


def worth_of(by: str | Importance | type[Importance], groups: list[Group], view: View, task: Task) -> Worth:
    """Return the importance of each unit by a measure."""
    ranked = score(by).of_units(groups, view, task)
    return {group: units.double() for group, units in zip(groups, ranked, strict=True)}


def able_groups(heads: bool, method: Any, view: View, task: Task) -> list[Group]:
    """Return the groups of attention heads, or of other channels, that can be cut anywhere in the network."""
    view.weights(method.where)
    return [group for group in view.groups.free if group.heads == heads]


def frozen_text(view: View) -> str:
    """Return a sentence about the groups that cannot be cut; "" for none."""
    return f" Groups that cannot be cut: {view.groups.reasons()}." if view.groups.frozen else ""


CHANNELS, HEADS = (
    Need(f"{unit} that can be removed", partial(able_groups, heads), "use prune/weights", why=frozen_text)
    for unit, heads in (("a channel", False), ("an attention head", True))
)


def selected(method: Any, view: View, task: Task, need: Need[list[Group]], what: str) -> list[Group]:
    """Return the groups whose weights `where` selects completely; `what` (channels, heads) is for messages.

    Raises NothingChanged if the network has no such group, BadValue if `where` leaves none of them.
    """
    able, where = need.require(method, view, task), method.where
    names = {weight.path: len(weight.shape) for weight in view.all_weights}
    taken = set(names) if where == "*" else set(choose(where, names))
    found = [g for g in able if where == "*" or all(s.names[0] in taken for s in g.of_role("producer") or g.slots)]
    if not found:
        raise BadValue(
            f"{method.name()}: where {where!r} selects no complete group of {what}. These go together: "
            f"{'; '.join(', '.join(s.layer for s in g.of_role('producer') or g.slots) for g in able[:3])}."
            f"{frozen_text(view) if view.groups.refused else ''} Widen where."
        )
    return found


def none_left(view: View, method: str, what: str) -> NothingChanged:
    """Return the error for a network without groups that can be cut."""
    return NothingChanged(
        f"{method}: {type(view.network).__name__} has no {what} that can be cut.{frozen_text(view)} "
        f"Leave the stage out, or use prune/weights.{original_first(weight.path for weight in view.all_weights)}"
    )


def cut_groups(view: View, task: Task, worth: Worth, quota: Quota, cost: UnitCost | None, refit: bool) -> None:
    """Cut what the quota does not keep, and with `refit` refit the layers that read it.

    Groups that the network's own code cannot follow are left whole, with a note, and the quota is allocated over the
    others. Raises NothingChanged if none is left.
    """
    known = view.groups
    while worth:
        keeps = {group: keep for group, keep in quota.allocate(worth, cost).items() if len(keep) < group.count}
        steps = {quota.step(group.count) for group in worth} - {1}
        if steps and not keeps:
            raise NothingChanged(
                f"{quota.method}: every group stays whole at keep={quota.keep:g}, because counts are multiples of "
                f"{quota.multiple}. Lower keep or multiple."
            )
        readers = readers_of(view, list(keeps)) if refit else []
        try:
            view.cut(keeps)
        except CannotFollow as refused:
            worth = {group: units for group, units in worth.items() if group not in refused.groups}
        else:
            break
    else:
        raise none_left(view, quota.method, quota.what)
    if known.tried:
        view.notes.append(f"Not cut: {known.reasons()}")
    if steps:
        view.notes.append(f"Counts of {quota.what} are multiples of {' or '.join(map(str, sorted(steps)))}.")
    if readers:
        reconstruct(view, task, readers)
