"""Task: what the user brings: data, loss, metric, kind of outputs, example inputs and seed."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.renamed import OUTPUTS, TASK, current, old_fields
from cortado.running.devices import AUTO
from cortado.task.collate import in_unlabelled
from cortado.task.data import Data
from cortado.task.ignored import check_void
from cortado.task.metric import Metric, metric_of
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.outputs import Outputs
from cortado.task.outputs.several import several

Found = TypeVar("Found")

BATCH = 128
NAMED: dict[str, Outputs] = {"Classes()": Classes(), "Numbers()": Numbers()}


def outputs_of_task(given: Any) -> Outputs:
    """Return the kind of outputs from a kind, or from several by name or in order.  Raises BadTask for anything else."""
    if isinstance(given, Outputs):
        return given
    kinds = list(given.values()) if isinstance(given, Mapping) else given
    if isinstance(kinds, (tuple, list)) and kinds and all(isinstance(one, Outputs) for one in kinds):
        return several(given)
    if isinstance(given, str) and given in OUTPUTS:
        return NAMED[current("task: outputs", given, OUTPUTS)]
    shown = f"the text {given!r}" if isinstance(given, str) else f"a {type(given).__name__}"
    found = f"the class {given.__name__} without ()" if isinstance(given, type) else shown
    raise BadTask(
        "task: outputs must be a kind of outputs, or several in a dict or tuple, such as "
        f'{{"logits": Classes(), "boxes": Boxes()}} (cortado/task/outputs/), got {found}.'
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
    Data, a pair (inputs, targets), a Dataset or a DataLoader. `loss(outputs, targets)` is a mean over the batch. The default
    `metric` is accuracy for torch's classification losses (cross entropy, negative log likelihood) and otherwise the loss,
    sample by sample. `example` is a small batch of prepared inputs. `outputs` says what the network returns, for comparing
    two networks: Classes(), Numbers(), Tokens(), Boxes(), a subclass of Outputs, or several in a dict or tuple. By default
    one output is logits of classes, and several are numbers each. `batch` is the size of training batches: 0 for that of a
    DataLoader, else 128. `device` is for training: "auto" (a GPU if torch finds one), "cpu", "cuda"; everything else runs on
    the CPU.
    `trial` declares that the test data are deliberately not held out, so scores on them are no test. Without it, test
    data that overlap with the other data raise an error (cortado.task.disjoint).
    `unlabelled` are more inputs to train on, for objectives with `data: unlabelled`: a tensor or tree of tensors, Data, a
    Dataset or a DataLoader of inputs; an item that is a pair is an input and what an objective reads, such as an earlier
    frame. Like training data they are prepared, augmented and varied (`vary` gets None as targets), and may be training
    inputs, but neither validation nor test inputs.
    """

    train: Data
    validation: Data
    test: Data
    loss: Callable[[Any, Any], Tensor] = torch.nn.functional.cross_entropy
    metric: Metric = UNNAMED
    calibration: Data | None = None
    seed: int = 0
    batch: int = 0
    name: str = "task"
    outputs: Outputs = Automatic()
    device: str = AUTO
    trial: bool = False
    unlabelled: Data | None = None

    def __post_init__(self) -> None:
        for part in ("train", "validation", "test"):
            object.__setattr__(self, part, Data.of(getattr(self, part)))
        if self.unlabelled is not None:
            with in_unlabelled():
                object.__setattr__(self, "unlabelled", Data.of_inputs(self.unlabelled))
        if self.metric is UNNAMED:
            object.__setattr__(self, "metric", metric_of(self.loss))
        chosen = self.train.first(512).original() if self.calibration is None else Data.of(self.calibration)
        object.__setattr__(self, "calibration", chosen)
        check_void(self.train, self.loss, chosen)
        if self.batch < 0:
            raise BadTask(f"task: batch must be at least 1, or 0 for the default, got {self.batch}.")
        object.__setattr__(self, "batch", self.batch or self.train.batch_size or BATCH)
        object.__setattr__(self, "outputs", outputs_of_task(self.outputs))

    @property
    def example(self) -> Any:
        """Two prepared calibration inputs: enough to trace a network."""
        assert self.calibration is not None
        inputs, _ = next(self.calibration.batches(2))
        return inputs

    @property
    def known_data(self) -> tuple[Data, ...]:
        """Return the data that a result may depend on: every part but the test data."""
        parts = self.train, self.validation, self.calibration, self.unlabelled
        return tuple(part for part in parts if part is not None)

    def for_trial(self) -> "Task":
        """Return the task with validation data in place of test data, which stay untouched; use it to compare networks."""
        return replace(self, test=self.validation, trial=True)

    def recall(self, key: Callable[[], str], make: Callable[[], Found]) -> Found:
        """Return what `make` gives. The task of a search keeps it under `key()`, for the next trial that needs the same."""
        return make()

    def generator(self, offset: int = 0) -> torch.Generator:
        """Return a new random generator that depends only on the task's seed."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + offset)
