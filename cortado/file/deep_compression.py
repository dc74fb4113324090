"""The stream of Deep Compression (Han, Mao, Dally, 2016): relative index and values, both under Huffman codes."""

import numpy as np

from cortado.errors import BadFile
from cortado.file import huffman
from cortado.file.relative_index import RelativeIndex, relative_index
from cortado.file.wire import Cursor, varint

WIDTHS = (2, 3, 4, 5, 6, 8, 10, 12)
MASK = 128


def encode(values: np.ndarray, known: bool) -> bytes:
    """A list of integers whose zeros were dropped.

    `known`: the places are known to the reader, so only values are coded. A mask (0 and 1) is coded by gaps alone.
    """
    if values.size == 0 or not values.any():
        return b""
    if known:
        return bytes([0]) + huffman.encode(values)
    is_mask = values.min() >= 0 and values.max() <= 1

    def attempt(gap_bits: int) -> bytes:
        index = relative_index(values, gap_bits)
        head = bytes([gap_bits | MASK * is_mask]) + varint(len(index.gaps))
        if is_mask:  # a filler is one more kind of gap
            return head + huffman.encode(np.where(index.values == 0, 1 << gap_bits, index.gaps))
        gaps = huffman.encode(index.gaps)
        return head + varint(len(gaps)) + gaps + huffman.encode(index.values)

    return min((attempt(width) for width in WIDTHS), key=len)


def decode(body: bytes, count: int) -> np.ndarray:
    """The `count` integers (int32) of `encode`.  Raises BadFile on anything else."""
    if not body:
        return np.zeros(count, dtype=np.int32)
    cursor = Cursor(body)
    kind = cursor.byte()
    if kind == 0:
        return huffman.decode(cursor.rest(), count)
    gap_bits, size = kind & ~MASK, cursor.number()
    if gap_bits not in WIDTHS or not 1 <= size <= count:
        raise BadFile(f"file: {size} entries with gaps of {gap_bits} bits do not fit {count} places. Make it again.")
    if kind & MASK:
        gaps = huffman.decode(cursor.rest(), size).astype(np.int64)
        values = (gaps != 1 << gap_bits).astype(np.int64)
        gaps = np.where(values == 0, (1 << gap_bits) - 1, gaps)
    else:
        gaps = huffman.decode(cursor.take(cursor.number()), size).astype(np.int64)
        values = huffman.decode(cursor.rest(), size).astype(np.int64)
    if gaps.min() < 0 or gaps.max() >= 1 << gap_bits or int(gaps.sum()) + size > count:
        raise BadFile(f"file: the gaps of a sparse stream lead beyond its {count} places. Make it again.")
    return RelativeIndex(gaps, values, gap_bits, count).dense().astype(np.int32)
