"""Ordinal loss: pairs of places of which one only knows which has more, such as what people say of depth."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadTask
from cortado.task.outputs.outputs import first_floats_of

MORE, EQUAL, LESS, UNKNOWN = 1, 0, -1, 2
COLUMNS = 5


@dataclass(frozen=True)
class OrdinalPairs:
    """The ranking loss of pairs of places in maps.  Chen, Fu, Yang, Deng, 2016.

    >>> Source(clicked, OrdinalPairs(), weight=0.5)

    Outputs are (N, H, W) or (N, 1, H, W), targets whole numbers (N, pairs, 5): row and column of the first place, of the
    second, and 1 where the first has more, -1 where it has less, 0 where they are equal, 2 for a pair that is none. A
    difference adds log(1 + exp(-r (first - second))), equality its square. Raises BadTask for other targets.
    """

    def __call__(self, outputs: object, targets: Tensor) -> Tensor:
        """Return the mean over pairs."""
        found = first_floats_of(outputs)
        found = found[:, 0] if found.dim() == 4 and found.shape[1] == 1 else found
        check_pairs(found, targets)
        top, left, bottom, right, relation = targets.unbind(-1)
        known = relation != UNKNOWN
        samples = torch.arange(len(found), device=found.device)[:, None].expand_as(relation)
        first, second = (
            found[samples[known], rows[known], columns[known]].float()
            for rows, columns in ((top, left), (bottom, right))
        )
        if not first.numel():
            return 0 * found.sum()
        apart, sign = first - second, relation[known]
        return torch.where(sign == EQUAL, apart.square(), functional.softplus(-sign * apart)).mean()


def check_pairs(found: Tensor, targets: Tensor) -> None:
    """Raise BadTask unless maps are (N, H, W) and pairs name places in them."""
    whole = not targets.is_floating_point() and targets.dim() == 3 and targets.shape[-1] == COLUMNS
    if found.dim() != 3 or not whole or len(found) != len(targets):
        raise BadTask(
            f"task: ordinal pairs need maps (N, H, W) and whole numbers (N, pairs, {COLUMNS}), got outputs of shape "
            f"{tuple(found.shape)} and targets of shape {tuple(targets.shape)}, {targets.dtype}. "
            "Write row, column, row, column, relation."
        )
    known = targets[targets[..., -1] != UNKNOWN]
    size = torch.tensor([*found.shape[1:], *found.shape[1:]], device=targets.device)
    if known.numel() and (bool((known[:, :4] < 0).any()) or bool((known[:, :4] >= size).any())):
        raise BadTask(
            f"task: ordinal pairs name places outside of maps of {found.shape[1]} x {found.shape[2]}. "
            "Count rows and columns of the outputs, from 0."
        )
    if known.numel() and int(known[:, -1].abs().max()) > 1:
        raise BadTask(
            "task: the relation of a pair must be 1, 0, -1, or 2 for none, got "
            f"{', '.join(map(str, known[:, -1].unique().tolist()))}. Correct the last column."
        )
