"""Few labels: keep the targets of some training samples only; the inputs of all are unlabelled data."""

from cortado.errors import BadTask
from cortado.task.data import Data


def few_labels(data: Data, count: int) -> tuple[Data, Data | None]:
    """Return the first `count` samples with their targets, and the inputs of all without; all samples and None for 0.

    Both are prepared and augmented as `data`, which are in memory. Raises BadTask for more labels than there are samples.
    """
    if not 0 <= count <= len(data):
        raise BadTask(f"task: labelled must lie in 0..{len(data)}, got {count}. Write 0 for all labels.")
    if not count:
        return data, None
    return data.first(count), Data(data.inputs, None, data.prepare, data.augment)
