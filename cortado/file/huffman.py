"""Static Huffman codes (Huffman, 1952): code lengths for accounting, and a coder with canonical codes."""

import heapq
import itertools

import numpy as np

from cortado.errors import BadFile
from cortado.file import bits
from cortado.file.counts import blocks, counted
from cortado.file.wire import Cursor, unzigzag, varint, zigzag

LONGEST = 32
CHUNK_BYTES = 1 << 15
DAMAGED = "The file is damaged; make it again."


def code_lengths(counts: np.ndarray) -> np.ndarray:
    """The length in bits of each symbol's code: 0 where a count is 0, and 1 for a symbol that is alone."""
    lengths = np.zeros(len(counts), dtype=np.int64)
    used = np.flatnonzero(counts).tolist()
    if len(used) == 1:
        lengths[used[0]] = 1
        return lengths
    order = itertools.count()
    heap = [(int(counts[symbol]), next(order), symbol, -1) for symbol in used]
    heapq.heapify(heap)
    children: list[tuple[int, int]] = []
    size = len(counts)
    while len(heap) > 1:
        (a, _, left, _), (b, _, right, _) = heapq.heappop(heap), heapq.heappop(heap)
        children.append((left, right))
        heapq.heappush(heap, (a + b, next(order), size + len(children) - 1, -1))
    depth = {size + len(children) - 1: 0}
    for number in range(len(children) - 1, -1, -1):
        for child in children[number]:
            depth[child] = depth[size + number] + 1
            if child < size:
                lengths[child] = depth[child]
    return lengths


def huffman_bits(symbols: np.ndarray) -> int:
    """How many bits the symbols take under their own Huffman code, without the code's table."""
    _, counts = np.unique(symbols, return_counts=True)
    return int((code_lengths(counts) * counts).sum())


def limited_lengths(counts: np.ndarray) -> np.ndarray:
    """Code lengths of at most 32 bits: counts are flattened until that holds."""
    while True:
        lengths = code_lengths(counts)
        if lengths.max(initial=0) <= LONGEST:
            return lengths
        counts = (counts + 1) // 2


def canonical_codes(lengths: np.ndarray) -> np.ndarray:
    """Codes moved to the top of 32 bits (uint64), for lengths in ascending order."""
    widths = np.uint64(1) << (LONGEST - lengths).astype(np.uint64)
    return np.cumsum(widths) - widths


def emit(ranks: np.ndarray, codes: np.ndarray, lengths: np.ndarray) -> bytes:
    """The codes of `ranks` one after another."""
    parts, left = [], np.zeros(0, dtype=np.uint8)
    for start in range(0, len(ranks), 1 << 16):
        rank = ranks[start : start + (1 << 16)]
        size = lengths[rank]
        ends = np.cumsum(size)
        owner = np.repeat(np.arange(len(rank)), size)
        place = np.arange(int(ends[-1])) - (ends - size)[owner]
        shift = (LONGEST - 1 - place).astype(np.uint64)
        made = ((codes[rank][owner] >> shift) & np.uint64(1)).astype(np.uint8)
        made = np.concatenate([left, made])
        whole = len(made) & ~7
        parts.append(np.packbits(made[:whole]).tobytes())
        left = made[whole:]
    return b"".join(parts) + np.packbits(left).tobytes()


def table_of(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, bytes, int]:
    """Return the integers that occur, their code lengths, the bytes before the codes, and how many bytes there are in all."""
    symbols, counts = counted(blocks(values))
    gaps = bits.encode(np.diff(symbols) - 1)
    head = varint(len(symbols)) + varint(zigzag(int(symbols[0]))) + varint(len(gaps)) + gaps
    if len(symbols) == 1:
        return symbols, counts, head, len(head)
    lengths = limited_lengths(counts)
    head += bits.pack(lengths - 1, 5)
    return symbols, lengths, head, len(head) + (int((lengths * counts).sum()) + 7) // 8


def size(values: np.ndarray) -> int:
    """Return how many bytes `encode` takes."""
    return table_of(values)[3] if values.any() else 0


