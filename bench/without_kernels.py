"""without_kernels: files written and read on a machine that has neither a C++ compiler nor a wheel with kernels.

Each network is coded with kernels and without them, in processes of their own, and read again; times are those of the processor.
"""

import json
import os
import subprocess
import sys
from typing import Any

from bench.result import row

SECONDS = 20.0
NETWORKS = {
    "LeNet-300-100, 8 % of the weights, 4 bits": ("lenet_300_100", 0.08),
    "ResNet-20, 35 % of the weights, 4 bits": ("resnet_20", 0.35),
    "LeNet-300-100, float32": ("lenet_300_100", None),
    "ResNet-20, float32": ("resnet_20", None),
}
"""The maker, ResNet-20 with its published weights, and the share of weights kept (None: all, as floats)."""
CODE = """
import copy, json, sys, time, warnings
import torch
from cortado.file.artifact import decode, encode
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.share.kmeans import ShareKmeans
from cortado.nets.lenet import lenet_300_100
from cortado.nets.resnet import resnet_20
from cortado.network.view import View
from cortado.task.task import Data, Task
warnings.simplefilter("ignore")
torch.set_num_threads(1)
name, keep = json.loads(sys.argv[1])
torch.manual_seed(0)
original = lenet_300_100().eval() if name == "lenet_300_100" else resnet_20(weights=True).eval()
example = torch.zeros(8, 1, 28, 28) if name == "lenet_300_100" else torch.zeros(8, 3, 32, 32)
data = Data(example, torch.zeros(8, dtype=torch.int64))
task, network = Task(data, data, data, trial=True, device="cpu"), copy.deepcopy(original)
if keep is not None:
    for method in (PruneWeights(keep=keep), ShareKmeans(bits=4)):
        method.apply(View(network, original, task.example), task)
start = time.process_time()
body = encode(network, original)
middle = time.process_time()
again = decode(body, original)
assert all(torch.equal(one, other) for one, other in zip(network.state_dict().values(), again.state_dict().values()))
print(json.dumps([len(body), middle - start, time.process_time() - middle]))
"""


def run() -> list[dict[str, Any]]:
    """Bytes with and without kernels, and the seconds without."""
    return [one for name in NETWORKS for one in rows_of(name)]


def rows_of(name: str) -> list[dict[str, Any]]:
    """Return the rows of one network."""
    with_kernels, _, _ = coded(name, {})
    without, written, read = coded(name, {"CORTADO_NATIVE": "0"})
    return [
        row(f"{name}: bytes with kernels", with_kernels, "B"),
        row(f"{name}: bytes without", without, "B", more=without / with_kernels - 1),
        row(f"{name}: seconds to write without kernels", written, "s", SECONDS),
        row(f"{name}: seconds to read without kernels", read, "s", SECONDS),
    ]


def coded(name: str, environment: dict[str, str]) -> list[float]:
    """Return bytes and seconds of a network coded and read in a process of its own."""
    maker, keep = NETWORKS[name]
    words = [sys.executable, "-c", CODE, json.dumps([maker, keep])]
    done = subprocess.run(words, env={**os.environ, **environment}, capture_output=True, text=True, check=True)
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return found
