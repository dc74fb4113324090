"""Sources: data of several kinds of truth in one training, each with its own loss and weight."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cortado.errors import BadTask
from cortado.running.trees import concatenated, map_tensors, parts_by_name, pick
from cortado.task.data import Data
from cortado.task.move import Move
from cortado.task.ordinal_loss import OrdinalPairs

SOURCE, TRUTH = "source", "truth"


@dataclass(frozen=True)
class Source:
    """One part of mixed data: its samples, the loss that suits their truth, a weight, and how often an epoch visits them.

    >>> Source(cortado.Data(pictures, masks), torch.nn.functional.cross_entropy, weight=1.0, times=4)

    `loss(outputs, targets)` is a mean over samples: any of torch's for exact truth, `UpToScaleAndShift`, `OrdinalPairs`,
    `NoisyLabels`, or your own.
    """

    data: Data
    loss: Callable[[Any, Any], Tensor] | None = None
    weight: float | None = None
    times: int = 1


class Sources:
    """Several sources as the training data and the loss of one task.  Ranftl et al., 2020 (MiDaS).

    >>> sources = Sources({"lidar": Source(exact, l1_loss, 1.0), "web": Source(stereo, UpToScaleAndShift(), 0.5)})
    >>> task = cortado.Task(sources.data, validation, test, loss=sources.loss, metric=metric)

    An epoch visits each sample of a source `times` times, in random order, so that a small source can fill as much of a batch
    as a large one. The loss is the mean over the samples of a batch of each one's loss times its source's weight. Raises
    BadTask for a source without truth, loss or weight, and for sources that are prepared differently; each is varied as its own
    data say.
    """

    def __init__(self, parts: Mapping[str, Source]) -> None:
        if not parts:
            raise BadTask("sources: there is none. Write Sources({'exact': Source(data, loss, weight=1.0)}).")
        self.parts = {name: checked(name, one) for name, one in parts.items()}
        first_name, first = next(iter(self.parts.items()))
        for name, one in self.parts.items():
            if one.data.prepare != first.data.prepare:
                raise BadTask(
                    f"sources: the data of {name} are prepared otherwise than those of {first_name}. Give all the same prepare."
                )
        self.slots = shared_slots({name: one.data for name, one in self.parts.items()})
        varies = any(one.data.varies for one in self.parts.values())
        self.data = Data(MixedItems(self), None, first.data.prepare, vary=self.varied if varies else None)

    def varied(self, inputs: Any, targets: Any, generator: torch.Generator) -> tuple[Any, Any]:
        """Return a batch in which the samples of each source are augmented and varied as its data say, with their truth."""
        parts, order = [], []
        for number, (name, one) in enumerate(self.parts.items()):
            rows = (targets[SOURCE] == number).nonzero().flatten()
            if not len(rows):
                continue
            own, mixed = pick(inputs, rows), pick(targets, rows)
            own = one.data.augment(own, generator) if one.data.augment is not None else own
            if one.data.vary is not None:
                own, truth = one.data.vary(own, mixed[TRUTH][self.slots[name]], generator)
                mixed = {**mixed, TRUTH: {**mixed[TRUTH], self.slots[name]: truth}}
            parts.append((own, mixed))
            order.append(rows)
        return pick(concatenated(parts), torch.cat(order).argsort())  # type: ignore[no-any-return]

    def loss(self, outputs: Any, targets: Mapping[str, Any]) -> Tensor:
        """Return the mean over samples of each one's loss times its source's weight."""
        losses = self.losses(outputs, targets)
        numbers = targets[SOURCE]
        total = torch.zeros((), device=numbers.device)
        for number, (name, one) in enumerate(self.parts.items()):
            if name in losses:
                assert one.weight is not None
                total = total + one.weight * losses[name] * (numbers == number).sum() / len(numbers)
        return total

    def losses(self, outputs: Any, targets: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return the mean loss of each source that a batch has samples of, without weights."""
        if not isinstance(targets, Mapping) or SOURCE not in targets:
            raise BadTask(
                "sources: the loss reads targets of Sources.data, got others. Train on Task(train=sources.data), and score with "
                "a metric of your own on validation and test data."
            )
        found = {}
        for number, (name, one) in enumerate(self.parts.items()):
            rows = (targets[SOURCE] == number).nonzero().flatten()
            if len(rows):
                assert one.loss is not None
                found[name] = one.loss(pick(outputs, rows), pick(targets[TRUTH][self.slots[name]], rows))
        return found


