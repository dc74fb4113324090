"""Cutting networks of a hundred million parameters with random weights: the time it takes, and the memory at its peak.

    python -m bench.cut_scale NAME PART       one network in this process, as JSON
    python -m bench cut_scale                 all, each part in a process of its own

PART is `cut` (a copy to work on, groups, scores by magnitude, half of every group cut) with saving apart, or `compress`,
the whole of cortado.compress with that one stage: moments matched, the file made and read back, both networks scored.

Memory is what the process holds at most, above what it held before the network was made, over the bytes of the network's
tensors; the user's network, which is never changed, counts, and so does what torch.export loads when it is first used.
"""

import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.result import row
from bench.zoo.sequences import LlamaLike
from cortado.engine.compress import compress
from cortado.file.artifact import save
from cortado.methods.prune.channels import PruneChannels
from cortado.network.view import View, working_copy
from cortado.task.task import Data, Metric, Task

SECONDS, TIMES = 60.0, 3.0
THREADS = 1
CUT = PruneChannels(keep=0.5, multiple=1)


class Vit(nn.Module):
    """Patches of 16 x 16 pixels through torch's own Transformer encoder; images (N, 3, 224, 224) to logits."""

    def __init__(self, width: int = 768, layers: int = 15) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, 16, 16)
        self.places = nn.Parameter(torch.randn(1, 196, width) * 0.02)
        layer = nn.TransformerEncoderLayer(width, 12, 4 * width, 0.0, "gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 1000)

    def forward(self, images: Tensor) -> Tensor:
        activation = self.patches(images).flatten(2).transpose(1, 2) + self.places
        return self.head(self.norm(self.encoder(activation)).mean(1))


def vgg() -> nn.Module:
    """VGG-16 with batch norms: most of it in three linear layers.  Simonyan, Zisserman, 2015."""
    layers: list[nn.Module] = []
    channels = 3
    for width, count in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
        for _ in range(count):
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    linear = [nn.Linear(512 * 49, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 1000)]
    return nn.Sequential(*layers, nn.Flatten(), *linear)


def images() -> Tensor:
    return torch.randn(2, 3, 224, 224)


@dataclass(frozen=True)
class Large:
    """A network and an example for it."""

    make: Callable[[], nn.Module]
    example: Callable[[], Tensor]


NETWORKS = {
    "vgg_16": Large(vgg, images),
    "vit": Large(Vit, images),
    "llama": Large(lambda: LlamaLike(32000, 768, 12, 4, 16), lambda: torch.randint(0, 32000, (2, 64))),
}


def held_bytes(what: str) -> int:
    """VmRSS, what the process holds now, or VmHWM, what it held at most."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what + ":"))


@contextmanager
def watched(found: dict[str, Any], what: str, before: int) -> Iterator[None]:
    """Note seconds on the wall and of the processor, and the peak above `before`."""
    # Writing 5 sets the peak that the system remembers back to what is held now.
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    wall, processor = time.perf_counter(), time.process_time()
    yield
    found[f"{what}_seconds"] = time.perf_counter() - wall
    found[f"{what}_processor_seconds"] = time.process_time() - processor
    found[f"{what}_peak_bytes"] = held_bytes("VmHWM") - before


def measured(name: str, part: str) -> dict[str, Any]:
    """One network in this process."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    example = NETWORKS[name].example()
    before = held_bytes("VmRSS")
    network = NETWORKS[name].make().eval()
    found: dict[str, Any] = {"bytes": bytes_of(network), "parameters": sum(p.numel() for p in network.parameters())}
    if part == "cut":
        with watched(found, "cut", before):
            small = working_copy(network)
            CUT.apply(View(small, network, example), task_of(example))
        with torch.no_grad():
            small(example)
        with watched(found, "save", before), tempfile.TemporaryDirectory() as folder:
            found["file_bytes"] = save(small, Path(folder) / "net.cortado", network)
    else:
        with watched(found, "compress", before):
            small, _ = compress(network, task_of(example), [CUT])
    found["parameters_left"] = sum(p.numel() for p in small.parameters())
    return found


def bytes_of(network: nn.Module) -> int:
    """Of all tensors, tied ones once."""
    tensors = {id(value): value for value in (*network.parameters(), *network.buffers())}
    return sum(value.numel() * value.element_size() for value in tensors.values())


def task_of(example: Tensor) -> Task:
    """Data enough to run on: the score is how near to zero the outputs are."""
    data = Data(example, torch.zeros(len(example), dtype=torch.int64))
    near = Metric("size", "", lambda outputs, targets: outputs.flatten(1).abs().mean(1), False, 1.0)
    return Task(data, data, data, metric=near, batch=2, trial=True)


def apart(name: str, part: str) -> dict[str, Any]:
    """The same in a process of its own."""
    command = [sys.executable, "-m", "bench.cut_scale", name, part]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run() -> list[dict[str, Any]]:
    """All networks."""
    rows = []
    for name in NETWORKS:
        found = apart(name, "cut") | apart(name, "compress")
        left = found["parameters_left"] / found["parameters"]
        what = f"{name}, {found['parameters'] / 1e6:.0f} M parameters, cut to {left:.0%} of them"
        for part, bars in (("cut", (SECONDS, TIMES)), ("save", (None, None)), ("compress", (None, None))):
            label = {"cut": what, "save": f"{name}, saved", "compress": f"{name}, the whole of compress"}[part]
            processor = found[f"{part}_processor_seconds"]
            rows.append(row(f"{label}: time", found[f"{part}_seconds"], "s", bars[0], processor_seconds=processor))
            rows.append(row(f"{label}: time of the processor", processor, "s"))
            times = found[f"{part}_peak_bytes"] / found["bytes"]
            rows.append(row(f"{label}: peak memory over the network's size", times, "x", bars[1]))
    return rows


if __name__ == "__main__":
    print(json.dumps(measured(sys.argv[1], sys.argv[2])))
