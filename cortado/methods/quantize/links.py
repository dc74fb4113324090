"""Links: where one layer makes channels and others read them, so that a factor can move from the one to the others."""

from typing import Any

import torch
from torch import Tensor

from cortado.methods.needs import Need
from cortado.methods.quantize.places import paths_of
from cortado.network.coupling.answers import difference, output_tensors
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.quantizers.scaling import Link, links_of, rescale, touched
from cortado.network.view import View
from cortado.running.trees import to_device
from cortado.task.task import Task

SAME = 1e-4
"""The largest change of outputs by rescaling, as a share of the largest output."""
SEEN = 4
"""Calibration samples, the last ones, on which outputs are compared besides those of the example."""


def chosen_links(method: Any, view: View, task: Task) -> list[Link]:
    """Return the links whose ends `where` selects."""
    links = links_of(view.network, view.flow)
    if method.where == type(method).where:
        return links
    chosen = {path for weight in view.weights(method.where) for path in paths_of(view.network, weight.layer)}
    return [link for link in links if chosen.issuperset((link.maker, *link.readers))]


LINKS = Need(
    "a plain float layer or norm, and plain float layers behind it with only ReLUs, products, pooling and reshapes between",
    chosen_links,
    "run it before weights are quantized",
)


def moved(view: View, task: Task, link: Link, factors: Tensor, wanted: list[Tensor]) -> bool:
    """Divide a link's channels by `factors` and multiply what reads them; undo it and return False if outputs change.

    `wanted`: what `answers_of` returned before; outputs that cannot show a change, such as no boxes at all, keep every link as
    it is. In half precision factors must be powers of two to be exact.
    """
    if not any(one.numel() and one.is_floating_point() for one in wanted):
        return False
    before = [(one, one.clone()) for one in touched(view.network, link)]
    rescale(view.network, link, factors)
    if difference(answers_of(view, task), wanted) <= SAME:
        return True
    for tensor, values in before:
        tensor.copy_(values)
    return False


def movable(factors: Tensor) -> Tensor:
    """Return factors that move without rounding in their dtype: in half precision the nearest powers of two."""
    return factors.log2().round().exp2() if factors.dtype in (torch.float16, torch.bfloat16) else factors


def answers_of(view: View, task: Task) -> list[Tensor]:
    """Return the network's outputs on the example and on a few calibration samples."""
    assert task.calibration is not None
    count = len(task.calibration)
    some = task.calibration.pick(torch.arange(max(0, count - SEEN), count))
    with undisturbed(view.network):
        return [
            tensor.clone()
            for inputs in (view.example, *(given for given, _ in some.batches(SEEN)))
            for tensor in output_tensors(call_with(view.network, to_device(inputs, device_of(view.network))))
        ]
