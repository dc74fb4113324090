"""detect_bccd: detectors of blood cells: trained on one core within minutes, then cut, in integers, and timed.

SSDLite on MobileNet V1 (0.25 wide), the same with dense heads (SSD), and SSDLite on MobileNet V1 (0.75 wide), all from the
published backbones, on the 205 training pictures at 320 x 240 pixels; one seed each. Minutes are those of the processor, on
one thread. Scores are of the 72 test pictures, with the 95 % interval of the jackknife over pictures; weights are stored as
float16. The larger one is then compressed by recipes/int8_ssdlite.yaml: nearly half of its multiply-adds is cut in multiples of
16 channels, it learns from itself as it was, and its weights and activations become integers. The file that is kept beside the
bench is scored in PyTorch, ONNX Runtime and OpenVINO, and timed against the floats in the same runtime, in turns, on one thread.
"""

import math
import tempfile
import time
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from bench.detectors import minutes_of, trained, weights_file
from bench.kept import kept
from bench.processor import faster_row, processor_times
from bench.result import CACHE, PIECES, row
from cortado.boxes.targets import boxes_by_picture
from cortado.engine.compress import compress
from cortado.file.artifact import load, save
from cortado.network.profile.profile import profile
from cortado.report.pages.found_boxes import found_boxes_page
from cortado.report.report import paired_interval
from cortado.runtimes.export import export_into
from cortado.runtimes.measured import bound
from cortado.runtimes.runtime import runtime_by_name
from cortado.task.average_precision import ONE_OVERLAP, Hits, mean_average_precision
from cortado.task.data import Data
from cortado.task.measure import run as answers
from cortado.tasks.bccd import CLASSES, NAMES, task

RECIPE = Path(__file__).parents[1] / "recipes" / "int8_ssdlite.yaml"
RUNTIMES = ("onnxruntime", "openvino")
WHOLE, HALF = mean_average_precision(CLASSES), mean_average_precision(CLASSES, overlaps=ONE_OVERLAP)
NETWORKS = {
    "lite": ("SSDLite on MobileNet V1 0.25", 10.0, (86.0, 51.0)),
    "dense": ("SSD on MobileNet V1 0.25", None, (None, None)),
    "large": ("SSDLite on MobileNet V1 0.75", 30.0, (88.0, 54.0)),
}
"""How each is called, the most minutes of its training, and the least mAP at 0.5 and over all overlaps on test pictures."""
FASTER, SMALLER, LOST = 2.5, 8.0, 1.0
QUICK_S = 0.1
SHOWN = 6


@dataclass(frozen=True)
class Seen:
    """The hits of a network in each picture, and what both scores make of them."""

    hits: list[Hits]

    def shares(self, half: bool) -> Tensor:
        if not half:
            return WHOLE.shares(self.hits)
        return HALF.shares([replace(one, hits=one.hits[:1]) for one in self.hits])

    def score(self, half: bool) -> float:
        return 100 * float(self.shares(half).mean())

    def interval(self, half: bool) -> float:
        """Half of the 95 % interval."""
        shares = self.shares(half)
        return 196 * float(shares.std()) / math.sqrt(len(shares))


@cache
def cells() -> Any:
    return task()


def seen(network: Any, data: Data) -> Seen:
    """What a network finds in all pictures of some data."""
    metric, hits = cells().metric, []
    with torch.no_grad():
        for inputs, targets in data.batches(8):
            outputs = answers(network, inputs) if isinstance(network, nn.Module) else tuple(network(inputs))
            hits += metric.each(outputs, targets)
    return Seen(hits)


def trained_rows(which: str) -> list[dict[str, Any]]:
    """How long a detector was trained, and how good it is."""
    name, most, bars = NETWORKS[which]
    found = seen(trained(which), cells().test)
    rows = [row(f"{name}: training, minutes of the processor", minutes_of(which), "min", most)]
    for half, words, bar in ((True, "mAP at 0.5", bars[0]), (False, "mAP", bars[1])):
        rows.append(
            row(
                f"{name}: test {words}",
                found.score(half),
                "%",
                bar,
                "higher",
                interval=found.interval(half),
                pictures=72,
            )
        )
    return rows


def head_rows() -> list[dict[str, Any]]:
    """What dense heads cost more, and what they gain on the same pictures."""
    lite, dense = trained("lite"), trained("dense")
    counts = [
        sum(one.numel() for part in (net.classes, net.offsets) for one in part.parameters()) for net in (lite, dense)
    ]
    shares = [seen(net, cells().test).shares(half=True) for net in (lite, dense)]
    gap = paired_interval(*shares, 100.0)
    words = f"(95 % interval {gap.low:.1f} to {gap.high:.1f})"
    return [
        row("SSD: parameters of the heads, times those of SSDLite", counts[1] / counts[0], "x"),
        row(f"SSD minus SSDLite, test mAP at 0.5 {words}", gap.difference, "points", low=gap.low, high=gap.high),
    ]


