"""Accounting: the cost of each weight, in our file and by the arithmetic of Deep Compression's tables."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from cortado.errors import WrongNetwork
from cortado.file.artifact import Original, encode, original_network
from cortado.file.contents import StoredEntry, read_contents
from cortado.file.entries import Entry, entries_of, fingerprint, stored_at
from cortado.file.huffman import code_lengths
from cortado.file.symbols import Symbols, symbols_of
from cortado.parts.forms.attach import part_kinds
from cortado.parts.forms.form import Form

GAP_WIDTHS = range(1, 17)
MOST_BARS = 64


@dataclass(frozen=True)
class Cost:
    """A weight by the arithmetic of tables 4 and 5 of Han, Mao, Dally, 2016: P+Q, and P+Q+H with Huffman codes.

    `stored` entries: the nonzero weights and the filler zeros that bridge gaps too wide for `index_bits`. The four
    means are bits an entry, fillers included, which is what the rates of the paper's rows imply (84 % x (6.3 + 1.2)
    of 32 bits is its 20.5 % but for the codebook). The code width counts the filler's zero as one more value. Sums
    (`coded_bits`) include the codebook and leave out Huffman tables. A weight without index has None there.
    """

    stored: int
    value_bits: float | None
    value_bits_huffman: float | None
    index_bits: float | None
    index_bits_huffman: float | None
    coded_bits: float
    coded_bits_huffman: float


@dataclass(frozen=True)
class LayerRow:
    """One tensor: its form and its cost.  None means unknown or not applicable.

    `entries` and `nonzeros` are of the tensor as it is, `original_entries` and `original_bits` of the original (before
    units were cut, or the module removed). `size_bytes` are the bytes of its record in our file; the file's head, with
    what was edited besides tensors, belongs to no record.
    The rest is as in Cost.
    """

    path: str
    shape: tuple[int, ...]
    form: str
    entries: int
    nonzeros: int
    size_bytes: int
    original_entries: int
    original_bits: int
    stored: int | None = None
    value_bits: float | None = None
    value_bits_huffman: float | None = None
    index_bits: float | None = None
    index_bits_huffman: float | None = None
    coded_bits: float | None = None
    coded_bits_huffman: float | None = None

    @property
    def kept(self) -> float | None:
        """Return nonzero weights as a share of the original's, "Weights %" of the tables."""
        return share_of(self.nonzeros, self.original_entries)

    @property
    def rate(self) -> float | None:
        """Return P+Q bits with the codebook, as a share of the original bits."""
        return share_of(self.coded_bits, self.original_bits)

    @property
    def rate_huffman(self) -> float | None:
        """Return P+Q+H bits with the codebook, as a share of the original bits."""
        return share_of(self.coded_bits_huffman, self.original_bits)

    @property
    def file_rate(self) -> float | None:
        """Return bits in our file, as a share of the original bits."""
        return share_of(self.size_bytes * 8, self.original_bits)


def share_of(part: float | None, whole: int) -> float | None:
    """Return part / whole; None if part is unknown or whole is 0."""
    return None if part is None or not whole else part / whole


@dataclass(frozen=True)
class Histogram:
    """A histogram: edges (n + 1) and counts (n); `of` is codes or gaps."""

    title: str
    edges: tuple[float, ...]
    counts: tuple[int, ...]
    of: str = "codes"


def layer_rows(network: nn.Module, original: Original, body: bytes | None = None) -> tuple[LayerRow, ...]:
    """Return a row for each tensor of the original network, in its order, tied tensors once.

    `body` is the encoded file of `network`, if known. Raises BadNetwork if the two networks do not belong together,
    WrongNetwork if `body` was made from another original network.
    """
    return accounts(network, original, body)[0]


def accounts(
    network: nn.Module, original: Original, body: bytes | None = None
) -> tuple[tuple[LayerRow, ...], tuple[Histogram, ...]]:
    """Return the rows of `layer_rows` and the histograms of `pictures`."""
    base = original_network(original)
    all_entries = entries_of(base)
    kinds = list(part_kinds(network))
    contents = read_contents(encode(network, base) if body is None else body, kinds)
    if contents.fingerprint != fingerprint(base, all_entries):
        raise WrongNetwork(
            f"accounting: the file was made from another network than this {type(base).__name__}. "
            "Pass the file of this network, or none."
        )
    stored = contents.stored(base)
    attached = [stored_at(network, entry) for entry in stored]
    symbols = {
        entry.name: symbols_of(one) for entry, one in zip(stored, attached, strict=True) if isinstance(one, Form)
    }
    rows = {
        entry.name: tensor_row(entry, one, record, symbols.get(entry.name))
        for entry, one, record in zip(stored, attached, contents.records, strict=True)
    }
    first = [
        rows.pop(name) if name in rows else removed_row(entry) for entry, name in named_entries(all_entries, stored)
    ]
    return (*first, *rows.values()), pictures(symbols)


def named_entries(entries: list[Entry], stored: list[Entry]) -> list[tuple[Entry, str]]:
    """Return each entry of the original network with its stored name: a tied entry may have lost its first place."""
    first = {place: entry.name for entry in stored for place in entry.places}
    return [(entry, next((first[p] for p in entry.places if p in first), "")) for entry in entries]


def removed_row(entry: Entry) -> LayerRow:
    """Return the row of a tensor of a removed module, at no cost."""
    whole, nothing = entry.shape.numel(), tuple(0 for _ in entry.shape)
    bits = whole * entry.dtype.itemsize * 8
    return LayerRow(entry.name, nothing, "removed", 0, 0, 0, whole, bits, 0, coded_bits=0.0, coded_bits_huffman=0.0)


