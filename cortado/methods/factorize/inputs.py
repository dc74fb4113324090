"""Inputs: the moments of what each layer reads on calibration data, for as many layers at once as memory holds."""

from collections.abc import Iterator
from dataclasses import dataclass

from cortado.methods.factorize.factorize import Chosen
from cortado.network.statistics.activations import Moments, in_memory, patch_moments
from cortado.network.view import View
from cortado.task.task import Task

LARGEST_METRIC = 8192
"""Most inputs x taps of a layer for its second moments to fit into memory (half a gigabyte)."""


@dataclass(frozen=True)
class Samples:
    """How much to look at: calibration samples, and positions sampled over all of them."""

    images: int
    patches: int


def input_moments(
    view: View, task: Task, chosen: Chosen, needed: list[bool], samples: Samples
) -> Iterator[Moments | None]:
    """Yield the moments of each layer's inputs where they are needed, else None.

    Layers share a pass over the data as far as memory allows; a later pass sees the layers before it in their new form.
    """
    widths = [cut.target.flat.shape[1] for cut, _ in chosen]
    for numbers in in_memory([look * width**2 for look, width in zip(needed, widths, strict=True)]):
        paths = {chosen[number][0].target.path: number for number in numbers if needed[number]}
        seen = patch_moments(view.network, paths, task, samples.images, samples.patches) if paths else {}
        for number in numbers:
            yield seen.get(chosen[number][0].target.path)
