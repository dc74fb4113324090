"""share/products: product quantization, rows made of a few shared short vectors per position."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need, matrices
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.form import Form
from cortado.parts.forms.product_quantized import ProductQuantized, inputs_of
from cortado.task.task import Task

MOST_DISTANCES = 2**24
"""Entries in memory at a time."""


def with_many_rows(method: Any, view: View, task: Task) -> list[Weight]:
    """Return the chosen matrices and kernels that have more rows than a position has vectors."""
    return [weight for weight in matrices(view.pieces(method.where)) if weight.shape[0] > method.values]


MANY_ROWS = Need("a matrix or kernel with more rows than values", with_many_rows, "lower values")


@dataclass(frozen=True)
class ShareProducts(Method):
    """Product quantization: Gong, Liu, Yang, Bourdev, 2014.  A `finetune` afterwards trains the shared vectors.

    A layer's inputs are split into positions of `width` neighbours. At each position, k-means finds `values` vectors
    that all rows share, so a weight costs log2(values) / width bits plus values / rows floats for the codebook. This
    pays off in layers with many rows; those with at most `values` rows are unchanged. A kernel is one row per filter.
    Masked weights have no rows; they share single values.
    """

    lossy = True
    needs = (MANY_ROWS,)
    leaves = (Leaves.CODES,)

    width: int = knob(4, low=1, help="inputs per vector")
    values: int = knob(16, low=1, high=2**15, help="vectors per position")
    rounds: int = knob(50, low=1, help="most k-means iterations")

    def apply(self, view: View, task: Task) -> None:
        chosen = view.pieces(self.where)
        wide = MANY_ROWS.require(self, view, task)
        if len(wide) < len(chosen):
            view.notes.append(f"{len(chosen) - len(wide)} weights have at most {self.values} rows and are unchanged.")
        with view.progress.bar(self.name(), len(wide)) as bar:
            for number, weight in enumerate(wide):
                weight.map_values(partial(self.share, generator=task.generator(53 + number)))
                bar.advance()

    def share(self, values: Tensor, generator: torch.Generator) -> Form:
        width, inputs = min(self.width, max(1, inputs_of(values.shape))), inputs_of(values.shape)
        if not values.numel():
            return ProductQuantized(values.new_zeros(-(-inputs // width), 1, width), values.long(), values.shape)
        rows = values.reshape(values.shape[0], inputs)
        filled = torch.nn.functional.pad(rows, (0, -inputs % width))
        points = filled.view(len(rows), -1, width).transpose(0, 1)
        codebooks, codes = kmeans_of_points(points, min(self.values, len(rows)), self.rounds, generator)
        return ProductQuantized(codebooks, codes.T, values.shape)


def kmeans_of_points(points: Tensor, count: int, rounds: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Run Lloyd's k-means on each set of points separately, from points drawn without replacement.

    `points`: (sets, points, width). Return the centroids (sets, count, width) and each point's code (sets, points). A
    centroid that loses all its points stays in place.
    """
    # Every set makes its own draw; sets are then processed in groups that fit in memory.
    draws = torch.rand(points.shape[:2], generator=generator).argsort(1)[:, :count].to(points.device)
    size = max(1, MOST_DISTANCES // max(1, points.shape[1] * count))
    found = [
        lloyd(group, group.gather(1, draw[..., None].expand(-1, -1, points.shape[2])), rounds)
        for group, draw in zip(points.split(size), draws.split(size), strict=True)
    ]
    return torch.cat([codebooks for codebooks, _ in found]), torch.cat([codes for _, codes in found])


def lloyd(points: Tensor, centres: Tensor, rounds: int) -> tuple[Tensor, Tensor]:
    """Assign and average until nothing moves; return the centroids and each point's code, for every set."""
    codes = nearest_centroid(points, centres)
    for _ in range(rounds):
        index = codes[..., None].expand_as(points)
        sums = torch.zeros_like(centres).scatter_add(1, index, points)
        counts = torch.zeros_like(centres).scatter_add(1, index, torch.ones_like(points))
        centres = torch.where(counts > 0, sums / counts.clamp(min=1), centres)
        moved = nearest_centroid(points, centres)
        if torch.equal(moved, codes):
            break
        codes = moved
    return centres, codes


def nearest_centroid(points: Tensor, centres: Tensor) -> Tensor:
    """Return the index of the nearest centroid of each point."""
    return torch.cdist(points, centres, compute_mode="donot_use_mm_for_euclid_dist").argmin(2)
