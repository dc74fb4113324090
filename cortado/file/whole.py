"""Whole: write all of a file or nothing of it; say in words why a file cannot be read or a folder not be written."""

import os
import shutil
from glob import escape
from pathlib import Path

from cortado.errors import BadFile, BadValue


def write_whole(path: Path, body: bytes) -> None:
    """All of a file or nothing.  Raises BadValue when it cannot be written."""
    if not path.parent.is_dir():
        raise BadValue(f"file: the folder {path.parent} does not exist. Make it first, or write elsewhere.")
    try:
        partial = partial_of(path)
        try:
            partial.write_bytes(body)
            os.replace(partial, path)
        finally:
            partial.unlink(missing_ok=True)
    except OSError as error:
        raise BadValue(f"file: {path} cannot be written ({error.strerror}). Write elsewhere, or make room.") from error


def make_folder(folder: Path) -> None:
    """Make a folder and those around it, where they are not there.  Raises BadValue."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadValue(f"file: {folder} cannot be made ({error.strerror}). Write elsewhere, or make room.") from error


def partial_of(path: Path) -> Path:
    """Where this process writes what becomes `path`; what a killed one left there of the same is cleared away."""
    for left in path.parent.glob(f".{escape(path.name)}.*.part"):
        owner = left.name.removesuffix(".part").rpartition(".")[2]
        if owner.isdigit() and int(owner) != os.getpid() and not alive(int(owner)):
            shutil.rmtree(left) if left.is_dir() else left.unlink(missing_ok=True)
    return path.with_name(f".{path.name}.{os.getpid()}.part")


def alive(process: int) -> bool:
    """Whether a process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def check_writable(folder: Path, where: str) -> None:
    """Raises BadValue when a folder cannot be written, or not be made; to be called before anything long is computed.

    Nothing is left of the trial.
    """
    folder = folder.absolute()
    try:
        nearest = next(parent for parent in (folder, *folder.parents) if parent.exists())
        # Permissions alone do not tell: some file systems refuse what they seem to allow.
        probe = partial_of(nearest / "cortado")
        probe.mkdir(exist_ok=True)
        probe.rmdir()
    except OSError as error:
        raise BadValue(
            f"{where}: nothing can be written into {folder} ({error.strerror}). Choose another folder."
        ) from error


def read_bytes(path: str | Path) -> bytes:
    """The bytes of a file.  Raises BadFile when there is none."""
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadFile(f"file: {path} cannot be read ({error.strerror}). Check the path.") from error
