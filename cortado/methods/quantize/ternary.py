"""quantize/ternary: train with three values per layer, two of them learned."""

from dataclasses import dataclass

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.places import NEW_FORM, WeightForms, attach_weights
from cortado.network.view import View
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.ternary import Ternary
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeTernary(Method):
    """Trained ternary quantization (TTQ), Zhu et al., 2017.  Train afterwards (finetune); finalize ends it.

    Weights become -Wn, 0 or +Wp; those below `threshold` times the layer's largest weight become 0. The paper keeps the
    first and last layer in floats; here they have `edges` bits with a learned step.
    """

    lossy = True
    needs = (NEW_FORM,)
    leaves = (Leaves.CODES,)

    threshold: float = knob(0.05, low=0.0, high=0.99, help="share of the largest weight below which weights become 0")
    edges: int = knob(8, low=2, high=8, help="bits of the first and last layer's weights")

    def apply(self, view: View, task: Task) -> None:
        attach_weights(self, view, task)

    def weight_forms(self) -> WeightForms:
        """Return three values for each layer, and a grid for the first and last."""
        return WeightForms(
            lambda values: Ternary(values, self.threshold),
            lambda values: LearnedStep.of(values, self.edges),
        )
