"""Symbols: a coded weight as whole numbers, counted: what the arithmetic of tables and histograms needs of it."""

from dataclasses import dataclass

import numpy as np

from cortado.file.counts import blocks, counted, runs_of_zeros
from cortado.parts.forms.form import Form


@dataclass(frozen=True)
class Symbols:
    """A coded weight as whole numbers: 0 is a weight of zero, equal numbers are equal codes.

    `values` that occur, ascending, and `counts` of each; `zeros` that lie before nonzero ones, and how many `runs` of such
    a length there are. `codebook_bits` are the bits of the codebook, or of the scales and zero points. `sparse`: a mask holds
    its places.
    """

    values: np.ndarray
    counts: np.ndarray
    zeros: np.ndarray
    runs: np.ndarray
    codebook_bits: int
    sparse: bool = False

    @property
    def entries(self) -> int:
        """All entries."""
        return int(self.counts.sum())

    @property
    def kept(self) -> int:
        """Entries that are not zero."""
        return int(self.runs.sum())

    def fillers(self, gap_width: int) -> int:
        """Entries of zero that bridge gaps too wide for so many bits."""
        return int(((self.zeros >> gap_width) * self.runs).sum())


def symbols_of(form: Form) -> Symbols | None:
    """Return the whole numbers of a weight that has codes; None for a form that has none."""
    found = form.symbols()
    if found is None:
        return None
    values = found[0].cpu().numpy().astype(np.int32).ravel()
    return Symbols(*counted(blocks(values)), *counted(runs_of_zeros(values)), found[1], form.support() is not None)
