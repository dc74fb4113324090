"""Layouts of the native products: what goes in comes out, the faster one is chosen, and a refusal says why."""

import numpy as np
import pytest

from cortado.native.product_layouts import (
    CodebookArrays,
    SparseArrays,
    codebook_arrays,
    faster_sparse,
    smaller_codebook,
    sparse_arrays,
)


def pruned(shape: tuple[int, ...], share: float, block: int = 1, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    kept = generator.random((-(-shape[0] // block), *shape[1:])) >= share
    return (generator.standard_normal(shape) * np.repeat(kept, block, 0)[: shape[0]]).astype(np.float32)


@pytest.mark.parametrize("block", [1, 16])
@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (33, 70), (4, 3, 3, 2), (2, 66_000), (0, 4), (4, 0)])
def test_a_sparse_weight_comes_back(shape, block):
    weight = pruned(shape, 0.9, block)
    arrays = sparse_arrays(weight, block)
    assert np.array_equal(arrays.dense(), weight.reshape(len(weight), int(np.prod(shape[1:]))))
    assert arrays.places.dtype == (np.int32 if np.prod(shape[1:]) > 65536 else np.uint16)
    assert arrays.size_bytes() == 4 * len(arrays.starts) + arrays.places.nbytes + 4 * block * len(arrays.places)


@pytest.mark.parametrize("shape", [(1, 1), (5, 33), (8, 256), (7, 700)])
@pytest.mark.parametrize("values", [1, 2, 4, 5, 16])
def test_a_coded_weight_comes_back(shape, values):
    generator = np.random.default_rng(values)
    codes, codebook = generator.integers(0, values, shape), generator.standard_normal(values).astype(np.float32)
    arrays = codebook_arrays(codes, codebook)
    assert arrays.bits == (2 if values <= 4 else 4)
    assert np.array_equal(arrays.codes_in_rows(), codes)
    assert np.array_equal(arrays.dense(), codebook[codes])
    assert arrays.codes.flags.c_contiguous and arrays.size_bytes() == arrays.codes.size + 4 * len(arrays.codebook)


def test_a_codebook_is_found_in_the_values():
    generator = np.random.default_rng(0)
    weight = generator.choice(np.array([-1.5, 0, 0.25, 4], np.float32), (256, 300))
    arrays = smaller_codebook(weight)
    assert isinstance(arrays, CodebookArrays) and arrays.bits == 2
    assert np.array_equal(arrays.dense(), weight)


def test_codes_take_their_bits():
    arrays = codebook_arrays(np.zeros((4096, 1024), int), np.zeros(16))
    assert arrays.codes.nbytes == 4096 * 1024 // 2


def test_blocks_are_chosen_where_the_zeros_have_them():
    single, blocks = faster_sparse(pruned((64, 256), 0.92)), faster_sparse(pruned((64, 256), 0.92, 16))
    assert isinstance(single, SparseArrays) and single.block == 1
    assert isinstance(blocks, SparseArrays) and blocks.block == 16
    assert faster_sparse(pruned((64, 16, 1, 1), 0.9, 16)).block == 1


@pytest.mark.parametrize(
    ("shape", "share", "block", "answer"),
    [
        ((64, 256), 0.62, 1, "its zeros are 62%, and the sparse product is faster only from 90% on"),
        ((512, 1024), 0.7, 1, "faster only from 80% on"),
        ((64, 256), 0.4, 16, "faster only from 50% on"),
        ((64, 64, 3, 3), 0.6, 1, "faster only from 70% on"),
        ((64, 64, 3), 0.99, 1, "linear layers and convolutions of images"),
        ((10, 20), 0.99, 1, "it has 200 weights, and sparse products are faster from 16,384 on"),
    ],
)
def test_why_not_in_words(shape, share, block, answer):
    assert answer in faster_sparse(pruned(shape, share, block))


def test_why_no_codebook_in_words():
    assert smaller_codebook(np.arange(2.0**16).reshape(256, 256)) == (
        "it has more than 16 different values, which is what a codebook product reads"
    )
    assert "faster from 65,536 on" in smaller_codebook(np.zeros((2, 2)))
    assert "linear layers" in smaller_codebook(np.zeros((2, 2, 3, 3)))


def test_a_share_that_rounding_to_whole_weights_missed_still_counts():
    weight = np.ones((64, 64, 3, 3), np.float32)
    weight.reshape(-1)[: round(0.6999 * weight.size)] = 0
    assert isinstance(faster_sparse(weight), SparseArrays)
