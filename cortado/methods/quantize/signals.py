"""quantize/signals: round what passes between layers, so that products, sums and averages can run in integers."""

from dataclasses import dataclass

import torch
from torch import nn

from cortado.errors import NothingChanged
from cortado.forms.quantized import Quantized
from cortado.machine import processor_saturates
from cortado.method import Method, knob
from cortado.network.flow import PRODUCT, flow_of
from cortado.network.ranges import RANGES, Reach, measure_ranges
from cortado.network.rounding import Wish, wishes
from cortado.network.view import View
from cortado.signals.affine import Affine
from cortado.signals.signal import put_signal
from cortado.task import Task


@dataclass(frozen=True)
class QuantizeSignals(Method):
    """Put every signal that a product reads or gives on an even grid of 2**bits levels.  Jacob et al., 2018.

    Signals that are never negative get unsigned grids, others a zero point; one grid serves a whole signal, and signals
    that are put side by side share one. Steps are kept to three digits (bfloat16). With weights on grids of 8 bits or fewer a
    runtime then computes in integers. The network is looked at on the task's calibration data, in streams.
    """

    lossy = True

    bits: int = knob(8, low=2, high=8, says="bits of a signal")
    range: str = knob("mse", one_of=tuple(RANGES), says="how far a grid reaches: all that was seen, or less")
    images: int = knob(512, low=1, says="calibration samples that are looked at")
    batch: int = knob(64, low=1, says="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        assert task.calibration is not None
        flow = flow_of(view.network, view.example)
        layers = {path for weight in view.weights(self.where) for path in paths_of(view.network, weight.layer)}
        products = {step.path for step in flow.steps if step.kind == PRODUCT} & layers
        if not products:
            raise NothingChanged(
                f"{self.name()}: no convolution or linear layer among those that where takes ({self.where}) was run. "
                "Name some that are."
            )
        found = wishes(view.network, flow, None if self.where == type(self).where else products)
        places, above_zero = [wish.measured for wish in found.wishes], [wish.above_zero for wish in found.wishes]
        reaches = measure_ranges(view.network, places, task.calibration, self.images, self.batch, above_zero)
        modules = dict(view.network.named_modules())
        for wish, reach in zip(found.wishes, reaches, strict=True):
            signal = self.grid(reach)
            for path, side in wish.places:
                put_signal(modules[path], side, signal)
        self.note(view, found.wishes, reaches, [step.path or "the network" for step in found.islands])
        wide = [
            w.path for w in view.weights(self.where) if isinstance(w.form, Quantized) and w.form.codes.abs().max() > 64
        ]
        if wide and processor_saturates():
            view.notes.append(
                "Products of 8 bits run over on this processor, which has no VNNI: results in a runtime will differ here. "
                "Weights of 7 bits (quantize/weights bits=7) do not."
            )

    def grid(self, reach: Reach) -> Affine:
        """The grid over one signal."""
        low, high = RANGES[self.range](reach, self.bits)
        made = Affine.spanning(low, high, self.bits)
        with torch.no_grad():
            made.scale.copy_(made.scale.bfloat16())
        return made

    def note(self, view: View, found: tuple[Wish, ...], reaches: list[Reach], islands: list[str]) -> None:
        """Tell the report of signals that are always the same, and of steps that stay in floats."""
        constant = [w.places[0][0] for w, reach in zip(found, reaches, strict=True) if reach.high <= reach.low]
        if constant:
            view.notes.append(
                f"{len(constant)} signals never change on the calibration data, the first at {constant[0]}."
            )
        if islands:
            names = ", ".join(dict.fromkeys(islands))
            view.notes.append(
                f"{len(islands)} steps stay in floats, as no layer stands where they could be rounded: {names}."
            )


def paths_of(network: nn.Module, layer: nn.Module) -> list[str]:
    """Every path of a layer."""
    return [path for path, module in network.named_modules(remove_duplicate=False) if module is layer]
