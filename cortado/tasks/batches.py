"""The batches of CIFAR-10 in the Python version (unpickled without running code) and the binary version."""

import io
import pickle
import pickletools
from pathlib import Path
from typing import Any

import numpy as np

from cortado.errors import BadTask

IMAGE_SHAPE = (3, 32, 32)
IMAGE_BYTES = 3 * 32 * 32
MOST_BYTES = 64 << 20


class ArrayState:
    """Replaces NumPy's array and its constructor while unpickling: keeps the stored state, builds nothing."""

    def __init__(self, *arguments: Any) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class TypeState:
    """Replaces NumPy's dtype while unpickling: keeps its code, such as "u1"."""

    def __init__(self, code: Any = "", *arguments: Any) -> None:
        self.code = code.decode("latin-1") if isinstance(code, bytes) else code

    def __setstate__(self, state: Any) -> None:
        """Ignore byte order and the like, which do not matter for bytes."""


ALLOWED: dict[tuple[str, str], type] = {
    ("numpy", "ndarray"): ArrayState,
    ("numpy", "dtype"): TypeState,
    ("numpy.core.multiarray", "_reconstruct"): ArrayState,
    ("numpy._core.multiarray", "_reconstruct"): ArrayState,
}


class BatchUnpickler(pickle.Unpickler):
    """Builds only dicts, lists, numbers, text and bytes; the few names that a batch needs map to the classes above."""

    encoded_bytes = 0

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("_codecs", "encode"):
            return self.encode
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which no batch needs")
        return ALLOWED[module, name]

    def encode(self, text: Any, encoding: Any) -> bytes:
        """Decode the bytes that Python 3 writes into old pickles: latin-1 only, and at most a batch in total."""
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1", b"latin1"):
            raise pickle.UnpicklingError("it contains text in an encoding other than latin-1")
        self.encoded_bytes += len(text)
        if self.encoded_bytes > MOST_BYTES:
            raise pickle.UnpicklingError(f"it expands to more than {MOST_BYTES} bytes")
        return text.encode("latin-1")


def read_python_batch(body: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return images uint8 (N, 3, 32, 32) and labels int64 (N,) of a batch in the Python version.

    Raises BadTask, naming `name`, if it is truncated, asks for anything that no batch needs, or is no batch.
    """
    if len(body) > MOST_BYTES:
        raise BadTask(f"task: {name} has {len(body)} bytes, more than the {MOST_BYTES} allowed for a batch.")
    try:
        check_memo(body)
        batch = BatchUnpickler(io.BytesIO(body), encoding="bytes").load()
    except Exception as error:  # pickle can raise almost anything on hostile bytes
        raise BadTask(f"task: {name} is not a batch of CIFAR-10: {error}. Download the file again.") from error
    if not isinstance(batch, dict):
        raise BadTask(f"task: {name} must contain a dict with data and labels, got {type(batch).__name__}.")
    pixels, labels = (batch.get(key.encode(), batch.get(key)) for key in ("data", "labels"))
    if not isinstance(labels, list) or not all(type(label) is int for label in labels):
        raise BadTask(f"task: {name} must contain labels, a list of integers, got {type(labels).__name__}.")
    try:
        return pixels_of(pixels, name), np.array(labels, np.int64)
    except OverflowError as error:
        raise BadTask(f"task: labels of {name} must be small integers: {error}.") from error


def check_memo(body: bytes) -> None:
    """Raise UnpicklingError for a memo index beyond the opcode count, for which pickle would allocate memory."""
    for count, (opcode, argument, _) in enumerate(pickletools.genops(body)):
        if "PUT" in opcode.name and int(argument or 0) > count:
            raise pickle.UnpicklingError(f"memo number {argument} at opcode {count}")


def pixels_of(stored: Any, name: str) -> np.ndarray:
    """Return the images of a stored array of uint8 (N, 3072)."""
    state = stored.state if isinstance(stored, ArrayState) else None
    if not isinstance(state, tuple) or len(state) != 5:
        raise BadTask(f"task: {name} must contain data, an array of pixels, got {type(stored).__name__}.")
    _, shape, kind, by_column, body = state
    sound = isinstance(kind, TypeState) and kind.code == "u1" and not by_column and isinstance(body, bytes)
    if not sound or len(body) % IMAGE_BYTES or shape != (len(body) // IMAGE_BYTES, IMAGE_BYTES):
        raise BadTask(f"task: data of {name} must be rows of {IMAGE_BYTES} uint8, got shape {shape}.")
    return np.frombuffer(body, np.uint8).reshape(-1, *IMAGE_SHAPE)


def read_binary_batch(body: bytes, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the same for a binary batch, rows of a label and 3,072 pixels.  Raises BadTask for a partial row."""
    if not body or len(body) % (1 + IMAGE_BYTES):
        raise BadTask(
            f"task: {name} must be rows of {1 + IMAGE_BYTES} bytes, got {len(body)} bytes. Download it again."
        )
    rows = np.frombuffer(body, np.uint8).reshape(-1, 1 + IMAGE_BYTES)
    return rows[:, 1:].reshape(-1, *IMAGE_SHAPE), rows[:, 0].astype(np.int64)


def read_bounded(path: Path) -> bytes:
    """Return the bytes of a batch file.  Raises BadTask if it is larger than any batch or unreadable."""
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadTask(f"task: {path} is larger than the {MOST_BYTES} bytes allowed for a batch.")
        return path.read_bytes()
    except OSError as error:
        raise BadTask(f"task: {path} cannot be read: {error}.") from error
