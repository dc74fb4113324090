"""The compiled products against their Python port, with the instructions of each generation of processors."""

import os
from itertools import product

import numpy as np
import pytest

from cortado.native.build import find_compiler
from cortado.native.product_layouts import codebook_arrays, sparse_arrays
from cortado.native.python_products import python_conv, python_linear, python_rounded
from tests.native.compiled_products import ISAS, compiled_conv, compiled_linear, library

pytestmark = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
ROUNDING = 1e-6


@pytest.fixture(params=ISAS, ids=ISAS.values(), autouse=True)
def isa(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """One generation of instructions, where this processor has it."""
    monkeypatch.setenv("CORTADO_ISA", str(request.param))
    if library().cortado_isa() < request.param:
        pytest.skip(f"this processor has no {ISAS[request.param]}")
    return request.param


def with_zeros(generator: np.random.Generator, shape: tuple[int, ...], share: float, block: int = 1) -> np.ndarray:
    """A weight with so many zeros, in blocks of so many rows; a row of zeros and a full one."""
    weight = generator.standard_normal(shape).astype(np.float32)
    groups = -(-shape[0] // block)
    kept = np.repeat(generator.random((groups, *shape[1:])) >= share, block, 0)[: shape[0]]
    kept[0] = False
    kept[-1] = True
    return weight * kept


def inputs(generator: np.random.Generator, *shape: int) -> np.ndarray:
    return generator.standard_normal(shape).astype(np.float32)


def assert_close(found: np.ndarray, wanted: np.ndarray, size: np.ndarray) -> None:
    """Equal but for rounding, as a share of the sums of absolute products `size`."""
    assert found.shape == wanted.shape
    assert (np.abs(found - wanted) <= ROUNDING * size + 1e-30).all()


def magnitude(x: np.ndarray, w, bias: np.ndarray) -> np.ndarray:
    return np.abs(x) @ np.abs(w.dense()).T + np.abs(bias)


def assert_linear_is_that_of_the_port(generator, w, samples: tuple[int, ...]) -> None:
    bias = inputs(generator, w.rows)
    for count, relu in product(samples, (False, True)):
        x = inputs(generator, count, w.columns)
        assert_close(compiled_linear(x, w, bias, relu), python_linear(x, w, bias, relu), magnitude(x, w, bias))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 33), (64, 200), (50, 300)])
@pytest.mark.parametrize("block", [1, 16])
def test_sparse_product_is_that_of_the_port(rows, columns, block):
    generator = np.random.default_rng(rows)
    w = sparse_arrays(with_zeros(generator, (rows, columns), 0.8, block), block)
    assert_linear_is_that_of_the_port(generator, w, (0, 1, 3, 4, 7, 32, 69))


@pytest.mark.parametrize("block", [1, 16])
def test_columns_that_16_bits_cannot_number(block):
    generator = np.random.default_rng(block)
    w = sparse_arrays(with_zeros(generator, (20, 70_000), 0.995, block), block)
    assert w.places.dtype == np.int32 and w.places.max() > 65535
    assert_linear_is_that_of_the_port(generator, w, (1, 5))


GEOMETRIES = {
    "1 x 1": ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (14, 14)),
    "1 x 1, 49 positions": ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (7, 7)),
    "1 x 1, 4 positions": ((1, 1), (1, 1), (0, 0, 0, 0), (1, 1), (2, 2)),
    "1 x 1, stride 2": ((1, 1), (2, 2), (0, 0, 0, 0), (1, 1), (9, 8)),
    "1 x 1, stride 3 and padding": ((1, 1), (3, 3), (1, 2, 0, 1), (1, 1), (9, 8)),
    "3 x 3": ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (14, 14)),
    "3 x 3, no padding": ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1), (7, 30)),
    "3 x 3, one position": ((3, 3), (1, 1), (0, 0, 0, 0), (1, 1), (3, 3)),
    "3 x 3, stride 2": ((3, 3), (2, 2), (1, 1, 1, 1), (1, 1), (15, 14)),
    "3 x 3, dilation 2": ((3, 3), (1, 1), (2, 2, 2, 2), (2, 2), (12, 11)),
    "3 x 3, stride 2 and dilation 3": ((3, 3), (2, 2), (3, 3, 3, 3), (3, 3), (12, 11)),
    "2 x 4, uneven": ((2, 4), (2, 1), (0, 1, 1, 2), (1, 2), (9, 13)),
    "7 x 7, stride 2": ((7, 7), (2, 2), (3, 3, 3, 3), (1, 1), (32, 32)),
    "1 x 9": ((1, 9), (1, 1), (0, 4, 0, 4), (1, 1), (5, 40)),
    "wide": ((3, 3), (1, 1), (1, 1, 1, 1), (1, 1), (3, 301)),
}