def encode(values: np.ndarray) -> bytes:
    """A list of integers: the values that occur, their code lengths, then the codes."""
    if values.size == 0 or not values.any():
        return b""
    symbols, lengths, head, _ = table_of(values)
    if len(symbols) == 1:
        return head
    order = np.argsort(lengths, kind="stable")
    codes = np.zeros(len(symbols), dtype=np.uint64)
    codes[order] = canonical_codes(lengths[order])
    return head + emit(np.searchsorted(symbols, values), codes, lengths)


def windows(data: np.ndarray, start: int) -> np.ndarray:
    """The next 32 bits at each bit of the chunk that begins at byte `start`."""
    chunk = data[start : start + CHUNK_BYTES + 8].astype(np.uint64)
    size = min(CHUNK_BYTES, len(data) - start)
    chunk = np.concatenate([chunk, np.zeros(8, dtype=np.uint64)])
    word = np.zeros(size, dtype=np.uint64)
    for byte in range(5):
        word = word << np.uint64(8) | chunk[byte : byte + size]
    shifts = np.arange(8, 0, -1, dtype=np.uint64)
    return ((word[:, None] >> shifts) & np.uint64(0xFFFFFFFF)).ravel()


def follow(body: bytes, count: int, codes: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """The ranks of `count` codes.  Raises BadFile when the body does not end with the last."""
    data = np.frombuffer(body, dtype=np.uint8)
    if len(data) > (count * int(lengths.max()) + 7) // 8:
        raise BadFile(f"file: a Huffman stream is longer than its {count} values can be. {DAMAGED}")
    found: list[int] = []
    at = 0
    for start in range(0, len(data), CHUNK_BYTES):
        ranks = np.searchsorted(codes, windows(data, start), side="right") - 1
        steps, listed = lengths[ranks].tolist(), ranks.tolist()
        place, end = at - 8 * start, len(listed)
        missing = count - len(found)
        while place < end and missing > 0:
            found.append(listed[place])
            place += steps[place]
            missing -= 1
        at = 8 * start + place
    if len(found) < count or (at + 7) // 8 != len(data):
        raise BadFile(f"file: a Huffman stream does not end with its {count} values. {DAMAGED}")
    return np.array(found, dtype=np.int64)


def read_symbols(cursor: Cursor, count: int) -> np.ndarray:
    """The values that occur, ascending.  Raises BadFile."""
    size, least = cursor.number(), unzigzag(cursor.number())
    if not 1 <= size <= count:
        raise BadFile(f"file: a Huffman table names {size} values for {count} places. {DAMAGED}")
    gaps = bits.decode_wide(cursor.take(cursor.number()), size - 1) + 1
    symbols = np.concatenate([np.array([least], dtype=np.int64), least + np.cumsum(gaps)])
    if (gaps < 1).any() or least < -(2**31) or int(symbols[-1]) >= 2**31:
        raise BadFile(f"file: the values of a Huffman table must ascend within 32 bits. {DAMAGED}")
    return symbols


def decode(body: bytes, count: int) -> np.ndarray:
    """The `count` integers (int32) of `encode`.  Raises BadFile on anything else."""
    if not body:
        return np.zeros(count, dtype=np.int32)
    cursor = Cursor(body)
    symbols = read_symbols(cursor, count)
    if len(symbols) == 1:
        if cursor.rest():
            raise BadFile(f"file: a Huffman stream of one value must be empty. {DAMAGED}")
        return np.full(count, symbols[0], dtype=np.int32)
    lengths = bits.unpack(cursor.take((5 * len(symbols) + 7) // 8), len(symbols), 5) + 1
    order = np.argsort(lengths, kind="stable")
    if int((np.int64(1) << (LONGEST - lengths)).sum()) != 1 << LONGEST:
        raise BadFile(f"file: the code lengths of a Huffman table contradict one another. {DAMAGED}")
    ranks = follow(cursor.rest(), count, canonical_codes(lengths[order]), lengths[order])
    return symbols[order][ranks].astype(np.int32)
