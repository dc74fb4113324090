"""quantize/clip: prune and round at once, again at every step, while the network trains."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.quantize.clip_search import Search
from cortado.methods.quantize.places import attach_weights
from cortado.network.view import View
from cortado.parts.forms.clipped import Clipped
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeClip(Method):
    """CLIP-Q: Tung and Mori, 2018.  Train afterwards (finetune); finalize ends it.

    Of each layer the share `zeros` of the weights nearest to zero is seen as 0, the others as the means of
    2**bits - 1 intervals; the floats behind them learn on, so that what was cut may come back. With `trials` above 0
    each layer gets a pair (zeros, bits) of its own by Bayesian optimisation (pip install optuna): without training, and
    with all other layers in floats, loss + strength x bits is made small, bits being those of an ideal coder as a share
    of the network's float bits. `zeros` and `bits` are then the pair that is tried first.
    """

    lossy = True

    bits: int = knob(4, low=2, high=8, help="bits of a code")
    zeros: float = knob(0.5, low=0.0, high=0.99, help="share of the weights that are seen as zero")
    trials: int = knob(0, low=0, help="pairs that are tried for each layer; 0 takes zeros and bits for all")
    strength: float = knob(1.0, low=0.0, help="loss that is given for all bits of the network, when pairs are tried")
    images: int = knob(512, low=1, help="calibration samples of which the loss is taken")
    batch: int = knob(128, low=1, help="of these at a time")

    def apply(self, view: View, task: Task) -> None:
        if not self.trials:
            attach_weights(self, view, *[lambda values: Clipped(values, self.bits, self.zeros)] * 2)
            return
        search = Search(view, task, self.images, self.batch, self.strength, self.name())
        for weight, (zeros, bits) in search.best(view.pieces(self.where), self.trials, (self.zeros, self.bits)):
            weight.map_values(lambda values, zeros=zeros, bits=bits: Clipped(values, bits, zeros))  # type: ignore[misc]
            view.notes.append(f"{weight.title}: {zeros:.0%} zeros, {bits} bits.")
