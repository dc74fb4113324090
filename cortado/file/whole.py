"""Whole: write all of a file or nothing of it; read it with an error in words."""

import os
from pathlib import Path

from cortado.errors import BadFile, BadValue


def write_whole(path: Path, body: bytes) -> None:
    """All of a file or nothing."""
    if not path.parent.is_dir():
        raise BadValue(f"file: the folder {path.parent} does not exist. Make it first, or write elsewhere.")
    partial = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        partial.write_bytes(body)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.  Raises BadFile when there is none."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadFile(f"file: {path} cannot be read ({error.strerror}). Check the path.") from error
