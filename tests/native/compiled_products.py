"""The compiled products called without a runtime: arguments and results are those of the Python port."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

from cortado.native.build import product_library
from cortado.native.coders import pointer
from cortado.native.product_layouts import CodebookArrays, SparseArrays

ISAS = {0: "plain", 1: "AVX2", 2: "AVX-512", 3: "VNNI"}


@cache
def library() -> ctypes.CDLL:
    path = product_library()
    assert isinstance(path, Path), path
    return ctypes.CDLL(str(path))


def call(function: str, facts: list[int], *arrays: np.ndarray, wide: bool | None = None) -> None:
    """Call a kernel; ValueError where it refuses its arrays."""
    numbers = np.array(facts, np.int64)
    sizes = [] if wide is None else [ctypes.c_int(wide)]
    if getattr(library(), function)(pointer(numbers), *sizes, *map(pointer, arrays)):
        raise ValueError(function)


def facts_of(w: SparseArrays, relu: bool, samples: int) -> list[int]:
    return [w.rows, w.columns, w.block, relu, len(w.starts), len(w.places), len(w.values), samples]


def compiled_linear(
    x: np.ndarray, w: SparseArrays | CodebookArrays, bias: np.ndarray, relu: bool, rounds: bool = False
):
    y = np.empty((*x.shape[:-1], w.rows), np.float32)
    samples = int(np.prod(x.shape[:-1]))
    if isinstance(w, SparseArrays):
        wide = w.places.dtype == np.int32
        call("cortado_sparse_product", facts_of(w, relu, samples), w.starts, w.places, w.values, bias, x, y, wide=wide)
    else:
        facts = [w.rows, w.columns, w.codes.size, len(w.codebook), rounds, relu, samples]
        call("cortado_codebook_product", facts, w.codes, w.codebook, bias, x, y)
    return y


def compiled_conv(x: np.ndarray, w: SparseArrays, bias: np.ndarray, relu: bool, kernel, strides, pads, dilations):
    size = [
        (x.shape[2 + axis] + pads[axis] + pads[axis + 2] - (kernel[axis] - 1) * dilations[axis] - 1) // strides[axis]
        + 1
        for axis in (0, 1)
    ]
    y = np.empty((len(x), w.rows, *size), np.float32)
    facts = [*facts_of(w, relu, len(x)), *x.shape[2:], *kernel, *strides, *pads, *dilations]
    wide = w.places.dtype == np.int32
    call("cortado_sparse_conv", facts, w.starts, w.places, w.values, bias, x, y, wide=wide)
    return y
