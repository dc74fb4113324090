"""Cache: what teachers give for each sample, in memory or in files of float16, temporary ones or kept for later."""

import contextlib
import math
import os
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.machine import cache_folder
from cortado.running.trees import length, map_tensors, pick, sample_count, tensors_in, to_device
from cortado.task.data import Data
from cortado.training.objectives.objective import Observed
from cortado.training.precision import floats_in_float32
from cortado.training.teachers import Teachers
from cortado.training.trees import joined

MOST_BYTES = 1 << 30
"""Up to so many bytes of float32, "auto" keeps outputs in memory."""
BATCH = 256
KEPT = "kept"
CLOSE = 0.02
"""Relative to the largest value: so near are the outputs of one teacher on two machines, or in one batch and another."""


class Cache:
    """What teachers gave for each sample of some data, by its number; and the targets of the samples, if they have any.

    A tensor without a row for each sample, such as an LSTM's last state, is not kept: None stands in its place.
    """

    def __init__(self, data: Data, teachers: Teachers, where: str) -> None:
        """Run the teachers once over the data as they are, not augmented, unless their outputs are kept already.

        `where`: auto, memory, file or kept.
        """
        self.folder: Path | None = None
        self.maps: list[np.memmap[Any, Any]] = []
        self.count = len(data)
        self.place = cache_folder() / "teachers" / fingerprint_of(data, teachers) if where == KEPT else None
        if self.place is not None and self.place.is_dir() and self.opens(data, teachers, self.place):
            self.targets = joined([own for _, own in data.original().batches(BATCH)])
            return
        targets, kept = [], []
        try:
            for start, (seen, own) in zip(range(0, self.count, BATCH), self.observed(data, teachers), strict=True):
                if start == 0 and self.in_file(seen, where):
                    self.folder = Path(tempfile.mkdtemp(prefix="cortado_", dir=self.parent()))
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
        if self.place is not None and self.folder is not None:
            self.publish(self.folder, self.place)

    def parent(self) -> Path | None:
        """Return where the folder is made: beside its final place if it is kept, so that a rename moves it there."""
        if self.place is not None:
            self.place.parent.mkdir(parents=True, exist_ok=True)
        return None if self.place is None else self.place.parent

    def publish(self, folder: Path, place: Path) -> None:
        """Move the whole folder to the place where later trainings look."""
        for one in self.maps:
            one.flush()
        shutil.rmtree(place, ignore_errors=True)
        # Another process may have come first; then these files are removed like temporary ones.
        with contextlib.suppress(OSError):
            os.replace(folder, place)
            self.folder = None

    def opens(self, data: Data, teachers: Teachers, place: Path) -> bool:
        """Return whether the files at `place` are what these teachers give, and open them."""
        first, _ = next(self.observed(data, teachers))
        paths = iter(place / f"{number}.bin" for number in range(len(tensors_in(first))))
        try:
            self.whole = map_tensors(lambda one: self.mapped(one, next(paths), "r"), first)
        except (OSError, ValueError):
            return False
        both = zip(tensors_in(self.whole), tensors_in(first), strict=True)
        return all(
            bool(((old[: len(new)].double() - new.double()).abs() <= CLOSE * new.double().abs().max()).all())
            for old, new in both
        )

    def observed(self, data: Data, teachers: Teachers) -> Iterator[tuple[tuple[Observed, ...], Any]]:
        """Yield what the teachers give for each batch, on the CPU, and its targets."""
        by_sample: list[bool] = []
        for inputs, own in data.original().batches(BATCH):
            seen = teachers.observe(to_device(inputs, teachers.precision.device))
            by_sample = by_sample or [count == sample_count(inputs) for count in lengths(seen)]
            yield to_device(only_kept(seen, by_sample), "cpu"), own

    def in_file(self, seen: Any, where: str) -> bool:
        """Return whether all samples go to a file, from what the first batch takes."""
        tensors = tensors_in(seen)
        share = self.count / max(1, len(tensors[0]))
        return where in ("file", KEPT) or (
            where == "auto" and share * sum(one.numel() * one.element_size() for one in tensors) > MOST_BYTES
        )

    def created(self, first: Tensor) -> Tensor:
        """Return a tensor over a new file, with a row for every sample; floats in float16."""
        assert self.folder is not None
        place = self.folder / f"{len(list(self.folder.iterdir()))}.bin"
        wanted = self.count * math.prod(first.shape[1:]) * dtype_of(first).itemsize
        free = shutil.disk_usage(self.folder).free
        if wanted > free:
            raise BadValue(
                f"training: the teachers' outputs take {wanted:,} bytes, and {self.folder.parent} has {free:,}. Set cache: live."
            )
        return self.mapped(first, place, "w+")

    def mapped(self, first: Tensor, place: Path, mode: Any) -> Tensor:
        """Return a tensor over a file, with a row for every sample like those of `first`.  Raises OSError, ValueError."""
        values = np.memmap(place, dtype_of(first), mode, shape=(self.count, *first.shape[1:]))
        self.maps.append(values)
        with warnings.catch_warnings():
            # Nothing writes to what was opened to be read.
            warnings.simplefilter("ignore", UserWarning)
            return torch.from_numpy(values)

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


def dtype_of(first: Tensor) -> np.dtype[Any]:
    """Return how the files hold tensors like this one: floats in float16."""
    return np.dtype("float16") if first.is_floating_point() else first.numpy().dtype


def fingerprint_of(data: Data, teachers: Teachers) -> str:
    """Return a name for what these teachers give for these data: a hash of both, with the layers that are read."""
    digest = blake2b(repr([teachers.precision.half, [one.taps for one in teachers.taps]]).encode(), digest_size=12)
    for network in teachers.networks:
        digest.update(f"{type(network).__module__} {network!r}".encode())
        for name, value in network.state_dict().items():
            digest.update(name.encode())
            hash_values(value, digest)
    for inputs, _ in data.original().batches(BATCH):
        for one in tensors_in(inputs):
            hash_values(one, digest)
    return digest.hexdigest()


def hash_values(values: Any, digest: Any) -> None:
    """Add the shape and the bytes of a tensor."""
    own = values.detach().cpu().contiguous()
    digest.update(repr((tuple(own.shape), own.dtype)).encode())
    digest.update(own.reshape(-1).view(torch.uint8).numpy())


def lengths(tree: Any) -> list[int]:
    """Return the length of each tensor of a tree, in the order of `map_tensors`; -1 for a single number."""
    found: list[int] = []
    map_tensors(lambda one: found.append(length(one)), tree)
    return found


def only_kept(tree: Any, keeps: list[bool]) -> Any:
    """Return a tree with None in the place of each tensor, in order, that is not kept."""
    kept = iter(keeps)
    return map_tensors(lambda one: one if next(kept) else None, tree)
