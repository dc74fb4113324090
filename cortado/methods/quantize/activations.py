"""quantize/activations: quantize activations, so that matrix products, sums and averages can run in integers."""

from dataclasses import dataclass

import torch

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.places import (
    MATMULS,
    NEW_QUANTIZER,
    Rounding,
    edges_of,
    note_quantizers,
    round_activations,
)
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import RANGES, ObservedRange
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeActivations(Method):
    """Quantize the inputs and outputs of matmul layers to uniform grids of 2**bits levels.  Jacob et al., 2018.

    Non-negative activations get unsigned grids, others a zero point. Each activation has one grid (per tensor), and
    concatenated activations share one. Inputs of the first and last layer have at least `edges` bits, and activations
    that are only summed or averaged at least `sums` bits. Scales are rounded to three digits (bfloat16). Together with
    weights of 8 bits or fewer, a runtime computes in integers. Ranges are observed on calibration data, in batches.
    """

    lossy = True
    needs = (MATMULS, NEW_QUANTIZER)
    leaves = (Leaves.ROUNDED,)

    bits: int = knob(8, low=2, high=8, help="bits of the activations that matmul layers read")
    edges: int = knob(8, low=2, high=8, help="minimum bits for the inputs of the first and last layer")
    sums: int = knob(8, low=2, high=8, help="minimum bits for activations that are only summed, averaged or returned")
    range: str = knob("mse", one_of=tuple(RANGES), help="range of a grid: all observed values, or a clipped range")
    images: int = knob(512, low=1, help="calibration samples")
    batch: int = knob(64, low=1, help="batch size for calibration")

    def apply(self, view: View, task: Task) -> None:
        note_quantizers(view, *round_activations(self, view, task, self.rounding(view)))

    def rounding(self, view: View) -> Rounding:
        """Return the grid of each activation."""
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine:
            return grid_over(observed, bits_for(site, edges, self.bits, self.edges, self.sums), self.range)

        return Rounding(quantizer, self.images, self.batch)


def bits_for(site: QuantizerSite, edges: set[str], bits: int, outer: int, sums: int) -> int:
    """Return the bits of one activation, which depend on its consumers."""
    if not site.readers:
        return max(bits, sums)
    return max(bits, outer) if edges & set(site.readers) else bits


def grid_over(observed: ObservedRange, bits: int, way: str) -> Affine:
    """Return the grid over one activation, its ends chosen by the given rule."""
    made = Affine.spanning(*RANGES[way](observed, bits), bits)
    with torch.no_grad():
        made.scale.copy_(made.scale.bfloat16())
    return made
