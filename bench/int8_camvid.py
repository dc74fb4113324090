"""int8_camvid: ESPNet segments CamVid in integers - IoU lost by its files, what runs in integers, speed over floats.

Weights and activations are rounded after training, with 24 frames of the training set to calibrate. The recipe is chosen by
the mean divergence of its file's answers from the original network's, over the pixels of 16 frames of the validation
video; the test result frames, every 4th of the test set, are used once for each chosen file. Points are those of the mean
IoU over 11 classes, of all test frames together; intervals come from the jackknife over frames.
"""

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.after import after
from bench.result import row
from cortado.lowering.lower import lowered
from cortado.machine import instruction_sets, processor_saturates
from cortado.nets.espnet import espnet
from cortado.report.record import FLOATS, INT8, UNREPORTED
from cortado.report.report import paired_interval
from cortado.running.call import call
from cortado.runtimes.measured import bound
from cortado.runtimes.placements import kernel_share, placements
from cortado.runtimes.runtime import Running, Runtime, runtime_by_name
from cortado.runtimes.timing import interleaved, is_noisy, speed_ratio
from cortado.task.overlap import mean_iou
from cortado.task.task import Data, Task
from cortado.tasks import camvid

SEEDS = [0]
RUNTIMES = ("onnxruntime", "openvino")
CALIBRATION_FRAMES, CHOICE_FRAMES, SECONDS, BAR = 24, 16, 30.0, 0.3
SCORE = mean_iou(camvid.CLASSES)
BITS = 7 if processor_saturates() else 8
INNER = "where='not encoder.level1.conv, not up_l3.0, not up_l2.0, not classifier'"
"""Without the first convolution, whose 16 channels reach far apart, and the transposed ones, which no runtime has."""


def candidate_recipes() -> dict[str, str]:
    """The recipes that are tried."""
    frames = f"batch=8 images={CALIBRATION_FRAMES}"
    made = {}
    all_products, inner = ("all products", ""), ("without the first and the transposed", INNER)
    for (says, where), reach in ((all_products, "percentile"), (inner, "percentile"), (inner, "mse")):
        made[f"{says}, {reach}"] = (
            f"quantize/weights bits={BITS} {where} | quantize/activations range={reach} {frames} {where} "
            f"| match_moments images={CALIBRATION_FRAMES}"
        )
    made["second order, without the first and the transposed, mse"] = (
        f"quantize/activations range=mse {frames} {INNER} "
        f"| quantize/second_order bits={BITS} edges={BITS} images={CALIBRATION_FRAMES} rows=6000 {INNER} "
        f"| match_moments images={CALIBRATION_FRAMES}"
    )
    return made


def run() -> list[dict[str, Any]]:
    """ESPNet in both runtimes."""
    task, original = camvid.task(), espnet(weights=True).eval()
    assert task.calibration is not None
    task = replace(task, calibration=task.calibration.first(CALIBRATION_FRAMES))
    made = {way: after(original, task, recipe) for way, recipe in candidate_recipes().items()}
    before = Answers.of(original, task.test)
    rows = [row("plain: mean IoU of PyTorch, 59 frames (0.556 published)", score_of(before), "%")]
    with tempfile.TemporaryDirectory() as folder:
        for runtime in map(runtime_by_name, RUNTIMES):
            own = Path(folder) / runtime.name()
            tried = [
                in_runtime(original, net, way, task, runtime, own / str(n)) for n, (way, net) in enumerate(made.items())
            ]
            best = min(tried, key=lambda one: float(one["divergence"]))
            rows += rows_of(best, tried, before, task, runtime)
            floats = lower(original, task, runtime, own / "floats")
            rows += speed_rows(runtime, floats, best["file"], task)
    return rows


def lower(network: nn.Module, task: Task, runtime: Runtime, folder: Path) -> Path:
    folder.mkdir(parents=True)
    return runtime.lower(lowered(network, task.example), task.example, folder)


