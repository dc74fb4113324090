"""Fast coding of large planes: asymmetric numeral systems (Duda, 2013) under tables chosen by running means.

A value becomes a token of four bits (itself when at most 16 values occur, else its half-octave of magnitude, with sign
and low bits beside it). The table of a token follows two running means of the magnitudes already coded: along the row
and down the column. The tables are counted first and sent ahead, so decoding learns nothing and is fast.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from cortado.errors import BadFile
from cortado.file.wire import Cursor, unzigzag, varint, zigzag
from cortado.native.coders import rans_decode, rans_encode, rans_survey, rans_tokens

TOTAL, TOKENS, STREAMS, STEPS = 1 << 15, 16, 4, 4096
STREAMED_FROM = 1 << 14
ALONG, DOWN = 5, 3
GRAINS = (1, 16, 64, 256)
"""Frequencies are multiples of a grain: coarse ones are shorter to send."""
PORT_LIMIT = 1 << 18
"""Without compiled kernels values up to here are coded: the Python port takes three seconds per million."""
DAMAGED = "The file is damaged; make it again."


@dataclass
class CodingTables:
    """What kernel and header share: see rans.cpp for the order of `numbers`."""

    count: int
    line: int
    direct: bool
    least: int
    signed: bool

    def numbers(self) -> list[int]:
        """The kernel's parameters."""
        streams = STREAMS if self.count >= STREAMED_FROM else 1
        return [self.count, self.line, int(self.direct), self.least, int(self.signed), ALONG, DOWN, streams]


def thresholds(counts: np.ndarray, levels: int) -> list[int]:
    """Where to cut the running means into `levels` groups: equal shares of occurrence times root of size."""
    mass = np.cumsum(counts * np.sqrt(np.arange(STEPS) + 1.0))
    cuts = np.searchsorted(mass, mass[-1] * np.arange(1, levels) / levels, side="right")
    return [min(int(cut), STEPS - 1) for cut in np.maximum.accumulate(cuts)]


def lookup_table(cuts: list[int], factor: int) -> np.ndarray:
    """For each step of a running mean the number of its group, times `factor`, as uint8."""
    return (np.searchsorted(np.array(cuts, dtype=np.int64), np.arange(STEPS), side="right") * factor).astype(np.uint8)