@pytest.mark.parametrize("name", GEOMETRIES)
def test_sparse_convolution_is_that_of_the_port(name):
    kernel, strides, pads, dilations, size = GEOMETRIES[name]
    generator = np.random.default_rng(len(name))
    w = sparse_arrays(with_zeros(generator, (9, 5, *kernel), 0.7))
    geometry, bias = (kernel, strides, pads, dilations), inputs(generator, 9)
    for samples, relu in product((0, 1, 3), (False, True)):
        x = inputs(generator, samples, 5, *size)
        positive = python_conv(np.abs(x), sparse_arrays(np.abs(w.dense())), np.abs(bias), False, *geometry)
        found, wanted = (conv(x, w, bias, relu, *geometry) for conv in (compiled_conv, python_conv))
        assert_close(found, wanted, positive)


def test_one_convolution_takes_images_of_many_sizes_and_no_zero_row_is_lost():
    generator = np.random.default_rng(3)
    w = sparse_arrays(np.zeros((4, 3, 3, 3), np.float32))
    bias = inputs(generator, 4)
    found = compiled_conv(inputs(generator, 2, 3, 6, 5), w, bias, False, (3, 3), (1, 1), (1, 1, 1, 1), (1, 1))
    assert (found == bias[:, None, None]).all()


def coded(generator: np.random.Generator, rows: int, columns: int, values: int):
    codebook = np.sort(generator.standard_normal(values).astype(np.float32))
    return codebook_arrays(generator.integers(0, values, (rows, columns)), codebook)


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 100), (16, 256), (30, 700)])
@pytest.mark.parametrize("values", [2, 4, 7, 16])
def test_exact_codebook_product_is_that_of_the_port(rows, columns, values):
    generator = np.random.default_rng(rows + values)
    assert_linear_is_that_of_the_port(generator, coded(generator, rows, columns, values), (0, 1, 2, 7, 32))


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (5, 100), (16, 256), (30, 700)])
@pytest.mark.parametrize("values", [4, 16])
def test_rounded_codebook_product_is_that_of_the_port(rows, columns, values):
    """Whole numbers are the same on every processor: only the last multiplication rounds."""
    generator = np.random.default_rng(rows + values)
    w, bias = coded(generator, rows, columns, values), inputs(generator, rows)
    for samples, relu, of in product((0, 1, 7), (False, True), (np.copy, np.abs, np.zeros_like)):
        x = of(inputs(generator, samples, columns))
        found, wanted = compiled_linear(x, w, bias, relu, True), python_rounded(x, w, bias, relu)
        assert_close(found, wanted, magnitude(x, w, bias))


def test_largest_whole_numbers_do_not_run_over():
    """All inputs and values at their largest: sums of two products would not fit into 16 bits."""
    w = codebook_arrays(np.full((4, 60_000), 3), np.array([-1, -0.5, 0.5, 1], np.float32))
    x = np.ones((1, 60_000), np.float32)
    found = compiled_linear(x, w, np.zeros(4, np.float32), False, True)
    np.testing.assert_allclose(found, 60_000, rtol=1e-6)


def test_rounded_inputs_are_near():
    generator = np.random.default_rng(0)
    w = coded(generator, 64, 1024, 16)
    x, bias = inputs(generator, 8, 1024), np.zeros(64, np.float32)
    exact, rounded = (compiled_linear(x, w, bias, False, rounds) for rounds in (False, True))
    off = np.linalg.norm(rounded - exact) / np.linalg.norm(exact)
    assert 1e-4 < off < 0.02


def test_nan_is_not_hidden_by_relu():
    w = sparse_arrays(np.ones((2, 3), np.float32))
    x = np.full((1, 3), np.nan, np.float32)
    assert np.isnan(compiled_linear(x, w, np.zeros(2, np.float32), True)).all()


@pytest.mark.parametrize("fault", ["falling", "outside", "short", "block", "first"])
def test_arrays_that_do_not_fit_are_refused(fault):
    w = sparse_arrays(np.eye(32, dtype=np.float32))
    starts, places, values, block = w.starts.copy(), w.places.copy(), w.values, w.block
    if fault == "falling":
        starts[3] = 31
    elif fault == "outside":
        places[5] = 32
    elif fault == "short":
        values = values[:-1]
    elif fault == "first":
        starts[0] = 1
    else:
        block = 3
    wrong = type(w)(w.rows, w.columns, block, starts, places, values)
    with pytest.raises(ValueError):
        compiled_linear(np.ones((1, 32), np.float32), wrong, np.zeros(32, np.float32), False)


def test_codes_of_another_size_are_refused():
    w = codebook_arrays(np.zeros((4, 4), int), np.ones(4, np.float32))
    wrong = type(w)(8, 4, w.codes, w.codebook)
    with pytest.raises(ValueError):
        compiled_linear(np.ones((1, 4), np.float32), wrong, np.zeros(8, np.float32), False)


def test_an_isa_that_is_not_there_is_not_taken(isa):
    os.environ["CORTADO_ISA"] = "99"
    assert library().cortado_isa() <= max(ISAS)
