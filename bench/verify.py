"""verify: a bundle measured again by strangers: with ONNX Runtime alone, with a Cortado newly installed, and tampered with.

The digits network, rounded and exported for ONNX Runtime, as one bundle with its proof. Three strangers:
(a) a new virtual environment with numpy and onnxruntime, no torch, no Cortado: the bundle's own run.py on the test result
inputs. Compared: outputs with those of the network in PyTorch (bound as a share of the largest output), and the
accuracy with the report's claims for the file and for the network.
(b) a new virtual environment into which this checkout is installed with its extra onnx, held by constraints.txt:
`cortado verify BUNDLE` agrees with every claim.
(c) the same command and environment on copies in each of which one byte of one file is changed, every file in turn:
refused each time, and again by a changed checksum.
Environments are made with `python -m venv` from the interpreter that runs the bench, without its packages; what they run
does not see PYTHONPATH, which would bring the checkout back in.
"""

import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.kept import kept
from bench.result import row
from cortado.engine.bundle import FILE, SUMS, check_bundle
from cortado.engine.job import read_job
from cortado.file.artifact import load
from cortado.report.report import read_report
from cortado.running.call import call
from cortado.runtimes.compare import default_tolerance

SEED = 3
ROOT = Path(__file__).parents[1]
JOB = """
network: digits_net
task: digits
train: {epochs: 10, lr: 2.0e-3}
score: 95
recipe: [prune/weights: {keep: 0.5}, finetune: {epochs: 5}, quantize/weights: {bits: 5}]
limits: ["score >= -3 %"]
"""
INSTALL_S, COMMAND_S = 1200, 600
PIP = ("-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-c", str(ROOT / "constraints.txt"))


def new_environment(folder: Path, *packages: str) -> tuple[Path, float]:
    """Its interpreter, once the packages are installed, and the seconds that took."""
    start = time.perf_counter()
    done([sys.executable, "-m", "venv", str(folder)], INSTALL_S)
    python = folder / "bin" / "python"
    for package in packages:
        done([str(python), *PIP, *package.split()], INSTALL_S)
    return python, time.perf_counter() - start


def done(command: list[str], seconds: float, folder: Path | None = None) -> str:
    """What a command prints.  Stops the bench where it fails."""
    # The bench's own interpreter may need PYTHONPATH to find the checkout.
    env = None if command[0] == sys.executable else alone()
    found = subprocess.run(command, capture_output=True, text=True, timeout=seconds, cwd=folder, env=env)
    if found.returncode:
        raise SystemExit(f"bench: {' '.join(command)} ended with {found.returncode}: {found.stderr[-500:]}")
    return found.stdout


def alone() -> dict[str, str]:
    """The variables of a stranger's shell: none that tells Python where else to look."""
    return {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}


def made_bundle(folder: Path) -> Path:
    """The bundle, made by the command line."""
    (folder / "job.yaml").write_text(JOB)
    words = ["compress", "job.yaml", "--out", "bundle", "--measure-in", "onnxruntime"]
    code = "import sys; from cortado.cli import main; main(sys.argv[1:])"
    done([sys.executable, "-c", code, *words], COMMAND_S, folder)
    return folder / "bundle"


def has(python: Path, module: str) -> bool:
    """Whether an environment can import it."""
    return subprocess.run([str(python), "-c", f"import {module}"], capture_output=True, env=alone()).returncode == 0


def by_run_py(bundle: Path, folder: Path) -> dict[str, Any]:
    """(a): outputs, accuracy, and the claims."""
    python, seconds = new_environment(folder / "few", "numpy onnxruntime")
    task, report = read_job(str(bundle)).make_task(), read_report(bundle / "report.json")
    inputs, targets = next(task.test.batches(len(task.test)))
    np.save(folder / "inputs.npy", inputs.numpy())
    done([str(python), str(bundle / "run.py"), str(folder / "inputs.npy"), str(folder / "outputs.npy")], COMMAND_S)
    outputs = torch.from_numpy(np.load(folder / "outputs.npy"))
    small = load(bundle / FILE, read_job(str(bundle)).architecture)
    with torch.no_grad():
        wanted = call(small, inputs)
    return {
        "strangers": [has(python, name) for name in ("torch", "cortado")],
        "seconds": seconds,
        "samples": len(outputs),
        "difference": float((outputs - wanted).abs().max() / wanted.abs().max()),
        "tolerance": default_tolerance(small),
        "accuracy": float((outputs.argmax(1) == targets).double().mean()) * 100,
        "claimed_file": report.exports[0].score,
        "claimed": report.test.compressed,
    }


