"""Counted: which places of outputs and of inner layers count: no void pixels, no padding."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.running.trees import tensors_in
from cortado.training.objectives.objective import TrainingStep


def counted_outputs(step: TrainingStep, classes: int, places: tuple[int, ...]) -> Tensor | None:
    """Return which places of the outputs count, boolean (N, ...); None where all do.

    `places` is the shape of the outputs without the axis of the classes. A place does not count if its label is the one
    that the task's loss ignores, or no class, such as 255, or if `attention_mask` among the inputs is 0 there.
    """
    return both_count(labelled(step, classes, places), unpadded(step.inputs, places))


def counted_places(step: TrainingStep, values: Tensor) -> Tensor | None:
    """Return which places of a layer's outputs count: of maps (N, C, H, W) as a boolean (N, H, W), of (N, T, C) as (N, T).

    None where all do. Of a map of another size than the labels, a place counts as the nearest label does.
    """
    if values.dim() == 3:
        return unpadded(step.inputs, tuple(values.shape[:2]))
    if values.dim() != 4 or not isinstance(step.targets, Tensor) or step.targets.dim() != 3:
        return None
    outputs = next(iter(tensors_in(step.outputs)), values)
    known = labelled(step, outputs.shape[1] if outputs.dim() == 4 else 0, tuple(step.targets.shape))
    if known is None or known.shape[0] != values.shape[0]:
        return None
    size = values.shape[2:]
    return functional.interpolate(known[:, None].float(), size, mode="nearest-exact")[:, 0] > 0


def labelled(step: TrainingStep, classes: int, places: tuple[int, ...]) -> Tensor | None:
    """Return whether each place has a label that counts; None without whole-number labels of classes of this shape."""
    labels = step.targets
    if step.kind is not None and not step.kind.softens:
        return None
    if not isinstance(labels, Tensor) or tuple(labels.shape) != places:
        return None
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        return None
    known = (labels != step.ignored) & (labels >= 0)
    return known & (labels < classes) if classes > 1 else known


def unpadded(inputs: Any, places: tuple[int, ...]) -> Tensor | None:
    """Return where `attention_mask`, whole numbers or booleans (N, T) among the inputs, is not 0; None without one."""
    mask = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
    if not isinstance(mask, Tensor) or mask.is_floating_point() or tuple(mask.shape) != places:
        return None
    return mask != 0


def both_count(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return where both count."""
    if first is None or second is None:
        return second if first is None else first
    return first & second


def mean_over(values: Tensor, counted: Tensor | None) -> Tensor:
    """Return the mean of values over what counts, all for None; 0 where nothing does.

    `values` and `counted` have the same shape.
    """
    if counted is None:
        return values.mean()
    return torch.where(counted, values, 0.0).sum() / counted.sum().clamp(min=1)
