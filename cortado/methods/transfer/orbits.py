"""Orbits: channels in fours, the orientations of one, and the layers that make them, read them and pass them on."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from cortado.layers.kinds import is_convolution, is_matmul
from cortado.layers.norm import is_batch_norm
from cortado.network.coupling.groups import Group
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.attach import attached_names

TURNS = 4


@dataclass
class Orbits:
    """Channels of a network in fours: unit 4c + t of a group is channel c in orientation t.  Channels count over all groups.

    `made`: the weights that make nothing else, with the channel x 4 + orientation of every output; `reads`: the weights that
    read nothing else, with that of every input; `norms`: the paths of batch norms whose channels stand in fours.
    """

    made: dict[str, Tensor] = field(default_factory=dict)
    reads: dict[str, Tensor] = field(default_factory=dict)
    norms: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """Groups that cannot be in fours, with the reason."""


def orbits_of(view: View, weights: Iterable[Weight]) -> Orbits:
    """Return the channels that the filters of some convolutions make alone.  Raises BadNetwork if it cannot be traced."""
    able, modules = {weight.path for weight in weights}, dict(view.network.named_modules())
    chosen, left = groups_in_fours(view.groups.all, able)
    axes: dict[tuple[str, int], Tensor] = {}
    roles: dict[tuple[str, int], str] = {}
    start = 0
    for group in chosen:
        for slot in group.slots:
            place = (slot.names[0], slot.axis)
            numbers = axes.setdefault(place, torch.full_like(slot.units, -1))
            mine = slot.units >= 0
            numbers[mine] = slot.units[mine] + start
            roles[place] = slot.role
        start += group.count
    found = Orbits(left=left)
    for (path, axis), numbers in axes.items():
        layer = path.removesuffix(".weight")
        if not bool((numbers >= 0).all()):
            continue
        if roles[path, axis] == "producer":
            found.made[path] = numbers
        elif axis == 1:
            found.reads[path] = numbers
        elif layer != path and in_fours(numbers) and can_share(modules[layer]):
            found.norms.append(layer)
    return found


def groups_in_fours(groups: list[Group], able: set[str]) -> tuple[list[Group], list[str]]:
    """Return the groups whose units can be channels in fours, and why the others cannot."""
    reasons = {id(group): reason for group in groups if (reason := reason_against(group, able))}
    # All outputs of a filter bank are in fours, or none.
    while True:
        kept = [group for group in groups if id(group) not in reasons]
        whole = covered(kept)
        broken = {id(group): f"{bad[0]} makes other channels too" for group in kept
                  if (bad := [slot.names[0] for slot in group.of_role("producer") if not whole[slot.names[0]]])}  # fmt: skip
        if not broken:
            return kept, [f"{group.name}: {reasons[id(group)]}" for group in groups if id(group) in reasons]
        reasons |= broken


def covered(groups: list[Group]) -> dict[str, bool]:
    """Return for each weight that makes units of some groups whether it makes each of them once, and nothing else."""
    units: dict[str, Tensor] = {}
    once: dict[str, bool] = {}
    for group in groups:
        for slot in group.of_role("producer"):
            mine = slot.units >= 0
            units[slot.names[0]] = units.get(slot.names[0], torch.zeros_like(mine)) | mine
            every = torch.equal(slot.units[mine].sort().values, torch.arange(group.count))
            once[slot.names[0]] = once.get(slot.names[0], True) and every
    return {path: bool(mine.all()) and once[path] for path, mine in units.items()}


def reason_against(group: Group, able: set[str]) -> str:
    """Return why the units of a group cannot be channels in fours; "" if they can."""
    makers = [slot.names[0] for slot in group.of_role("producer")]
    others = [name for name in makers if name not in able]
    if not makers or others:
        return f"{others[0]} makes them too" if others else "no layer makes them"
    return f"{group.count} channels are no multiple of {TURNS}" if group.count % TURNS else ""


def in_fours(numbers: Tensor) -> bool:
    """Return whether entries stand in fours, each a channel in its four orientations, in order."""
    if len(numbers) % TURNS or bool((numbers < 0).any()):
        return False
    fours = numbers.view(-1, TURNS)
    return bool((fours == fours[:, :1] + torch.arange(TURNS)).all() and (fours[:, 0] % TURNS == 0).all())


def can_share(norm: nn.Module) -> bool:
    """Return whether a module is torch's batch norm of pictures, with all its tensors and no form."""
    own = is_batch_norm(norm) and type(norm) is nn.BatchNorm2d and not attached_names(norm)
    return own and norm.affine and norm.running_mean is not None  # type: ignore[union-attr, return-value]


def is_head(layer: nn.Module, numbers: Tensor) -> bool:
    """Return whether a layer that is no convolution reads each channel once, in all its orientations."""
    once = len(numbers.unique()) == len(numbers) and len(numbers) % TURNS == 0
    return (
        is_matmul(layer)
        and not is_convolution(layer)
        and once
        and len((numbers // TURNS).unique()) * TURNS == len(numbers)
    )


def places_of(numbers: Tensor) -> Tensor:
    """Return inputs as channel x 4 + orientation, with the channels counted from 0."""
    channels, own = (numbers // TURNS).unique(return_inverse=True)
    return own * TURNS + numbers % TURNS
