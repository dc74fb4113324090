"""Bundle: the folder with the compressed file, the report, the recipe and job as run, and a checksum of each."""

import hashlib
from pathlib import Path
from typing import Any

import yaml
from torch import nn

from cortado.errors import BadFile
from cortado.file.artifact import Plain, encode
from cortado.file.whole import check_writable, write_whole
from cortado.pages.html import report_html
from cortado.report import Report

FILE = "net.cortado"


def write_bundle(folder: str | Path, network: nn.Module, plain: Plain, report: Report, job: dict[str, Any]) -> Path:
    """Write everything a stranger needs; each file whole or not at all, the checksums last.  Gives the folder.

    Raises BadValue when the folder cannot be written.
    """
    folder = Path(folder)
    check_writable(folder, "bundle")
    folder.mkdir(parents=True, exist_ok=True)
    bodies = {
        FILE: encode(network, plain),
        "report.json": report.as_json().encode(),
        "report.html": report_html(report).encode(),
        "recipe.yaml": yaml.safe_dump(report.recipe, sort_keys=False).encode(),
        "job.yaml": yaml.safe_dump(job, sort_keys=False).encode(),
    }
    (folder / "checksums.txt").unlink(missing_ok=True)
    for name, body in bodies.items():
        write_whole(folder / name, body)
    sums = "".join(f"{hashlib.sha256(body).hexdigest()}  {name}\n" for name, body in bodies.items())
    write_whole(folder / "checksums.txt", sums.encode())
    return folder


def check_bundle(folder: str | Path) -> list[str]:
    """The names of a bundle's files, when all have their checksums.  Raises BadFile for one missing or altered."""
    folder = Path(folder)
    try:
        lines = (folder / "checksums.txt").read_text(encoding="utf8").splitlines()
    except OSError as error:
        raise BadFile(f"bundle: {folder} has no checksums.txt. Pass the folder that compress wrote.") from error
    names = []
    for line in lines:
        wanted, _, name = line.partition("  ")
        if not name or "/" in name or not (folder / name).is_file():
            raise BadFile(f"bundle: {name or line!r} is missing from {folder}. Make the bundle again.")
        if hashlib.sha256((folder / name).read_bytes()).hexdigest() != wanted:
            raise BadFile(f"bundle: {name} was altered since the bundle was made. Make it again, or fetch it again.")
        names.append(name)
    return names
