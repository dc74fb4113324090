"""Docs: writes docs/results.md, docs/methods.md and the figures of README.md from stored results and dataclasses."""

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import sys
from pathlib import Path
from typing import Any

import cortado.importance
import cortado.parts.forms
from bench import result
from cortado.commands.describing import knob_rows
from cortado.engine.recipe import REPEAT, known_methods, method_class
from cortado.importance.importance import Importance
from cortado.methods.method import Method
from cortado.parts.forms.form import Form

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- figures: python -m bench docs -->", "<!-- end of figures -->"

Row = dict[str, Any]
Stored = dict[str, Any]


def main() -> int:
    """Write the pages; exit status 0."""
    found, readme = result.read_all(), ROOT / "README.md"
    pages = {
        ROOT / "docs" / "results.md": results_page(found),
        ROOT / "docs" / "methods.md": methods_page(),
        readme: with_figures(readme.read_text(encoding="utf8"), found),
    }
    for path, text in pages.items():
        path.write_text(text, encoding="utf8")
        print(f"{path.relative_to(ROOT)}: {len(text.splitlines())} lines")
    return 0


# Words and tables


def escaped(text: str) -> str:
    """Words as Markdown prints them: what is not in backticks loses its special meaning."""
    parts = text.split("`")
    for number in range(0, len(parts), 2):
        for sign in "*|<":
            parts[number] = parts[number].replace(sign, "\\" + sign)
    return "`".join(parts)


def table(heads: list[str], rows: list[list[str]]) -> str:
    """A Markdown table; cells are escaped."""
    lines = [heads, ["---"] * len(heads), *[[escaped(cell) for cell in row] for row in rows]]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def number(value: float | None) -> str:
    """A figure without an exponent; unknown stays unknown."""
    if value is None:
        return "unknown"
    if isinstance(value, int) or abs(value) >= 1000 or float(value).is_integer():
        return f"{value:,.0f}"
    return f"{value:.4g}"


# Results


def state(row: Row) -> str:
    """MISSED, met, or nothing where there is no bar."""
    return {False: "MISSED", True: "met", None: ""}[row.get("met")]


def bar_text(row: Row) -> str:
    """The bar with its direction."""
    if row.get("bar") is None:
        return ""
    sign = {"lower": "<=", "higher": ">=", "equal": "="}[row["better"]]
    return f"`{sign} {number(row['bar'])}`"


def cells(row: Row) -> list[str]:
    """One row: what, measured, bar, met, published."""
    measured = f"{number(row['value'])} {row['unit']}".strip()
    source = row.get("source_value")
    published = "" if source is None else number(source) if isinstance(source, (int, float)) else str(source)
    return [row["what"].strip(), measured, bar_text(row), state(row), published]


def counts(stored: Stored) -> tuple[int, int]:
    """Bars of a bench, and how many of them are missed."""
    met = [row.get("met") for row in stored["rows"]]
    return sum(one is not None for one in met), sum(one is False for one in met)


def says(name: str) -> str:
    """The first line of a bench's own docstring; empty when there is no such file."""
    path = ROOT / "bench" / f"{name}.py"
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf8"))) if path.exists() else None
    return (text or "").partition("\n")[0]


def results_page(found: list[Stored]) -> str:
    """docs/results.md: missed bars first, then every row of every bench."""
    lines = [
        "# Results", "",
        "Written by `python -m bench docs` from `bench/results/*.json`; edits are lost. A bar is what we set ourselves,",
        "mostly the best published figure; published figures stand in the last column.", "", "## Missed bars", "",
    ]  # fmt: skip
    missed = [[stored["id"], *cells(row)] for stored in found for row in stored["rows"] if row.get("met") is False]
    heads = ["what", "measured", "bar", "met", "published"]
    lines.append(table(["bench", *heads], missed) if missed else "None.")
    for stored in found:
        lines += ["", f"## {stored['id']}", "", escaped(says(stored["id"])), "", conditions(stored), ""]
        lines.append(table(heads, [cells(row) for row in stored["rows"]]))
    return "\n".join(lines) + "\n"


def conditions(stored: Stored) -> str:
    """How to measure it again: command, seeds, machine, versions, date."""
    machine, versions = stored["machine"], ", ".join(f"{name} {one}" for name, one in stored["versions"].items())
    bars, missed = counts(stored)
    return (
        f"`{stored['command']}`, seeds {', '.join(map(str, stored['seeds']))}, {stored['date']}, "
        f"{stored['minutes']:g} minutes on {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads; {versions}. {bars} bars, {missed} missed."
    )


