"""Task: what the user brings - data, loss, score, example inputs, seed."""

from collections.abc import Callable, Iterator, Sized
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map
from torch.utils.data import Dataset

from cortado.errors import BadTask, in_own_code
from cortado.renamed import TASK, old_fields
from cortado.running.devices import AUTO

WAY_OUT = "Mend it, or leave out what it cannot read."
Batch = tuple[Any, Tensor]
"""Inputs (a tensor, or a tuple of tensors for a network with several inputs) and targets."""
ANSWERS = ("classes", "numbers")


def sample_count(inputs: Any) -> int:
    """How many samples a tensor, or a tuple of tensors, holds."""
    return len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)


def to_device(value: Any, device: torch.device | str) -> Any:
    """A tensor or tuple of tensors, on `device`."""
    if isinstance(value, tuple):
        return tuple(part.to(device) for part in value)
    return value.to(device)


class Data:
    """Samples: `inputs` (N, ...) or a tuple of such, `targets` (N, ...); or a Dataset, whose items are read when needed.

    >>> data = cortado.Data(pixels, labels, prepare=lambda batch: batch / 255)

    `prepare` turns a raw batch of inputs into what the network eats (uint8 pixels into normalised floats, say);
    `augment(inputs, generator)` varies a prepared batch and is used in training only.
    Raises BadTask when the two disagree in length or there are no samples.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        prepare: Callable[[Any], Any] | None = None,
        augment: Callable[[Any, torch.Generator], Any] | None = None,
    ) -> None:
        """`inputs` and `targets` as tensors, or a Dataset of (input, target) pairs as `inputs` alone."""
        self.items: Dataset[Any] | None = None
        if targets is None:
            if not isinstance(inputs, Dataset) or not isinstance(inputs, Sized):
                raise BadTask(
                    f"task: without targets, inputs must be a Dataset with a length, got {type(inputs).__name__}. "
                    "Pass cortado.Data(inputs, targets)."
                )
            self.items, inputs, targets = inputs, inputs, range(len(inputs))
        if self.items is None:
            inputs = tuple(map(as_tensor, inputs)) if isinstance(inputs, tuple) else as_tensor(inputs)
            targets = as_tensor(targets)
        if sample_count(inputs) != len(targets):
            raise BadTask(
                f"task: inputs and targets differ in length, got {sample_count(inputs)} and {len(targets)}. "
                "Pass one target for each input."
            )
        if len(targets) == 0:
            raise BadTask("task: the data are empty, got 0 samples. Pass at least one sample.")
        self.inputs, self.targets, self.prepare, self.augment = inputs, targets, prepare, augment

    @classmethod
    def of(cls, source: Any) -> "Data":
        """Data from what people have: Data, (inputs, targets), or a Dataset of (input, target) pairs."""
        if isinstance(source, Data):
            return source
        if isinstance(source, tuple) and len(source) == 2:
            return cls(source[0], source[1])
        if isinstance(source, Dataset):
            return cls(source)
        raise BadTask(
            f"task: data must be Data, a pair (inputs, targets) or a Dataset, got {type(source).__name__}. "
            "Wrap tensors as cortado.Data(inputs, targets)."
        )

    def __len__(self) -> int:
        return len(self.targets)

    def pick(self, index: Tensor | slice) -> "Data":
        """The samples at `index`, in memory, prepared and augmented in the same way."""
        if self.items is not None:
            inputs, targets = collated(self.items, torch.arange(len(self))[index].tolist())
            return Data(inputs, targets, self.prepare, self.augment)
        inputs = tuple(part[index] for part in self.inputs) if isinstance(self.inputs, tuple) else self.inputs[index]
        return Data(inputs, self.targets[index], self.prepare, self.augment)

    def first(self, count: int) -> "Data":
        """The first `count` samples (all of them when there are fewer)."""
        return self.pick(slice(0, count))

    def original(self) -> "Data":
        """The same samples without augmentation."""
        return Data(self.inputs, None if self.items is not None else self.targets, self.prepare)

    def numbered(self) -> "Data":
        """The same samples with their own numbers 0 .. N - 1 as targets."""
        if self.items is not None:
            return Data(Numbered(self.items), None, self.prepare, self.augment)
        return Data(self.inputs, torch.arange(len(self)), self.prepare, self.augment)

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        """Batches of at most `size`, prepared; shuffled and augmented when a generator is given."""
        order = torch.arange(len(self)) if shuffle is None else torch.randperm(len(self), generator=shuffle)
        for start in range(0, len(self), size):
            part = self.pick(order[start : start + size])
            inputs = part.inputs
            with in_own_code(BadTask, f"task: prepare or augment, on batch {start // size + 1},", WAY_OUT):
                inputs = inputs if self.prepare is None else self.prepare(inputs)
                if shuffle is not None and self.augment is not None:
                    inputs = self.augment(inputs, shuffle)
                inputs = tuple(map(as_tensor, inputs)) if isinstance(inputs, tuple) else as_tensor(inputs)
            yield inputs, part.targets


def as_tensor(value: Any) -> Tensor:
    """Return inputs or targets as a tensor.  Raises BadTask for what is none: a dict of inputs, among others."""
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadTask(
            f"task: inputs must be a tensor or a tuple of tensors, and targets a tensor, got {type(value).__name__}. For a "
            "network that takes named inputs pass a module whose forward(a, b) takes them in order and calls it."
        ) from error


class Numbered(Dataset[Any]):
    """A Dataset whose targets are the numbers of its items."""

    def __init__(self, items: Dataset[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.items[index][0], index


def collated(items: Dataset[Any], numbers: list[int]) -> tuple[Any, Tensor]:
    """Items of a Dataset as one batch: inputs (a tensor, or a tuple of them) and targets.  Raises BadTask."""
    pairs = []
    for number in numbers:
        with in_own_code(BadTask, f"task: item {number} of {type(items).__name__}", WAY_OUT):
            pairs.append(items[number])
    try:
        columns = list(zip(*[pair[0] if isinstance(pair[0], tuple) else (pair[0],) for pair in pairs], strict=True))
        inputs = tuple(torch.stack([as_tensor(part) for part in column]) for column in columns)
        targets = torch.stack([as_tensor(pair[1]) for pair in pairs])
    except BadTask:
        raise
    except (TypeError, ValueError, RuntimeError, IndexError) as error:
        raise BadTask(
            f"task: items of {type(items).__name__} cannot be stacked into a batch ({error}). "
            "Each must be a pair (input, target) of equal shapes."
        ) from error
    return (inputs if isinstance(pairs[0][0], tuple) else inputs[0]), targets


def correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """1.0 for each sample whose largest output is its target, else 0.0.  Raises BadTask for labels without an output."""
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[1]:
        raise BadTask(
            f"task: labels must lie in 0..{outputs.shape[1] - 1}, as the network has {outputs.shape[1]} outputs, "
            f"got {int(targets.min())}..{int(targets.max())}. Correct the labels or the network."
        )
    return (outputs.argmax(1) == targets).float()


@dataclass(frozen=True)
class Metric:
    """How good outputs are: `each(outputs, targets)` gives one number a sample; the score is their mean times `scale`.

    >>> each = lambda outputs, targets: (outputs - targets).abs().mean(1)
    >>> error = cortado.Metric("error", "mm", each, higher_is_better=False, scale=1.0)

    Where the score of many samples is no mean of theirs, as with an intersection over a union, `each` gives a row of
    numbers a sample and `whole(sums)`, (..., numbers) to (...), makes the score of their sums. `name` and `unit` are what
    the report prints; `higher_is_better` gives the direction.
    """

    name: str = "accuracy"
    unit: str = "%"
    each: Callable[[Any, Tensor], Tensor] = correct
    higher_is_better: bool = True
    scale: float = 100.0
    whole: Callable[[Tensor], Tensor] | None = None

    def shares(self, rows: Tensor) -> Tensor:
        """One number a sample, (N,), whose mean is the score without its scale; `rows` is what `each` gave for all.

        With `whole` they are the jackknife's pseudo-values, moved so that their mean is the score itself: their spread
        is that of the score, and differences of two networks' are paired.  Tukey, 1958.
        """
        if self.whole is None:
            return rows
        rows = rows.double()
        total, count = rows.sum(0), len(rows)
        metric = self.whole(total)
        if count == 1:
            return metric.reshape(1)
        without = self.whole(total - rows)
        return metric + (count - 1) * (without.mean() - without)


@dataclass(frozen=True)
class SampleLosses:
    """A loss for each sample, (N,): as the loss gives it, or, where it gives one number for a batch, in batches of one."""

    loss: Callable[[Any, Tensor], Tensor]

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        whole = self.loss(outputs, targets)
        if whole.dim() == 1 and len(whole) == len(targets) > 1:
            return whole
        single = [tree_map(lambda part, at=at: part[at : at + 1], outputs) for at in range(len(targets))]
        return torch.stack([self.loss(one, targets[at : at + 1]).reshape(()) for at, one in enumerate(single)])


def score_of(loss: Callable[[Any, Tensor], Tensor]) -> Metric:
    """Return the score of a task that names none: accuracy for a loss of classes, else the loss, of which less is better."""
    of_classes = (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss)
    if loss in of_classes or isinstance(loss, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
        return Metric()
    return Metric(
        str(getattr(loss, "__name__", type(loss).__name__)), "", SampleLosses(loss), higher_is_better=False, scale=1.0
    )


UNNAMED = Metric()
"""Stands for the score of a task until its loss is known."""


@old_fields(TASK)
@dataclass(frozen=True)
class Task:
    """Data, loss, score, example and seed.

    >>> task = cortado.Task(train=(inputs, labels), validation=(more, more_labels), test=(last, last_labels))

    `train` is learned from, `validation` (held out of training) is what every choice is made on, `test` is used for
    the final test and for nothing else. The three must be disjoint. `calibration` (statistics of activations) is by
    default the start of `train`, without augmentation. Each is Data, a pair (inputs, targets) or a Dataset.
    `loss(outputs, targets)` is a mean over the batch. Without a `metric` it is accuracy for the losses of classes that torch
    has (cross entropy, negative log likelihood), and for any other loss that loss, sample by sample. `example` is one
    small batch of prepared inputs. `answers` says what
    the network gives, for whatever compares two networks' outputs: scores of "classes", or "numbers" (regression,
    embeddings, depth), of which there is no softmax. Raises BadTask for anything else.
    `device` is where trainings run: "auto" (a GPU where torch sees one), "cpu", "cuda"; all else runs on the CPU.
    `trial` says that the test data are not apart from the others, on purpose: what is measured on them serves a choice
    and is no test. Without it a test result on data that were chosen or learned on is refused (cortado.task.disjoint).
    """

    train: Data
    validation: Data
    test: Data
    loss: Callable[[Any, Tensor], Tensor] = torch.nn.functional.cross_entropy
    metric: Metric = UNNAMED
    calibration: Data | None = None
    seed: int = 0
    batch: int = 128
    name: str = "task"
    answers: str = "classes"
    device: str = AUTO
    trial: bool = False

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            object.__setattr__(self, part, Data.of(getattr(self, part)))
        if self.metric is UNNAMED:
            object.__setattr__(self, "metric", score_of(self.loss))
        chosen = self.train.first(512).original() if self.calibration is None else Data.of(self.calibration)
        object.__setattr__(self, "calibration", chosen)
        if self.batch < 1:
            raise BadTask(f"task: batch must be at least 1, got {self.batch}.")
        if self.answers not in ANSWERS:
            raise BadTask(f"task: answers must be one of {', '.join(ANSWERS)}, got {self.answers!r}.")

    @property
    def example(self) -> Any:
        """Two prepared calibration inputs: enough to trace a network."""
        assert self.calibration is not None
        inputs, _ = next(self.calibration.batches(2))
        return inputs

    def for_trial(self) -> "Task":
        """The same with the validation data in the place of the test data's, which stay untouched: to choose between networks."""
        return replace(self, test=self.validation, trial=True)

    def generator(self, offset: int = 0) -> torch.Generator:
        """A fresh source of randomness that depends on the task's seed alone."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + offset)
