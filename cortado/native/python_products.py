"""Python port of the native products: what the kernels compute, in NumPy, from the same arrays."""

import numpy as np

from cortado.native.product_layouts import CodebookArrays, SparseArrays

STEPS = 127
"""Steps of a rounded value on each side of zero."""


def python_linear(x: np.ndarray, arrays: SparseArrays | CodebookArrays, bias: np.ndarray, relu: bool) -> np.ndarray:
    """Return x (..., columns) times the transpose of the weight, plus bias; (..., rows)."""
    return after_sum(x @ arrays.dense().T, bias, relu)


def python_conv(
    x: np.ndarray, arrays: SparseArrays, bias: np.ndarray, relu: bool,
    kernel: tuple[int, int], strides: tuple[int, int], pads: tuple[int, int, int, int], dilations: tuple[int, int],
) -> np.ndarray:  # fmt: skip
    """Return the convolution of x (samples, channels, height, width); `pads` are top, left, bottom, right."""
    top, left, bottom, right = pads
    padded = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)))
    reach = [(size - 1) * dilation + 1 for size, dilation in zip(kernel, dilations, strict=True)]
    windows = np.lib.stride_tricks.sliding_window_view(padded, reach, axis=(2, 3))
    taken = windows[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]
    sums = np.tensordot(taken, arrays.dense().reshape(arrays.rows, -1, *kernel), ([1, 4, 5], [1, 2, 3]))
    return after_sum(sums, bias, relu).transpose(0, 3, 1, 2)


def python_rounded(x: np.ndarray, arrays: CodebookArrays, bias: np.ndarray, relu: bool) -> np.ndarray:
    """Return what `python_linear` does with inputs and codebook rounded to 8 bits, and sums of whole numbers.

    Values have 127 steps on each side of zero. So has a sample, or 255 steps above zero where nothing in it is negative.
    """
    value_step = np.abs(arrays.codebook).max() / np.float32(STEPS)
    values = rounded_steps(arrays.codebook, value_step)
    samples = x.reshape(-1, arrays.columns)
    least, most = samples.min(1, initial=0, keepdims=True), samples.max(1, initial=0, keepdims=True)
    steps = np.where(least < 0, np.maximum(-least, most) / np.float32(STEPS), most / np.float32(2 * STEPS + 1))
    inverse = np.divide(np.float32(1), steps, out=np.zeros_like(steps), where=steps > 0)
    whole = np.rint(samples * inverse).astype(np.int64) @ values[arrays.codes_in_rows()].T
    sums = whole.astype(np.float32) * (steps * value_step)
    return after_sum(sums, bias, relu).reshape(*x.shape[:-1], arrays.rows)


def rounded_steps(values: np.ndarray, step: np.float32) -> np.ndarray:
    """Return values as whole numbers of steps; 0 where there is no step."""
    return np.rint(values / step).astype(np.int64) if step > 0 else np.zeros(values.shape, np.int64)


def after_sum(sums: np.ndarray, bias: np.ndarray, relu: bool) -> np.ndarray:
    """Return sums (..., rows) with the bias added and, where asked for, negative numbers set to 0."""
    found = (sums + bias).astype(np.float32)
    return np.maximum(found, 0) if relu else found
