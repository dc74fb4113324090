"""calibration_memory: the peak memory of quantize/activations that looks at 10,000 images against one that looks at 100.

Each calibration runs in a process of its own, whose figure is the high-water mark of its resident memory, from the start
of Python on and with nothing subtracted. The same 10,000 images lie in memory in both, as bytes.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from bench.result import row
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.nets.resnet import resnet_20
from cortado.network.view import View
from cortado.task.task import Data, Task
from cortado.tasks.cifar10 import NORMALISE

FEW, MANY = 100, 10_000
RANGES = ("mse", "percentile")
MOST = 1.10
"""How much higher the peak may be (a kilobyte of resident memory is 1,024 bytes)."""


def run() -> list[dict[str, Any]]:
    """Both peaks and their ratio for two ways to choose ranges; the second one few images again, as a control."""
    rows = []
    for way in RANGES:
        few, many, again = (peak_of(images, way) for images in (FEW, MANY, FEW))
        what = f"ResNet-20, range={way}"
        rows.append(row(f"{what}: peak with {FEW:,} images", few["peak"], "MB", again=again["peak"], **few))
        rows.append(row(f"{what}: peak with {MANY:,} images", many["peak"], "MB", **many))
        rows.append(row(f"{what}: {MANY:,} images over {FEW:,}", many["peak"] / few["peak"], "x", MOST))
        rows.append(row(f"{what}: {FEW:,} images again over {FEW:,}", again["peak"] / few["peak"], "x"))
    return rows


def peak_of(images: int, way: str) -> dict[str, Any]:
    """What a process of its own tells of its calibration."""
    command = [sys.executable, "-m", "bench.calibration_memory", str(images), way, str(torch.get_num_threads())]
    found = subprocess.run(command, capture_output=True, text=True, check=True)
    return dict(json.loads(found.stdout))


def calibrate(images: int, way: str) -> dict[str, Any]:
    """Round the activations of a ResNet-20; the peaks in MB before the calibration and after it, and what was put in."""
    pixels = torch.randint(0, 256, (MANY, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    data = Data(pixels, torch.zeros(MANY, dtype=torch.int64), NORMALISE)
    part = data.first(2)
    task = Task(part, part, part, calibration=data, trial=True)
    torch.manual_seed(0)
    network = resnet_20().eval()
    view = View(network, network, task.example)
    before = peak_megabytes()
    QuantizeActivations(range=way, images=images).apply(view, task)
    return {"peak": peak_megabytes(), "before": before, "notes": list(view.notes)}


def peak_megabytes() -> float:
    """The high-water mark of this process' resident memory, in MB of a million bytes.

    From /proc: what getrusage tells may be that of the process which started this one.
    """
    lines = Path("/proc/self/status").read_text(encoding="utf8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024 / 1e6


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    sys.stdout.write(json.dumps(calibrate(int(sys.argv[1]), sys.argv[2])))
