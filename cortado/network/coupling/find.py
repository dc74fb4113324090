"""Find: the channel groups of a network that can be cut, checked by trial cuts."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cortado.network.coupling.capture import capture
from cortado.network.coupling.collect import collect
from cortado.network.coupling.constants import changed, constants_of, touching
from cortado.network.coupling.groups import Frozen, Group, Groups, Keeps
from cortado.network.coupling.solve import Solved, all_named, solve
from cortado.network.coupling.trial import Failure, attempt, tagged_numbers, upstream
from cortado.network.coupling.walk import walk_network
from cortado.network.graph.axes.constants import Constant
from cortado.network.graph.axes.step import axis_lists_of, module_of
from cortado.network.graph.axes.variables import Gone


def find_groups(network: nn.Module, example: Any) -> Groups:
    """Return the groups of `network`, traced on `example` (a tensor, a tuple of arguments or a dict of them).

    `groups.free` can be cut in the network as it is: a fake copy was cut and run. `groups.frozen` names the operator
    and line that block each of the others. Raises BadNetwork, with the line, when the network cannot be traced.
    """
    captured = capture(network, example)
    groups = collect(walk_network(captured))
    groups.constants = constants_of(groups)
    if not all_named(network, groups.constants):
        groups.seen = tagged_numbers(network, captured)
    # Each round freezes a group.
    while keeps := uneven(groups.free):
        gone = groups.gone(keeps)
        numbers = changed(groups.constants, gone)
        solved = solve(network, groups.seen, numbers)
        failure = attempt(network, groups, gone, solved.edits)
        if failure is None:
            break
        fail = partial(fails_of, network, groups, keeps)
        for group in groups_to_freeze(groups, list(keeps), numbers, solved, failure, fail) or failing_groups(
            list(keeps), fail
        ):
            leave_whole(groups, group, failure)
    return groups


def uneven(free: list[Group]) -> dict[Group, Tensor]:
    """Return a trial cut that removes a different number of units from each group, so that code which ties groups
    fails.

    Two of three stay: a single one would broadcast, and code that cannot follow would run.
    """
    keeps = {}
    for number, group in enumerate(free):
        if group.count > 1:
            lost = 1 + number % max(1, min(3, group.count - 2))
            keeps[group] = torch.arange(lost, group.count)
    return keeps


def fails(network: nn.Module, groups: Groups, keeps: Keeps) -> bool:
    """Return whether the network's own code cannot follow a cut."""
    gone = groups.gone(keeps)
    return attempt(network, groups, gone, edits_for(network, groups, gone).edits) is not None


def fails_of(network: nn.Module, groups: Groups, keeps: Keeps, few: list[Group]) -> bool:
    """Return whether the network's own code cannot follow the part of a cut that concerns `few`."""
    return fails(network, groups, {group: keeps[group] for group in few})


def failing_groups(groups: list[Group], fail: Callable[[list[Group]], bool]) -> list[Group]:
    """Return the groups that fail alone, out of groups that fail together, by bisection.

    Returns all of them if neither half fails alone.
    """
    if len(groups) < 2:
        return groups
    middle = len(groups) // 2
    failing = [
        group for half in (groups[:middle], groups[middle:]) if fail(half) for group in failing_groups(half, fail)
    ]
    return failing or groups


def groups_to_freeze(
    groups: Groups,
    cut: list[Group],
    numbers: list[tuple[Constant, int]],
    solved: Solved,
    failure: Failure,
    fail: Callable[[list[Group]], bool],
) -> list[Group]:
    """Return the groups to freeze after a failure: those of the constants on its line, or on the nearest line before
    it.

    Among groups that meet there, bisection clears those that do not fail alone. None where no constant tells.
    """
    by_id = {id(group): group for group in cut}
    constants = [constant for constant, _ in numbers]
    guilty = [c for c in constants if c.module == failure.module and c.line and c.line == failure.line]
    if not guilty:
        by_node: dict[Any, list[Constant]] = {}
        for constant in constants:
            by_node.setdefault(constant.node, []).append(constant)
        nearest = next((n for n in upstream(groups.walked.captured, failure.module) if n in by_node), None)
        guilty = by_node.get(nearest, [])
    met = {key for constant in guilty for key in touching(groups, constant)}
    suspects = [group for key, group in by_id.items() if key in met]
    cleared = met - {id(group) for group in (failing_groups(suspects, fail) if suspects else ())}
    lines = {constant.line for constant in guilty if constant.line}
    innocent = {role(c) for c in guilty} - {role(c) for c in guilty if touching(groups, c) - cleared}
    guilty += [constant for constant in constants if constant.line in lines]
    found = {key for c in guilty if role(c) not in innocent for key in touching(groups, c)} - cleared
    if not found:
        found = within(groups, failure.module).intersection(by_id)
        found = found or {key for constant in (solved.open or constants) for key in touching(groups, constant)}
        return failing_groups([group for key, group in by_id.items() if key in found], fail)
    return [group for key, group in by_id.items() if key in found]


def role(constant: Constant) -> tuple[str, str, str, int]:
    """Return a constant's role: blocks that run the same line have one constant in each role."""
    return constant.line, constant.operator, constant.argument, constant.place


def within(groups: Groups, module: str) -> set[int]:
    """Return the groups (by id) with units on the inputs of a module, whose code may depend on their count."""
    walked = groups.walked
    owner = {int(v): id(group) for group in groups.all for v in group.variables}
    found: set[int] = set()
    for node in walked.captured.graph.nodes:
        if module and f"{module_of(node)}.".startswith(f"{module}."):
            for axis_list in (s for given in node.all_input_nodes for s in axis_lists_of(walked.known.get(given))):
                axes = [axis for axis in map(walked.variables.resolve, axis_list) if axis is not None]
                found |= {owner[v] for axis in axes for v in np.unique(axis).tolist() if v in owner}
    return found


def leave_whole(groups: Groups, group: Group, failure: Failure) -> None:
    """Freeze a group, with the reason."""
    line = failure.line or failure.module or "the network's own code"
    groups.refused[int(group.variables[0])] = line
    groups.frozen.append(Frozen(group.name, group.count, f"{line} cannot follow a cut: {failure.message}", True))


def edits_for(network: nn.Module, groups: Groups, gone: Gone) -> Solved:
    """Return the attributes that a cut changes, and the constants without a matching attribute."""
    return solve(network, groups.seen, changed(groups.constants, gone))
