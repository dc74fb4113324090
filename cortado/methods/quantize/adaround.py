"""quantize/adaround: learn whether to round each weight up or down, layer by layer."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.layerwise import FULL_RANK, Grid, LayerProblem, best_scale, round_layers
from cortado.methods.quantize.places import edges_of
from cortado.network.view import View
from cortado.task.task import Task

STRETCH = (-0.1, 1.1)
"""Ends of the stretched sigmoid, so that it reaches 0 and 1 (Louizos et al., 2018)."""
BATCH = 1024


@dataclass(frozen=True)
class QuantizeAdaround(Method):
    """AdaRound, Nagel et al., 2020: round each weight in the direction that preserves the layer's outputs.

    Each weight has a probability of rounding up, given by a stretched sigmoid. Layer by layer, on the inputs from the
    layers quantized before, Adam minimises the output error while a growing penalty 1 - |2 p - 1|^power drives every
    probability to 0 or 1. Needs images, no labels.
    """

    lossy = True
    needs = (FULL_RANK,)
    leaves = (Leaves.CODES,)

    bits: int = knob(4, low=2, high=8, help="bits of a code")
    symmetric: bool = knob(True, help="grid symmetric around zero; otherwise with a zero point and one more level")
    edges: int = knob(8, low=2, high=8, help="minimum bits for the first and last layer")
    steps: int = knob(1000, low=1, help="Adam steps per layer")
    lr: float = knob(1e-2, low=0.0, help="learning rate of the probabilities")
    strength: float = knob(0.01, low=0.0, help="weight of the penalty relative to the output error, both as means")
    images: int = knob(512, low=1, help="calibration samples")
    rows: int = knob(12_000, low=100, help="positions sampled from each layer's input")

    def apply(self, view: View, task: Task) -> None:
        edges, outer = edges_of(view), max(self.bits, self.edges)
        draws = task.generator(71)

        def solve(problem: LayerProblem, grid: Grid) -> tuple[Tensor, Tensor]:
            codes = self.learned(problem, grid, draws)
            return codes, best_scale(codes, problem.weight, problem.gram, grid.scale)

        round_layers(
            self, view, task, lambda path: outer if path in edges else self.bits, self.symmetric, self.images, self.rows,
            solve,
        )  # fmt: skip

    @torch.enable_grad()  # type: ignore[untyped-decorator]
    def learned(self, problem: LayerProblem, grid: Grid, draws: torch.Generator) -> Tensor:
        """Return the codes relative to the zero point."""
        inputs, outputs, scale = problem.inputs.float(), problem.outputs.float(), grid.scale.float()
        level = (problem.weight / grid.scale).float()
        down, low, high = level.floor(), grid.low - grid.zero.float(), grid.high - grid.zero.float()
        # A level that must be zero may move in neither direction.
        low, high = (low, high) if problem.free is None else (low * problem.free, high * problem.free)
        first = (level - down - STRETCH[0]) / (STRETCH[1] - STRETCH[0])
        shares = torch.logit(first.clamp(1e-4, 1 - 1e-4)).requires_grad_(True)
        optimizer = torch.optim.Adam([shares], self.lr)
        size = outputs.square().mean().clamp(min=1e-12)
        for step in range(self.steps):
            rows = torch.randint(inputs.shape[1], (min(BATCH, inputs.shape[1]),), generator=draws)
            up = (shares.sigmoid() * (STRETCH[1] - STRETCH[0]) + STRETCH[0]).clamp(0, 1)
            weight = (down + up).clamp(low, high) * scale
            loss = (inputs[:, rows] @ weight.mT - outputs[:, rows]).square().mean() / size
            done = step / self.steps
            if done >= 0.2:
                power = 20.0 - 18.0 * (done - 0.2) / 0.8
                loss = loss + self.strength * (1 - (2 * up - 1).abs() ** power).mean()
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
        return torch.minimum(torch.maximum(down + (shares.detach() >= 0), low), high).double()
