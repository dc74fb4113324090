"""Blocks: the fenced blocks of a page of Markdown, and what runs them as a reader would."""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_NAME = re.compile(r"# (\w+\.(?:py|yaml))\n")


@dataclass(frozen=True)
class Block:
    """One fenced block: its language, its text, and the line of the page where the text begins."""

    language: str
    text: str
    line: int

    @property
    def file_name(self) -> str | None:
        """The name on its first line when the block is a file of its own."""
        found = FILE_NAME.match(self.text)
        return found.group(1) if found else None


def blocks(page: Path) -> list[Block]:
    """All fenced blocks with a language, in order."""
    text = page.read_text(encoding="utf8")
    return [Block(m.group(1), m.group(2), text.count("\n", 0, m.start()) + 2) for m in FENCE.finditer(text)]


def run(page: Path) -> dict[str, Any]:
    """Write the blocks that are files, execute the others that are Python; gives their names."""
    names: dict[str, Any] = {"__name__": f"page_{page.stem}"}
    for block in blocks(page):
        if block.file_name:
            Path(block.file_name).write_text(block.text, encoding="utf8")
        elif block.language == "python":
            exec(compile("\n" * (block.line - 1) + block.text, str(page), "exec"), names)
    return names


def shell_lines(page: Path) -> list[str]:
    """The lines of a page's shell blocks."""
    return [
        line for block in blocks(page) if block.language == "sh" for line in block.text.splitlines() if line.strip()
    ]


@contextmanager
def importable(folder: Path) -> Iterator[None]:
    """Modules in `folder` can be imported inside, and are forgotten afterwards."""
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
        for name, module in list(sys.modules.items()):
            if str(getattr(module, "__file__", None) or "").startswith(str(folder)):
                del sys.modules[name]
