"""Grid: the places at which a detector answers, and how its answers become boxes and scores."""

from typing import Any, Protocol

from torch import Tensor

from cortado.errors import BadTask


class BoxGrid(Protocol):
    """Where a detector answers, `places` per picture, by logits (N, places, numbers) and offsets (N, places, 4)."""

    @property
    def places(self) -> int:
        """How many boxes each picture gets."""

    def decoded(self, offsets: Tensor) -> Tensor:
        """Return corners (N, places, 4) in pixels from the network's offsets."""

    def class_scores(self, logits: Tensor) -> Tensor:
        """Return (N, places, classes) in 0..1 from the network's logits."""

    def softmaxes(self, logits: Tensor) -> Tensor:
        """Return (N, places, decisions, outcomes): the network's logits so that each decision has one softmax."""


def split_outputs(outputs: Any, places: int) -> tuple[Tensor, Tensor]:
    """Return logits (N, places, numbers) and offsets (N, places, 4) of a detector's outputs.

    Raises BadTask for other outputs, and for another number of places.
    """
    parts = list(outputs) if isinstance(outputs, (tuple, list)) else [outputs]
    shapes = [tuple(one.shape) if isinstance(one, Tensor) else () for one in parts]
    if len(shapes) != 2 or [len(one) for one in shapes] != [3, 3] or shapes[1][2] != 4:
        raise BadTask(
            "task: a detector must return a pair: logits (N, places, numbers) and offsets (N, places, 4), got "
            f"{shapes if shapes[0] else type(outputs).__name__}. Return both, or give the task a loss and a metric of its own."
        )
    logits, offsets = parts
    if logits.shape[1] != places or offsets.shape[1] != places:
        raise BadTask(
            f"task: the detector answers at {logits.shape[1]} places, and its anchors are {places}. Make anchors and network for "
            "the same size of picture and the same levels: the task's anchors must be those of the network."
        )
    return logits, offsets
