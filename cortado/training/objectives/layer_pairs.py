"""Layer pairs: layers of the network, each with the layer of the teacher that it learns from."""

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.knob import knob
from cortado.running.trees import tensors_in
from cortado.training.objectives.counted import counted_outputs, counted_places
from cortado.training.objectives.objective import Objective, Observed, Taps, Terms, TrainingStep

OUTPUTS = ""
"""The path that stands for a network's outputs."""
Survivors = Mapping[str, Tensor]
"""Which of the original network's channels a layer of the network still has, by tap."""


class LayerPair(NamedTuple):
    """What a layer of the network and one of the teacher gave, and which places of each count, (N, places); None: all."""

    at: str
    of: str
    mine: Tensor
    wanted: Tensor
    counted: Tensor | None
    counted_wanted: Tensor | None


@dataclass(frozen=True)
class LayerPairs(Objective):
    """An objective that compares layers of the network with layers of its first teacher.

    Its terms are the mean over the pairs. Void pixels of maps (N, C, H, W) and padding of (N, T, C) do not count.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True
    or_outputs: ClassVar[bool] = False
    """Whether an empty `at` means the outputs."""
    survivors: ClassVar[Survivors] = MappingProxyType({})
    """Set on a copy, where the teacher is the network before its channels were cut."""

    at: str = knob("", help="layers of the network, by path, with commas; #2 is a layer's second call")
    of: str = knob("", help="the teacher's layers for them; empty: those of the same names")

    @abstractmethod
    def terms(self, step: TrainingStep) -> Terms: ...

    def pairs(self) -> list[tuple[str, str]]:
        """Return the path in the network and the one in the teacher of each layer.  Raises BadValue for none."""
        at, of = paths_in(self.at), paths_in(self.of or self.at)
        if not at and not of and self.or_outputs:
            return [(OUTPUTS, OUTPUTS)]
        if not at or len(at) != len(of):
            raise BadValue(
                f"objectives/{self.name()}: at names {len(at)} layers and of {len(of)}. "
                "Write at: layer3, and of with as many."
            )
        return list(zip(at, of, strict=True))

    def taps(self) -> Taps:
        pairs = [pair for pair in self.pairs() if pair[0] != OUTPUTS]
        return Taps(tuple(one for one, _ in pairs), tuple(other for _, other in pairs))

    def knowing(self, survivors: Survivors) -> "LayerPairs":
        """Return a copy that knows which of the teacher's channels its layers still have."""
        made = copy.copy(self)
        vars(made)["survivors"] = survivors
        return made

    def both(self, step: TrainingStep) -> list[LayerPair]:
        """Return what each pair of layers gave.  Raises BadValue without a teacher, BadNetwork for layers without tensors."""
        teacher = first_teacher(step, self.name())
        found = []
        for at, of in self.pairs():
            mine = tensor_of_tap(step.label, step.outputs if at == OUTPUTS else step.taps[at], at)
            wanted = tensor_of_tap(step.label, teacher.outputs if of == OUTPUTS else teacher.taps[of], of)
            counted = [flat_count(step, one, at == OUTPUTS) for one in (mine, wanted)]
            found.append(LayerPair(at, of, mine, wanted.detach(), *counted))
        return found


def flat_count(step: TrainingStep, values: Tensor, outputs: bool) -> Tensor | None:
    """Return which places of outputs, or of a layer, count, (N, places); None for all."""
    if outputs and values.dim() > 1:
        axis = axis_of_channels(values)
        places = tuple(size for number, size in enumerate(values.shape) if number != axis)
        counted = counted_outputs(step, values.shape[axis], places)
    else:
        counted = counted_places(step, values)
    return None if counted is None else counted.reshape(len(values), -1)


def first_teacher(step: TrainingStep, name: str) -> Observed:
    """Return what the first teacher gave.  Raises BadValue without one; `name` is the objective's."""
    if not step.teachers:
        raise BadValue(f"objectives/{name}: there is no teacher. Write teacher: original, or package.module:maker.")
    return step.teachers[0]


def tensor_of_tap(label: str, given: Any, path: str) -> Tensor:
    """Return the first tensor of floats in what a layer gave.  Raises BadNetwork without one."""
    tensors = [one for one in tensors_in(given) if one.is_floating_point()]
    if not tensors:
        raise BadNetwork(
            f"{label}: {path or 'the network'} gives no tensor of floats. Choose a layer whose output is a tensor."
        )
    return tensors[0]


def paths_in(text: str) -> list[str]:
    """Return the paths of a text with commas."""
    return [one.strip() for one in text.split(",") if one.strip()]


def axis_of_channels(values: Tensor) -> int:
    """Return the axis of channels: the last one of (N, tokens, C), else 1."""
    return 2 if values.dim() == 3 else 1


def as_places(values: Tensor) -> Tensor:
    """Return (N, C, ...), (N, T, C) or (N, C) as (N, places, C)."""
    if values.dim() < 2:
        return values.reshape(len(values), 1, -1)
    return values.movedim(axis_of_channels(values), -1).reshape(len(values), -1, values.shape[axis_of_channels(values)])


def pooled(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return (N, C): the mean over the places that count, (N, places); zeros where none does."""
    rows = as_places(values)
    if counted is None:
        return rows.mean(1)
    share = counted[..., None].to(rows.dtype)
    return (rows * share).sum(1) / share.sum(1).clamp(min=1)


def same_places(label: str, pair: LayerPair) -> None:
    """Raise BadNetwork unless both layers gave as many samples and places.  `label` starts the message."""
    shapes = [[*one.shape] for one in (pair.mine, pair.wanted)]
    for shape, one in zip(shapes, (pair.mine, pair.wanted), strict=True):
        if one.dim() > 1:
            shape[axis_of_channels(one)] = 0
    if shapes[0] != shapes[1]:
        raise other_size(label, pair, pair.mine, pair.wanted)


def other_size(label: str, pair: LayerPair, mine: Tensor, wanted: Tensor) -> BadNetwork:
    """Return the error for layers that cannot be compared.  `label` starts its message."""
    return BadNetwork(
        f"{label}: {pair.at or 'the network'} gives shape {tuple(mine.shape)}, the teacher's {pair.of or 'output'} "
        f"{tuple(wanted.shape)}. Choose layers of the same size."
    )


def mean_of_pairs(values: list[Tensor]) -> Tensor:
    """Return the mean over pairs of layers."""
    return torch.stack(values).mean()


def check_places(label: str, pair: LayerPair, name: str) -> None:
    """Raise BadNetwork for layers of one place, such as (N, C): where they are active is no question."""
    if min(as_places(one).shape[1] for one in (pair.mine, pair.wanted)) < 2:
        raise BadNetwork(
            f"{label}: {name} compares the places of a map or the tokens of a text, and {pair.at} gives shape "
            f"{tuple(pair.mine.shape)}, the teacher's {pair.of} {tuple(pair.wanted.shape)}. Choose layers before the pooling, "
            "or features."
        )
