"""States: how the parities of the codes so far decide on which of two grids the next code is."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad


@dataclass(frozen=True)
class Law:
    """A machine of 2**n states, whose lowest bit is the grid of the next code; it starts at 0, and each odd code drives it.

    next = (state >> 1) ^ (`feedback` if the lowest bit is 1) ^ (1 if the code is odd). These are convolutional codes as
    Ungerboeck (1982) uses them; with 4 states the machine is that of Versatile Video Coding and of ISO/IEC 15938-17.
    """

    states: int
    feedback: int

    def after(self, state: int, parity: int) -> int:
        """Return the state after a code of this parity."""
        return (state >> 1) ^ (self.feedback * (state & 1)) ^ parity

    @property
    def period(self) -> int:
        """Return after how many even codes the machine is where one odd code had put it."""
        state, steps = self.after(1, 0), 1
        while state != 1:
            state, steps = self.after(state, 0), steps + 1
        return steps

    @property
    def delays(self) -> list[int]:
        """Return how many codes after an odd one, within a period, the grid is another because of it."""
        state, found = 1, []
        for delay in range(1, self.period + 1):
            found += [delay] if state & 1 else []
            state = self.after(state, 0)
        return found


LAWS = {law.states: law for law in (Law(4, 0b10), Law(8, 0b110), Law(16, 0b1100), Law(32, 0b10111))}
"""The best feedback of each size for normal values at 3 bits."""


@dataclass(frozen=True)
class Course:
    """How the grids of a plane of codes follow one another: the number of states, and the codes after which they start again."""

    states: int
    segment: int

    @property
    def law(self) -> Law:
        """Return the machine."""
        return LAWS[self.states]


def grids_of(codes: Tensor, law: Law, segment: int) -> Tensor:
    """Return the grid of each code, 0 or 1 (uint8, shape of `codes`); the machine starts again every `segment` codes.

    Modulo 2 the machine is linear: a grid is the sum of what each earlier odd code alone would make. That repeats with the
    period, so that one running sum over all places a period apart gives all grids at once.
    """
    flat = codes.reshape(-1).bitwise_and(1).to(torch.uint8)
    if not len(flat):
        return flat.view(codes.shape)
    segment = max(1, min(segment, len(flat)))
    period, count = law.period, -(-len(flat) // segment)
    rows = pad(flat, (0, count * segment - len(flat))).view(count, segment)
    length = -(-segment // period) * period
    flips = torch.zeros(count, length, dtype=torch.uint8, device=codes.device)
    for delay in law.delays:
        if delay < segment:
            flips[:, delay:segment] ^= rows[:, : segment - delay]
    # A sum of bytes wraps at 256 and keeps its parity.
    running = flips.view(count, -1, period).cumsum(1, dtype=torch.uint8) & 1
    return running.view(count, length)[:, :segment].reshape(-1)[: len(flat)].view(codes.shape)


def levels_of(codes: Tensor, law: Law, segment: int) -> Tensor:
    """Return the level of each code: 2 x code on grid 0, and 2 x code - its sign on grid 1 (int32)."""
    codes = codes.int()
    return 2 * codes - grids_of(codes, law, segment).int() * codes.sign()


def codes_of(levels: Tensor) -> Tensor:
    """Return the code of each level on its grid (int32): half of it, away from zero."""
    levels = levels.int()
    return levels.sign() * ((levels.abs() + 1) >> 1)
