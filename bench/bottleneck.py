"""bottleneck: what a ReLU leaves of a spiral in n dimensions, the reason why narrow layers of MobileNetV2 are linear.

A spiral in the plane is embedded in n dimensions by a random matrix T, goes through a ReLU, and is projected back by the
pseudo-inverse of T (Sandler et al., 2018, figure 1). The error is what the best scale leaves of it, as a share of its energy,
over 500 matrices; and the same for the best linear map back, which is less than any layer behind could lose. The figure, of
one matrix each, is docs/bottleneck.svg.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bench.result import row

SEEDS = [0]
SIZES = (2, 3, 5, 15, 30)
POINTS, TURNS, MATRICES = 160, 2.5, 500
FIGURE = Path(__file__).parents[1] / "docs" / "bottleneck.svg"
SIDE, GAP = 120, 12
LOSES, KEEPS = 0.25, 0.05
"""Share of the energy: at n = 2 and 3 more is lost by the projection, at 15 and 30 less by the best linear map."""


def spiral() -> Tensor:
    """Return (POINTS, 2), in the unit disc."""
    along = torch.linspace(0.05, 1, POINTS, dtype=torch.float64)
    angle = 2 * torch.pi * TURNS * along
    return along[:, None] * torch.stack([angle.cos(), angle.sin()], 1)


def embedded(points: Tensor, size: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the ReLU of the points in `size` dimensions (POINTS, size), and the matrix (2, size)."""
    matrix = torch.randn(2, size, generator=generator, dtype=torch.float64)
    return torch.relu(points @ matrix), matrix


def projected(points: Tensor, size: int, generator: torch.Generator) -> Tensor:
    """Return the points after the way there and back (POINTS, 2), at the best scale."""
    inside, matrix = embedded(points, size, generator)
    back = inside @ torch.linalg.pinv(matrix)
    return back * ((back * points).sum() / (back**2).sum().clamp(min=1e-12))


def lost_by_projection(points: Tensor, size: int, generator: torch.Generator) -> float:
    """Return the share of the energy that the pseudo-inverse at the best scale does not bring back."""
    return float((projected(points, size, generator) - points).square().sum() / points.square().sum())


def lost_by_best_map(points: Tensor, size: int, generator: torch.Generator) -> float:
    """Return the share of the energy that no linear map brings back."""
    inside, _ = embedded(points, size, generator)
    found = torch.linalg.pinv(inside) @ points
    return float((inside @ found - points).square().sum() / points.square().sum())


def mean_loss(size: int, lost: Any) -> float:
    """Return the mean share lost over all matrices."""
    generator, points = torch.Generator().manual_seed(size), spiral()
    return sum(lost(points, size, generator) for _ in range(MATRICES)) / MATRICES


def drawn() -> str:
    """Return the spiral, and what is left of it in each number of dimensions, as SVG."""
    points = spiral()
    panels = [("input", points)]
    panels += [(f"n = {size}", projected(points, size, torch.Generator().manual_seed(3))) for size in SIZES]
    parts = []
    for number, (title, values) in enumerate(panels):
        left = GAP + number * (SIDE + GAP)
        middle, half = torch.tensor([left + SIDE / 2, 30 + SIDE / 2], dtype=torch.float64), SIDE / 2 - 4
        places = middle + values.clamp(-1, 1) * half
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in places.tolist())
        parts.append(f'<text x="{left + SIDE / 2:g}" y="20" text-anchor="middle">{title}</text>')
        parts.append(f'<rect x="{left}" y="30" width="{SIDE}" height="{SIDE}" fill="none" stroke="#ccc"/>')
        parts.append(f'<polyline points="{line}" fill="none" stroke="#2a6f97" stroke-width="1.5"/>')
    wide, high = GAP + len(panels) * (SIDE + GAP), SIDE + 30 + GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {wide} {high}" font-family="sans-serif" font-size="13">'
    )
    return "\n".join([head, f'<rect width="{wide}" height="{high}" fill="#fff"/>', *parts, "</svg>"]) + "\n"


def run() -> list[dict[str, Any]]:
    """Return the losses by n, and write the figure."""
    FIGURE.write_text(drawn(), encoding="utf8")
    rows = []
    for size in SIZES:
        bar, better = (LOSES, "higher") if size <= 3 else (None, "lower")
        share = mean_loss(size, lost_by_projection)
        rows.append(row(f"n = {size}: energy lost by the pseudo-inverse at the best scale", share, "", bar, better))
    for size in SIZES:
        bar = KEEPS if size >= 15 else None
        rows.append(
            row(f"n = {size}: energy that no linear map brings back", mean_loss(size, lost_by_best_map), "", bar)
        )
    return rows
