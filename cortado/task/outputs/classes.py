"""Classes: outputs are logits of classes."""

from dataclasses import dataclass
from typing import Any

from cortado.task.outputs.outputs import Rows, as_rows, first_floats_of
from cortado.task.outputs.softmax import Softmax


@dataclass(frozen=True)
class Classes(Softmax):
    """Logits of classes: (N, classes), (N, places, classes), or maps (N, classes, H, W ...).

    >>> nats = cortado.Classes().divergence(torch.rand(2, 1, 3), torch.rand(2, 1, 3))

    They stand for their softmax, and the divergence is KL. Of several outputs the first float tensor counts. `axis` is the
    axis of the classes where it is another.
    """

    axis: int | None = None

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs), self.axis)
