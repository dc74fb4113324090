"""quantize/signals: round what passes between layers, so that products, sums and averages can run in integers."""

from dataclasses import dataclass

import torch

from cortado.method import Method, knob
from cortado.methods.quantize.places import edges_of, note_signals, round_signals
from cortado.network.ranges import RANGES, Reach
from cortado.network.rounding import Wish
from cortado.network.view import View
from cortado.signals.affine import Affine
from cortado.task import Task


@dataclass(frozen=True)
class QuantizeSignals(Method):
    """Put every signal that a product reads or gives on an even grid of 2**bits levels.  Jacob et al., 2018.

    Signals that are never negative get unsigned grids, others a zero point; one grid serves a whole signal, and signals
    that are put side by side share one. What the first and the last product read keeps `edges` bits, and what is only
    summed or averaged `sums` bits, where these are more. Steps are kept to three digits (bfloat16). With weights on grids
    of 8 bits or fewer a runtime then computes in integers. The network is looked at on the calibration data, in streams.
    """

    lossy = True

    bits: int = knob(8, low=2, high=8, says="bits of a signal that products read")
    edges: int = knob(8, low=2, high=8, says="at least so many for what the first and the last product read")
    sums: int = knob(8, low=2, high=8, says="at least so many for what is only summed, averaged or given")
    range: str = knob("mse", one_of=tuple(RANGES), says="how far a grid reaches: all that was seen, or less")
    images: int = knob(512, low=1, says="calibration samples that are looked at")
    batch: int = knob(64, low=1, says="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)

        def signal(wish: Wish, reach: Reach) -> Affine:
            return grid(reach, bits_for(wish, edges, self.bits, self.edges, self.sums), self.range)

        note_signals(view, *round_signals(self, view, task, self.images, self.batch, signal))


def bits_for(wish: Wish, edges: set[str], bits: int, outer: int, sums: int) -> int:
    """The bits of one signal by what reads it."""
    if not wish.readers:
        return max(bits, sums)
    return max(bits, outer) if edges & set(wish.readers) else bits


def grid(reach: Reach, bits: int, way: str) -> Affine:
    """The grid over one signal whose ends are chosen in this way."""
    made = Affine.spanning(*RANGES[way](reach, bits), bits)
    with torch.no_grad():
        made.scale.copy_(made.scale.bfloat16())
    return made
