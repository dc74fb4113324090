"""quantize/rate_distortion: one step for the whole network; each layer's bits follow from what its errors cost."""

from dataclasses import dataclass

import torch

from cortado.errors import BadValue
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.observed import MATRICES, MakeProblem, Matrix, left_alone, observed, problems_of
from cortado.methods.quantize.feedback import RoundedMatrix, rounded
from cortado.methods.quantize.step_search import step_for
from cortado.network.statistics.one_pass import Statistics
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.quantized import Quantized
from cortado.quantities import size_of
from cortado.running.memory import give_back_freed
from cortado.task.task import Task

MOST_ENTRIES = 2**22
"""Entries that are rounded together."""
DOMINANT = 0.25
"""A layer with this share of the predicted loss is noted."""

Problems = list[tuple[Matrix, MakeProblem]]


@dataclass(frozen=True)
class QuantizeRateDistortion(Method):
    """Entropy-coded GPTQ: codes on unbounded even grids, chosen for the loss and the bits of the file together.

    Error feedback passes each rounding error on to the inputs still to come (Frantar et al., 2023). Each output's grid step
    is `step` over the square root of what its errors cost, so an error of one grid step costs the same everywhere, and the
    bits of each layer follow: no bits are planned. Each code is the nearest or the next nearer to zero, whichever costs less
    in loss and coded bits (Karczewicz et al., 2008). What errors cost comes from one pass: second moments of inputs, and
    squared gradients of random slopes that stand for labels drawn from the network's own answer (Martens and Grosse, 2015).

    `bits`, `size` or `step` is the only dial. Masked entries stay zero. A head that shares its matrix with an embedding is
    rounded by what the head reads. Needs samples, no labels.
    """

    lossy = True
    needs = (MATRICES,)
    leaves = (Leaves.CODES,)

    bits: float = knob(3.0, low=0.05, high=16.0, help="mean bits of a coded weight; scales come on top")
    size: float | str = knob(0.0, low=0.0, help='instead of bits: the bytes of all codes together, such as "40 MB"')
    step: float = knob(
        0.0, low=0.0, help="instead of both: square root of the nats that an error of one grid step costs"
    )
    damp: float = knob(0.01, low=1e-6, high=1.0, help="added to the second moments, as a share of their mean")
    images: int = knob(128, low=1, help="calibration samples for second moments")
    slopes: int = knob(64, low=1, help="how many of them also weigh the outputs, which needs gradients")
    rows: int = knob(1024, low=1, help="places of each sample that are read; a token or a position of a kernel is one")
    precision: str = knob("float32", one_of=("float32", "bfloat16"), help="of the network while it is observed")

    def __post_init__(self) -> None:
        super().__post_init__()
        if size_of(self.size, self.name()) and self.step:
            raise BadValue(
                "quantize/rate_distortion: size and step are both given. Leave one out: each gives the other."
            )

    def apply(self, view: View, task: Task) -> None:
        self.round(view, task, self.observed(view, task))

    def observed(self, view: View, task: Task) -> Statistics:
        """Return what the weights multiply and what errors of their outputs cost, in the network as it is."""
        return observed(self, view, task)

    def round(self, view: View, task: Task, seen: Statistics) -> None:
        """Round the chosen weights, and note what was found."""
        problems = problems_of(self, view, task, seen)
        step = self.step or self.step_for(problems)
        give_back_freed()
        results = [give_codes(one.weight, make, step) for one, make in problems]
        view.notes += [*left_alone(self, view, [one for one, _ in problems]), *findings(problems, results, step)]

    def step_for(self, problems: Problems) -> float:
        """Return the step at which the codes have the wanted bits."""
        entries = sum(one.weight.shape.numel() for one, _ in problems)
        wanted = 8 * size_of(self.size, self.name()) or self.bits * entries
        return step_for([make for _, make in problems], wanted)


def give_codes(weight: Weight, make: MakeProblem, step: float) -> RoundedMatrix:
    """Round a weight and give it its codes; return what was found, without the codes."""
    place, parts = weight.dense(), [rounded(part, step) for part in make().split(MOST_ENTRIES)]
    codes = torch.cat([part.codes for part in parts], 1).reshape(weight.shape)
    scale = torch.cat([part.scale for part in parts], 1).reshape(-1)
    weight.set_form(Quantized(codes, scale.to(place), None, "channel").to(place.device))
    give_back_freed()
    nothing = torch.empty(0)
    return RoundedMatrix(nothing, nothing, sum(part.loss for part in parts), sum(part.bits for part in parts))


def findings(problems: Problems, results: list[RoundedMatrix], step: float) -> list[str]:
    """Return notes of the bits and the predicted loss: of all layers, and of one that dominates."""
    paths = [one.weight.path for one, _ in problems]
    counts = [one.weight.shape.numel() for one, _ in problems]
    each = [result.bits / count for result, count in zip(results, counts, strict=True)]
    least, most = min(range(len(each)), key=each.__getitem__), max(range(len(each)), key=each.__getitem__)
    bits, loss = sum(result.bits for result in results), sum(result.loss for result in results)
    notes = [
        f"step {step:.4g}: {bits / sum(counts):.3f} bits a weight, from {each[least]:.2f} ({paths[least]}) to "
        f"{each[most]:.2f} ({paths[most]}); predicted KL {loss:.3g} nats."
    ]
    worst = max(range(len(results)), key=lambda number: results[number].loss)
    if len(results) > 1 and results[worst].loss > DOMINANT * loss:
        notes.append(
            f"{paths[worst]} alone has {results[worst].loss / loss:.0%} of the predicted loss. Leave it in more bits "
            f"(where: 'not {paths[worst].removesuffix('.weight')}'), or look for values far outside of its others."
        )
    return notes
