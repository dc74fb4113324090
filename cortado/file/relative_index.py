"""Relative index: a sparse list by the gaps between its entries, with filler zeros (Han, Mao, Dally, 2016)."""

from dataclasses import dataclass

import numpy as np

from cortado.errors import BadValue
from cortado.file.huffman import huffman_bits


@dataclass(frozen=True)
class RelativeIndex:
    """Entries of a sparse list: `gaps` zeros before each (below 2**gap_bits), its value (0 marks a filler).

    A run of zeros too long for a gap is broken by fillers: entries of value 0 behind the longest gap.
    """

    gaps: np.ndarray
    values: np.ndarray
    gap_bits: int
    count: int

    @property
    def fillers(self) -> int:
        """How many entries only bridge a long run of zeros."""
        return int(np.count_nonzero(self.values == 0))

    def dense(self) -> np.ndarray:
        """The list again, `count` values (int64)."""
        dense = np.zeros(self.count, dtype=np.int64)
        dense[np.cumsum(self.gaps + 1) - 1] = self.values
        return dense

    def size_bits(self, value_bits: int) -> int:
        """Entries of gap_bits + value_bits each."""
        return len(self.gaps) * (self.gap_bits + value_bits)

    def huffman_bits(self) -> int:
        """Gaps and values each under their own Huffman code, tables left out."""
        return huffman_bits(self.gaps) + huffman_bits(self.values)


def relative_index(values: np.ndarray, gap_bits: int) -> RelativeIndex:
    """The nonzero integers of `values` (any shape, read in order) by gaps of `gap_bits` bits.  Raises BadValue."""
    if not 1 <= gap_bits <= 16:
        raise BadValue(f"relative index: gap_bits must lie in 1..16, got {gap_bits}. The paper uses 5 and 8.")
    flat = np.asarray(values).ravel()
    places = np.flatnonzero(flat)
    zeros = np.diff(places, prepend=-1) - 1
    fillers = zeros >> gap_bits
    ends = np.cumsum(fillers + 1) - 1
    size = int(ends[-1]) + 1 if len(ends) else 0
    gaps, attached = np.full(size, (1 << gap_bits) - 1, dtype=np.int64), np.zeros(size, dtype=np.int64)
    gaps[ends] = zeros & ((1 << gap_bits) - 1)
    attached[ends] = flat[places]
    return RelativeIndex(gaps, attached, gap_bits, flat.size)