def verified(python: Path, bundle: Path) -> tuple[int, str]:
    """Exit status and words of `cortado verify`, in a folder that leads to no checkout."""
    command = [str(python.parent / "cortado"), "verify", str(bundle)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=COMMAND_S, cwd=bundle.parent, env=alone())
    return found.returncode, found.stdout + found.stderr


def by_cortado(bundle: Path, folder: Path) -> dict[str, Any]:
    """(b) and (c): an installed Cortado on the bundle, and on what was made of it."""
    source = shutil.copytree(
        ROOT, folder / "source", ignore=lambda where, names: {"cache", ".git", ".venv"} & set(names)
    )
    python, seconds = new_environment(folder / "whole", "torch", f"{source}[onnx,demo]")
    where = done([str(python), "-c", "import cortado; print(cortado.__file__)"], COMMAND_S, folder).strip()
    code, words = verified(python, bundle)
    found = {
        "seconds": seconds,
        "code": code,
        "words": words,
        "installed": Path(where).resolve().is_relative_to((folder / "whole").resolve()),
    }
    return {**found, "tampered": tampered(python, bundle, folder)}


def tampered(python: Path, bundle: Path, folder: Path) -> dict[str, str]:
    """For each file of the bundle: what was said of one with a byte changed; of the checksums in two ways."""
    dice, said = random.Random(SEED), {}
    for name in [*check_bundle(bundle), SUMS]:
        copy = folder / "tampered"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(bundle, copy)
        body = bytearray((copy / name).read_bytes())
        # Of the checksums a digit: what stands after the last one is a name.
        place = dice.randrange(64) if name == SUMS else dice.randrange(len(body))
        body[place] = ord("0") + (body[place] == ord("0")) if name == SUMS else body[place] ^ (1 << dice.randrange(8))
        (copy / name).write_bytes(bytes(body))
        code, words = verified(python, copy)
        said[name] = words.strip() if code == 1 else ""
    return {**said, "a file and its checksum": both_changed(python, bundle, folder)}


def both_changed(python: Path, bundle: Path, folder: Path) -> str:
    """The compressed file with a byte changed and its checksum made again: its own sum is left to tell."""
    copy = folder / "both"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(bundle, copy)
    before = (copy / FILE).read_bytes()
    body = before[:-9] + bytes([before[-9] ^ 4]) + before[-8:]
    (copy / FILE).write_bytes(body)
    old, new = (hashlib.sha256(one).hexdigest() for one in (before, body))
    (copy / SUMS).write_text((copy / SUMS).read_text().replace(old, new))
    code, words = verified(python, copy)
    return words.strip() if code == 1 else ""


def strangers() -> dict[str, Any]:
    """All of it, in a folder of its own."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        bundle = made_bundle(folder)
        first = by_run_py(bundle, folder)
        return {"first": first, "second": by_cortado(bundle, folder), "files": len(check_bundle(bundle))}


def run() -> list[dict[str, Any]]:
    """Rows of the three strangers."""
    settings = [JOB, SEED, (ROOT / "constraints.txt").read_text(), code_sum()]
    found = kept("verify/strangers", settings, strangers)
    one, two = found["first"], found["second"]
    claims = [line for line in two["words"].splitlines() if line.endswith(("  yes", "  NO", "  not compared"))]
    contradicted = sum(line.endswith("  NO") for line in claims)
    said = two["tampered"]
    return [
        row("run.py alone: torch or cortado can be imported there", sum(one["strangers"]), "", 0),
        row("run.py alone: outputs given, test samples", one["samples"], "", 500, "higher"),
        row("run.py alone: largest difference from PyTorch, of the largest output", one["difference"], "", one["tolerance"]),
        row("run.py alone: accuracy, off the claim for the file", abs(one["accuracy"] - one["claimed_file"]), "points", 0.2),
        row("run.py alone: accuracy, off the claim for the network", abs(one["accuracy"] - one["claimed"]), "points", 0.2),
        row("installed again: it is not this checkout", float(two["installed"]), "of 1", 1, "higher"),
        row("installed again: exit status of cortado verify", two["code"], "", 0),
        row("installed again: claims looked at", len(claims), "", 3, "higher", words=two["words"]),
        row("installed again: claims contradicted", contradicted, "", 0),
        row("tampered, one byte of a file: refused", sum(map(bool, said.values())), "", found["files"] + 2, "higher", said=said),
        row("seconds to install numpy and onnxruntime", one["seconds"], "s"),
        row("seconds to install torch, cortado and its extra onnx", two["seconds"], "s"),
    ]  # fmt: skip


def code_sum() -> str:
    """Results of other code do not count."""
    sums = hashlib.sha256()
    for path in sorted((ROOT / "cortado").rglob("*.py")):
        sums.update(path.read_bytes())
    return json.dumps(sums.hexdigest()[:16])
