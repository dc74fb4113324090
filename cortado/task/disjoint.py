"""Disjoint: check that test data do not overlap with other data, nor validation data with unlabelled ones."""

from collections import Counter
from collections.abc import Sequence
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from cortado.errors import BadTask
from cortado.running.trees import parts_by_name, pick
from cortado.task.collate import in_unlabelled
from cortado.task.data import Data
from cortado.task.task import Task

FEW, CHANCE = 0.01, 1.5
"""Share of test samples that may occur elsewhere, since real data sets contain a few duplicates; multiplied by this factor
for data with duplicates of their own."""
MOST_READ, LOOKED_AT = 256, 8
"""Items of a Dataset are read one by one: up to this many are all compared, otherwise a few at regular positions."""


def check_disjoint(task: Task) -> list[str]:
    """Return the report's notes on test data that may overlap with validation, training, calibration and unlabelled data,
    and on validation data that may overlap with unlabelled data.

    Samples in memory are compared by their raw inputs, byte for byte; subsets of one Dataset by their indices. Other
    Datasets are compared if they are short; for long ones a note says that the overlap is unknown. Samples changed by
    noise or scaling are not detected. Raises BadTask if two such parts are the same data, or share more samples than
    duplicates explain. A task for a trial (task.for_trial()) is not checked, and a note says so.
    """
    if task.trial:
        return [
            "task: a trial. Its final scores are on the validation data, or on other data that overlap; they are no test."
        ]
    known = SampleSums()
    notes = overlaps_of(task, "test", ("train", "validation", "calibration", "unlabelled"), known)
    return notes + overlaps_of(task, "validation", ("unlabelled",), known)


def overlaps_of(task: Task, held: str, others: Sequence[str], known: "SampleSums") -> list[str]:
    """Return notes on a part that is held out, "test" or "validation", and these others, as far as the task has them.

    Raises BadTask.
    """
    held_out, notes, unknown = getattr(task, held), list[str](), list[str]()
    for name in others:
        other = getattr(task, name)
        if other is None:
            continue
        check_same(held, name, held_out, other)
        with in_unlabelled(name == "unlabelled"):
            found = shared(held_out, other, known)
        if found is None:
            unknown.append(f"{name} ({kind(other)})")
        elif found[0]:
            notes += overlap_warning(held, name, *found, len(held_out))
    if unknown:
        notes.append(
            f"task: the {held} data ({kind(held_out)}) were not compared with {', '.join(unknown)}, because items are read "
            "one by one. Make sure that they share no samples."
        )
    return notes


def check_same(held: str, name: str, held_out: Data, other: Data) -> None:
    """Raise BadTask if both are the same object."""
    if held_out is other or held_out.inputs is other.inputs:
        raise BadTask(
            f"task: the {held} data are the {name} data, so the {held} score would not measure generalisation. Hold out other "
            "samples; for a trial without a test pass task.for_trial(), or Task(..., trial=True)."
        )


def overlap_warning(held: str, name: str, count: int, duplicates: float, samples: int) -> list[str]:
    """Return a warning about `count` common samples.  Raises BadTask if the share of `duplicates` does not explain them."""
    if count > samples * (FEW + CHANCE * duplicates):
        raise BadTask(
            f"task: {count:,} of the {samples:,} {held} samples are also {name} samples, so the {held} score would not measure "
            "generalisation. Split the data without overlap; for a trial without a test pass "
            "task.for_trial(), or Task(..., trial=True)."
        )
    return [f"task: {count:,} of the {samples:,} {held} samples have the same inputs as some {name} samples."]


class SampleSums:
    """Checksums of samples, computed once per part."""

    def __init__(self) -> None:
        self.made: dict[int, Counter[bytes]] = {}

    def of(self, data: Data) -> Counter[bytes]:
        """Count how often each sample occurs."""
        if id(data) not in self.made:
            self.made[id(data)] = Counter(sample_sums(data, slice(None)))
        return self.made[id(data)]


def shared(test: Data, other: Data, known: SampleSums) -> tuple[int, float] | None:
    """Return how many test samples occur in `other`, and the share of duplicates within it; None if unknown."""
    if test.items is not None and other.items is not None:
        (ours, numbers), (theirs, others) = items_of(test.items.dataset), items_of(other.items.dataset)
        if ours is theirs:
            taken = set(others)
            return sum(number in taken for number in numbers), 0.0
    if any(part.items is not None and len(part) > MOST_READ for part in (test, other)):
        return (len(test), 0.0) if alike_where_looked(test, other) else None
    mine, others_marks = known.of(test), known.of(other)
    again = sum(count for count in others_marks.values() if count > 1)
    return sum(count for mark, count in mine.items() if mark in others_marks), again / len(other)


def items_of(items: Dataset[Any]) -> tuple[Dataset[Any], list[int]]:
    """Return the Dataset under all Subsets, and the indices of its items that they select."""
    numbers = list(range(len(items)))  # type: ignore[arg-type]
    while isinstance(items, Subset):
        numbers = [int(items.indices[number]) for number in numbers]
        items = items.dataset
    return items, numbers


def alike_where_looked(test: Data, other: Data) -> bool:
    """Return whether two parts of equal length have the same samples at a few positions, as one set read twice."""
    if len(test) != len(other):
        return False
    places = torch.arange(LOOKED_AT) * len(test) // LOOKED_AT
    return sample_sums(test, places) == sample_sums(other, places)


def sample_sums(data: Data, places: Tensor | slice) -> list[bytes]:
    """Return a checksum over the raw inputs of each of these samples."""
    picked = data.pick(places)
    return [sum_of_sample(pick(picked.inputs, torch.tensor([place]))) for place in range(len(picked))]


def sum_of_sample(inputs: Any) -> bytes:
    """Return a checksum over the tensors of one sample."""
    sums = blake2b(digest_size=16)
    for name, part in parts_by_name(inputs).items():
        if isinstance(part, Tensor):
            values = part.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
            sums.update(repr((name, str(part.dtype), tuple(part.shape))).encode() + values.tobytes())
        else:
            sums.update(repr((name, part)).encode())
    return sums.digest()


def kind(data: Data) -> str:
    """Return the source of the samples and their number, for a message."""
    return f"{'tensors' if data.items is None else type(data.items.dataset).__name__}, {len(data):,} samples"
