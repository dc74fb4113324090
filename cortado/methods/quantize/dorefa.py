"""quantize/dorefa: weights, activations and gradients of few bits while the network trains, on grids that are fixed."""

from dataclasses import dataclass

from cortado.errors import BadNetwork
from cortado.methods.method import Method, knob
from cortado.methods.quantize.activations import bits_for, grid_over
from cortado.methods.quantize.places import (
    attach_weights,
    chosen_matmul_layers,
    edges_of,
    note_quantizers,
    quantize_activations,
)
from cortado.network.graph.flow import flow_of
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
"""An activation of which more than this share lies above FAR is not made for a grid from 0 to 1."""


@dataclass(frozen=True)
class QuantizeDorefa(Method):
    """DoReFa-Net: Zhou et al., 2016.  Train afterwards (finetune), from fresh values as the paper does; finalize ends it.

    Weights are squashed into -1..1, activations clipped to 0..1, and the gradient that comes back into a layer's output is
    rounded up or down by chance. Layers want a batch norm behind them: fixed grids do not follow a layer's own scale.
    What is negative is clipped at 0, and the report says where. The first and the last product keep `edges` bits with
    learned steps and gradients as they are; so does what is only summed.
    """

    lossy = True

    bits: int = knob(2, low=1, high=8, help="bits of weights")
    activations: int = knob(
        2, low=0, high=8, help="bits of the activations that products read; 0 leaves activations as they are"
    )
    gradients: int = knob(6, low=0, high=8, help="bits of the gradients of layers' outputs; 0 leaves them as they are")
    edges: int = knob(8, low=2, high=8, help="bits of the first and last product, and of what is only summed")
    images: int = knob(512, low=1, help="calibration samples with which the grids at the edges are found")
    batch: int = knob(64, low=1, help="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)
        if self.activations:
            self.quantize_activations(view, task, edges)
        if self.gradients:
            self.round_gradients(view, edges)
        attach_weights(
            self,
            view,
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )

    def quantize_activations(self, view: View, task: Task, edges: set[str]) -> None:
        clipped, far = [], []

        def quantizer(site: QuantizerSite, observed: ObservedRange) -> ActivationQuantizer:
            if not site.readers or edges & set(site.readers):
                return grid_over(observed, bits_for(site, edges, self.activations, self.edges, self.edges), "mse")
            if observed.low < 0:
                clipped.append(site.readers[0])
            if observed.share_above(FAR) > RARE:
                far.append(site.readers[0])
            if observed.low < 0 and observed.high <= 0:
                raise BadNetwork(
                    f"{self.name()}: what {site.readers[0]} reads is never above 0, and nothing would be left between 0 "
                    "and 1. Leave the layer out with where, or take quantize/aware."
                )
            return Unit(self.activations)

        note_quantizers(view, *quantize_activations(self, view, task, self.images, self.batch, quantizer))
        if far:
            view.notes.append(
                f"{len(far)} activations lie far above 1 and are clipped there, the first is what {far[0]} reads. Put a batch norm "
                "before, or take quantize/aware, whose grids are learned."
            )
        if clipped:
            view.notes.append(
                f"{len(clipped)} activations are negative in part and clipped at 0, the first into {clipped[0]}."
            )

    def round_gradients(self, view: View, edges: set[str]) -> None:
        """Put the rounding on the outputs of products, or into the rounding that is there already."""
        modules, passed = dict(view.network.named_modules()), []
        chosen = chosen_matmul_layers(self, view, flow_of(view.network, view.example))
        for path in [path for path in modules if path in chosen - edges]:
            there = quantizer_at(modules[path], OUTPUT)
            if there is None:
                put_quantizer(modules[path], OUTPUT, Gradients(self.gradients))
            elif isinstance(there, Unit):
                there.gradients = self.gradients
            else:
                passed.append(path)
        if passed:
            view.notes.append(
                f"The gradients of {len(passed)} outputs stay as they are, for those have grids of their own: "
                f"{', '.join(passed)}."
            )
