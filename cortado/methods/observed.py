"""Observed: the matrices of a network, what they multiply, and what errors of their outputs cost."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import Any

import torch
from torch import Tensor, nn

from cortado.file.artifact import encode
from cortado.layers.kinds import is_known_matrix, is_lookup
from cortado.methods.needs import Need, matrices
from cortado.network.statistics.one_pass import Statistics, one_pass
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.running.memory import give_back_freed
from cortado.task.task import Task

LARGE = 2**18
"""Entries of second moments from which on the gaps that they leave in memory count."""
SPAN = 1000.0
"""Outputs are weighed within this factor of the mean of their layer."""


@dataclass(frozen=True)
class Problem:
    """A weight with what its errors cost.

    `weight`: (groups, outputs, inputs). `upper`: (groups, inputs, inputs), the upper Cholesky factor of the inverse of the
    inputs' damped second moments. `outputs`: (groups, outputs), nats of a squared error on each output. `free`: bool, of the
    weight's shape, false where it must stay zero.
    """

    weight: Tensor
    upper: Tensor
    outputs: Tensor
    free: Tensor | None = None

    @classmethod
    def of(cls, weight: Tensor, upper: Tensor, outputs: Tensor, free: Tensor | None = None) -> "Problem":
        """Return the problem with outputs that are weighed within SPAN of their mean."""
        mean = outputs.mean().clamp(min=1e-30)
        return cls(weight, upper, outputs.clamp(mean / SPAN, mean * SPAN), free)

    @property
    def pivots(self) -> Tensor:
        """Return the root of the inverse moment of each input, given those before it (groups, inputs)."""
        return self.upper.diagonal(dim1=-2, dim2=-1)

    def some_rows(self, every: int) -> "Problem":
        """Return the problem of every so many outputs, which do not depend on each other."""
        return self.of_rows(slice(None, None, every))

    def split(self, entries: int) -> Iterator["Problem"]:
        """Yield the problem in parts of at most so many entries, or of one output."""
        groups, outputs, inputs = self.weight.shape
        most = max(1, entries // max(1, groups * inputs))
        for start in range(0, outputs, most):
            yield self.of_rows(slice(start, start + most))

    def of_rows(self, rows: slice) -> "Problem":
        """Return the problem of some outputs of each group."""
        free = None if self.free is None else self.free[:, rows]
        return replace(self, weight=self.weight[:, rows], outputs=self.outputs[:, rows], free=free)


MakeProblem = Callable[[], Problem]


@dataclass(frozen=True)
class Matrix:
    """A weight, and by path the linear layers and convolutions that multiply it and the embeddings that read it."""

    weight: Weight
    layers: dict[str, nn.Module]

    def problem(self, seen: Statistics, damp: float, factors: "SharedFactors") -> MakeProblem | None:
        """Return its problem, made when it is needed; None if no such layer ran.

        For a head that shares its matrix with an embedding, inputs are what the head multiplies. What a row costs where it is
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


def matrix_problem(weight: Weight, upper: Tensor, outputs: Tensor) -> Problem:
    """Return the problem of a weight's present values."""
    support, groups = weight.form.support(), len(upper)
    values = weight.dense().cpu().flatten(1).view(groups, -1, upper.shape[-1])
    free = None if support is None else support.cpu().flatten(1).view_as(values)
    return Problem.of(values, upper.cpu(), outputs.cpu().view(groups, -1), free)


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


def upper_factor(gram: Tensor, damp: float) -> Tensor:
    """Return the upper Cholesky factor of the inverse of damped second moments (groups, inputs, inputs), float32."""
    gram = gram.to(torch.double, copy=True)
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    diagonal += damp * diagonal.mean(-1, keepdim=True).clamp(min=1e-12)
    upper = torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(gram)), upper=True).float()
    # What comes next would not fit into the gaps that these large tensors leave, one for each matrix of a network.
    large = gram.numel() > LARGE
    del gram, diagonal
    if large:
        give_back_freed()
    return upper


def observed(method: Any, view: View, task: Task) -> Statistics:
    """Return what the chosen weights multiply and what errors of their outputs cost, in the network as it is.

    `method` has the knobs images, slopes, rows and precision.
    """
    chosen = MATRICES.require(method, view, task)
    layers = {path: layer for one in chosen for path, layer in one.layers.items()}
    half = method.precision == "bfloat16"

    def key() -> str:
        known = (sorted(layers), method.images, method.rows, method.slopes, half)
        return blake2b(encode(view.network, view.network, "bits") + repr(known).encode(), digest_size=16).hexdigest()

    return task.recall(
        key, lambda: one_pass(view.network, layers, task, method.images, method.rows, method.slopes, half)
    )


def problems_of(method: Any, view: View, task: Task, seen: Statistics) -> list[tuple[Matrix, MakeProblem]]:
    """Return the chosen matrices whose layers ran, each with its problem."""
    chosen, factors = MATRICES.require(method, view, task), SharedFactors()
    weighed = all_weighed(seen, {path: layer for one in chosen for path, layer in one.layers.items()})
    made = [(one, one.problem(weighed, method.damp, factors)) for one in chosen]
    return [(one, make) for one, make in made if make is not None]


def all_weighed(seen: Statistics, layers: dict[str, nn.Module]) -> Statistics:
    """Return statistics in which layers that no gradient reached, such as what routes samples, cost as much as the others."""
    known = [float(one.mean()) for one in seen.outputs.values()]
    usual = sum(known) / len(known) if known else 1.0
    missing = {
        path: torch.full((len(layers[path].weight),), usual)  # type: ignore[arg-type]
        for path in layers
        if path in seen.inputs and path not in seen.outputs
    }
    return Statistics(seen.inputs, seen.outputs | missing)


def matrices_that_run(method: Any, view: View, task: Task) -> list[Matrix]:
    """Return the chosen weights in full rank that only linear layers, convolutions and embeddings use."""
    paths, found = {id(call.layer): call.path for call in view.graph.calls}, []
    for weight in matrices(view.weights(method.where)):
        usual = all(name == "weight" and (is_known_matrix(one) or is_lookup(one)) for one, name in weight.places)
        if usual and weight.form.entries() == weight.shape.numel():
            ran = {paths[id(one)]: one for one, _ in weight.places if id(one) in paths}
            found += [Matrix(weight, ran)] if ran else []
    return found


MATRICES = Need("a linear layer, a convolution or an embedding in full rank", matrices_that_run, "use quantize/weights")


def left_alone(method: Any, view: View, taken: list[Matrix]) -> list[str]:
    """Return a note of the chosen matrices that stay as they are."""
    known = {one.weight.path for one in taken}
    left = [weight.path for weight in matrices(view.weights(method.where)) if weight.path not in known]
    if not left:
        return []
    return [
        f"{len(left)} weights are unchanged (made from other weights, or not in a linear layer or convolution that ran): "
        f"{', '.join(left)}."
    ]
