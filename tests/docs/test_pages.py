"""Every Python block of every page runs, every shell line parses, every link leads somewhere."""

import pkgutil
import re
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner

import cortado.importance
import cortado.parts.forms
import cortado.training.objectives
from cortado.cli import main
from cortado.engine.recipe import known_methods
from cortado.lookup import names_in
from cortado.training.objectives.objective import Objective
from tests.docs.blocks import PAGES, ROOT, blocks, importable, run, shell_lines

LINK = re.compile(r"\]\(([^)\s]+)\)")
README, GUIDE = ROOT / "README.md", ROOT / "docs" / "guide.md"
TEACHING = ROOT / "docs" / "teaching.md"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_page_runs_from_top_to_bottom(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with importable(tmp_path):
        names = run(page)
        if page == README:
            assert names["report"].size_bytes < names["report"].original_bytes / 4
        if page == GUIDE:
            check_guide_commands()


def check_guide_commands() -> None:
    """The shell lines of the guide, on the files that its other blocks wrote."""
    for line in shell_lines(GUIDE):
        words = shlex.split(line, comments=True)
        if words[0] != "cortado":
            continue
        found = CliRunner().invoke(main, words[1:])
        assert found.exit_code == 0, f"{line}: {found.output}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_shell_lines_parse(page: Path) -> None:
    targets = (ROOT / "Makefile").read_text(encoding="utf8")
    for line in shell_lines(page):
        words = shlex.split(line, comments=True)
        if words[0] == "cortado":
            main.commands[words[1]].make_context(words[1], words[2:])
        elif words[0] == "make":
            assert re.search(rf"^{words[1]}:", targets, re.MULTILINE), line
        else:
            assert words[0] == "torchrun", f"{page.name}: nothing checks {line!r}"


def test_files_that_the_readme_hands_to_commands_exist() -> None:
    words = [word for line in shell_lines(README) for word in shlex.split(line, comments=True)]
    named = [word for word in words if word.endswith(".yaml")]
    assert named
    for word in named:
        assert (ROOT / word).is_file(), word


def slug(heading: str) -> str:
    """The anchor that a heading gets."""
    kept = re.sub(r"[^\w\- ]", "", heading.lstrip("# ").lower())
    return kept.replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf8")):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor:
            headings = [slug(line) for line in found.read_text(encoding="utf8").splitlines() if line.startswith("#")]
            assert anchor in headings, f"{page.name}: {target}"


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf8").splitlines()) < 200


def test_readme_names_every_method_score_and_form() -> None:
    text = README.read_text(encoding="utf8")
    scores = [info.name for info in pkgutil.iter_modules(cortado.importance.__path__) if info.name != "importance"]
    forms = [
        info.name
        for info in pkgutil.iter_modules(cortado.parts.forms.__path__)
        if info.name not in ("form", "attach", "lattice", "same", "states", "transforms")
    ]
    missing = [name for name in (*known_methods(), *scores, *forms) if f"`{name}`" not in text]
    assert not missing


@pytest.mark.parametrize("page", [README, TEACHING], ids=lambda page: page.stem)
def test_readme_and_teaching_name_every_objective(page: Path) -> None:
    text = page.read_text(encoding="utf8")
    missing = [name for name in names_in(cortado.training.objectives, Objective) if f"`{name}`" not in text]
    assert not missing


def test_method_file_of_the_readme_is_short() -> None:
    files = [block for block in blocks(README) if block.file_name]
    assert len(files) == 1
    code = [line for line in files[0].text.splitlines()[1:] if line.strip()]
    assert len(code) <= 15
