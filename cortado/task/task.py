"""Task: what the user brings: data, loss, metric, example inputs and seed."""

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

WAY_OUT = "Fix it, or leave out what it cannot read."
Batch = tuple[Any, Tensor]
"""Inputs (a tensor, or a tuple of tensors for several inputs) and targets."""
ANSWERS = ("classes", "numbers")


def sample_count(inputs: Any) -> int:
    """Return the number of samples in a tensor or tuple of tensors."""
    return len(inputs[0]) if isinstance(inputs, tuple) else len(inputs)


def to_device(value: Any, device: torch.device | str) -> Any:
    """Move a tensor or tuple of tensors to `device`."""
    if isinstance(value, tuple):
        return tuple(part.to(device) for part in value)
    return value.to(device)


class Data:
    """Samples: `inputs` (N, ...) or a tuple of such, `targets` (N, ...); or a Dataset, whose items are read on demand.

    >>> data = cortado.Data(pixels, labels, prepare=lambda batch: batch / 255)

    `prepare` turns a raw batch into the network's inputs (such as uint8 pixels into normalised floats);
    `augment(inputs, generator)` varies a prepared batch in training only. Raises BadTask if inputs and targets differ in
    length or are empty.
    """

    def __init__(
        self,
        inputs: Any,
        targets: Any = None,
        prepare: Callable[[Any], Any] | None = None,
        augment: Callable[[Any, torch.Generator], Any] | None = None,
    ) -> None:
        """`inputs` and `targets` as tensors, or only `inputs` as a Dataset of (input, target) pairs."""
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
        """Return Data from Data, (inputs, targets), or a Dataset of (input, target) pairs."""
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
        """Return the samples at `index` in memory, with the same prepare and augment."""
        if self.items is not None:
            inputs, targets = collated(self.items, torch.arange(len(self))[index].tolist())
            return Data(inputs, targets, self.prepare, self.augment)
        inputs = tuple(part[index] for part in self.inputs) if isinstance(self.inputs, tuple) else self.inputs[index]
        return Data(inputs, self.targets[index], self.prepare, self.augment)

    def first(self, count: int) -> "Data":
        """Return the first `count` samples, or all if there are fewer."""
        return self.pick(slice(0, count))

    def original(self) -> "Data":
        """Return the same samples without augmentation."""
        return Data(self.inputs, None if self.items is not None else self.targets, self.prepare)

    def numbered(self) -> "Data":
        """Return the same samples with their indices 0 .. N - 1 as targets."""
        if self.items is not None:
            return Data(Numbered(self.items), None, self.prepare, self.augment)
        return Data(self.inputs, torch.arange(len(self)), self.prepare, self.augment)

    def batches(self, size: int, shuffle: torch.Generator | None = None) -> Iterator[Batch]:
        """Yield prepared batches of at most `size`; shuffled and augmented if a generator is given."""
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
    """Return inputs or targets as a tensor.  Raises BadTask for anything else, such as a dict of inputs."""
    try:
        return torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise BadTask(
            f"task: inputs must be a tensor or a tuple of tensors, and targets a tensor, got {type(value).__name__}. For "
            "named inputs, pass a module whose forward(a, b) takes them in order and calls your network."
        ) from error


class Numbered(Dataset[Any]):
    """A Dataset with the indices of its items as targets."""

    def __init__(self, items: Dataset[Any]) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)  # type: ignore[arg-type]

    def __getitem__(self, index: int) -> Any:
        return self.items[index][0], index


def collated(items: Dataset[Any], numbers: list[int]) -> tuple[Any, Tensor]:
    """Stack items of a Dataset into a batch: inputs (a tensor, or a tuple of them) and targets.  Raises BadTask."""
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
    """Return 1.0 for each sample whose largest output is its target, else 0.0.  Raises BadTask for labels without an output."""
    if targets.numel() and not 0 <= int(targets.min()) <= int(targets.max()) < outputs.shape[1]:
        raise BadTask(
            f"task: labels must lie in 0..{outputs.shape[1] - 1}, because the network has {outputs.shape[1]} outputs, "
            f"got {int(targets.min())}..{int(targets.max())}. Correct the labels or the network."
        )
    return (outputs.argmax(1) == targets).float()


