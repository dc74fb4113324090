"""quantize/dorefa: weights, signals and gradients of few bits while the network trains, on grids that are fixed."""

from dataclasses import dataclass

from cortado.errors import BadNetwork
from cortado.forms.learned_step import LearnedStep
from cortado.forms.squashed import Squashed
from cortado.method import Method, knob
from cortado.methods.quantize.places import edges_of, hold_weights, note_signals, products_of, round_signals
from cortado.methods.quantize.signals import bits_for, grid
from cortado.network.flow import flow_of
from cortado.network.ranges import Reach
from cortado.network.rounding import Wish
from cortado.network.view import View
from cortado.signals.gradients import Gradients
from cortado.signals.signal import OUTPUT, Signal, put_signal, signal_at
from cortado.signals.unit import Unit
from cortado.task import Task

FAR, RARE = 4.0, 0.01
"""A signal of which more than this share lies above FAR is not made for a grid from 0 to 1."""


@dataclass(frozen=True)
class QuantizeDorefa(Method):
    """DoReFa-Net: Zhou et al., 2016.  Train afterwards (tune), from fresh values as the paper does; settle ends it.

    Weights are squashed into -1..1, signals clipped to 0..1, and the gradient that comes back into a layer's output is
    rounded up or down by chance. Layers want a batch norm behind them: fixed grids do not follow a layer's own scale.
    What is negative is clipped at 0, and the report says where. The first and the last product keep `edges` bits with
    learned steps and gradients as they are; so does what is only summed.
    """

    lossy = True

    bits: int = knob(2, low=1, high=8, says="bits of weights")
    signals: int = knob(2, low=0, high=8, says="bits of the signals that products read; 0 leaves signals as they are")
    gradients: int = knob(6, low=0, high=8, says="bits of the gradients of layers' outputs; 0 leaves them as they are")
    edges: int = knob(8, low=2, high=8, says="bits of the first and last product, and of what is only summed")
    images: int = knob(512, low=1, says="calibration samples with which the grids at the edges are found")
    batch: int = knob(64, low=1, says="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        edges = edges_of(view)
        if self.signals:
            self.round_signals(view, task, edges)
        if self.gradients:
            self.round_gradients(view, edges)
        hold_weights(
            self,
            view,
            lambda values: Squashed(values, self.bits),
            lambda values: LearnedStep.of(values, max(self.edges, self.bits)),
        )

    def round_signals(self, view: View, task: Task, edges: set[str]) -> None:
        clipped, far = [], []

        def signal(wish: Wish, reach: Reach) -> Signal:
            if not wish.readers or edges & set(wish.readers):
                return grid(reach, bits_for(wish, edges, self.signals, self.edges, self.edges), "mse")
            if reach.low < 0:
                clipped.append(wish.readers[0])
            if reach.share_above(FAR) > RARE:
                far.append(wish.readers[0])
            if reach.low < 0 and reach.high <= 0:
                raise BadNetwork(
                    f"{self.name()}: what {wish.readers[0]} reads is never above 0, and nothing would be left between 0 "
                    "and 1. Leave the layer out with where, or take quantize/aware."
                )
            return Unit(self.signals)

        note_signals(view, *round_signals(self, view, task, self.images, self.batch, signal))
        if far:
            view.notes.append(
                f"{len(far)} signals lie far above 1 and are clipped there, the first is what {far[0]} reads. Put a batch norm "
                "before, or take quantize/aware, whose grids are learned."
            )
        if clipped:
            view.notes.append(
                f"{len(clipped)} signals are negative in part and clipped at 0, the first into {clipped[0]}."
            )

    def round_gradients(self, view: View, edges: set[str]) -> None:
        """Put the rounding on the outputs of products, or into the rounding that is there already."""
        modules, passed = dict(view.network.named_modules()), []
        chosen = products_of(self, view, flow_of(view.network, view.example))
        for path in [path for path in modules if path in chosen - edges]:
            there = signal_at(modules[path], OUTPUT)
            if there is None:
                put_signal(modules[path], OUTPUT, Gradients(self.gradients))
            elif isinstance(there, Unit):
                there.gradients = self.gradients
            else:
                passed.append(path)
        if passed:
            view.notes.append(
                f"The gradients of {len(passed)} outputs stay as they are, for those have grids of their own: "
                f"{', '.join(passed)}."
            )
