"""stage_overhead: what `compress` costs around one stage, in time and peak memory, against the engine of an earlier commit.

`quantize/weights bits=8` on six square linear layers, 100 million parameters, with four samples of each part of the data, so
that next to nothing is scored. The former engine runs from a git worktree of its commit in a temporary folder. Every run is a
process of its own, former and present in turns; figures are medians, ratios those of neighbours in time. A peak is the
high-water mark of resident memory from the start of Python on, with nothing subtracted.
"""

import hashlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

FORMER, ROOT = "262e6a9", Path(__file__).resolve().parents[1]
WIDTH, LAYERS, SAMPLES, TURNS = 4096, 6, 4, 3
MOST = 0.5
"""The share of the former engine's time, and of its peak, that the present one may take."""


def run() -> list[dict[str, Any]]:
    """Return medians of both engines, the two ratios, and whether both made the same network."""
    from bench.result import row

    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "former"
        git = ["git", "-C", str(ROOT), "worktree"]
        subprocess.run([*git, "add", "--detach", str(tree), FORMER], check=True, capture_output=True)
        try:
            pairs = [(measured(tree), measured(ROOT)) for _ in range(TURNS)]
        finally:
            subprocess.run([*git, "remove", "--force", str(tree)], check=True, capture_output=True)
    rows = []
    for key, unit, what in (("seconds", "s", "time"), ("busy", "s", "processor time"), ("peak", "MB", "peak memory")):
        for name, place in (("former", 0), ("present", 1)):
            found = [pair[place][key] for pair in pairs]
            rows.append(row(f"{what}, {name} engine", statistics.median(found), unit, runs=found))
        ratios = [now[key] / before[key] for before, now in pairs]
        rows.append(row(f"{what} over the former engine", statistics.median(ratios), "x", MOST, runs=ratios))
    other = len({one["made"] for pair in pairs for one in pair}) - 1
    return [*rows, row("networks that differ from the former engine's, to the last bit", other, "", 0)]


def measured(tree: Path) -> dict[str, Any]:
    """Return what a process of its own, with the package in `tree`, tells of its run."""
    command = [sys.executable, "-P", str(Path(__file__).resolve()), str(torch.get_num_threads())]
    path = {**os.environ, "PYTHONPATH": str(tree)}
    found = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tree, env=path)
    return dict(json.loads(found.stdout))


def compressed() -> dict[str, Any]:
    """Return seconds on the clock and of the processor, peak in MB (a million bytes), a sum of the network that is made."""
    from cortado.engine.compress import compress
    from cortado.native.build import native_state
    from cortado.task.task import Data, Task

    native_state()
    torch.manual_seed(0)
    network = nn.Sequential(*[nn.Linear(WIDTH, WIDTH) for _ in range(LAYERS)]).eval()
    parts = [Data(torch.randn(SAMPLES, WIDTH), torch.arange(SAMPLES)) for _ in range(3)]
    start, busy = time.perf_counter(), time.process_time()
    small, report = compress(network, Task(*parts), "quantize/weights bits=8")
    taken = {"seconds": time.perf_counter() - start, "busy": time.process_time() - busy}
    sums = hashlib.sha256(str(report.size_bytes).encode())
    peak = next(line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if "VmHWM" in line)
    for name, value in small.state_dict().items():
        sums.update(name.encode() + value.numpy().tobytes())
    return {**taken, "peak": int(peak) * 1024 / 1e6, "made": sums.hexdigest()}


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[1]))
    sys.stdout.write(json.dumps(compressed()))