@dataclass(frozen=True)
class Metric:
    """How good outputs are: `each(outputs, targets)` returns one number per sample; the score is their mean times `scale`.

    >>> each = lambda outputs, targets: (outputs - targets).abs().mean(1)
    >>> error = cortado.Metric("error", "mm", each, higher_is_better=False, scale=1.0)

    If the score is not a mean over samples, as with intersection over union, `each` returns a row of numbers per sample
    and `whole(sums)`, (..., numbers) to (...), computes the score from their sums. `name` and `unit` appear in the
    report; `higher_is_better` gives the direction.
    """

    name: str = "accuracy"
    unit: str = "%"
    each: Callable[[Any, Tensor], Tensor] = correct
    higher_is_better: bool = True
    scale: float = 100.0
    whole: Callable[[Tensor], Tensor] | None = None

    def shares(self, rows: Tensor) -> Tensor:
        """Return one number per sample, (N,), whose mean is the unscaled score; `rows` is what `each` returned for all.

        With `whole` these are jackknife pseudo-values, shifted so that their mean is the score: their spread is that of
        the score, and two networks can be compared in pairs.  Tukey, 1958.
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
    """A loss per sample, (N,): from the loss itself, or in batches of one if it returns a single number."""

    loss: Callable[[Any, Tensor], Tensor]

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        whole = self.loss(outputs, targets)
        if whole.dim() == 1 and len(whole) == len(targets) > 1:
            return whole
        single = [tree_map(lambda part, at=at: part[at : at + 1], outputs) for at in range(len(targets))]
        return torch.stack([self.loss(one, targets[at : at + 1]).reshape(()) for at, one in enumerate(single)])


def score_of(loss: Callable[[Any, Tensor], Tensor]) -> Metric:
    """Return the default metric: accuracy for classification losses, otherwise the loss itself, where less is better."""
    of_classes = (torch.nn.functional.cross_entropy, torch.nn.functional.nll_loss)
    if loss in of_classes or isinstance(loss, (torch.nn.CrossEntropyLoss, torch.nn.NLLLoss)):
        return Metric()
    return Metric(
        str(getattr(loss, "__name__", type(loss).__name__)), "", SampleLosses(loss), higher_is_better=False, scale=1.0
    )


UNNAMED = Metric()
"""Placeholder for the metric until the loss is known."""


@old_fields(TASK)
@dataclass(frozen=True)
class Task:
    """Data, loss, metric, example and seed.

    >>> task = cortado.Task(train=(inputs, labels), validation=(more, more_labels), test=(last, last_labels))

    Methods train on `train` and decide on `validation`; `test` is used for the final score only. The three must be
    disjoint. `calibration` (for activation statistics) is by default the start of `train`, without augmentation. Each is
    Data, a pair (inputs, targets) or a Dataset. `loss(outputs, targets)` is a mean over the batch. The default `metric`
    is accuracy for torch's classification losses (cross entropy, negative log likelihood) and otherwise the loss, sample
    by sample. `example` is a small batch of prepared inputs. `answers` is the kind of outputs, for comparing two
    networks: logits of "classes", or "numbers" (regression, embeddings, depth), which have no softmax; BadTask for
    others. `device` is for training: "auto" (a GPU if torch finds one), "cpu", "cuda"; everything else runs on the CPU.
    `trial` declares that the test data are deliberately not held out, so scores on them are no test. Without it, test
    data that overlap with the other data raise an error (cortado.task.disjoint).
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
        """Return the task with validation data in place of test data, which stay untouched; use it to compare networks."""
        return replace(self, test=self.validation, trial=True)

    def generator(self, offset: int = 0) -> torch.Generator:
        """Return a new random generator that depends only on the task's seed."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + offset)
