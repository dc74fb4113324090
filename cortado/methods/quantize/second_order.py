"""quantize/second_order: quantize one input at a time, and let the remaining inputs compensate for the error."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.layerwise import FULL_RANK, Grid, LayerProblem, best_scale, output_shares, round_layers
from cortado.methods.quantize.places import edges_of
from cortado.network.view import View
from cortado.task.task import Task

STARTS = (1.0, 0.8, 1.25)
"""Initial scales, as multiples of those of least squared error."""


@dataclass(frozen=True)
class QuantizeSecondOrder(Method):
    """Optimal Brain Surgeon for quantization: GPTQ, Frantar et al., 2023; Hassibi and Stork, 1993.

    Layer by layer, in execution order: the floats are first refitted to the layer's current inputs (from the layers
    quantized before it), then rounded, inputs with the largest second moment first. The inverse second moments spread
    each error over the inputs still to come. Each output's scale is then refitted to its codes, and all is repeated
    `rounds` times from each of three initial scales. Masked entries stay zero and compensate for nothing: each output
    has its own inverse under its mask, where SparseGPT (Frantar and Alistarh, 2023) uses one for all outputs. Needs
    images, no labels.
    """

    lossy = True
    needs = (FULL_RANK,)
    leaves = (Leaves.CODES,)

    bits: int = knob(4, low=2, high=8, help="bits of a code")
    symmetric: bool = knob(True, help="grid symmetric around zero; otherwise with a zero point and one more level")
    edges: int = knob(8, low=2, high=8, help="minimum bits for the first and last layer")
    rounds: int = knob(3, low=1, high=20, help="how often scales are refitted")
    images: int = knob(512, low=1, help="calibration samples")
    rows: int = knob(12_000, low=100, help="positions sampled from each layer's input")

    def apply(self, view: View, task: Task) -> None:
        edges, outer = edges_of(view), max(self.bits, self.edges)
        round_layers(
            self, view, task, lambda path: outer if path in edges else self.bits, self.symmetric, self.images, self.rows,
            self.solve,
        )  # fmt: skip

    def solve(self, problem: LayerProblem, grid: Grid) -> tuple[Tensor, Tensor]:
        if problem.free is None:
            return self.solved(problem.weight, problem.gram, grid)
        # Each output can only pass its errors on to inputs that its own mask keeps.
        codes, scale = torch.zeros_like(problem.weight), grid.scale.clone()
        for share in output_shares(problem.gram, problem.free):
            own = grid.part(share.group, share.outputs)
            found, scale[share.group, share.outputs, None] = self.solved(share.of(problem.weight), share.gram, own)
            share.put(codes, found)
        return codes, scale

    def solved(self, weight: Tensor, gram: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Return the best codes and scales over all initial scales and rounds."""
        codes, best = torch.zeros_like(weight), grid.scale
        least = torch.full_like(grid.scale, torch.inf)
        turn = Turn.of(gram)
        for start in STARTS:
            scale = grid.scale * start
            for _ in range(self.rounds):
                tried = surgeon(weight, turn, grid, scale)
                scale = best_scale(tried, weight, gram, scale)
                off = tried * scale - weight
                error = (off @ gram * off).sum(-1, keepdim=True)
                better = error < least
                # Outputs are independent: each keeps its best.
                codes, best = torch.where(better, tried, codes), torch.where(better, scale, best)
                least = torch.where(better, error, least)
        return codes, best


@dataclass(frozen=True)
class Turn:
    """The order in which inputs are rounded, (groups, inputs), and how their errors spread to later ones.

    `upper`: (groups, inputs, inputs), the upper Cholesky factor of the inverse second moments, in that order.
    """

    order: Tensor
    upper: Tensor

    @classmethod
    def of(cls, gram: Tensor) -> "Turn":
        """Return the order with the largest second moment first."""
        order = gram.diagonal(dim1=-2, dim2=-1).argsort(-1, descending=True)
        turned = gram.gather(1, order[:, :, None].expand_as(gram)).gather(2, order[:, None, :].expand_as(gram))
        return cls(order, torch.linalg.cholesky(torch.linalg.inv(turned), upper=True))


def surgeon(weight: Tensor, turn: Turn, grid: Grid, scale: Tensor) -> Tensor:
    """Return the codes of (groups, outputs, inputs), rounded input by input."""
    order, upper = turn.order[:, None, :].expand_as(weight), turn.upper
    left = weight.gather(2, order)
    codes = torch.empty_like(left)
    for place in range(left.shape[2]):
        now = left[:, :, place : place + 1]
        codes[:, :, place : place + 1] = grid.round(now, scale)
        pivot = upper[:, place, place][:, None, None]
        error = (now - codes[:, :, place : place + 1] * scale) / pivot
        left[:, :, place:] -= error * upper[:, place, place:][:, None, :]
    return torch.empty_like(codes).scatter(2, order, codes)
