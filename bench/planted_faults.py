"""planted_faults: five real faults, planted one at a time in a copy of the checkout; the tests must find each.

A fault is a small wrong edit of the kind that slips through a review. The tests that guard its room run on the copy twice:
as it is, where they must pass, and with the fault, where at least one must fail. A fault counts as found only if both
hold, and an edit whose place is gone from the code stops the bench: give it a new place.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.result import row

ROOT = Path(__file__).parents[1]
COPIED = ("cortado", "tests", "bench", "docs", "recipes", "examples", "README.md", "pyproject.toml", "Makefile")
PASSED, FAILED = 0, 1
"""Exit statuses of pytest; all others mean that tests could not run."""
LONGEST_S = 600


@dataclass(frozen=True)
class Fault:
    """A wrong edit: in `path`, `right` becomes `wrong`; `tests` guard that room."""

    what: str
    path: str
    right: str
    wrong: str
    tests: tuple[str, ...]


FAULTS = {
    "forms": Fault(
        "a mask that is reordered keeps the old order of its survivors",
        "cortado/parts/forms/masked.py",
        "index_select(axis, keep)[mask]\n",
        "index_select(axis, keep)[mask].sort().values\n",
        ("tests/parts/forms/test_form.py",),
    ),
    "file": Fault(
        "a file is read into a network of other widths",
        "cortado/file/entries.py",
        "repr((entry.places, tuple(entry.shape), str(entry.dtype)))",
        "repr((entry.places, str(entry.dtype)))",
        ("tests/attacks/test_files.py::test_file_of_another_network_is_refused", "tests/file/test_wire.py"),
    ),
    "cut": Fault(
        "a cut is believed without being compared with its graph",
        "cortado/network/coupling/cut.py",
        "if far <= TOLERANCE:",
        "if far <= TOLERANCE or far > TOLERANCE:",
        ("tests/network/coupling/test_proof.py",),
    ),
    "engine": Fault(
        "a run that goes on takes the stages of another seed",
        "cortado/engine/fingerprints.py",
        "(task.name, task.seed, task.batch, ",
        "(task.name, task.batch, ",
        ("tests/engine/test_compress.py",),
    ),
    "planner": Fault(
        "the smallest candidate of a weight is never taken",
        "cortado/planner/allocate/allocation.py",
        "if at + 2 < len(points):",
        "if at + 3 < len(points):",
        ("tests/planner/allocate/test_allocation.py",),
    ),
}


def copied(folder: Path) -> Path:
    """Return a copy of the checkout in a folder, caches left out."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "cache"))
        else:
            shutil.copy(source, folder / name)
    return folder


def plant(folder: Path, fault: Fault) -> None:
    """Make the wrong edit.  Raises SystemExit where its place is gone, or there are two."""
    path = folder / fault.path
    text = path.read_text(encoding="utf8")
    if text.count(fault.right) != 1:
        raise SystemExit(f"bench: {fault.path} has {text.count(fault.right)} places for the fault ({fault.what}).")
    path.write_text(text.replace(fault.right, fault.wrong), encoding="utf8")


def tested(folder: Path, tests: tuple[str, ...]) -> tuple[int, str]:
    """Run tests in a copy until one fails; its exit status and the last line that it printed."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *tests],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=LONGEST_S,
    )  # fmt: skip
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode, (failed or done.stdout.splitlines() or [done.stderr])[-1][:200]


def run() -> list[dict[str, Any]]:
    """Plant each fault in a copy of its own."""
    rows = []
    for name, fault in FAULTS.items():
        with tempfile.TemporaryDirectory() as place:
            folder = copied(Path(place))
            before, _ = tested(folder, fault.tests)
            plant(folder, fault)
            after, by = tested(folder, fault.tests)
        if before != PASSED or after not in (PASSED, FAILED):
            raise SystemExit(f"bench: the tests of {name} ended with {before} without the fault and {after} with it.")
        found = int(after == FAILED)
        print(f"{name}: {by}", file=sys.stderr, flush=True)
        rows.append(row(f"fault {name} found", found, "", 1, "higher", fault=fault.what, by=by))
    return rows