def frequencies(counts: np.ndarray, grain: int) -> np.ndarray:
    """Counts of 16 tokens scaled to a sum of 32768 in multiples of `grain`, above 0 where a token occurs."""
    total = int(counts.sum())
    if total == 0:
        return np.zeros(TOKENS, dtype=np.int64)
    scaled = np.where(counts > 0, np.maximum(counts * (TOTAL // grain) // total, 1), 0)
    scaled[int(np.argmax(scaled))] += TOTAL // grain - int(scaled.sum())
    return scaled * grain


def table_bytes(widths: np.ndarray, grain: int) -> bytes:
    """Which tokens occur (two bytes), and the width of each but the last, in grains."""
    used = np.flatnonzero(widths)
    mask = int(sum(1 << int(token) for token in used))
    return mask.to_bytes(2, "little") + b"".join(varint(int(widths[token]) // grain) for token in used[:-1])


def all_tables(counts: np.ndarray, grain: int) -> tuple[np.ndarray, bytes, float]:
    """Widths for counts (contexts, 16), their bytes, and the bytes of tables and tokens together."""
    widths = np.array([frequencies(row, grain) for row in counts])
    body = b"".join(table_bytes(row, grain) for row in widths)
    tokens = -(counts * np.log2(np.maximum(widths, 1) / TOTAL)).sum() / 8
    return widths, body, len(body) + float(tokens)


def read_table(cursor: Cursor, grain: int) -> np.ndarray:
    """The widths that `table_bytes` wrote.  Raises BadFile."""
    mask, widths = int.from_bytes(cursor.take(2), "little"), np.zeros(TOKENS, dtype=np.int64)
    used = [token for token in range(TOKENS) if mask >> token & 1]
    for token in used[:-1]:
        widths[token] = min(cursor.number(), TOTAL) * grain
        if not 0 < widths[token] < TOTAL:
            raise BadFile(f"file: a token's frequency must lie in 1..{TOTAL - 1}, got {widths[token]}. {DAMAGED}")
    if used:
        widths[used[-1]] = TOTAL - int(widths.sum())
        if widths[used[-1]] <= 0:
            raise BadFile(f"file: token frequencies exceed {TOTAL}. {DAMAGED}")
    return widths


def kernel_tables(widths: np.ndarray) -> np.ndarray:
    """Widths (contexts, 16) as the kernel reads them: starts, then widths, in uint16."""
    starts = np.cumsum(widths, axis=1) - widths
    return np.ascontiguousarray(np.concatenate([starts, widths], axis=1).astype(np.uint16))


def cost_bits(counts: np.ndarray) -> float:
    """Bits of all tokens under their own tables (contexts, 16), and of the tables."""
    totals = counts.sum(1, keepdims=True)
    share = np.where(counts > 0, counts / np.maximum(totals, 1), 1.0)
    return float(-(counts * np.log2(share)).sum() + 8 * (2 * len(counts) + 1.2 * np.count_nonzero(counts)))


def group(counts: np.ndarray, across: int, below: int) -> np.ndarray:
    """Counts (8, 8, 16) of the finest contexts summed to (2**across * 2**below, 16)."""
    a, b = 1 << across, 1 << below
    return counts.reshape(a, 8 // a, b, 8 // b, TOKENS).sum((1, 3)).reshape(a * b, TOKENS)


def plan_of(values: np.ndarray, line: int) -> CodingTables:
    """Which tokens suit the values."""
    least, most = int(values.min()), int(values.max())
    direct = most - least < TOKENS and least <= 2**31 - TOKENS
    return CodingTables(values.size, line, direct, least if direct else 0, not direct and least < 0)


def encode(values: np.ndarray, line: int) -> bytes:
    """A list of integers (int32, contiguous), in rows of `line`."""
    if values.size == 0 or not values.any():
        return b""
    plan = plan_of(values, line)
    numbers = plan.numbers()
    survey = rans_survey(values, numbers)
    cuts = thresholds(survey[:STEPS], 8), thresholds(survey[STEPS:], 8)
    contexts, tokens, counts, raw = rans_tokens(values, numbers, lookup_table(cuts[0], 8), lookup_table(cuts[1], 1))
    fine = counts.reshape(8, 8, TOKENS)
    across, below = min(((a, b) for a in range(4) for b in range(4)), key=lambda ab: cost_bits(group(fine, *ab)))
    chosen = group(fine, across, below)
    grain = min(range(len(GRAINS)), key=lambda number: all_tables(chosen, GRAINS[number])[2])
    widths, tables, _ = all_tables(chosen, GRAINS[grain])
    row, column = np.divmod(np.arange(64), 8)
    renumber = ((row >> (3 - across)) * (1 << below) + (column >> (3 - below))).astype(np.uint8)
    words = rans_encode(contexts, tokens, numbers[-1], renumber, kernel_tables(widths))
    head = bytes([int(plan.direct) | int(plan.signed) << 1 | across << 2 | below << 4 | grain << 6])
    head += varint(zigzag(plan.least)) if plan.direct else b""
    for levels, steps in ((across, cuts[0]), (below, cuts[1])):
        kept = steps[(8 >> levels) - 1 :: 8 >> levels]
        head += b"".join(varint(b - a) for a, b in pairwise([0, *kept]))
    return head + tables + varint(len(raw)) + raw + words


def read_cuts(cursor: Cursor, levels: int) -> list[int]:
    """2**levels - 1 thresholds.  Raises BadFile."""
    cuts, at = [], 0
    for _ in range((1 << levels) - 1):
        at += cursor.number()
        if at >= STEPS:
            raise BadFile(f"file: a threshold must lie below {STEPS}, got {at}. {DAMAGED}")
        cuts.append(at)
    return cuts


def decode(body: bytes, count: int, line: int) -> np.ndarray:
    """The `count` integers (int32) of `encode`.  Raises BadFile on anything else."""
    if not body:
        return np.zeros(count, dtype=np.int32)
    cursor = Cursor(body)
    flags = cursor.byte()
    across, below = flags >> 2 & 3, flags >> 4 & 3
    least = unzigzag(cursor.number()) if flags & 1 else 0
    if flags & 3 == 3 or not -(2**31) <= least <= 2**31 - TOKENS or count == 0:
        raise BadFile(f"file: the head of a fast stream is impossible. {DAMAGED}")
    lookups = lookup_table(read_cuts(cursor, across), 1 << below), lookup_table(read_cuts(cursor, below), 1)
    grain = GRAINS[flags >> 6]
    tables = kernel_tables(np.array([read_table(cursor, grain) for _ in range(1 << (across + below))]))
    raw = cursor.take(cursor.number())
    plan = CodingTables(count, line, bool(flags & 1), least, bool(flags & 2))
    values = np.zeros(count, dtype=np.int32)
    if not rans_decode(cursor.rest(), raw, plan.numbers(), *lookups, tables, values):
        raise BadFile(f"file: a fast stream does not end where its values end. {DAMAGED}")
    return values