def in_runtime(
    original: nn.Module, network: nn.Module, way: str, task: Task, runtime: Runtime, folder: Path
) -> dict[str, Any]:
    """A network's file, and how far its answers are from the original network's on choice frames, in nats a pixel."""
    file = lower(network, task, runtime, folder)
    running, far = Running(runtime.load(file, torch.get_num_threads())), []
    with torch.no_grad():
        for inputs, _ in task.validation.first(CHOICE_FRAMES).batches(4):
            wanted, found = (call(one, inputs).log_softmax(1) for one in (original, running))
            far.append(float((wanted.exp() * (wanted - found)).sum(1).mean()))
    return {
        "way": way,
        "network": network,
        "file": file,
        "running": running,
        "divergence": sum(far) / len(far),
        "bytes": sum(part.stat().st_size for part in folder.iterdir()),
    }


class Answers:
    """The class of each pixel, (frames, height, width), and what the score needs of each frame."""

    def __init__(self, classes: Tensor, rows: Tensor) -> None:
        self.classes, self.rows = classes, rows

    @classmethod
    def of(cls, network: nn.Module, data: Data) -> "Answers":
        classes, rows = [], []
        with torch.no_grad():
            for inputs, targets in data.batches(1):
                outputs = call(network.eval(), inputs)
                classes.append(outputs.argmax(1).to(torch.uint8))
                rows.append(SCORE.each(outputs, targets))
        return cls(torch.cat(classes), torch.cat(rows))

    def same(self, other: "Answers") -> float:
        """Share of pixels of the same class, in %."""
        return 100 * float((self.classes == other.classes).double().mean())


def score_of(answers: Answers) -> float:
    return float(SCORE.shares(answers.rows).mean()) * SCORE.scale


def rows_of(
    best: dict[str, Any], tried: list[dict[str, Any]], before: Answers, task: Task, runtime: Runtime
) -> list[dict[str, Any]]:
    """Points lost, agreement, and what runs in integers."""
    found, torch_found = (Answers.of(net, task.test) for net in (best["running"], best["network"]))
    compared = paired_interval(SCORE.shares(before.rows), SCORE.shares(found.rows), SCORE.scale)
    interval = "unknown" if compared.low is None else f"{-compared.high:.2f} to {-compared.low:.2f}"
    what = f"{runtime.name()} ({best['way']})"
    facts = {
        "score": compared.compressed,
        "original": compared.original,
        "weight_bits": BITS,
        "choice_nats": {one["way"]: one["divergence"] for one in tried},
    }
    lost = f"{what}: points of mean IoU lost (95 % interval {interval}, paired, {compared.samples} frames)"
    found = placements(runtime, best["file"], best["network"], task.example)
    known = kernel_share(found, UNREPORTED) == 0
    unquantized = ", ".join(row.layer for row in found if row.kernel == FLOATS) or "none" if known else "unknown"
    share = 100 * kernel_share(found, INT8) if known else None
    return [
        row(lost, -compared.difference, "points", BAR, **facts),
        row(
            f"{runtime.name()}: pixels of the same class as the original network",
            before.same(found),
            "%",
            None,
            "higher",
        ),
        row(f"{runtime.name()}: pixels of the same class as in PyTorch", torch_found.same(found), "%", None, "higher"),
        row(f"{runtime.name()}: multiply-adds in integers; in floats: {unquantized}", share, "%", None, "higher"),
        row(f"{runtime.name()}: file", best["bytes"], "B"),
    ]


def speed_rows(runtime: Runtime, floats: Path, integers: Path, task: Task) -> list[dict[str, Any]]:
    """Times faster than floats in the same runtime, one frame at a time; and floats against themselves."""
    inputs, threads = task.example[:1], torch.get_num_threads()
    taken = interleaved([bound(runtime.load(file, threads), (inputs,)) for file in (floats, integers, floats)], SECONDS)
    again = speed_ratio(taken[:, 0], taken[:, 2])
    rows = []
    for label, found in (("integers, times faster than floats", speed_ratio(taken[:, 0], taken[:, 1])), ("A/A", again)):
        what = f"{runtime.name()}, batch 1, {threads} thread: {label} (quartiles {found.low:.2f} to {found.high:.2f})"
        facts = {"low": found.low, "high": found.high, "rounds": len(taken), "noisy": is_noisy(again)}
        rows.append(row(what, found.median, "x", None, "higher", **facts))
    middle = [float(value) for value in torch.from_numpy(taken).median(0).values]
    rows[0].update(
        floats_ms=middle[0], integers_ms=middle[1],
        instruction_sets=list(instruction_sets()), version=runtime.version(),
    )  # fmt: skip
    return rows
