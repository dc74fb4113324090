"""quantize/clip: prune and quantize jointly at every training step."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.needs import MATRIX, Leaves, Need
from cortado.methods.quantize.clip_search import Search
from cortado.methods.quantize.places import WeightForms, attach_weights, new_forms
from cortado.network.view import View
from cortado.parts.forms.clipped import Clipped
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeClip(Method):
    """CLIP-Q, Tung and Mori, 2018.  Train afterwards (finetune); finalize ends it.

    In each layer, the share `zeros` of smallest weights becomes 0 and the others the means of 2**bits - 1 intervals.
    The latent floats keep training, so pruned weights can return. With `trials` above 0, Bayesian optimisation (pip
    install optuna) picks (zeros, bits) for each layer, without training and with the other layers in floats: it
    minimises loss + strength x bits, with the bits of an ideal coder as a share of the network's float bits. `zeros`
    and `bits` are then the first pair to try.
    """

    lossy = True
    needs = (
        Need(
            f"{MATRIX} that is not in this form yet",
            lambda method, view, task: method.trials > 0 or new_forms(method, view, task),
        ),
    )
    leaves = (Leaves.CODES, Leaves.ZEROS)

    bits: int = knob(4, low=2, high=8, help="bits of a code")
    zeros: float = knob(0.5, low=0.0, high=0.99, help="share of the weights set to zero")
    trials: int = knob(0, low=0, help="pairs to try per layer; 0 uses zeros and bits everywhere")
    strength: float = knob(1.0, low=0.0, help="loss that the network's float bits are worth, with trials")
    images: int = knob(512, low=1, help="calibration samples for the loss")
    batch: int = knob(128, low=1, help="batch size for the loss")

    def apply(self, view: View, task: Task) -> None:
        if not self.trials:
            attach_weights(self, view, task)
            return
        search = Search(view, task, self.images, self.batch, self.strength, self.name())
        for weight, (zeros, bits) in search.best(view.pieces(self.where), self.trials, (self.zeros, self.bits)):
            weight.map_values(lambda values, zeros=zeros, bits=bits: Clipped(values, bits, zeros))  # type: ignore[misc]
            view.notes.append(f"{weight.title}: {zeros:.0%} zeros, {bits} bits.")

    def weight_forms(self) -> WeightForms:
        """Return the same share of zeros and the same bits for every layer."""
        return WeightForms(*[lambda values: Clipped(values, self.bits, self.zeros)] * 2)
