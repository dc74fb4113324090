"""ponder: positions that halt (SACT) in a wide residual network on CIFAR-10: what it saves, loses, and takes on the clock.

The dense network is trained first (bench/ponder_network.py), then scores are learned along with it at several prices tau,
by `conditional/ponder`, on small and then on whole pictures; the dense network is tuned for as long. Scored on 10,000
pictures that no training has seen. The clock is ONNX Runtime's, one thread, process time, single test pictures: the file
whose positions halt against the dense original's.
"""

import copy
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from bench.held_out import half, stored
from bench.kept import kept
from bench.ponder_network import LARGE_PASSES, SMALL_PASSES, dense, how, small_task
from bench.result import CACHE, PIECES, row
from bench.taught import gain, run_of
from cortado.methods.conditional.ponder import ConditionalPonder
from cortado.methods.learn import learn
from cortado.network.profile.pondered import ponder_maps
from cortado.network.profile.profile import profile
from cortado.network.view import View
from cortado.parts.blocks.ponder import Ponder
from cortado.report.pages.ponder import ponder_page
from cortado.running.call import call
from cortado.runtimes.export import export_into
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.positions import POSITIONS
from cortado.runtimes.runtime import Running
from cortado.runtimes.stream import stream_of, streamed
from cortado.task.task import Data
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.ponder import PonderCost
from cortado.training.objectives.task import TaskLoss

TAUS = (0.01, 0.03, 0.1)
SMALL, LARGE = 1.0, 0.4
"""Passes over pictures of half and of whole size while scores are learned."""
LR = 0.02
FASTER, LOSS = 1.3, 0.5
SETTINGS = [SMALL_PASSES, LARGE_PASSES, SMALL, LARGE, LR]
STREAM, SECONDS, SHOWN = 200, 20.0, 8


def tuned(tau: float | None) -> nn.Module:
    """Return the network whose positions halt at a price, or without one the dense network tuned for as long; kept."""
    first, network = dense(), dense()
    view = View(network, first, stored().example)
    if tau is not None:
        # Only puts the block there: both trainings follow.
        ConditionalPonder(how(0.0, LR), by="position", tau=tau).apply(view, stored())
    path = PIECES / f"ponder_{'_'.join(f'{one:g}' for one in (*SETTINGS, -1 if tau is None else tau))}.safetensors"
    if not path.exists():
        learned = [TaskLoss(0.3), Logits(0.7, 4.0), *([] if tau is None else [PonderCost(tau)])]
        for task, passes in ((small_task(), SMALL), (stored(), LARGE)):
            learn(view, task, how(passes, LR), learned, first, "*", f"tau {tau}")
        save_file({key: half(value) for key, value in network.state_dict().items()}, path)
    values = load_file(path).items()
    network.load_state_dict({key: one.float() if one.dtype == torch.float16 else one for key, one in values})
    return network.eval()


def measured(tau: float) -> dict[str, Any]:
    """Return the share of positions that pass blocks, the multiply-adds, and the times of the files; kept."""

    def make() -> dict[str, Any]:
        network, inputs = tuned(tau), stored().test.first(500)
        batch, _ = next(inputs.batches(500))
        passed = ponder_maps(network, batch)["stage"].float()
        blocks = next(module.blocks for module in network.modules() if isinstance(module, Ponder))
        found = profile(network, batch, batch)
        before, after = found.total("multiply_adds").value, found.expected_multiply_adds().value
        times = clocked(network, inputs)
        print(tau, float(passed.mean()), before, after, times, flush=True)
        return {"passed": float(passed.mean()), "blocks": blocks, "saved": before / after, **times}

    return kept("ponder_clock", [tau, *SETTINGS], make)


def clocked(network: nn.Module, data: Data) -> dict[str, float]:
    """Return the mean time of single pictures in ms: dense original, all blocks with masks, and chosen positions alone."""
    variants: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as scratch:
        runtime, example = Onnxruntime(), stored().example
        for name, module, form in (("dense", dense(), ""), ("masks", network, ""), ("positions", network, POSITIONS)):
            folder = Path(scratch) / name
            folder.mkdir()
            file, _ = export_one(folder, module, example, runtime.with_paths(form), data)
            session = Running(runtime.load(file, 1))
            variants[name] = [partial(call, session, one) for one in stream_of(data, 1, STREAM)]
        taken = streamed(list(variants.values()), SECONDS, time.process_time).mean((0, 2))
    return dict(zip(variants, map(float, taken), strict=True))


def export_one(folder: Path, network: nn.Module, example: Any, runtime: Onnxruntime, data: Data) -> tuple[Path, Any]:
    """Write one form of a network, compared with PyTorch."""
    single = copy.copy(runtime)
    single.path_forms = (runtime.paths,) if runtime.paths else ()  # type: ignore[misc]
    return export_into(folder, network, example, single, data, None)


def page(tau: float) -> Path:
    """Write some test pictures with their maps, and return the file."""
    network, some = tuned(tau), stored().test.first(SHOWN)
    batch, _ = next(some.batches(SHOWN))
    maps = {path: passed.numpy() for path, passed in ponder_maps(network, batch).items()}
    pixels = some.inputs.permute(0, 2, 3, 1).numpy()
    file = CACHE / "ponder.html"
    file.write_text(ponder_page(pixels, maps, dict.fromkeys(maps, 5)), encoding="utf8")
    return file


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return the curve over tau, and whether some point keeps both bars."""
    torch.set_num_threads(1)
    task = stored()
    count, rows, kept_both = len(task.test), [], []
    alone = run_of("ponder", ["dense", *SETTINGS], task, lambda: tuned(None))
    rows.append(row("dense, tuned for as long", alone["test"], "%"))
    for tau in TAUS:
        scored = run_of("ponder", [tau, *SETTINGS], task, partial(tuned, tau))
        found = measured(tau)
        lost, around = gain([scored], [alone], count)
        faster = found["dense"] / min(found["positions"], found["masks"])
        share = (found["passed"] - 1) / (found["blocks"] - 1)
        what = f"tau {tau:g}"
        rows += [
            row(f"{what}: positions that pass a block after the first", 100 * share, "%"),
            row(f"{what}: score, {lost:+.2f} +- {around:.2f} points", scored["test"], "%"),
            row(f"{what}: fewer multiply-adds, neighbours not counted", found["saved"], "x"),
            row(f"{what}: times faster than dense in onnxruntime", faster, "x", times_ms=found),
        ]
        kept_both += [faster] if lost >= -LOSS else []
    best = max(kept_both, default=0.0)
    rows.append(row(f"times faster at most at {LOSS} points lost or less", best, "x", FASTER, "higher"))
    page(TAUS[-1])
    return rows
