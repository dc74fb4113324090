"""Batches of CIFAR-10: written by pickle as they are published, and hostile ones."""

import io
import pickle
import pickletools
import struct

import numpy as np
import pytest

from cortado.errors import BadTask
from cortado.tasks import batches
from cortado.tasks.batches import read_binary_batch, read_bounded, read_python_batch

PIXELS = np.random.RandomState(0).randint(0, 256, (4, 3072)).astype(np.uint8)
LABELS = [3, 9, 0, 3]


def python_2_batch(pixels: np.ndarray = PIXELS) -> bytes:
    """The opcodes Python 2's cPickle wrote: its str as BINSTRING, NumPy under its old name, protocol 2."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85" + text(b"b") + b"\x87R("
        b"K\x01" + b"K" + bytes([len(pixels)]) + b"M" + struct.pack("<H", 3072) + b"\x86"
        b"cnumpy\ndtype\n"
        + text(b"u1")
        + b"K\x00K\x01\x87R(K\x03"
        + text(b"|")
        + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tb\x89" + b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb"
    )
    labels = b"](" + b"".join(b"K" + bytes([label]) for label in LABELS) + b"e"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + labels + b"u."


def check(found: tuple[np.ndarray, np.ndarray]) -> None:
    images, labels = found
    assert images.dtype == np.uint8
    # Each row of 3,072 is the red plane, the green, the blue; each plane row by row.
    assert np.array_equal(images, PIXELS.reshape(4, 3, 32, 32))
    assert labels.tolist() == LABELS


def test_read_python_batch_reads_what_python_2_wrote():
    body = python_2_batch()
    known = pickle.loads(body.replace(b"numpy.core", b"numpy._core"), encoding="bytes")
    assert np.array_equal(known[b"data"], PIXELS)  # the bytes above are a sound pickle
    check(read_python_batch(body, "batch"))


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("keys", [(b"data", b"labels", b"filenames"), ("data", "labels", "filenames")])
def test_read_python_batch_reads_what_python_3_wrote(protocol, keys):
    batch = dict(zip(keys, (PIXELS, LABELS, [b"a.png", b"b.png"]), strict=True))
    check(read_python_batch(pickle.dumps(batch, protocol), "batch"))


class Runs:
    """Pickles into a call of `function(*arguments)`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize("function", [eval, exec, open, __import__, getattr, np.load, np.array, io.BytesIO])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_read_python_batch_runs_nothing(tmp_path, function, protocol):
    marker = tmp_path / "marker"
    code = f"open({str(marker)!r}, 'w')"
    for attack in (Runs(function, code), {"data": PIXELS, "labels": LABELS, "more": Runs(function, code)}):
        with pytest.raises(BadTask, match="which no batch needs"):
            read_python_batch(pickle.dumps(attack, protocol), "batch")
    assert not marker.exists()


def test_read_python_batch_refuses_dotted_ways_around():
    body = b"\x80\x04\x8c\x05numpy\x8c\x0cndarray.load\x93."
    with pytest.raises(BadTask, match="numpy.ndarray.load, which no batch needs"):
        read_python_batch(body, "batch")


def test_read_python_batch_refuses_every_kind_of_cut():
    body = python_2_batch()
    for length in [*range(120), *range(len(body) - 30, len(body))]:
        with pytest.raises(BadTask, match="part 7"):
            read_python_batch(body[:length], "part 7")


def test_read_python_batch_answers_altered_bytes_in_words():
    body = bytearray(pickle.dumps({"data": PIXELS[:1], "labels": [1]}, 2))
    random = np.random.RandomState(1)
    for _ in range(2000):
        altered = bytearray(body)
        altered[random.randint(0, 200)] = random.randint(0, 256)
        try:
            images, labels = read_python_batch(bytes(altered), "batch")
        except BadTask:
            continue
        assert images.dtype == np.uint8
        assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("batch", "says"),
    [
        ([1, 2], "must contain a dict"),
        ({"labels": LABELS}, "must contain data"),
        ({"data": PIXELS}, "must contain labels"),
        ({"data": PIXELS, "labels": ["cat"] * 4}, "must contain labels, a list of integers"),
        ({"data": PIXELS, "labels": [2**80] * 4}, "must be small integers"),
        ({"data": PIXELS.tolist(), "labels": LABELS}, "must contain data, an array of pixels"),
        ({"data": PIXELS.astype(np.float32), "labels": LABELS}, "must be rows of 3072 uint8"),
        ({"data": PIXELS[:, :-1], "labels": LABELS}, "must be rows of 3072 uint8"),
        ({"data": PIXELS.reshape(8, 1536), "labels": LABELS}, "must be rows of 3072 uint8"),
        ({"data": np.asfortranarray(PIXELS), "labels": LABELS}, "must be rows of 3072 uint8"),
        ({"data": PIXELS.astype(object), "labels": LABELS}, "must be rows of 3072 uint8"),
    ],
)
def test_read_python_batch_refuses_another_content(batch, says):
    with pytest.raises(BadTask, match=says):
        read_python_batch(pickle.dumps(batch, 2), "batch")


def test_read_python_batch_refuses_a_memo_that_would_fill_the_memory():
    body = b"\x80\x02}r" + struct.pack("<I", 2**31) + b"."
    assert [opcode.name for opcode, _, _ in pickletools.genops(body)][2] == "LONG_BINPUT"
    with pytest.raises(BadTask, match="memo number 2147483648"):
        read_python_batch(body, "batch")


def test_read_python_batch_refuses_a_small_file_that_unfolds(monkeypatch):
    monkeypatch.setattr(batches, "MOST_BYTES", 20_000)
    letters = "x" * 5000
    bomb = {"data": [Runs(pickle.codecs.encode, letters, "latin1") for _ in range(5)], "labels": [1]}
    with pytest.raises(BadTask, match="expands to more than 20000 bytes"):
        read_python_batch(pickle.dumps(bomb, 2), "batch")
    with pytest.raises(BadTask, match="encoding other than latin-1"):
        read_python_batch(pickle.dumps(Runs(pickle.codecs.encode, letters, "utf-16"), 2), "batch")


def test_read_binary_batch_reads_rows_of_label_and_pixels():
    body = b"".join(bytes([label]) + row.tobytes() for label, row in zip(LABELS, PIXELS, strict=True))
    check(read_binary_batch(body, "batch"))


@pytest.mark.parametrize("length", [0, 1, 3072, 3074])
def test_read_binary_batch_refuses_part_of_a_row(length):
    with pytest.raises(BadTask, match=f"rows of 3073 bytes, got {length} bytes"):
        read_binary_batch(bytes(length), "batch")


def test_read_bounded_refuses_missing_and_large_files(tmp_path, monkeypatch):
    with pytest.raises(BadTask, match="cannot be read"):
        read_bounded(tmp_path / "batch")
    (tmp_path / "batch").write_bytes(b"12345")
    assert read_bounded(tmp_path / "batch") == b"12345"
    monkeypatch.setattr(batches, "MOST_BYTES", 4)
    with pytest.raises(BadTask, match="larger than the 4 bytes"):
        read_bounded(tmp_path / "batch")
    with pytest.raises(BadTask, match="more than the 4 allowed"):
        read_python_batch(b"12345", "batch")