def metric_rows() -> list[dict[str, Any]]:
    """How long mAP takes once boxes are found."""
    data, metric = cells().validation, cells().metric
    inputs, targets = next(data.batches(len(data)))
    with torch.no_grad():
        found = metric.each.keywords["detections"](trained("lite")(inputs))
    start = time.process_time()
    rows = WHOLE.rows(found, targets)
    WHOLE.shares(rows)
    seconds = (time.process_time() - start) * 100 / len(data)
    return [row("mAP over ten overlaps with its jackknife, 100 pictures", seconds, "s", QUICK_S)]


def small_file() -> Path:
    return PIECES / "detect_bccd_small.cortado"


def shrunk(original: nn.Module) -> tuple[nn.Module, dict[str, Any]]:
    """The compressed network from its kept file, and what its compression took; compresses first if that was not done."""

    def make() -> dict[str, Any]:
        start = time.process_time()
        small, report = compress(
            original, cells(), RECIPE, limits=[f"score >= -{LOST:g}"], folder=CACHE / "detect_bccd_run", resume=True
        )
        save(small, small_file(), original)
        stages = {stage.name: stage.score for stage in report.stages}
        minutes = (time.process_time() - start) / 60
        return {"minutes": minutes, "stages": stages, "original": report.original_validation, "met": report.met}

    facts = kept("detect_bccd_small", [RECIPE.read_text(encoding="utf8"), str(minutes_of("large"))], make, PIECES)
    return load(small_file(), original).eval(), facts


def small_rows() -> list[dict[str, Any]]:
    """The larger detector, compressed: bytes, scores, times."""
    original = trained("large")
    small, facts = shrunk(original)
    name, validation, test = "compressed", cells().validation, cells().test
    (val_before, val_after), (test_before, test_after) = (
        (seen(original, data), seen(small, data)) for data in (validation, test)
    )
    gap = paired_interval(test_before.shares(True), test_after.shares(True), 100.0)
    cost = [profile(net, cells().example).total("multiply_adds").value for net in (original, small)]
    floats = 4 * sum(one.numel() for one in original.parameters())
    rows = [
        row(f"{name}: minutes of the processor", facts["minutes"], "min"),
        row(f"{name}: multiply-adds", 100 * cost[1] / cost[0], "%"),
        row(f"{name}: times smaller than float32", floats / small_file().stat().st_size, "x", SMALLER, "higher"),
        row(f"{name}: validation mAP, change", val_after.score(False) - val_before.score(False), "points", -LOST, "higher"),
        row(
            f"{name}: test mAP at 0.5, change (95 % interval {gap.low:.1f} to {gap.high:.1f})", gap.difference, "points",
            -LOST, "higher", original=test_before.score(True),
        ),
        row(f"{name}: test mAP, change", test_after.score(False) - test_before.score(False), "points"),
    ]  # fmt: skip
    for runtime in RUNTIMES:
        rows += runtime_rows(runtime, original, small, test_before)
    page(original, small)
    return rows


def runtime_rows(name: str, original: nn.Module, small: nn.Module, before: Seen) -> list[dict[str, Any]]:
    """Both networks as files of one runtime: what the small one loses there, and how much faster it is."""
    runtime, files, shares = runtime_by_name(name), {}, []
    with tempfile.TemporaryDirectory() as folder:
        for what, network in (("floats", original), ("integers", small)):
            own = Path(folder) / what
            own.mkdir()
            files[what], made = export_into(
                own, network, cells().example, runtime, cells().validation.first(16), None, kind=cells().outputs
            )
            shares.append(made.integer_share)
        session = runtime.load(files["integers"], 1)
        found = seen(lambda inputs: session(inputs), cells().test)
        one = cells().example[:1]
        calls = {what: bound(runtime.load(file, 1), (one,)) for what, file in files.items()}
        calls["again"] = bound(runtime.load(files["floats"], 1), (one,))
        taken = processor_times(calls, 40)
    return [
        row(
            f"{name}: test mAP at 0.5, change from PyTorch's floats",
            found.score(True) - before.score(True),
            "points",
            -LOST,
            "higher",
        ),
        row(f"{name}: multiply-adds in integers", None if shares[1] is None else 100 * shares[1], "%"),
        faster_row(f"{name}: times faster than floats, one picture", taken, "integers", "floats", FASTER),
        faster_row(f"{name}: floats against themselves (A/A)", taken, "again", "floats", None),
    ]


def page(original: nn.Module, small: nn.Module) -> Path:
    """Write some test pictures with the true boxes and those of both networks, and return the file."""
    some = cells().test.first(SHOWN)
    batch, targets = next(some.batches(SHOWN))
    read = cells().metric.each.keywords["detections"]
    with torch.no_grad():
        found = {
            "true boxes": boxes_by_picture(targets), f"original, {weights_file('large').name}": read(original(batch)),
            "compressed": read(small(batch)),
        }  # fmt: skip
    pixels = some.inputs.permute(0, 2, 3, 1).contiguous().numpy()
    file = CACHE / "detect_bccd.html"
    file.parent.mkdir(exist_ok=True)
    file.write_text(found_boxes_page(pixels, found, NAMES), encoding="utf8")
    return file


def run() -> list[dict[str, Any]]:
    """All rows."""
    torch.set_num_threads(1)
    return [
        *trained_rows("lite"),
        *trained_rows("dense"),
        *head_rows(),
        *metric_rows(),
        *trained_rows("large"),
        *small_rows(),
    ]
