"""cascade_stages: the cascade of cascade_cifar in runtimes without control flow, as files of stages and a loop of the host.

Networks and thresholds are those of cascade_cifar, whose stored result is read. Times are processor time of one thread over
different test pictures, one at a time, in turns of 25 calls: the mean of a picture, x over ResNet-56 in floats in the same
runtime. The loop is that of Cortado's session, which counts. Needs litert_torch or executorch, and measures what it finds.
"""

import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from bench.after import after
from bench.cascade_cifar import CASCADE, INTEGERS, score_rows
from bench.result import read_all, row
from cortado.errors import BadNetwork, MissingPackage
from cortado.lowering.lower import lowered
from cortado.methods.conditional.thresholds import sures_in
from cortado.nets.resnet import resnet_56
from cortado.runtimes.runtime import Running, Runtime, runtime_by_name
from cortado.runtimes.staged import EVERYTHING, STAGES
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
RUNTIMES = ("litert", "executorch")
RECIPES = {"cascade": CASCADE, "int8 cascade": CASCADE + INTEGERS, "int8 ResNet-56": INTEGERS}
PICTURES, SECONDS = 500, 10.0
OVER_FLOATS = {"cascade": 2.2, "int8 cascade": 4.0}
OVER_EVERYTHING = 1.5


def run() -> list[dict[str, Any]]:
    """All rows."""
    torch.set_num_threads(1)
    runtimes = [runtime for name in RUNTIMES if (runtime := runtime_by_name(name)).lowers()]
    if not runtimes:
        raise MissingPackage("cascade_stages: neither litert_torch nor executorch is installed. Install one of them.")
    task, original = cifar10.task(), resnet_56(weights=True).eval()
    networks = {name: decided(name, after(original, task, recipe)) for name, recipe in RECIPES.items()}
    rows = []
    for runtime in runtimes:
        with tempfile.TemporaryDirectory() as folder:
            files, refused = files_of({"ResNet-56": original, **networks}, task, runtime, Path(folder))
            rows += [row(f"{runtime.name()}: {name} is refused", None, "x", why=why) for name, why in refused.items()]
            scored = {name: file for name, file in files.items() if not name.endswith(EVERYTHING)}
            rows += time_rows(files, task, runtime) + score_rows(scored, task, runtime, original)
    return rows


def decided(name: str, network: nn.Module) -> nn.Module:
    """Give a cascade the threshold that cascade_cifar found for it."""
    stored = next(one for one in read_all() if one["id"] == "cascade_cifar")["rows"]
    found = [one["value"] for one in stored if one["what"] == f"{name}: confidence above which a sample stops"]
    for sure in sures_in(network):
        sure.thresholds.fill_(found[0])
    return network


def files_of(
    networks: dict[str, nn.Module], task: Task, runtime: Runtime, folder: Path
) -> tuple[dict[str, Path], dict[str, str]]:
    """A file for each network, of a cascade one in each form; and why there is none where the runtime refuses it."""
    found, refused = dict[str, Path](), dict[str, str]()
    for name, network in networks.items():
        low = lowered(network, task.example)
        for form in runtime.path_forms if sures_in(network) else (EVERYTHING,):
            title = f"{name}, {form}" if sures_in(network) else name
            own = folder / title
            own.mkdir()
            try:
                found[title] = runtime.with_paths(form).lower(low, task.example, own)
            except BadNetwork as error:
                refused[title] = str(error)
    return found, refused


def time_rows(files: dict[str, Path], task: Task, runtime: Runtime) -> list[dict[str, Any]]:
    """How many times faster each file is than ResNet-56 in floats, and stages than everything."""
    inputs = stream_of(task.test, 1, PICTURES)
    calls = [
        [partial(Running(session), given) for given in inputs]
        for session in (runtime.load(f, 1) for f in files.values())
    ]
    taken = streamed(calls, SECONDS, time.process_time)
    means = dict(zip(files, taken.mean(2).T, strict=True))
    rows = []
    for number, (name, mine) in enumerate(means.items()):
        low, middle, high = np.quantile(means["ResNet-56"] / mine, (0.25, 0.5, 0.75))
        tails = np.quantile(taken[:, number], (0.5, 0.99))
        facts = {"quartiles": [low, high], "mean_ms": float(np.median(mine)), "p50_ms": tails[0], "p99_ms": tails[1]}
        bar = OVER_FLOATS[name.removesuffix(f", {STAGES}")] if name.endswith(STAGES) else None
        what = f"{runtime.name()}: {name} over ResNet-56 in floats"
        rows.append(row(what, float(middle), "x", bar, "higher", **facts))
    for name in OVER_FLOATS:
        for rival in (f"{name}, {EVERYTHING}", "int8 ResNet-56"):
            if rival in means and f"{name}, {STAGES}" in means:
                value = float(np.median(means[rival] / means[f"{name}, {STAGES}"]))
                bar = OVER_EVERYTHING if rival.endswith(EVERYTHING) else None
                rows.append(row(f"{runtime.name()}: {name}, stages over {rival}", value, "x", bar, "higher"))
    return rows
