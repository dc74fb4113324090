"""Items: read samples from a Dataset or a DataLoader, batch by batch."""

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, SequentialSampler, Subset

from cortado.errors import BadTask, describe, in_own_code
from cortado.task.collate import WAY_OUT, Batch, Collate, Split, as_batch, as_tree, check_counts, stack_items


@dataclass(frozen=True)
class Items:
    """The samples of a Dataset, read on demand; of a DataLoader with its collate_fn, workers, and sampler in training.

    `alone`: items may be inputs without targets.
    """

    dataset: Dataset[Any]
    collate: Collate = stack_items
    split: Split | None = None
    loader: DataLoader[Any] | None = None
    alone: bool = False

    @classmethod
    def of(cls, source: Any, collate: Collate | None, split: Split | None) -> "Items":
        """Return the items of a Dataset with a length or of a DataLoader.  Raises BadTask for anything else."""
        if isinstance(source, DataLoader):
            dataset = chosen_items(source)
            own = source.collate_fn if collate is None else collate
            return cls(dataset, own, split, source if collate is None else None)
        if not isinstance(source, Dataset) or not isinstance(source, Sized):
            raise BadTask(
                f"task: without targets, inputs must be a Dataset with a length or a DataLoader, got {type(source).__name__}. "
                "Pass cortado.Data(inputs, targets)."
            )
        return cls(source, collate or stack_items, split)

    def __len__(self) -> int:
        return len(self.dataset)  # type: ignore[arg-type]

    def read(self, numbers: list[int]) -> Batch:
        """Return the samples at these positions as one batch.  Raises BadTask."""
        found = []
        for number in numbers:
            with in_own_code(BadTask, f"task: item {number} of {type(whole(self.dataset)).__name__}", WAY_OUT):
                found.append(self.dataset[number])
        return self.batch(found)

    def batch(self, items: list[Any]) -> Batch:
        """Return items as one batch."""
        with in_own_code(BadTask, "task: collate", WAY_OUT):
            made = self.collate(items)
        return self.read_batch(made)

    def read_batch(self, made: Any) -> Batch:
        """Return what a collate or a loader gave as trees."""
        inputs, targets = (as_tree(part) for part in as_batch(made, self.split, self.alone))
        check_counts(inputs, targets, self.alone)
        return inputs, targets

    def in_order(self, size: int) -> Iterator[Batch]:
        """Yield all samples in order, in batches of `size`, read by the loader's workers where it has some."""
        if self.loader is None or not self.loader.num_workers:
            for start in range(0, len(self), size):
                yield self.read(list(range(start, min(start + size, len(self)))))
            return
        yield from self.loaded(again(self.loader, self.dataset, size), -(-len(self) // size))

    def shuffled(self, size: int, generator: torch.Generator) -> Iterator[Batch]:
        """Yield one epoch for training: a loader's own, with its sampler, else every sample once in random order."""
        if self.loader is None:
            order = torch.randperm(len(self), generator=generator)
            for start in range(0, len(self), size):
                yield self.read(order[start : start + size].tolist())
            return
        own = self.loader.batch_size in (None, size)
        source = self.loader if own else again(self.loader, self.loader.dataset, size, self.loader.sampler)
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(int(torch.randint(2**62, (), generator=generator)))
            batches = self.loaded(source, len(source))
            # A sampler draws its order when its first batch is asked for.
            first = next(batches, None)
        if first is not None:
            yield first
            yield from batches

    def loaded(self, loader: DataLoader[Any], count: int) -> Iterator[Batch]:
        """Yield a loader's batches.  Raises BadTask where a worker fails, or where there are fewer than `count`."""
        batches, number = iter(loader), 0
        while True:
            try:
                made = next(batches)
            except StopIteration:
                break
            except Exception as error:
                last = str(error).strip().splitlines()[-1:] or [describe(error)]
                raise BadTask(
                    f"task: batch {number + 1} of the loader raised {type(error).__name__}: {last[0]}. Fix the Dataset or "
                    "collate_fn; num_workers=0 shows the line."
                ) from error
            number += 1
            yield self.read_batch(made)
        if number < count:
            raise BadTask(
                f"task: the loader ended early, after {number} of {count} batches. Make its sampler yield as many samples as "
                "its length says."
            )

    def numbered(self) -> "Items":
        """Return the same items with their positions 0 .. N - 1 as targets."""
        return Items(Numbered(self.dataset), NumberedCollate(self))


def chosen_items(loader: DataLoader[Any]) -> Dataset[Any]:
    """Return the items that a loader's sampler chooses, each once, in the dataset's order.  Raises BadTask."""
    dataset, sampler = loader.dataset, cast(Any, loader.sampler)
    if loader.batch_size is None and loader.batch_sampler is None:
        raise BadTask(
            f"task: a DataLoader with batch_size=None passes on the items of {type(dataset).__name__} one by one, so it is "
            "unknown what one sample is. Give it a batch_size, and let the Dataset have one sample per item."
        )
    if isinstance(dataset, IterableDataset) or not has_length(dataset):
        raise BadTask(
            f"task: {type(dataset).__name__} can only be read from its start, and the same samples have to be read for two "
            "networks. Use a Dataset with a length and items by number."
        )
    whole_dataset = loader.batch_size is not None and isinstance(sampler, (SequentialSampler, RandomSampler))
    if whole_dataset and len(sampler) == len(cast(Any, dataset)):
        return dataset
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        source: Any = sampler if loader.batch_size is not None else loader.batch_sampler
        drawn = list(sampler if source is None else source)
    flat = [number for one in drawn for number in (one if isinstance(one, Sequence) else [one])]
    if loader.batch_size is not None and isinstance(sampler, Sized) and len(flat) < len(sampler):
        raise BadTask(
            f"task: the loader ends early: its sampler has a length of {len(sampler)} and yields {len(flat)} samples. "
            "Correct the sampler."
        )
    return Subset(dataset, sorted(set(flat)))


def has_length(dataset: object) -> bool:
    """Return whether a Dataset knows how many items it has."""
    return isinstance(dataset, Sized)


def again(loader: DataLoader[Any], dataset: Dataset[Any], size: int, sampler: Any = None) -> DataLoader[Any]:
    """Return a loader with the same workers and collate_fn for other items, batches or sampler; in order without a sampler."""
    return DataLoader(
        dataset, size, sampler=sampler, num_workers=loader.num_workers, collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory, timeout=loader.timeout, worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context, prefetch_factor=loader.prefetch_factor,
    )  # fmt: skip


def whole(dataset: Dataset[Any]) -> Dataset[Any]:
    """Return the Dataset under all Subsets."""
    return whole(dataset.dataset) if isinstance(dataset, Subset) else dataset


class Numbered(Dataset[Any]):
    """A Dataset whose items are pairs: an item, and its position."""

    def __init__(self, items: Dataset[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> tuple[Any, int]:
        return self.items[index], index


@dataclass(frozen=True)
class NumberedCollate:
    """Collates numbered items: the inputs as `items` collates them, the positions as targets."""

    items: Items

    def __call__(self, pairs: list[Any]) -> tuple[Any, Tensor]:
        """Return (inputs, positions)."""
        return self.items.batch([item for item, _ in pairs])[0], torch.tensor([number for _, number in pairs])
