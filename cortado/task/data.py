"""Data: samples in memory, in a Dataset or in a DataLoader, as batches of inputs and targets."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from cortado.errors import BadTask, in_own_code
from cortado.running.trees import pick
from cortado.task.collate import WAY_OUT, Batch, Collate, Split, as_tree, check_counts
from cortado.task.items import Items
from cortado.task.move import Move

Vary = Callable[[Any, Any, torch.Generator], Batch]
"""(inputs, targets, generator) -> (inputs, targets)."""


class Data:
    """Samples: `inputs` and `targets` in memory; or a Dataset or DataLoader, whose items are read on demand.

    >>> data = cortado.Data(pixels, labels, prepare=lambda batch: batch / 255)

    Inputs and targets are trees of tensors (N, ...): a tensor, a tuple (the network's arguments in order), a dict (its
    arguments by name) or a dataclass; a list has one entry per sample, as boxes do. `prepare` turns raw inputs into the
    network's inputs (such as uint8 pixels into normalised floats). In training only, `augment(inputs, generator)` varies
    prepared inputs, and `vary(inputs, targets, generator)` inputs and targets together, as a flip of pictures with boxes.

    Items of a Dataset are pairs (input, target), stacked; `collate(items)` makes (inputs, targets) of others. A DataLoader
    keeps its collate_fn and workers, and in training its sampler; its samples are read in order everywhere else. Where a
    batch is no pair, `split` makes one: the name of the targets in a dict, or a function. Inputs in memory without targets
    (None) are for `Task.unlabelled`. Raises BadTask for inputs and targets of different lengths, without samples, or that are
    no trees of tensors.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        prepare: Callable[[Any], Any] | None = None,
        augment: Callable[[Any, torch.Generator], Any] | None = None,
        *,
        vary: Vary | None = None,
        collate: Collate | None = None,
        split: Split | None = None,
    ) -> None:
        """`inputs` and `targets` in memory, or only `inputs`: in memory too, or a Dataset, a DataLoader or Items."""
        self.items: Items | None = None
        if targets is None and isinstance(inputs, (Items, Dataset, DataLoader)):
            self.items = inputs if isinstance(inputs, Items) else Items.of(inputs, collate, split)
            self.inputs, self.targets, self.count = inputs, range(len(self.items)), len(self.items)
            if not self.count:
                raise BadTask("task: the data are empty, got 0 samples. Pass at least one sample.")
        else:
            self.inputs, self.targets = as_tree(inputs), as_tree(targets)
            self.count = check_counts(self.inputs, self.targets, alone=targets is None)
        self.prepare, self.augment, self.vary = prepare, augment, vary

    @classmethod
    def of(cls, source: Any) -> "Data":
        """Return Data from Data, (inputs, targets), a Dataset of (input, target) pairs or a DataLoader.  Raises BadTask."""
        if isinstance(source, Data):
            if source.targets is None:
                raise BadTask(
                    "task: data to train on or to score need targets, got inputs alone. Pass cortado.Data(inputs, targets), or "
                    "Task(unlabelled=inputs)."
                )
            return source
        if isinstance(source, tuple) and len(source) == 2:
            return cls(source[0], source[1])
        if isinstance(source, (Dataset, DataLoader)):
            return cls(source)
        raise BadTask(
            f"task: data must be Data, a pair (inputs, targets), a Dataset or a DataLoader, got {type(source).__name__}. "
            "Wrap tensors as cortado.Data(inputs, targets)."
        )

    @classmethod
    def of_inputs(cls, source: Any) -> "Data":
        """Return Data that may lack targets, from Data, a tree of inputs in memory, a Dataset or a DataLoader of inputs.

        Raises BadTask for a pair, whose second part may be targets or an input.
        """
        if isinstance(source, tuple) and len(source) == 2:
            raise BadTask(
                "task: unlabelled data cannot be a pair. Pass cortado.Data((first, second)) for a network with two inputs, or "
                "cortado.Data(inputs, targets) for inputs with what an objective reads."
            )
        made = source if isinstance(source, Data) else cls(source)
        if made.items is None or made.items.alone:
            return made
        return Data(replace(made.items, alone=True), None, made.prepare, made.augment, vary=made.vary)

    def __len__(self) -> int:
        return self.count

    @property
    def varies(self) -> bool:
        """Return whether training sees other inputs than `original()` has: they are augmented or varied."""
        return self.augment is not None or self.vary is not None

    @property
    def batch_size(self) -> int | None:
        """Return the batch size of a DataLoader; None for other data, and for a loader with a batch sampler."""
        return None if self.items is None or self.items.loader is None else self.items.loader.batch_size

    def pick(self, index: Tensor | slice) -> "Data":
        """Return the samples at `index` in memory, prepared, augmented and varied in the same way."""
        if self.items is not None:
            inputs, targets = self.items.read(torch.arange(len(self))[index].tolist())
        else:
            inputs, targets = pick(self.inputs, index), pick(self.targets, index)
        return Data(inputs, targets, self.prepare, self.augment, vary=self.vary)

    def first(self, count: int) -> "Data":
        """Return the first `count` samples, or all if there are fewer."""
        return self.pick(slice(0, count))

    def original(self) -> "Data":
        """Return the same samples as they are: neither augmented nor varied."""
        return Data(self.items or self.inputs, None if self.items is not None else self.targets, self.prepare)

    def numbered(self) -> "Data":
        """Return the same samples with their indices 0 .. N - 1 as targets, augmented but not moved.

        Raises BadTask for data with a `vary` that is no Move.
        """
        if self.vary is not None and not isinstance(self.vary, Move):
            raise BadTask("task: data whose targets vary cannot have numbers as targets. Leave out vary.")
        if self.items is not None:
            return Data(self.items.numbered(), None, self.prepare, self.augment)
        return Data(self.inputs, torch.arange(len(self)), self.prepare, self.augment)

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield prepared batches of at most `size`: in order, or shuffled, augmented and varied if a generator is given."""
        for number, (inputs, targets) in enumerate(self.raw_batches(size, shuffle), 1):
            with in_own_code(BadTask, f"task: prepare, augment or vary, on batch {number},", WAY_OUT):
                inputs = inputs if self.prepare is None else self.prepare(inputs)
                if shuffle is not None and self.augment is not None:
                    inputs = self.augment(inputs, shuffle)
                if shuffle is not None and self.vary is not None:
                    inputs, targets = self.vary(inputs, targets, shuffle)
                inputs, targets = as_tree(inputs), as_tree(targets)
            yield inputs, targets

    def raw_batches(self, size: int, shuffle: torch.Generator | None) -> Iterator[Batch]:
        """Yield batches as they are stored or read."""
        if self.items is not None:
            yield from self.items.in_order(size) if shuffle is None else self.items.shuffled(size, shuffle)
            return
        order = torch.arange(len(self)) if shuffle is None else torch.randperm(len(self), generator=shuffle)
        for start in range(0, len(self), size):
            part = order[start : start + size]
            yield pick(self.inputs, part), pick(self.targets, part)
