"""Layouts: the arrays in which the native products read a weight, which one is faster for it, and why none is."""

import math
from dataclasses import dataclass

import numpy as np

BLOCK = 16
"""Rows of a sparse block."""
GROUP = 4
"""Rows whose tiles of codes alternate."""
WIDEST_SHORT = 1 << 16
"""Columns that 16 bits can number."""
CODEBOOKS = {2: 4, 4: 16}
"""Values of a codebook by the bits of its codes."""
FILLED = 0.6
"""Share of a block's entries that must be other than zero before blocks beat single entries, 1.8 times slower each."""
BLOCKS_FROM = 0.5
"""Share of zeros from which a sparse product beats the dense one where the zeros of a linear layer are in blocks."""
CONVOLUTIONS_FROM = 0.7
"""The same for convolutions."""
LARGE_FROM = 0.8
"""The same for single zeros in large linear layers."""
SMALL_FROM = 0.9
"""The same for single zeros in small linear layers, whose dense product need not wait for memory."""
LARGE = 1 << 19
"""Weights of a large linear layer."""
FEWEST_SPARSE = 1 << 14
"""Weights of a linear layer from which a sparse product gains more than the call of an operator costs."""
FEWEST_CODED = 1 << 16
"""The same for a codebook product."""


@dataclass(frozen=True, eq=False)
class SparseArrays:
    """A weight (rows, columns) by its entries other than zero; a convolution's columns are (channel, y, x).

    `starts`: (groups + 1,) int32, where each row (`block` 1) or each 16 rows (`block` 16) starts among `places`: (entries,),
    the columns, uint16 or for wide weights int32. `values`: (entries x block,) float32, of a block's rows side by side.
    """

    rows: int
    columns: int
    block: int
    starts: np.ndarray
    places: np.ndarray
    values: np.ndarray

    def dense(self) -> np.ndarray:
        """Return the weight (rows, columns)."""
        groups = len(self.starts) - 1
        whole = np.zeros((groups, self.block, self.columns), np.float32)
        whole[np.repeat(np.arange(groups), np.diff(self.starts)), :, self.places] = self.values.reshape(-1, self.block)
        return whole.reshape(groups * self.block, self.columns)[: self.rows]

    def size_bytes(self) -> int:
        """Return the bytes of all arrays."""
        return self.starts.nbytes + self.places.nbytes + self.values.nbytes


