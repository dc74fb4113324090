"""house: the package's own files counted - words, names, rooms, lines - and what the project's other checks of itself say.

Counted from the text alone (bench/house_counts.py says how each is counted). How far a limit travels is counted twice,
here and in the commit before the rooms were built anew: the walk begins at the file of `cortado compress` and enters
those imported files that handle a value called `limits`. The cases are small scripts beside the repository, each of which
ends with exit status 0 when Cortado does the right thing; where that folder is missing their row is unknown.
"""

import ast
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.house_counts import HOUSE, ROOT, House
from bench.house_tables import layer_tables, operator_tables
from bench.result import RESULTS, row

BEFORE = "262e6a9"
CASES = ROOT / ".." / "shared" / "cases"
CASE_S = 600
MOST_LINES, MOST_LOOSE, MOST_VIEWS, MOST_FUNCTIONS = 33_500, 9, 5, 14


def limits_before() -> int:
    """Return in how many files a limit could travel in the commit before."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "before"
        git("worktree", "add", "--quiet", "--detach", str(folder), BEFORE)
        try:
            return len(House(folder).touched_by("limits"))
        finally:
            git("worktree", "remove", "--force", str(folder))


def git(*words: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *words], check=True, capture_output=True)


def case_rows(only: tuple[str, ...] = ("",)) -> list[dict[str, Any]]:
    """Run each case whose name starts so; return a row of those that end well, with the last words of the others."""
    scripts = sorted(path for path in CASES.glob("*.py") if path.name.startswith(only))
    if not scripts:
        return [row("cases that end well (skipped: no ../shared/cases here)", None, "")]
    ends = {path.name: case(path) for path in scripts}
    wrong = {name: text for name, text in ends.items() if text is not None}
    return [row("cases that end well", len(ends) - len(wrong), "", len(ends), "higher", wrong=wrong)]


def case(path: Path) -> str | None:
    """Return None for a case that ends well, else the end of what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    try:
        done = subprocess.run(
            [sys.executable, str(path.resolve())], cwd=ROOT, env=environment, timeout=CASE_S, capture_output=True, text=True
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return f"no end after {CASE_S} s"
    output = (done.stdout + done.stderr).replace(f"{path.resolve().parent}/", "").replace(f"{ROOT.resolve()}/", "")
    return None if done.returncode == 0 else output[-300:]


def planted_faults() -> dict[str, Any]:
    """Return the row of bench/results/planted_faults.json."""
    stored = RESULTS / "planted_faults.json"
    rows = json.loads(stored.read_text(encoding="utf8"))["rows"] if stored.exists() else []
    found = sum(one["value"] for one in rows) if rows else None
    return row("planted faults found", found, "", max(1, len(rows)), "higher")


def run() -> list[dict[str, Any]]:
    """Count everything once."""
    words, pages = HOUSE.old_words_in_code(), HOUSE.old_words_in_pages()
    classes, functions = HOUSE.defined_twice(ast.ClassDef), HOUSE.defined_twice(ast.FunctionDef)
    circles, up = HOUSE.file_circles() + HOUSE.room_circles(), HOUSE.upward_imports()
    loose, views = HOUSE.loose_files(), HOUSE.view_constructions()
    asked = HOUSE.concrete_forms_asked_for()
    layers, operators = layer_tables(HOUSE), operator_tables(HOUSE)
    now, before = HOUSE.touched_by("limits"), limits_before()
    return [
        row("old words in README and docs", len(pages), "", 0, places=pages),
        row("old words in code", len(words), "", 0, places=words),
        row("class names defined in two files or more", len(classes), "", 0, places=classes),
        row("function names defined in two files or more", len(functions), "", MOST_FUNCTIONS, places=functions),
        row("imports that do not point down", len(up), "", 0, places=up),
        row("circles between files or rooms", len(circles), "", 0, places=circles),
        row("loose files at the top of cortado/", len(loose), "", MOST_LOOSE, places=loose),
        row("places that construct a View", len(views), "", MOST_VIEWS, places=views),
        row("places outside parts/ that ask for a concrete form", len(asked), "", 0, places=asked),
        row("tables of layer classes outside layers/", len(layers), "", 0, places=layers),
        row("tables of operators outside network/graph/", len(operators), "", 0, places=operators),
        row("files that a limit travels through from the command line", len(now), "", before // 2, before=before, places=now),
        row("lines of cortado/", HOUSE.lines(), "", MOST_LINES),
        *case_rows(),
        planted_faults(),
    ]  # fmt: skip
