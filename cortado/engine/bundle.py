"""Bundle: a folder with the compressed file, runtime files, report, recipe and job as run, and checksums."""

import hashlib
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import yaml
from torch import nn

from cortado.engine.job import ORIGINAL
from cortado.engine.own_parts import names_of
from cortado.engine.recipe import with_files_of_weights
from cortado.errors import BadFile, BadValue
from cortado.file.artifact import Original, encode
from cortado.file.whole import check_writable, make_folder, write_whole
from cortado.nets.named import ONNX
from cortado.parts.forms.attach import part_kinds
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.report import Report
from cortado.runtimes.export import export
from cortado.runtimes.folder import take_over
from cortado.runtimes.runtime import Runtime
from cortado.task.task import Task

FILE, SUMS = "net.cortado", "checksums.txt"
NAMES = (
    FILE, "report.json", "report.html", "report.md", "recipe.yaml", "job.yaml", "environment.json", "run.py",
)  # fmt: skip
"""Files of every bundle, each with a checksum."""
OURS = """
import torch
import cortado
from cortado.engine.job import read_job

job = read_job(str(FILE.parent))
network = cortado.load(FILE, job.architecture, job.forms)


def predict(*inputs):
    \"\"\"The outputs for one batch.\"\"\"
    with torch.no_grad():
        return network(*map(torch.from_numpy, inputs)).numpy()
"""
"""The script that predicts with Cortado itself, if no runtime was requested."""
HEAD = '''"""Predicts: python run.py inputs.npy outputs.npy.  Inputs are one batch, as the network takes it."""
import sys
from pathlib import Path

import numpy as np
'''


def write_bundle(
    folder: str | Path,
    network: nn.Module,
    original: Original,
    report: Report,
    job: dict[str, Any],
    runtimes: Sequence[Runtime] = (),
    task: Task | None = None,
    *,
    body: bytes | None = None,
    exported: Path | None = None,
) -> Path:
    """Write a self-contained bundle and return its folder.  Files are written atomically, the checksums last.

    `original` is the network that the file is written against: after a stage student, the student. `body` is the network's
    encoded file and `exported` the folder of measured runtime files, as `compress_within` returns
    them; they are moved into the bundle, or made here if not given. The original weights stored in the folder by the run
    get checksums too, but may be left out of a copy. Each of `runtimes` (which need the task) has a folder of its name;
    run.py predicts with the first one that has a script. Raises BadValue if the folder cannot be written.
    """
    folder = Path(folder)
    check_writable(folder, "bundle")
    make_folder(folder)
    (folder / SUMS).unlink(missing_ok=True)
    files = runtime_files(folder, network, runtimes, task, exported)
    job, brought = with_network_beside(folder, job)
    bodies = {
        FILE: encode(network, original) if body is None else body,
        "report.json": report.as_json().encode(),
        "report.html": report_html(report).encode(),
        "report.md": f"# {report.network} on {report.task}\n\n```\n{report_text(report)}\n```\n".encode(),
        "recipe.yaml": yaml.safe_dump(recipe_in(folder, report.recipe), sort_keys=False).encode(),
        "job.yaml": yaml.safe_dump(with_forms(job, network), sort_keys=False).encode(),
        "environment.json": json.dumps(report.environment, indent=1).encode(),
        "run.py": script(runtimes).encode(),
    }
    for name, body in bodies.items():
        write_whole(folder / name, body)
    sums = [f"{hashlib.sha256(body).hexdigest()}  {name}" for name, body in bodies.items()]
    kept = sorted(folder.glob(ORIGINAL.format("*")))
    sums += [f"{sum_of(path)}  {path.relative_to(folder).as_posix()}" for path in (*brought, *files, *kept)]
    write_whole(folder / SUMS, ("\n".join(sums) + "\n").encode())
    if exported is not None:
        # Only after everything is written, so that a bundle can be retried after a full disk.
        shutil.rmtree(exported, ignore_errors=True)
    return folder


def recipe_in(folder: Path, recipe: dict[str, Any]) -> Any:
    """Return a recipe whose files of weights are relative to the bundle, as in any recipe file."""
    return with_files_of_weights(recipe, lambda weights: os.path.relpath(weights, folder))


def with_network_beside(folder: Path, job: dict[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """Copy the job's network into the bundle if it is an ONNX file; return the job that names the copy, and the copy."""
    source = Path(str(job.get("network", "")))
    if source.suffix != ONNX:
        return job, []
    if not source.is_file():
        raise BadFile(f"bundle: the network {source} is missing, so the bundle cannot have it. Restore the file.")
    copy = folder / source.name
    if not (copy.exists() and copy.samefile(source)):
        write_whole(copy, source.read_bytes())
    return {**job, "network": source.name}, [copy]


def with_forms(job: dict[str, Any], network: nn.Module) -> dict[str, Any]:
    """Return a job that also names the user's own forms and blocks in a network, so that its file can be read."""
    found = sorted({*(job.get("forms") or ()), *names_of(part_kinds(network))})
    return {**job, "forms": found} if found else job


def runtime_files(
    folder: Path, network: nn.Module, runtimes: Sequence[Runtime], task: Task | None, exported: Path | None
) -> list[Path]:
    """Move or export the files for each runtime into a folder of its name and return their paths."""
    files: list[Path] = []
    for runtime in runtimes:
        own = folder / runtime.folder_name()
        if exported is not None:
            take_over(exported / runtime.folder_name(), own)
        elif task is not None:
            export(network, task, runtime, own)
        else:
            raise BadValue("bundle: runtime files are checked against PyTorch on the task's data. Pass task=...")
        files += sorted(path for path in own.iterdir() if path.is_file())
    return files


def script(runtimes: Sequence[Runtime]) -> str:
    """Return run.py, which predicts with the first runtime that has a script, or with Cortado."""
    runtime = next((runtime for runtime in runtimes if runtime.script), None)
    file = FILE if runtime is None else f"{runtime.folder_name()}/net{runtime.suffix}"
    lines = OURS if runtime is None else runtime.script
    return f'''{HEAD}
FILE = Path(__file__).parent / "{file}"

{lines.strip()}


if __name__ == "__main__":
    np.save(sys.argv[2], predict(np.load(sys.argv[1])))
'''


def sum_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def check_bundle(folder: str | Path) -> list[str]:
    """Return the names of a bundle's files after checking their checksums.  Raises BadFile for a missing or altered one.

    Only the original weights may be missing; `verify` reports that.
    """
    folder = Path(folder)
    try:
        lines = (folder / SUMS).read_text(encoding="utf8").splitlines()
    except OSError as error:
        raise BadFile(f"bundle: {folder} has no {SUMS}. Pass the folder that compress wrote.") from error
    names = []
    for line in lines:
        wanted, _, name = line.partition("  ")
        path = PurePosixPath(name)
        if name == path.name and path.match(ORIGINAL.format("*")) and not (folder / path).exists():
            continue
        if not name or path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
            raise BadFile(f"bundle: {name or line!r} is missing from {folder}. Make the bundle again.")
        if sum_of(folder / path) != wanted:
            raise BadFile(f"bundle: {name} was altered since the bundle was made. Make it again, or fetch it again.")
        names.append(name)
    missing = [name for name in NAMES if name not in names]
    if missing:
        raise BadFile(f"bundle: {SUMS} does not list {', '.join(missing)}. Make the bundle again, or fetch it again.")
    return names
