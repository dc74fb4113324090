"""The stream of Deep Compression against its accounting."""

import numpy as np
import pytest

from cortado.errors import BadFile
from cortado.file.deep_compression import WIDTHS, decode, encode
from cortado.file.huffman import huffman_bits
from cortado.file.relative_index import relative_index


def pruned(count: int = 40_000) -> np.ndarray:
    """Codes of which a tenth survive."""
    generator = np.random.default_rng(0)
    return np.where(generator.random(count) < 0.1, generator.choice([-3, -2, -1, 1, 2, 3], count), 0)


def test_stream_takes_what_the_best_gap_width_costs_and_two_tables() -> None:
    values = pruned()
    best = min(relative_index(values, width).huffman_bits() for width in WIDTHS) / 8
    assert best <= len(encode(values, False)) <= best + 120


def test_stream_of_a_mask_codes_gaps_alone() -> None:
    mask = (pruned() != 0).astype(np.int64)
    body = encode(mask, False)
    assert (decode(body, mask.size) == mask).all()
    indices = [relative_index(mask, width) for width in WIDTHS]
    marked = [np.where(index.values == 0, -1, index.gaps) for index in indices]  # a filler is told from a gap
    assert len(body) <= min(huffman_bits(gaps) for gaps in marked) / 8 + 60


def test_stream_of_known_places_codes_values_alone() -> None:
    kept = pruned()
    kept = kept[kept != 0]
    assert len(encode(kept, True)) <= huffman_bits(kept) / 8 + 20


@pytest.mark.parametrize("damage", [bytes([7]), bytes([4, 255, 255, 3]), bytes([132, 3, 1, 250, 1, 0])])
def test_decode_refuses_gaps_that_lead_nowhere(damage: bytes) -> None:
    with pytest.raises(BadFile):
        decode(damage, 100)
