"""Folder: a folder that appears with all its files, or not at all."""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from cortado.errors import BadValue
from cortado.file.whole import check_writable, partial_of

FACTS = "export.json"
"""What every folder of ours holds; only such a folder is ever replaced."""


@contextlib.contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new empty folder beside `target` that takes its place at the end; on an error nothing is left of it.

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
            # A folder that is being removed could be taken for one of somebody else's: it is moved away at once.
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
    """Put the files of an exported folder into `target`, in the place of an earlier export.  Raises what check_target raises."""
    with whole_folder(target) as partial:
        for path in source.iterdir():
            try:
                os.link(path, partial / path.name)
            except OSError:
                # Another disk, or one that knows no second name for a file.
                shutil.copy2(path, partial / path.name)


def check_target(target: Path) -> None:
    """Raises BadValue when `target` holds what we did not write, or lies in a folder that is not there or not writable."""
    target = target.absolute()
    if not target.parent.is_dir():
        raise BadValue(f"export: the folder {target.parent} does not exist. Make it first, or write elsewhere.")
    if target.exists() and not replaceable(target):
        raise BadValue(f"export: {target} holds files that no export wrote. Choose another folder with --out.")
    check_writable(target.parent, "export")


def replaceable(target: Path) -> bool:
    """Whether a folder is empty or an earlier export."""
    return target.is_dir() and (not any(target.iterdir()) or (target / FACTS).is_file())


def write_facts(folder: Path, facts: dict[str, object]) -> None:
    """Say beside the files what they are."""
    (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf8")
