"""Site: what mkdocs needs to know of this repository: pages outside docs/, and links that leave it."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
OUTSIDE = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changes.md"}
"""Pages beside docs/, with their names in the site."""
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that lie beside docs/."""
    from mkdocs.structure.files import File

    for name, page in OUTSIDE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf8")))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Make links of a page lead to pages of the site; what is no page, such as a folder of recipes, is named in plain text."""
    outside = page.file.src_uri in OUTSIDE.values()
    return LINK.sub(lambda found: in_site(*found.groups(), folder="" if outside else "docs/"), markdown)


def in_site(picture: str, text: str, target: str, folder: str) -> str:
    """Return a link as the site has it, from a page that lies in `folder` of the repository."""
    path, sign, anchor = target.partition("#")
    if not path or "://" in target:
        return f"{picture}[{text}]({target})"
    whole = (ROOT / folder / path).resolve().relative_to(ROOT).as_posix()
    inside = OUTSIDE.get(whole, whole.removeprefix("docs/"))
    if inside == whole and not whole.startswith("docs/"):
        return text
    return f"{picture}[{text}]({inside}{sign}{anchor})"