def tensor_row(entry: Entry, attached: Form | Tensor, record: StoredEntry, symbols: Symbols | None) -> LayerRow:
    """Return the row of one tensor."""
    shape = tuple(attached.shape)
    cost = {} if symbols is None else vars(index_cost(symbols))
    return LayerRow(
        path=entry.name,
        shape=shape,
        form="dense" if record.schema is None else record.schema.text(),
        entries=attached.shape.numel(),
        nonzeros=attached.nonzeros() if isinstance(attached, Form) else int(attached.count_nonzero()),
        size_bytes=record.size_bytes,
        original_entries=entry.shape.numel(),
        original_bits=entry.shape.numel() * entry.dtype.itemsize * 8,
        **cost,
    )


def index_cost(symbols: Symbols) -> Cost:
    """Return the cost by relative index at the best gap width, or as a plain list if unmasked and shorter."""
    width, sparse_bits = best_gap_width(symbols)
    list_bits = symbols.entries * code_width(symbols.values)
    if not symbols.sparse and list_bits <= sparse_bits:
        return cost_sums(symbols.values, symbols.counts, None, 0, symbols.codebook_bits)
    values, counts = kept_entries(symbols)
    fillers = symbols.fillers(width)
    if fillers:
        values, counts = np.append(values, 0), np.append(counts, fillers)
    return cost_sums(values, counts, gaps_of(symbols, width)[1], width, symbols.codebook_bits)


def kept_entries(symbols: Symbols) -> tuple[np.ndarray, np.ndarray]:
    """Return the nonzero values and their counts."""
    kept = symbols.values != 0
    return symbols.values[kept], symbols.counts[kept]


def gaps_of(symbols: Symbols, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the gaps of `width` bits, fillers' included, and their counts."""
    most = (1 << width) - 1
    totals = np.bincount(symbols.zeros & most, symbols.runs, most + 1).astype(np.int64)
    totals[most] += symbols.fillers(width)
    found = np.flatnonzero(totals)
    return found, totals[found]


def cost_sums(
    values: np.ndarray, counts: np.ndarray, gaps: np.ndarray | None, gap_width: int, codebook_bits: int
) -> Cost:
    """Return the cost of stored values from their counts, and of the gaps before them (None: a plain list)."""
    stored, value_width = int(counts.sum()), code_width(values)
    value_huffman = int((code_lengths(counts) * counts).sum())
    index_huffman = 0 if gaps is None else int((code_lengths(gaps) * gaps).sum())
    has_index = gaps is not None and stored > 0
    return Cost(
        stored=stored,
        value_bits=float(value_width) if stored else None,
        value_bits_huffman=value_huffman / stored if stored else None,
        index_bits=float(gap_width) if has_index else None,
        index_bits_huffman=index_huffman / stored if has_index else None,
        coded_bits=float(stored * (value_width + gap_width) + codebook_bits),
        coded_bits_huffman=float(value_huffman + index_huffman + codebook_bits),
    )


def code_width(values: np.ndarray, zero_too: bool = False) -> int:
    """Return the bits of a fixed-width code for these integers (and for zero): at least 1."""
    if not values.size:
        return 1
    low, high = int(values.min()), int(values.max())
    if zero_too:
        low, high = min(low, 0), max(high, 0)
    return max(1, (high - low).bit_length())


def best_gap_width(symbols: Symbols) -> tuple[int, int]:
    """Return the gap width with the least P+Q bits, the narrowest of equals, and these bits."""
    kept, _ = kept_entries(symbols)

    def bits(gap_width: int) -> int:
        fillers = symbols.fillers(gap_width)
        return (symbols.kept + fillers) * (gap_width + code_width(kept, zero_too=fillers > 0))

    least = min(GAP_WIDTHS, key=bits)
    return least, bits(least)


def pictures(found: Mapping[str, Symbols | None], count: int = 3) -> tuple[Histogram, ...]:
    """Return histograms of codes, then of gaps, for the `count` coded weights with the most nonzeros.

    As in figure 5 of Han, Mao, Dally, 2016.
    """
    coded = [(name, symbols) for name, symbols in found.items() if symbols is not None and symbols.kept]
    codes: list[Histogram] = []
    gaps: list[Histogram] = []
    for name, symbols in sorted(coded, key=lambda row: -row[1].kept)[:count]:
        title = f"{name}: codes of {symbols.kept:,} nonzero weights"
        codes.append(histogram_of(title, *kept_entries(symbols), "codes"))
        if symbols.kept < symbols.entries:
            width, _ = best_gap_width(symbols)
            title = f"{name}: zeros before each entry, gaps of {width} bits"
            gaps.append(histogram_of(title, *gaps_of(symbols, width), "gaps"))
    return (*codes, *gaps)


def histogram_of(title: str, values: np.ndarray, counts: np.ndarray, of: str) -> Histogram:
    """Return a histogram of integers; neighbours share a bar if there are more than 64."""
    low, high = int(values.min()), int(values.max())
    step = -(-(high - low + 1) // MOST_BARS)
    bars = np.bincount((values - low) // step, counts).astype(np.int64)
    edges = low - 0.5 + step * np.arange(len(bars) + 1)
    return Histogram(title, tuple(edges.tolist()), tuple(bars.tolist()), of)
