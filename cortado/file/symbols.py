"""Symbols: a coded weight as whole numbers, counted: what the arithmetic of tables and histograms needs of it."""

from dataclasses import dataclass

import numpy as np

from cortado.file.counts import blocks, counted, runs_of_zeros
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.form import Form
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized


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
    """The whole numbers of a masked, codebook or quantized weight; None for a form that has none."""
    found = numbers_of(form)
    if found is None:
        return None
    values, codebook_bits = found[0].ravel(), found[1]
    return Symbols(*counted(blocks(values)), *counted(runs_of_zeros(values)), codebook_bits, isinstance(form, Masked))


def numbers_of(form: Form) -> tuple[np.ndarray, int] | None:
    """The numbers in the shape of the weight, and the bits of the codebook; None for a form that has none."""
    if isinstance(form, Masked):
        kept = numbers_of(form.kept)
        if kept is None:
            return None
        whole = np.zeros(tuple(form.shape), dtype=np.int32)
        whole[form.mask.cpu().numpy()] = kept[0]
        return whole, kept[1]
    if isinstance(form, Codebook):
        return codebook_symbols(form), form.codebook.numel() * form.codebook.element_size() * 8
    if isinstance(form, Quantized):
        zero_bits = 0 if form.zero is None else form.zero.numel() * form.codes.element_size() * 8
        codebook_bits = form.scale.numel() * form.scale.element_size() * 8 + zero_bits
        return form.parts()["codes"].cpu().numpy().astype(np.int32), codebook_bits
    return None


def codebook_symbols(form: Codebook) -> np.ndarray:
    """Codes numbered from 1 in the order of their values; 0 where the shared value is zero."""
    codebook = form.codebook.detach().cpu().double().numpy()
    rank = np.zeros(len(codebook), dtype=np.int32)
    order = np.argsort(codebook, kind="stable")
    order = order[codebook[order] != 0]
    rank[order] = np.arange(1, len(order) + 1)
    return rank[form.codes.cpu().numpy()]
