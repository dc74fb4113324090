"""Arrays in .npy.xz, written by NumPy itself."""

import io
import lzma

import numpy as np
import pytest
from numpy.lib import format as npy_format

from cortado.errors import BadTask
from cortado.tasks.npy import read_npy_xz

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)


def npy(array: np.ndarray) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array)
    return stream.getvalue()


def header(shape: tuple[int, ...]) -> bytes:
    stream = io.BytesIO()
    npy_format.write_array_header_2_0(stream, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return stream.getvalue()


def test_read_npy_xz_gives_the_array(tmp_path):
    (tmp_path / "array.npy.xz").write_bytes(lzma.compress(npy(ARRAY)))
    array = read_npy_xz(tmp_path / "array.npy.xz")
    assert array.dtype == np.uint8
    assert np.array_equal(array, ARRAY)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (lzma.compress(npy(ARRAY))[:-20], "cannot be read"),
        (lzma.compress(npy(ARRAY)[:-1]), "must have 24 bytes after its header, got 23"),
        (lzma.compress(npy(ARRAY) + b"x"), "must have 24 bytes after its header, got 25"),
        (lzma.compress(npy(ARRAY)[:20]), "cannot be read"),
        (lzma.compress(b"no array"), "cannot be read"),
        (npy(ARRAY), "cannot be read"),
        (lzma.compress(npy(ARRAY.astype(np.float32))), "must contain rows of uint8.*got float32"),
        (lzma.compress(npy(np.asfortranarray(ARRAY))), "must contain rows of uint8"),
        (lzma.compress(header((-24,)) + bytes(24)), "must contain rows of uint8"),
        (lzma.compress(header((2**40,))), "at most 1073741824 bytes"),
    ],
)
def test_read_npy_xz_refuses_what_is_broken(tmp_path, body, says):
    (tmp_path / "array.npy.xz").write_bytes(body)
    with pytest.raises(BadTask, match=says):
        read_npy_xz(tmp_path / "array.npy.xz")
