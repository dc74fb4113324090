"""quantize/activations: round what passes between layers, so that products, sums and averages can run in integers."""

from dataclasses import dataclass

import torch

from cortado.methods.method import Method, knob
from cortado.methods.quantize.places import edges_of, note_quantizers, quantize_activations
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import RANGES, ObservedRange
from cortado.network.view import View
from cortado.parts.activations.affine import Affine
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeActivations(Method):
    """Put every activation that a product reads or gives on an even grid of 2**bits levels.  Jacob et al., 2018.

    Activations that are never negative get unsigned grids, others a zero point; one grid serves a whole activation, and activations
    that are put side by side share one. What the first and the last product read keeps `edges` bits, and what is only
    summed or averaged `sums` bits, where these are more. Steps are kept to three digits (bfloat16). With weights on grids
    of 8 bits or fewer a runtime then computes in integers. The network is looked at on the calibration data, in streams.
    """

    lossy = True

    bits: int = knob(8, low=2, high=8, help="bits of an activation that products read")
    edges: int = knob(8, low=2, high=8, help="at least so many for what the first and the last product read")
    sums: int = knob(8, low=2, high=8, help="at least so many for what is only summed, averaged or given")
    range: str = knob("mse", one_of=tuple(RANGES), help="how far a grid reaches: all that was seen, or less")
    images: int = knob(512, low=1, help="calibration samples that are looked at")
    batch: int = knob(64, low=1, help="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> Affine:
            return grid_over(observed, bits_for(site, edges, self.bits, self.edges, self.sums), self.range)

        note_quantizers(view, *quantize_activations(self, view, task, self.images, self.batch, quantizer))


def bits_for(site: QuantizerSite, edges: set[str], bits: int, outer: int, sums: int) -> int:
    """The bits of one activation by what reads it."""
    if not site.readers:
        return max(bits, sums)
    return max(bits, outer) if edges & set(site.readers) else bits


def grid_over(observed: ObservedRange, bits: int, way: str) -> Affine:
    """The grid over one activation whose ends are chosen in this way."""
    made = Affine.spanning(*RANGES[way](observed, bits), bits)
    with torch.no_grad():
        made.scale.copy_(made.scale.bfloat16())
    return made
