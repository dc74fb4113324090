"""IDX files, sound and broken, written byte by byte here."""

import gzip
import struct

import numpy as np
import pytest

from cortado.errors import BadTask
from cortado.tasks.idx import read_idx

ARRAY = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
SOUND = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2, 3, 4) + ARRAY.tobytes()


@pytest.mark.parametrize("zipped", [False, True])
def test_read_idx_gives_the_array(tmp_path, zipped):
    path = tmp_path / ("array.gz" if zipped else "array")
    path.write_bytes(gzip.compress(SOUND) if zipped else SOUND)
    array = read_idx(path)
    assert array.dtype == np.uint8
    assert np.array_equal(array, ARRAY)


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("length", range(len(SOUND)))
def test_read_idx_refuses_every_cut(tmp_path, length, zipped):
    path = tmp_path / ("array.gz" if zipped else "array")
    path.write_bytes(gzip.compress(SOUND[:length]) if zipped else SOUND[:length])
    with pytest.raises(BadTask, match="truncated|got nothing|is not IDX"):
        read_idx(path)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (SOUND + b"x", "has data after the 24 bytes"),
        (b"\x01" + SOUND[1:], "is not IDX"),
        (SOUND[:2] + b"\x0d" + SOUND[3:], "is not IDX of unsigned bytes"),
        (SOUND[:3] + b"\x00" + SOUND[4:], "is not IDX"),
        (bytes([0, 0, 8, 4]) + struct.pack(">4I", *[2**32 - 1] * 4), "more than the 1073741824 allowed"),
    ],
)
def test_read_idx_refuses_what_is_no_idx(tmp_path, body, says):
    (tmp_path / "array").write_bytes(body)
    with pytest.raises(BadTask, match=says):
        read_idx(tmp_path / "array")


@pytest.mark.parametrize("damage", ["cut", "altered", "not gzip"])
def test_read_idx_refuses_damaged_gzip(tmp_path, damage):
    body = bytearray(gzip.compress(SOUND))
    if damage == "altered":
        body[-6] ^= 1  # in the checksum
    damaged = {"cut": bytes(body[:-9]), "altered": bytes(body), "not gzip": SOUND}[damage]
    (tmp_path / "array.gz").write_bytes(damaged)
    with pytest.raises(BadTask, match="array.gz cannot be read as IDX"):
        read_idx(tmp_path / "array.gz")


def test_read_idx_says_so_when_the_file_is_missing(tmp_path):
    with pytest.raises(BadTask, match="cannot be read as IDX"):
        read_idx(tmp_path / "array")
