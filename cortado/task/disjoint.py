"""Disjoint: whether the test data are apart from what is learned and chosen on."""

from collections import Counter
from hashlib import blake2b
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset, Subset

from cortado.errors import BadTask
from cortado.task.task import Data, Task

FEW, CHANCE = 0.01, 1.5
"""Of the test samples this share may occur elsewhere: real data sets hold a few copies. Where samples repeat inside a part,
that many times the share that do may do so between parts as well."""
MOST_READ, LOOKED_AT = 256, 8
"""Items of a Dataset are read one by one: so many are compared whole, of more only a few at equal places."""


def check_disjoint(task: Task) -> list[str]:
    """What the report has to say of test data that may not be apart from choice, train and calibration data.

    Samples in memory are compared by their raw inputs, byte for byte. Subsets of one Dataset by their numbers. Other
    Datasets are compared when they are short; of a long one it cannot be known, and a warning says so. Samples changed
    on the way, by noise or another scaling, are not found.
    Raises BadTask when the test data are those of another part, or hold more of its samples than copies explain. A task
    for a trial (task.for_trial()) is left alone, and its report says what it is.
    """
    if task.trial:
        return [
            "task: a trial. Its last figures were taken on the validation data, or on others not apart; they are no test."
        ]
    said, unknown, known = list[str](), list[str](), SampleSums()
    for name in ("train", "validation", "calibration"):
        other = getattr(task, name)
        check_same(name, task.test, other)
        found = shared(task.test, other, known)
        if found is None:
            unknown.append(f"{name} ({kind(other)})")
        elif found[0]:
            said += overlap_warning(name, *found, len(task.test))
    if unknown:
        said.append(
            f"task: the test data ({kind(task.test)}) were not compared with {', '.join(unknown)}, as items are read one "
            "by one. See to it yourself that they share no sample."
        )
    return said


def check_same(name: str, test: Data, other: Data) -> None:
    """Raises BadTask when both are one object."""
    if test is other or test.inputs is other.inputs:
        raise BadTask(
            f"task: the test data are the {name} data, so the test result would say nothing of new data. Hold other samples "
            "out for it; for a trial that needs no test pass task.for_trial(), or Task(..., trial=True)."
        )


def overlap_warning(name: str, count: int, duplicates: float, samples: int) -> list[str]:
    """A warning of so many samples in common, where a part repeats itself by a share of `copies`.  Raises BadTask."""
    if count > samples * (FEW + CHANCE * duplicates):
        raise BadTask(
            f"task: {count:,} of the {samples:,} test samples are {name} samples too, so the test result would say little of "
            "new data. Split the data so that the parts share none; for a trial that needs no test pass "
            "task.for_trial(), or Task(..., trial=True)."
        )
    return [f"task: {count:,} of the {samples:,} test samples have the same inputs as some {name} samples."]


class SampleSums:
    """The marks of samples, made once for each part."""

    def __init__(self) -> None:
        self.made: dict[int, Counter[bytes]] = {}

    def of(self, data: Data) -> Counter[bytes]:
        """How often each sample occurs."""
        if id(data) not in self.made:
            self.made[id(data)] = Counter(sample_sums(data, slice(None)))
        return self.made[id(data)]


def shared(test: Data, other: Data, known: SampleSums) -> tuple[int, float] | None:
    """How many test samples occur in `other`, and the share of its samples that it holds twice; None where unknown."""
    if test.items is not None and other.items is not None:
        (ours, numbers), (theirs, others) = items_of(test.items), items_of(other.items)
        if ours is theirs:
            taken = set(others)
            return sum(number in taken for number in numbers), 0.0
    if any(part.items is not None and len(part) > MOST_READ for part in (test, other)):
        return (len(test), 0.0) if alike_where_looked(test, other) else None
    mine, others_marks = known.of(test), known.of(other)
    again = sum(count for count in others_marks.values() if count > 1)
    return sum(count for mark, count in mine.items() if mark in others_marks), again / len(other)


def items_of(items: Dataset[Any]) -> tuple[Dataset[Any], list[int]]:
    """The Dataset under all Subsets, and the numbers of its items that they take."""
    numbers = list(range(len(items)))  # type: ignore[arg-type]
    while isinstance(items, Subset):
        numbers = [int(items.indices[number]) for number in numbers]
        items = items.dataset
    return items, numbers


def alike_where_looked(test: Data, other: Data) -> bool:
    """Whether two parts of one length have the same samples at a few places: one set, read twice."""
    if len(test) != len(other):
        return False
    places = torch.arange(LOOKED_AT) * len(test) // LOOKED_AT
    return sample_sums(test, places) == sample_sums(other, places)


def sample_sums(data: Data, places: Tensor | slice) -> list[bytes]:
    """A sum over the raw inputs of each of these samples."""
    picked = data.pick(places)
    parts = picked.inputs if isinstance(picked.inputs, tuple) else (picked.inputs,)
    kinds = repr([(str(part.dtype), tuple(part.shape[1:])) for part in parts]).encode()
    flat = [part.detach().cpu().contiguous().reshape(len(part), prod(part.shape[1:])) for part in parts]
    rows = [part.view(torch.uint8).numpy() for part in flat]
    return [
        blake2b(kinds + b"".join(row[place].tobytes() for row in rows), digest_size=16).digest()
        for place in range(len(picked))
    ]


def kind(data: Data) -> str:
    """What the samples come from, and how many there are."""
    return f"{'tensors' if data.items is None else type(data.items).__name__}, {len(data):,} samples"
