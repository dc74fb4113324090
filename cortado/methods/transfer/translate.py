"""transfer/translate: filters are crops of larger ones."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.methods.method import knob
from cortado.methods.needs import Need
from cortado.methods.transfer.transfer import Filters, Transfer, filters_in, float_filters, make_filters
from cortado.network.view import View
from cortado.parts.forms.transforms import TRANSLATE, base_kernel
from cortado.task.task import Task


def with_kernels(method: Any, view: View, task: Task) -> list[Filters]:
    """Return the filters of two axes with more places than one, in convolutions that ran once."""
    weights = [one for one in float_filters(method, view) if len(one.shape) == 4 and max(one.shape[2:]) > 1]
    return filters_in(view, [one for one in weights if one.layer.groups == 1 and one.shape[0] > 1])


KERNELS = Need(
    "a convolution of plain floats, without groups, with a kernel larger than 1 x 1",
    with_kernels,
    "transfer filters before other stages",
)


@dataclass(frozen=True)
class TransferTranslate(Transfer):
    """Filters are crops of larger filters (doubly convolutional networks).  Zhai, Cheng, Lu, Zhang, 2016.

    A larger filter of k + `crops` - 1 places along each axis has `crops` squared crops. Only the file becomes smaller: each crop
    is computed as a filter of its own.
    """

    needs = (KERNELS,)

    crops: int = knob(2, low=2, high=8, help="crops along each axis of a larger filter")

    def apply(self, view: View, task: Task) -> None:
        slots = self.crops**2
        make_filters(self, view, KERNELS.require(self, view, task), TRANSLATE, slots, task, partial(drawn, slots))


def drawn(slots: int, values: Tensor, generator: torch.Generator) -> Tensor:
    """Return larger filters drawn with the deviation of the layer's own."""
    sizes = base_kernel(TRANSLATE, slots, tuple(values.shape[2:]))
    fresh = torch.randn(-(-len(values) // slots), values.shape[1], *sizes, generator=generator)
    return fresh * float(values.std())