@dataclass(frozen=True, eq=False)
class CodebookArrays:
    """A weight (rows, columns) by codes into a codebook of 16 or 4 float32 values.

    `codes`: uint8, (groups of 4 rows, tiles, 4, 64): a tile has 512 / bits columns of one row, and bits f x bits onwards of
    its 32-bit lane i are the code of its column 16 f + i. Rows and columns are filled up with code 0.
    """

    rows: int
    columns: int
    codes: np.ndarray
    codebook: np.ndarray

    @property
    def bits(self) -> int:
        """Return the bits of a code."""
        return 4 if len(self.codebook) == CODEBOOKS[4] else 2

    def codes_in_rows(self) -> np.ndarray:
        """Return the codes (rows, columns), uint8."""
        lanes = np.ascontiguousarray(self.codes).view("<u4")[..., None, :]
        fields = (lanes >> (np.arange(32 // self.bits, dtype=np.uint32)[:, None] * self.bits)) & (2**self.bits - 1)
        groups, tiles = self.codes.shape[:2]
        wide = fields.reshape(groups, tiles, GROUP, -1).swapaxes(1, 2).reshape(groups * GROUP, -1)
        return wide[: self.rows, : self.columns].astype(np.uint8)

    def dense(self) -> np.ndarray:
        """Return the weight (rows, columns)."""
        return self.codebook[self.codes_in_rows()]

    def size_bytes(self) -> int:
        """Return the bytes of all arrays."""
        return self.codes.nbytes + self.codebook.nbytes


ProductArrays = SparseArrays | CodebookArrays


def weight_matrix(weight: np.ndarray) -> np.ndarray:
    """Return a weight (rows, ...) as a float32 matrix (rows, columns)."""
    return np.ascontiguousarray(weight, np.float32).reshape(len(weight), math.prod(weight.shape[1:]))


def in_row_blocks(weight: np.ndarray, block: int) -> np.ndarray:
    """Return a weight (rows, ...) as (groups, block, columns), filled up with rows of zeros."""
    matrix = weight_matrix(weight)
    rows, columns = matrix.shape
    groups = -(-rows // block)
    return np.pad(matrix, ((0, groups * block - rows), (0, 0))).reshape(groups, block, columns)


def sparse_arrays(weight: np.ndarray, block: int = 1) -> SparseArrays:
    """Return the entries of a weight (rows, ...) that are not zero, one by one or in blocks of 16 rows by 1 column."""
    blocks = in_row_blocks(weight, block)
    used, columns = (blocks != 0).any(1), blocks.shape[2]
    group, place = np.nonzero(used)
    starts = np.concatenate(([0], np.cumsum(used.sum(1)))).astype(np.int32)
    places = place.astype(np.uint16 if columns <= WIDEST_SHORT else np.int32)
    return SparseArrays(len(weight), columns, block, starts, places, blocks[group, :, place].reshape(-1))


def codebook_arrays(codes: np.ndarray, codebook: np.ndarray) -> CodebookArrays:
    """Return the layout of `codes` (rows, columns), whole numbers, into `codebook` (values,), at most 16 of them."""
    bits = min(bits for bits, count in CODEBOOKS.items() if len(codebook) <= count)
    rows, columns = codes.shape
    groups, tiles, fields = -(-rows // GROUP), -(-columns * bits // 512), 32 // bits
    padded = np.zeros((groups * GROUP, tiles * 16 * fields), np.uint32)
    padded[:rows, :columns] = codes
    split = padded.reshape(groups, GROUP, tiles, fields, 16).swapaxes(1, 2)
    lanes = (split << (np.arange(fields, dtype=np.uint32)[:, None] * bits)).sum(3, dtype=np.uint32)
    values = np.zeros(CODEBOOKS[bits], np.float32)
    values[: len(codebook)] = codebook
    return CodebookArrays(rows, columns, np.ascontiguousarray(lanes, "<u4").view(np.uint8), values)


def faster_sparse(weight: np.ndarray) -> SparseArrays | str:
    """Return the faster sparse layout of a weight (outputs, inputs) or (outputs, inputs, height, width).

    Otherwise return in words why its product would not be faster than the dense one in floats.
    """
    if weight.ndim not in (2, 4):
        return "sparse products are for linear layers and convolutions of images"
    if weight.ndim == 2 and weight.size < FEWEST_SPARSE:
        return f"it has {weight.size:,} weights, and sparse products are faster from {FEWEST_SPARSE:,} on"
    alive = np.count_nonzero(weight)
    stored = BLOCK * np.count_nonzero((in_row_blocks(weight, BLOCK) != 0).any(1))
    in_blocks = weight.ndim == 2 and alive >= FILLED * stored
    linear_from = BLOCKS_FROM if in_blocks else LARGE_FROM if weight.size >= LARGE else SMALL_FROM
    needed = CONVOLUTIONS_FROM if weight.ndim == 4 else linear_from
    zeros = 1 - alive / max(1, weight.size)
    # A share that was rounded to whole weights still counts.
    if round(zeros, 2) < needed:
        return f"its zeros are {zeros:.0%}, and the sparse product is faster only from {needed:.0%} on"
    return sparse_arrays(weight, BLOCK if in_blocks else 1)


def smaller_codebook(weight: np.ndarray) -> CodebookArrays | str:
    """Return a weight (outputs, inputs) of at most 16 different values by codes, or in words why not.

    The product is several times faster than the dense one for single samples, and as fast from about 32 samples on.
    """
    if weight.ndim != 2:
        return "codebook products are for linear layers"
    if weight.size < FEWEST_CODED:
        return f"it has {weight.size:,} weights, and codebook products are faster from {FEWEST_CODED:,} on"
    matrix, most = weight_matrix(weight), CODEBOOKS[4]
    # Few rows show it of most weights; only the others are sorted as a whole.
    for part in (matrix[:16], matrix):
        values, codes = np.unique(part, return_inverse=True)
        if len(values) > most:
            return f"it has more than {most} different values, which is what a codebook product reads"
    return codebook_arrays(codes.reshape(weight.shape), values)
