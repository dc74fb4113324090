"""quantize/rate_distortion: one step for the whole network; each layer's bits follow from what its errors cost."""

from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.layers.kinds import is_known_matrix, is_lookup
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need, matrices
from cortado.methods.quantize.feedback import Problem, RoundedMatrix, rounded, upper_factor
from cortado.methods.quantize.step_search import MakeProblem, step_for
from cortado.network.statistics.one_pass import Statistics, one_pass
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.quantized import Quantized
from cortado.quantities import read_quantity
from cortado.task.task import Task

MOST_ENTRIES = 2**22
"""Entries that are rounded together."""
DOMINANT = 0.25
"""A layer with this share of the predicted loss is noted."""


Problems = list[tuple["Matrix", MakeProblem]]


@dataclass(frozen=True)
class Matrix:
    """A weight to be rounded, and by path the linear layers and convolutions that multiply it and the embeddings that read it."""

    weight: Weight
    layers: dict[str, nn.Module]

    def problem(self, seen: Statistics, damp: float, factors: "SharedFactors") -> MakeProblem | None:
        """Return its problem, made when it is needed; None if no such layer ran.

        A head that shares its matrix with an embedding is rounded by what the head multiplies. What a row costs where it is
        read is added to what it costs there, in the same unit.
        """
        ran = [path for path in self.layers if path in seen.inputs and path in seen.outputs]
        reading = [path for path in ran if is_lookup(self.layers[path])]
        multiplying = [path for path in ran if path not in reading] or reading
        if not ran:
            return None
        upper = factors.of([seen.inputs[path] for path in multiplying], damp)
        outputs = sum((seen.outputs[path] for path in multiplying), torch.zeros(()))
        if multiplying is not reading:
            unit = upper.diagonal(dim1=-2, dim2=-1).log().mean().exp() ** 2
            outputs = sum((unit * seen.outputs[path] for path in reading), outputs)
        return partial(matrix_problem, self.weight, upper, outputs)


@dataclass(frozen=True)
class SharedFactors:
    """The Cholesky factors of second moments, one for all layers that read the same activation."""

    known: dict[tuple[int, float], Tensor] = field(default_factory=dict)

    def of(self, grams: list[Tensor], damp: float) -> Tensor:
        if len(grams) > 1:
            return upper_factor(torch.stack(grams).mean(0), damp)
        key = grams[0].data_ptr(), damp
        if key not in self.known:
            self.known[key] = upper_factor(grams[0], damp)
        return self.known[key]


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
    leaves = (Leaves.CODES,)

    bits: float = knob(3.0, low=0.05, high=16.0, help="mean bits of a coded weight; scales come on top")
    size: str = knob("", help='instead of bits: the bytes of all codes together, such as "40 MB"')
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
        if self.size and read_quantity(self.size, "size") <= 0:
            raise BadValue(
                f"quantize/rate_distortion: size must be above 0, got {self.size!r}. Write, for example, 40 MB."
            )
        if self.size and self.step:
            raise BadValue(
                "quantize/rate_distortion: size and step are both given. Leave one out: each gives the other."
            )

    def apply(self, view: View, task: Task) -> None:
        self.round(view, task, self.observed(view, task))

    def observed(self, view: View, task: Task) -> Statistics:
        """Return what the weights multiply and what errors of their outputs cost, in the network as it is."""
        chosen = MATRICES.require(self, view, task)
        layers = {path: layer for one in chosen for path, layer in one.layers.items()}
        half = self.precision == "bfloat16"
        return one_pass(view.network, layers, task, self.images, self.rows, self.slopes, half)

    def round(self, view: View, task: Task, seen: Statistics) -> None:
        """Round the chosen weights, and note what was found."""
        factors = SharedFactors()
        made = [(one, one.problem(seen, self.damp, factors)) for one in MATRICES.require(self, view, task)]
        problems = [(one, make) for one, make in made if make is not None]
        step = self.step or self.step_for(problems)
        results = [give_codes(one.weight, make, step) for one, make in problems]
        view.notes += [*left_alone(self, view, [one for one, _ in problems]), *findings(problems, results, step)]

    def step_for(self, problems: Problems) -> float:
        """Return the step at which the codes have the wanted bits."""
        entries = sum(one.weight.shape.numel() for one, _ in problems)
        wanted = 8 * read_quantity(self.size, "size") if self.size else self.bits * entries
        return step_for([make for _, make in problems], wanted)


def matrix_problem(weight: Weight, upper: Tensor, outputs: Tensor) -> Problem:
    """Return the problem of a weight's present values."""
    support, groups = weight.form.support(), len(upper)
    values = weight.dense().cpu().flatten(1).view(groups, -1, upper.shape[-1])
    free = None if support is None else support.cpu().flatten(1).view_as(values)
    return Problem.of(values, upper.cpu(), outputs.cpu().view(groups, -1), free)


def give_codes(weight: Weight, make: MakeProblem, step: float) -> RoundedMatrix:
    """Round a weight and give it its codes; return what was found, without the codes."""
    place, parts = weight.dense(), [rounded(part, step) for part in make().split(MOST_ENTRIES)]
    codes = torch.cat([part.codes for part in parts], 1).reshape(weight.shape)
    scale = torch.cat([part.scale for part in parts], 1).reshape(-1)
    weight.set_form(Quantized(codes, scale.to(place), None, "channel").to(place.device))
    nothing = torch.empty(0)
    return RoundedMatrix(nothing, nothing, sum(part.loss for part in parts), sum(part.bits for part in parts))


def matrices_that_run(method: Method, view: View, task: Task) -> list[Matrix]:
    """Return the chosen weights in full rank that only linear layers, convolutions and embeddings use."""
    paths, found = {id(call.layer): call.path for call in view.graph.calls}, []
    for weight in matrices(view.weights(method.where)):
        usual = all(name == "weight" and (is_known_matrix(one) or is_lookup(one)) for one, name in weight.places)
        if usual and weight.form.entries() == weight.shape.numel():
            ran = {paths[id(one)]: one for one, _ in weight.places if id(one) in paths}
            found += [Matrix(weight, ran)] if ran else []
    return found


MATRICES = Need("a linear layer, a convolution or an embedding in full rank", matrices_that_run, "use quantize/weights")
QuantizeRateDistortion.needs = (MATRICES,)


def left_alone(method: Method, view: View, taken: list[Matrix]) -> list[str]:
    """Return a note of the chosen matrices that stay as they are."""
    known = {one.weight.path for one in taken}
    left = [weight.path for weight in matrices(view.weights(method.where)) if weight.path not in known]
    if not left:
        return []
    return [
        f"{len(left)} weights are unchanged (made from other weights, or not in a linear layer or convolution that ran): "
        f"{', '.join(left)}."
    ]


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
