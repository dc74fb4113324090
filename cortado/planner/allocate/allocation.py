"""Allocation: one candidate for each weight, with the least sum of predicted KL within a sum of bytes.

A multiple-choice knapsack. Steps along the lower hulls, by rising KL per byte saved, are optimal for every total that they
reach (Lagrange; Shoham and Gersho, 1988); remaining bytes are filled greedily.
"""

import heapq
from collections.abc import Sequence

from cortado.planner.sensitivity.candidates import Candidate, Choices, hull, kl_per_byte


def allocate(choices: Sequence[Choices], most_bytes: float) -> dict[str, Candidate] | None:
    """Return a candidate for each weight, by path, within `most_bytes` in total; None if the smallest do not fit."""
    hulls = {one.path: hull(one.candidates) for one in choices}
    taken = dict.fromkeys(hulls, 0)
    total = sum(points[0].size_bytes for points in hulls.values())
    steps = [(slope(points, 0), path) for path, points in hulls.items() if len(points) > 1]
    heapq.heapify(steps)
    while total > most_bytes and steps:
        _, path = heapq.heappop(steps)
        points, at = hulls[path], taken[path]
        total += points[at + 1].size_bytes - points[at].size_bytes
        taken[path] = at + 1
        if at + 2 < len(points):
            heapq.heappush(steps, (slope(points, at + 1), path))
    if total > most_bytes:
        return None
    chosen = {path: points[taken[path]] for path, points in hulls.items()}
    return filled_up(choices, chosen, most_bytes - total)


def slope(points: list[Candidate], at: int) -> float:
    return kl_per_byte(points[at], points[at + 1])


def filled_up(choices: Sequence[Choices], chosen: dict[str, Candidate], spare: float) -> dict[str, Candidate]:
    """Return the choice after spending the remaining bytes greedily."""
    chosen = dict(chosen)
    while True:
        best: tuple[float, str, Candidate] | None = None
        for one in choices:
            now = chosen[one.path]
            for other in one.candidates:
                more = other.size_bytes - now.size_bytes
                if other.predicted_kl < now.predicted_kl and more <= spare:
                    gain = (now.predicted_kl - other.predicted_kl) / max(more, 1e-9)
                    if best is None or gain > best[0]:
                        best = (gain, one.path, other)
        if best is None:
            return chosen
        _, path, other = best
        spare -= other.size_bytes - chosen[path].size_bytes
        chosen[path] = other
