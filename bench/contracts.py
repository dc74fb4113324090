"""contracts: what the five contracts promise - seven extensions of a user, other people's networks, processes, files.

Each row runs tests or cases of the project and counts what holds, or measures: the lines of methods, and a training step of
LeNet-5 in two processes over one, on a core each, with the same global batch. The share of the time is the median over pairs
of runs, one after the other.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from bench.house import case_rows
from bench.house_counts import HOUSE, ROOT
from bench.result import RESULTS, row

EXTENSIONS = {
    "an objective with a critic": ("critic_on_features", "test_own_objective"),
    "a gate that skips a block": ("skip_gate", "test_own_block"),
    "a form": ("powers_of_two", "test_own_form"),
    "a runtime": ("slow_runtime", "test_own_runtime"),
    "a group-wise 4-bit method": ("fitted_groups", "test_own_method"),
    "a layer class": ("gated_linear", "test_own_layer"),
    "a detector's task": ("grid_detector", "test_own_detector"),
}
MOST_LINES = 60
METHOD_LINES = {"prune/weights": 60, "prune/channels": 90, "distill/logits": 30}
FOUND = re.compile(r"(\d+) (passed|failed|skipped|error)")
BATCH, STEPS, ROUNDS = 128, 60, 3
WAITING_CASES = ("09", "13", "15")


def tests(*paths: str) -> dict[str, int]:
    """Return how many tests of some files passed, failed and were skipped."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "addopts=", *paths]
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    found = {word: int(count) for count, word in FOUND.findall(done.stdout.splitlines()[-1])}
    return {"failed": 0, "passed": 0, "skipped": 0, "error": 0} | found


def share_passed(what: str, *paths: str) -> dict[str, Any]:
    """Return a row: the share of tests that pass, skipped ones counted as missed."""
    found = tests(*paths)
    whole = sum(found.values())
    return row(what, 100 * found["passed"] / whole if whole else None, "%", 100, "higher", tests=found)


def extensions() -> dict[str, Any]:
    """Return the row of the users' files: at most 60 lines each, all tests passing."""
    lines, good = {}, 0
    for name, (file, test) in EXTENSIONS.items():
        path = ROOT / "tests" / "extension" / f"{file}.py"
        lines[name] = len(path.read_text(encoding="utf8").splitlines())
        found = tests(f"tests/extension/{test}.py")
        good += lines[name] <= MOST_LINES and found["passed"] > 0 and sum(found.values()) == found["passed"]
    return row("extensions of a user in one file of at most 60 lines", good, "", len(EXTENSIONS), "higher", lines=lines)


def method_lines() -> list[dict[str, Any]]:
    """Return a row for each method that has a bar of lines."""
    counts = {name: len((ROOT / "cortado/methods" / f"{name}.py").read_text().splitlines()) for name in METHOD_LINES}
    return [row(f"lines of {name}", counts[name], "", most) for name, most in METHOD_LINES.items()]


def processes() -> list[dict[str, Any]]:
    """Return the largest difference of two processes from one after an epoch, and the share of the time of a step."""
    one, two = [], []
    apart = None
    for _ in range(ROUNDS):
        alone, both = trained(1), trained(2)
        one.append(alone["step_s"])
        two.append(both["step_s"])
        apart = float((alone["values"] - both["values"]).abs().max())
    ratios = [b / a for a, b in zip(one, two, strict=True)]
    return [
        row("weights of two processes minus one's after an epoch, LeNet-5, largest", apart, "", 1e-5),
        row("a step's time in two processes over one", statistics.median(ratios), "x", 0.65, pairs=ratios, batch=BATCH),
    ]


def trained(count: int) -> dict[str, Any]:
    """Train in so many processes, with one thread each; return the weights and the seconds of a step."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "found.pt"
        start = [sys.executable]
        if count > 1:
            start += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        subprocess.run([*start, __file__, str(out)], env=environment, check=True, capture_output=True, cwd=ROOT)
        found: dict[str, Any] = torch.load(out)
        return found


def train_here(out: Path) -> None:
    """Train in this process, one of several perhaps; the first one writes what came out."""
    from cortado.nets.lenet import lenet_5
    from cortado.task.data import Data
    from cortado.task.task import Task
    from cortado.training.loop import train
    from cortado.training.training import Training

    torch.set_num_threads(1)
    torch.manual_seed(0)
    inputs = torch.randn(BATCH * STEPS, 1, 28, 28, generator=torch.Generator().manual_seed(0))
    data = Data(inputs, torch.arange(len(inputs)) % 10)
    task = Task(data, data, data, batch=BATCH, device="cpu", trial=True)
    network = lenet_5()
    at: list[float] = []
    train(
        network, task, Training(epochs=1, lr=0.01, optimizer="sgd", precision="float32"),
        after_batch=lambda network, step: at.append(time.perf_counter()),
    )  # fmt: skip
    if os.environ.get("RANK", "0") == "0":
        values = torch.cat([one.detach().flatten() for one in network.state_dict().values()])
        torch.save({"values": values, "step_s": statistics.median(b - a for a, b in pairwise(at))}, out)


def stored(name: str) -> list[dict[str, Any]]:
    """Return the rows with a bar of another bench's stored result."""
    path = RESULTS / f"{name}.json"
    rows = json.loads(path.read_text(encoding="utf8"))["rows"] if path.exists() else []
    return [{**one, "what": f"{name}: {one['what']}"} for one in rows if one["bar"] is not None]


def run() -> list[dict[str, Any]]:
    """Measure everything once."""
    asked = HOUSE.concrete_forms_asked_for()
    return [
        extensions(),
        row("places outside parts/ that ask for a concrete form", len(asked), "", 0, places=asked),
        share_passed(
            "networks of transformers, called with dicts: tests that pass",
            "tests/extension/test_transformers.py", "tests/extension/test_finetuned_trees.py",
        ),
        share_passed("networks with two outputs: tests that pass", "tests/runtimes/test_several.py"),
        share_passed("the form survives, or a note says so: meetings that hold", "tests/laws/test_states.py"),
        *method_lines(),
        *processes(),
        *case_rows(WAITING_CASES),
        share_passed("files of versions 1 to 3 that open", "tests/file/test_former_files.py"),
        *stored("fuzz"),
        *stored("kills"),
    ]  # fmt: skip


if __name__ == "__main__":
    train_here(Path(sys.argv[1]))
