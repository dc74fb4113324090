"""quantize/dorefa: train with low-bit weights, activations and gradients on fixed grids."""

from dataclasses import dataclass

from cortado.errors import BadNetwork
from cortado.methods.method import Method, knob
from cortado.methods.needs import MATRIX, Leaves, Need
from cortado.methods.quantize.activations import bits_for, grid_over
from cortado.methods.quantize.places import (
    MATMULS,
    Observed,
    Rounding,
    WeightForms,
    attach_weights,
    chosen_matmul_layers,
    edges_of,
    new_forms,
    new_quantizers,
    note_quantizers,
    round_activations,
)
from cortado.network.quantizers.placement import QuantizerSite
from cortado.network.statistics.ranges import ObservedRange
from cortado.network.view import View
from cortado.parts.activations.gradients import Gradients
from cortado.parts.activations.quantizer import OUTPUT, ActivationQuantizer, put_quantizer, quantizer_at
from cortado.parts.activations.unit import Unit
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.squashed import Squashed
from cortado.task.task import Task

FAR, RARE = 4.0, 0.01
"""An activation with more than this share of values above FAR does not fit a grid from 0 to 1."""


@dataclass(frozen=True)
class QuantizeDorefa(Method):
    """DoReFa-Net, Zhou et al., 2016.  Train afterwards (finetune), from fresh values as in the paper; finalize ends it.

    Weights are squashed into -1..1, activations clipped to 0..1, and gradients of layer outputs rounded
    stochastically. Layers need a batch norm behind them, because fixed grids do not adapt to a layer's scale. Negative
    activations are clipped at 0, which the report lists. The first and last layer have `edges` bits with learned steps
    and full gradients; activations that are only summed have `edges` bits too.
    """

    lossy = True
    needs = (
        Need(
            f"{MATRIX}, an activation or a gradient that is not rounded like this yet",
            lambda method, view, task: any(
                found(method, view, task) for found in (new_forms, type(method).new_gradients, new_quantizers)
            ),
        ),
    )
    leaves = (Leaves.CODES, Leaves.ROUNDED)

    bits: int = knob(2, low=1, high=8, help="bits of weights")
    activations: int = knob(
        2, low=0, high=8, help="bits of the activations that matmul layers read; 0 leaves activations in floats"
    )
    gradients: int = knob(6, low=0, high=8, help="bits of the gradients of layer outputs; 0 leaves them in floats")
    edges: int = knob(
        8, low=2, high=8, help="bits of the first and last layer, and of activations that are only summed"
    )
    images: int = knob(512, low=1, help="calibration samples for the grids at the edges")
    batch: int = knob(64, low=1, help="batch size for calibration")

    def apply(self, view: View, task: Task) -> None:
        rounding = self.rounding(view)
        if rounding is not None:
            observed, unquantized = round_activations(self, view, task, rounding)
            note_quantizers(view, observed, unquantized)
            self.note_clipping(view, observed)
        if self.gradients:
            self.round_gradients(view, task)
        attach_weights(self, view, task)

    def weight_forms(self) -> WeightForms:
        """Return squashed weights, and a grid for the first and last layer."""
        return WeightForms(
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )

    def rounding(self, view: View) -> Rounding | None:
        """Return the clipping of each activation to 0..1, and a grid at the edges; None if activations stay floats."""
        edges = edges_of(view)

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> ActivationQuantizer:
            if at_edge(site, edges):
                return grid_over(observed, bits_for(site, edges, self.activations, self.edges, self.edges), "mse")
            if observed.low < 0 and observed.high <= 0:
                raise BadNetwork(
                    f"{self.name()}: the input of {site.readers[0]} is never above 0, so clipping to 0..1 would leave "
                    "nothing. Exclude the layer with where, or use quantize/aware."
                )
            return Unit(self.activations)

        return Rounding(quantizer, self.images, self.batch) if self.activations else None

    def note_clipping(self, view: View, observed: Observed) -> None:
        """Add notes on activations with values outside 0..1."""
        edges = edges_of(view)
        inner = [(site.readers[0], seen) for site, seen in observed if not at_edge(site, edges)]
        far = [reader for reader, seen in inner if seen.share_above(FAR) > RARE]
        clipped = [reader for reader, seen in inner if seen.low < 0]
        if far:
            view.notes.append(
                f"{len(far)} activations are far above 1 and clipped there; the first is the input of {far[0]}. Put a "
                "batch norm before it, or use quantize/aware, which learns its grids."
            )
        if clipped:
            view.notes.append(
                f"{len(clipped)} activations have negative values, clipped at 0; the first is the input of {clipped[0]}."
            )

    def new_gradients(self, view: View, task: Task) -> bool:
        """Return whether the gradient of a layer's output is not rounded like this yet."""
        modules = dict(view.network.named_modules())
        inner = chosen_matmul_layers(self, view, task) - edges_of(view) if self.gradients else set[str]()
        there = [quantizer_at(modules[path], OUTPUT) for path in inner]
        return any(one is None or isinstance(one, Unit) and one.gradients != self.gradients for one in there)

    def round_gradients(self, view: View, task: Task) -> None:
        """Attach gradient rounding to the outputs of matmul layers, or to the quantizer already there."""
        modules, passed = dict(view.network.named_modules()), []
        chosen = MATMULS.require(self, view, task)
        for path in [path for path in modules if path in chosen - edges_of(view)]:
            there = quantizer_at(modules[path], OUTPUT)
            if there is None:
                put_quantizer(modules[path], OUTPUT, Gradients(self.gradients))
            elif isinstance(there, Unit):
                there.gradients = self.gradients
            else:
                passed.append(path)
        if passed:
            view.notes.append(
                f"The gradients of {len(passed)} outputs are not rounded, because these have grids of their own: "
                f"{', '.join(passed)}."
            )


def at_edge(site: QuantizerSite, edges: set[str]) -> bool:
    """Return whether an activation is only summed, or read by the first or last layer."""
    return not site.readers or bool(edges & set(site.readers))