class MixedItems(Dataset[Any]):
    """The samples of all sources; targets are the number of the source, and its truth among empty ones of other kinds."""

    def __init__(self, sources: Sources) -> None:
        self.parts, self.slots = list(sources.parts.values()), [sources.slots[name] for name in sources.parts]
        counts = torch.tensor([len(one.data) for one in self.parts])
        visits = torch.tensor([one.times for one in self.parts])
        self.ends = (counts * visits).cumsum(0)
        examples = {slot: truth_of(one.data, 0) for one, slot in zip(self.parts, self.slots, strict=True)}
        self.empty = {slot: map_tensors(torch.zeros_like, example) for slot, example in examples.items()}

    def __len__(self) -> int:
        return int(self.ends[-1])

    def __getitem__(self, number: int) -> Any:
        source = int(torch.searchsorted(self.ends, number, right=True))
        one, start = self.parts[source], int(self.ends[source - 1]) if source else 0
        place = (number - start) % len(one.data)
        inputs, truth = sample_of(one.data, place)
        return inputs, {SOURCE: source, TRUTH: {**self.empty, self.slots[source]: truth}}


def checked(name: str, source: Any) -> Source:
    """Return a source with its data as Data.  Raises BadTask for what it lacks."""
    if not isinstance(source, Source):
        raise BadTask(
            f"sources: {name} must be a Source, got {type(source).__name__}. Write Source(data, loss, weight=1.0)."
        )
    if isinstance(source.data, Data) and source.data.targets is None:
        raise BadTask(
            f"sources: {name} has no truth, only inputs. Pass Data(inputs, targets), or add them as Task(unlabelled=inputs)."
        )
    for what, value in (("loss", source.loss), ("weight", source.weight)):
        if value is None:
            raise BadTask(f"sources: {name} has no {what}. Write Source(data, loss, weight=1.0).")
    if not callable(source.loss) or not float(source.weight or 0) > 0 or source.times < 1:
        raise BadTask(
            f"sources: {name} needs a loss that is a function, a weight above 0 and times of 1 or more, got "
            f"{source.loss!r}, {source.weight} and {source.times}. Leave out a source that shall not count."
        )
    data = Data.of(source.data)
    if isinstance(source.loss, OrdinalPairs) and isinstance(data.vary, Move):
        raise BadTask(
            f"sources: a Move does not move the pairs of places of {name}. Leave out vary, or write a function that moves them."
        )
    return Source(data, source.loss, source.weight, source.times)


def sample_of(data: Data, place: int) -> tuple[Any, Any]:
    """Return one sample as it is stored or read: its inputs and its truth, without the axis of samples."""
    one = data.pick(slice(place, place + 1))
    return single_sample(one.inputs), single_sample(one.targets)


def single_sample(tree: Any) -> Any:
    """Return a tree of one sample without the axis of samples."""
    return map_tensors(lambda one: one[0], tree)


def truth_of(data: Data, place: int) -> Any:
    """Return the truth of a sample as a tree of tensors."""
    return sample_of(data, place)[1]


def shared_slots(data: Mapping[str, Data]) -> dict[str, str]:
    """Return for each source the name under which its truth is stored: that of the first source with equal shapes."""
    owners: dict[str, str] = {}
    found = {}
    for name, one in data.items():
        parts = parts_by_name(truth_of(one, 0))
        shape = repr([(path, tuple(part.shape), part.dtype) for path, part in parts.items()])
        found[name] = owners.setdefault(shape, name)
    return found
