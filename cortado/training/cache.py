"""Cache: what teachers give for each training sample, kept in memory or in a temporary file of float16."""

import math
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.running.trees import length, map_tensors, pick, sample_count, tensors_in, to_device
from cortado.task.task import Task
from cortado.training.objectives.objective import Observed
from cortado.training.precision import floats_in_float32
from cortado.training.teachers import Teachers
from cortado.training.trees import joined

MOST_BYTES = 1 << 30
"""Up to so many bytes of float32, "auto" keeps outputs in memory."""
BATCH = 256


class Cache:
    """What teachers gave for each sample of the training data, by its number; and the targets of the samples.

    A tensor without a row for each sample, such as an LSTM's last state, is not kept: None stands in its place.
    """

    def __init__(self, task: Task, teachers: Teachers, where: str) -> None:
        """Run the teachers once over the training data.  `where`: auto, memory or file."""
        self.folder: Path | None = None
        self.count = len(task.train)
        targets, kept = [], []
        try:
            for start, (seen, own) in zip(range(0, self.count, BATCH), self.observed(task, teachers), strict=True):
                if start == 0 and self.in_file(seen, where):
                    self.folder = Path(tempfile.mkdtemp(prefix="cortado_"))
                    self.whole = map_tensors(self.created, seen)
                if self.folder is None:
                    kept.append(seen)
                else:
                    self.write(seen, start)
                targets.append(own)
        except BaseException:
            self.remove()
            raise
        if self.folder is None:
            self.whole = joined(kept)
        self.targets = joined(targets)

    def observed(self, task: Task, teachers: Teachers) -> Iterator[tuple[tuple[Observed, ...], Any]]:
        """Yield what the teachers give for each batch, on the CPU, and its targets."""
        by_sample: list[bool] = []
        for inputs, own in task.train.original().batches(BATCH):
            seen = teachers.observe(to_device(inputs, teachers.precision.device))
            by_sample = by_sample or [count == sample_count(inputs) for count in lengths(seen)]
            yield to_device(only_kept(seen, by_sample), "cpu"), own

    def in_file(self, seen: Any, where: str) -> bool:
        """Return whether all samples go to a file, from what the first batch takes."""
        tensors = tensors_in(seen)
        share = self.count / max(1, len(tensors[0]))
        return where == "file" or (
            where == "auto" and share * sum(one.numel() * one.element_size() for one in tensors) > MOST_BYTES
        )

    def created(self, first: Tensor) -> Tensor:
        """Return a tensor over a new file, with a row for every sample; floats in float16."""
        assert self.folder is not None
        shape = (self.count, *first.shape[1:])
        dtype = np.dtype("float16") if first.is_floating_point() else first.numpy().dtype
        place = self.folder / f"{len(list(self.folder.iterdir()))}.bin"
        wanted, free = math.prod(shape) * dtype.itemsize, shutil.disk_usage(self.folder).free
        if wanted > free:
            raise BadValue(
                f"training: the teachers' outputs take {wanted:,} bytes, and {self.folder.parent} has {free:,}. Set cache: live."
            )
        return torch.from_numpy(np.memmap(place, dtype, "w+", shape=shape))

    def write(self, seen: Any, start: int) -> None:
        """Write a batch into its rows."""
        for place, part in zip(tensors_in(self.whole), tensors_in(seen), strict=True):
            place[start : start + len(part)] = part.to(place.dtype)

    def pick(self, numbers: Tensor, device: torch.device) -> tuple[tuple[Observed, ...], Any]:
        """Return what the teachers gave for these samples, floats in float32, and their targets."""
        numbers = numbers.cpu()
        seen = floats_in_float32(pick(self.whole, numbers))
        return to_device(seen, device), pick(self.targets, numbers)

    def remove(self) -> None:
        """Remove the file."""
        if self.folder is not None:
            self.whole = None
            shutil.rmtree(self.folder, ignore_errors=True)


def lengths(tree: Any) -> list[int]:
    """Return the length of each tensor of a tree, in the order of `map_tensors`; -1 for a single number."""
    found: list[int] = []
    map_tensors(lambda one: found.append(length(one)), tree)
    return found


def only_kept(tree: Any, keeps: list[bool]) -> Any:
    """Return a tree with None in the place of each tensor, in order, that is not kept."""
    kept = iter(keeps)
    return map_tensors(lambda one: one if next(kept) else None, tree)
