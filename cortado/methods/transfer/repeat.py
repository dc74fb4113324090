"""transfer/repeat: each filter is used several times, with biases of its own."""

from dataclasses import dataclass
from typing import Any

import torch

from cortado.methods.method import knob
from cortado.methods.needs import Need
from cortado.methods.transfer.transfer import Filters, Transfer, before_a_bend, every, make_filters
from cortado.network.view import View
from cortado.parts.forms.transforms import REPEAT
from cortado.task.task import Task


def with_biases(method: Any, view: View, task: Task) -> list[Filters]:
    """Return the filters before a nonlinearity that have a bias, or a batch norm with one, to tell copies apart."""
    return [one for one in before_a_bend(method, view, task) if one.free or one.layer.bias is not None]


BIASED = Need(
    "a convolution of plain floats, without groups, with a bias or a batch norm before a nonlinearity",
    with_biases,
    "transfer filters before other stages",
)


@dataclass(frozen=True)
class TransferRepeat(Transfer):
    """Each filter is used `copies` times, with biases of its own (multi-bias activation).  Li, Ouyang, Wang, 2016.

    The biases are those of the layer, or of the batch norm behind it; in a new network they start `spread` apart from
    the middle, evenly. A layer is computed as its base filters, and each output then `copies` times.
    """

    needs = (BIASED,)

    copies: int = knob(2, low=2, high=64, help="how often each filter is used")
    spread: float = knob(0.5, low=0.0, help="with start: fresh, the largest bias that a copy starts with")

    def apply(self, view: View, task: Task) -> None:
        filters = BIASED.require(self, view, task)
        make_filters(self, view, filters, REPEAT, self.copies, task, every(self.copies))
        for one in filters if self.start == "fresh" else ():
            bias = one.norm.bias if one.free else one.layer.bias
            apart = torch.linspace(-self.spread, self.spread, self.copies, device=bias.device)
            with torch.no_grad():
                bias.add_(apart.repeat(-(-len(bias) // self.copies))[: len(bias)].to(bias))
