"""Viterbi: the codes on a trellis with the least distortion + cost of a bit x bits, over many segments at once."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.parts.forms.states import Law

AT_ONCE = 1 << 20
"""Entries searched together: their costs fit into the memory of a small machine."""


@dataclass(frozen=True, eq=False)
class Segment:
    """Entries that one machine runs through: magnitudes in scales (entries,), weights of their squared errors, and the
    number of each entry's row in the table of rates."""

    sizes: Tensor
    weights: Tensor
    contexts: Tensor


def best_segments(segments: list[Segment], law: Law | None, rates: Tensor, bit_cost: float) -> list[Tensor]:
    """Return the magnitudes of the best codes of each segment (int32), without a law those on one even grid.

    `rates`: (contexts, 2, codes) bits of each magnitude of a code on each grid, signs included; the last is that of all
    larger ones.
    """
    found: list[Tensor] = [torch.empty(0, dtype=torch.int32)] * len(segments)
    order = sorted(range(len(segments)), key=lambda number: len(segments[number].sizes))
    while order:
        longest = len(segments[order[-1]].sizes)
        count = max(1, AT_ONCE // max(1, longest))
        some, order = order[-count:], order[:-count]
        codes = best_codes(in_one([segments[number] for number in some], longest), law, rates, bit_cost)
        for number, row in zip(some, codes, strict=True):
            found[number] = row[: len(segments[number].sizes)]
    return found


def in_one(segments: list[Segment], length: int) -> Segment:
    """Return segments as the rows of one, (segments, length); what is added weighs nothing."""
    made = [
        torch.zeros(len(segments), length, dtype=getattr(segments[0], name).dtype)
        for name in ("sizes", "weights", "contexts")
    ]
    for row, one in enumerate(segments):
        for whole, part in zip(made, (one.sizes, one.weights, one.contexts), strict=True):
            whole[row, : len(part)] = part
    return Segment(*made)


def codes_to_try(sizes: Tensor, grid: int, parity: int | None) -> list[Tensor]:
    """Return the codes worth a try: the nearest level above, two below, and the least.  `parity` None: an even grid's."""
    if parity is None:
        below, apart, least = sizes.floor(), 1, 0
    else:
        # Levels 2 x code - grid, of which every second has the parity.
        below, apart, least = ((sizes + grid - 2 * parity) / 4).floor().clamp(min=0) * 2 + parity, 2, parity
    return [below, below + apart, (below - apart).clamp(min=least), torch.full_like(sizes, least)]


def cheapest(rows: Segment, grid: int, parity: int | None, rates: Tensor, bit_cost: float) -> tuple[Tensor, Tensor]:
    """Return the least cost of each entry on one grid, by a code of this parity, and the code."""
    least, best = torch.full_like(rows.sizes, torch.inf), torch.zeros_like(rows.sizes)
    table, width = rates[:, grid].reshape(-1) * bit_cost, rates.shape[2]
    for code in codes_to_try(rows.sizes, grid, parity):
        level = code if parity is None else 2 * code - grid * code.clamp(max=1)
        bits = table[rows.contexts * width + code.clamp(max=width - 1).long()]
        cost = torch.addcmul(bits, rows.weights, (level - rows.sizes).square_())
        better = cost < least
        least, best = torch.where(better, cost, least), torch.where(better, code, best)
    return least, best


def best_codes(rows: Segment, law: Law | None, rates: Tensor, bit_cost: float) -> Tensor:
    """Return the magnitudes of the best codes, (segments, length)."""
    if law is None:
        return cheapest(rows, 0, None, rates, bit_cost)[1].int()
    # By grid and parity, two bits: what each step of the trellis costs.
    pairs = [cheapest(rows, grid, parity, rates, bit_cost) for grid in (0, 1) for parity in (0, 1)]
    costs = torch.stack([least.T for least, _ in pairs], 1).contiguous()
    real = torch.stack([rows.weights.T > 0] * 4, 1)
    moves = cheapest_path(torch.where(real, costs, 0.0), law)
    codes = torch.stack([best for _, best in pairs])
    return codes.gather(0, moves.T[None].long())[0].int()


def cheapest_path(costs: Tensor, law: Law) -> Tensor:
    """Return the step taken at each place, 2 x grid + parity, (length, segments), on the path of the least cost.

    `costs`: (length, 4, segments). The path starts in state 0 and may end in any.
    """
    length, _, count = costs.shape
    ways = sorted((law.after(state, parity), state, parity) for state in range(law.states) for parity in (0, 1))
    before = torch.tensor([state for _, state, _ in ways]).view(-1, 2)
    steps = torch.tensor([2 * (state & 1) + parity for _, state, parity in ways]).view(-1, 2)
    sums = torch.full((law.states, count), torch.inf)
    sums[0] = 0.0
    chosen = torch.empty(length, law.states, count, dtype=torch.bool)
    for place in range(length):
        first = sums[before[:, 0]] + costs[place, steps[:, 0]]
        second = sums[before[:, 1]] + costs[place, steps[:, 1]]
        torch.lt(second, first, out=chosen[place])
        sums = torch.minimum(first, second)
    state = sums.argmin(0)
    moves = torch.empty(length, count, dtype=torch.uint8)
    for place in reversed(range(length)):
        which = state * 2 + chosen[place].gather(0, state[None])[0]
        moves[place] = steps.view(-1)[which].to(torch.uint8)
        state = before.view(-1)[which]
    return moves
