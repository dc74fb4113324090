"""Trees of batches: join them along the samples."""

from collections.abc import Sequence
from typing import Any

import torch

from cortado.running.trees import map_tensors, tensors_in


def joined(parts: Sequence[Any]) -> Any:
    """Return one tree from trees of the same structure, their tensors concatenated along axis 0."""
    columns = iter(zip(*(tensors_in(part) for part in parts), strict=True))
    return map_tensors(lambda first: torch.cat(next(columns)), parts[0])
