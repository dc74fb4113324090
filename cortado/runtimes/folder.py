"""Folder: write a folder atomically."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cortado.errors import BadValue
from cortado.file.whole import check_writable, partial_of

FACTS = "export.json"
"""A file in every export folder; only folders with it are replaced."""


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """Yield a new empty folder that replaces `target` at the end and is removed on an error.

    Raises what check_target raises.
    """
    check_target(target)
    target = target.absolute()
    partial = partial_of(target)
    before = partial.with_name(f".{target.name}.before.{os.getpid()}.part")
    try:
        try:
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            yield partial
            # Rename first: a half-removed folder would look like somebody else's.
            if target.exists():
                target.rename(before)
            partial.rename(target)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
            shutil.rmtree(before, ignore_errors=True)
    except OSError as error:
        raise BadValue(
            f"export: {target} cannot be written ({error.strerror or error}). Write elsewhere, or make room."
        ) from error


def take_over(source: Path, target: Path) -> None:
    """Move the files of an export into `target`, replacing an earlier export.  Raises what check_target raises."""
    with whole_folder(target) as partial:
        for path in source.iterdir():
            try:
                os.link(path, partial / path.name)
            except OSError:
                # Another disk, or a file system without hard links.
                shutil.copy2(path, partial / path.name)


def check_target(target: Path) -> None:
    """Raise BadValue if `target` holds other files, or its parent is missing or not writable."""
    target = target.absolute()
    if not target.parent.is_dir():
        raise BadValue(f"export: the folder {target.parent} does not exist. Make it first, or write elsewhere.")
    if target.exists() and not replaceable(target):
        raise BadValue(f"export: {target} holds files that export did not write. Choose another folder with --out.")
    check_writable(target.parent, "export")


def replaceable(target: Path) -> bool:
    """Return whether a folder is empty or an earlier export."""
    return target.is_dir() and (not any(target.iterdir()) or (target / FACTS).is_file())


def write_facts(folder: Path, facts: dict[str, object]) -> None:
    """Write export.json."""
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
