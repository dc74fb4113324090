"""Collate: make batches of inputs and targets, which are trees of tensors, from items."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch

from cortado.errors import BadTask, in_own_code
from cortado.running.trees import map_leaves, sample_counts

WAY_OUT = "Fix it, or leave out what it cannot read."
UNLABELLED_DATA = "unlabelled data"
Batch = tuple[Any, Any]
"""Inputs and targets, each a tree of tensors; a list has one entry per sample."""
Collate = Callable[[list[Any]], Any]
Split = Callable[[Any], Batch] | str


@contextlib.contextmanager
def in_unlabelled(unlabelled: bool = True) -> Iterator[None]:
    """Let errors about data say that they are the unlabelled ones, if they are."""
    try:
        yield
    except BadTask as error:
        if not unlabelled or UNLABELLED_DATA in str(error):
            raise
        raise BadTask(f"task: {UNLABELLED_DATA}: {str(error).removeprefix('task: ')}") from error


def as_tree(value: Any) -> Any:
    """Return inputs or targets as a tree of tensors: arrays, numbers and lists of numbers become tensors.

    A list of anything else (dicts, strings, tensors of different shapes) stays a list with one entry per sample.
    Raises BadTask for other values.
    """
    return map_leaves(as_leaf, value, (list,))


def as_leaf(value: Any) -> Any:
    """Return a part of a tree that is no tuple, dict or dataclass, as `as_tree` describes; None stays."""
    if value is None:
        return None
    if isinstance(value, list) and holds_objects(value):
        return [as_entry(entry) for entry in value]
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadTask(
            f"task: inputs and targets must be tensors, or tuples, dicts, dataclasses or lists of tensors, got "
            f"{type(value).__name__}. Convert it in the Dataset, or in prepare."
        ) from error


def holds_objects(value: list[Any]) -> bool:
    """Return whether a list holds more than numbers, arrays and lists of them."""
    numbers = (bool, int, float, complex, np.ndarray, np.generic)
    return any(holds_objects(one) if isinstance(one, list) else not isinstance(one, numbers) for one in value)


def as_entry(value: Any) -> Any:
    """Return an entry of a list, which belongs to one sample: arrays in it become tensors."""
    return map_leaves(lambda leaf: torch.as_tensor(leaf) if isinstance(leaf, np.ndarray) else leaf, value)


def check_counts(inputs: Any, targets: Any, alone: bool = False) -> int:
    """Return the number of samples.  Raises BadTask for none, and for parts of different lengths.

    `alone`: targets may be missing.
    """
    first, second = sample_counts(inputs), sample_counts(targets)
    if alone and targets is None:
        second = first
    for what, counts in (("inputs", first), ("targets", second)):
        if not counts:
            raise BadTask(f"task: the {what} have no tensor with a sample axis. Pass tensors, samples first.")
        if len(set(counts)) > 1:
            raise BadTask(
                f"task: the {what} have parts of different lengths, got {', '.join(map(str, counts))}. Each part needs one "
                "entry per sample; what differs from sample to sample goes into a list."
            )
    if first[0] != second[0]:
        raise BadTask(
            f"task: inputs and targets differ in length, got {first[0]} and {second[0]}. Pass one target for each input."
        )
    if not first[0]:
        raise BadTask("task: the data are empty, got 0 samples. Pass at least one sample.")
    return first[0]


def stack_items(items: list[Any]) -> Any:
    """Return items stacked into a batch, part by part: numbers and equal tensors become tensors, strings a list.

    An item is a pair (input, target), or a dict. Raises BadTask for items that do not stack.
    """
    first = items[0]
    try:
        if isinstance(first, Mapping):
            return {name: stack_items([item[name] for item in items]) for name in first}
        if isinstance(first, (tuple, list)) and not (isinstance(first, list) and not holds_objects(first)):
            return tuple(stack_items(list(column)) for column in zip(*items, strict=True))
        if isinstance(first, str):
            return items
        return torch.stack([torch.as_tensor(item) for item in items])
    except BadTask:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError, KeyError) as error:
        raise BadTask(
            f"task: items cannot be stacked into a batch ({error}). Each must be a pair (input, target) of equal shapes; for "
            "others (boxes, sequences of different lengths) pass collate=, a function from a list of items to (inputs, targets)."
        ) from error


def as_batch(made: Any, split: Split | None, alone: bool = False) -> Batch:
    """Return (inputs, targets) from what a collate or a loader gave; `split` is a function, or the name of the targets.

    `alone`: what is no pair is inputs, with None as targets. Otherwise raises BadTask for anything but a pair without `split`.
    """
    if isinstance(split, str):
        if not isinstance(made, Mapping) or split not in made:
            names = ", ".join(map(str, made)) if isinstance(made, Mapping) else type(made).__name__
            raise BadTask(f"task: split={split!r} names no part of a batch, which has: {names}. Name the targets.")
        return {name: part for name, part in made.items() if name != split}, made[split]
    if split is not None:
        with in_own_code(BadTask, "task: split", WAY_OUT):
            made = split(made)
    if not is_pair(made):
        if alone:
            return (made[0] if isinstance(made, (tuple, list)) and len(made) == 1 else made), None
        what = f"{len(made)} parts" if isinstance(made, (tuple, list)) else type(made).__name__
        raise BadTask(
            f"task: a batch must be a pair (inputs, targets), got {what}. Pass split=, the name of the targets in a dict or "
            "a function from a batch to (inputs, targets)."
        )
    return made[0], made[1]


def is_pair(made: Any) -> bool:
    """Return whether a batch is (inputs, targets), and not two samples of text."""
    return isinstance(made, (tuple, list)) and len(made) == 2 and not all(isinstance(part, str) for part in made)