def figures(found: list[Stored]) -> str:
    """The README's: of each bench that misses bars how many, and the first of these; the names of all others in a line."""
    rows, kept = [], []
    for stored in found:
        bars, missed = counts(stored)
        if missed:
            first = next(row for row in stored["rows"] if row.get("met") is False)
            what, measured, bar, _, published = cells(first)
            rows.append([stored["id"], f"{missed} of {bars}", what, measured, bar, published])
        elif bars:
            kept.append(f"[{stored['id']}](docs/results.md#{stored['id']}) ({bars})")
    bars, missed = (sum(one) for one in zip(*map(counts, found), strict=True)) if found else (0, 0)
    head = f"{bars} bars, {bars - missed} met. All rows: [results](docs/results.md). All bars met: {', '.join(kept) or 'none'}."
    heads = ["bench", "missed", "the first of them", "measured", "bar", "published"]
    return f"{head}\n\n" + (table(heads, rows) if rows else "No bar is missed.")


def with_figures(text: str, found: list[Stored]) -> str:
    """A page with the table between its two marks.  Raises ValueError when the marks are not there."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"docs: README.md must hold {BEGIN} and {END}, one after the other. Put them back.")
    return f"{before}{BEGIN}\n{figures(found)}\n{END}{after}"


# Methods, scores and forms


def methods_page() -> str:
    """docs/methods.md: every method with its knobs, then scores and forms."""
    where = next(field for field in dataclasses.fields(Method) if field.name == "where")
    lines = [
        "# Methods", "",
        "Written by `python -m bench docs` from the code; edits are lost. A method's name in a recipe is the path of its",
        "file under `cortado/methods/`; `allocate`, `prune/widths` and `quantize/ptq_search` are the planner's.",
        "Every method has the knob `where` as well, by default "
        f"`{where.default}`:", f"{where.metadata['help']}.", "",
        "*Lossy* methods change values: moments are matched afterwards (`match_moments`) unless they train. Methods that",
        "*train* move floats and keep masks, codes and codebook.",
    ]  # fmt: skip
    for name in known_methods():
        lines += ["", f"## {name}", "", *method_lines(method_class(name))]
        if name == "release":
            lines += ["", "## repeat", "", *escaped(REPEAT).splitlines()]
    lines += [
        "",
        "## Scores",
        "",
        "What `by` may be: of `prune/channels` and `prune/heads` any, of methods for single entries all but `gains`, `zeros`,",
        "`lasso` and `reconstruction`. Or your own `package.module:Class`.",
        "",
    ]
    lines.append(
        table(["score", "help"], [[name, first_paragraph(one)] for name, one in room(cortado.importance, Importance)])
    )
    lines += ["", "## Forms", "", "How a weight is held; methods make them, the file stores them.", ""]
    lines.append(
        table(["form", "help"], [[name, first_paragraph(one)] for name, one in room(cortado.parts.forms, Form)])
    )
    return "\n".join(lines) + "\n"


def method_lines(kind: type[Method]) -> list[str]:
    """A method's own words and the table of its knobs."""
    marks = [word for word, on in (("lossy", kind.lossy), ("trains", kind.trains)) if on]
    lines = [f"*{', '.join(marks)}*", ""] if marks else []
    lines.append(escaped(inspect.getdoc(kind) or ""))
    common = next(field.default for field in dataclasses.fields(Method) if field.name == "where")
    rows = [
        [f"`{knob}`", f"`{default}`", may, means]
        for knob, default, may, means in knob_rows(kind)
        if knob != "where" or default != common
    ]
    return [*lines, "", table(["knob", "default", "may be", "means"], rows)] if rows else lines


def room(package: Any, kind: type) -> list[tuple[str, type]]:
    """The classes of a room, one a file, by the names of their files."""
    found = []
    for info in pkgutil.iter_modules(package.__path__):
        module = importlib.import_module(f"{package.__name__}.{info.name}")
        made = getattr(module, "".join(word.capitalize() for word in info.name.split("_")), None)
        if isinstance(made, type) and issubclass(made, kind) and made is not kind:
            found.append((info.name, made))
    return found


def first_paragraph(kind: type) -> str:
    """The first paragraph of a class's docstring, on one line."""
    return " ".join((inspect.getdoc(kind) or "").partition("\n\n")[0].split())


if __name__ == "__main__":
    sys.exit(main())
