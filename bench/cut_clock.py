"""ResNet-56 cut until it is twice as fast in ONNX Runtime at batch 32 on the clock: our cut against a uniform one.

    python -m bench.cut_clock search ARM      the cut of one arm, found on the clock; kept under bench/cache
    python -m bench.cut_clock ARM             the same, then its 5 epochs of recovery; resumes where it stopped
    python -m bench cut_clock                 both arms (what is not kept takes an hour each), then the table

ARM is ours or uniform; what either may try, and how the cut is found, is in clock_search.py. Both arms are matched in
their moments and recover by one plan. The test data are used once for each finished network.

The original network was trained by others on all 50,000 training images, the validation data among them: they serve to choose
within an arm, never between arms.
"""

import argparse
import dataclasses
from typing import Any

import torch
from torch import nn

from bench.clock_search import BATCH, CANDIDATE_RECIPES, RECIPE, THREADS, chosen, original, searched, widths
from bench.kept import kept
from bench.result import CACHE, row
from bench.timed import times_in_runtimes
from cortado.engine.compress import compress, test
from cortado.engine.recipe import read_recipe, stage_data
from cortado.file.artifact import load, save
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.network.profile.profile import profile
from cortado.report.pages.terminal import report_text
from cortado.report.report import Compared
from cortado.task.task import Task
from cortado.tasks import cifar10

SEEDS = [0]
TIMES, EPOCHS = 2.0, 5.0


def task_of(images: int | None) -> Task:
    """CIFAR-10; `images` leaves so few, and the test data alone, to see whether it runs."""
    task = cifar10.task()
    if images is None:
        return task
    few = task.validation.first(images)
    return dataclasses.replace(task, train=task.train.first(images), validation=few).for_trial()


def recovery(epochs: float) -> Finetune:
    """The fine-tuning of the recipe, so long."""
    finetune = read_recipe(RECIPE).stages[1]
    assert isinstance(finetune, Finetune)
    return dataclasses.replace(finetune, epochs=epochs)


def finished(arm: str, task: Task) -> dict[str, Any]:
    """The arm cut and recovered: its verdicts before and after, what was predicted, and its report as it is printed."""
    name, found = chosen(arm, task)
    way = CANDIDATE_RECIPES[arm][name]
    stages = [*way.before(), way.channels(arm, found["keep"], found.get("prices", "")), recovery(EPOCHS)]
    settings = [[stage_data(stage) for stage in stages], len(task.train), BATCH]
    return kept(f"cut_clock/{arm}", settings, lambda: recovered(arm, name, stages, task))


def recovered(arm: str, name: str, stages: list[Method], task: Task) -> dict[str, Any]:
    network, folder = original(), CACHE / "cut_clock" / f"{arm}_{len(task.train)}"
    small, report = compress(
        network, task, stages, folder=folder, resume=True,
        runtimes=["onnxruntime"], batches=[BATCH], threads=THREADS,
    )  # fmt: skip
    before = test(network, load(folder / "stages" / f"{len(stages) - 1:02}.cortado", network), task)
    save(small, folder / "net.cortado", network)
    costs = [profile(one, task.example).total("multiply_adds").value for one in (network, small)]
    return {
        "way": name,
        "keep": stages[-2].keep,  # type: ignore[attr-defined]
        "predicted": costs[0] / costs[1],
        "widths": widths(small),
        "before": dataclasses.asdict(before),
        "after": dataclasses.asdict(report.test),
        "stages": [(stage.name, stage.score, stage.seconds) for stage in report.stages],
        "report": report_text(report),
        "file": str(folder.relative_to(CACHE) / "net.cortado"),
    }


def run() -> list[dict[str, Any]]:
    """Both arms: the clock, what was predicted, and the points lost before and after recovery."""
    task, rows, lost = cifar10.task(), [], {}
    for arm in ("uniform", "ours"):
        found = finished(arm, task)
        lost[arm] = [Compared(**found[when]) for when in ("before", "after")]
        rows += [
            row(
                f"{arm} in {name}: choice accuracy before recovery",
                one["validation"],
                "%",
                better="higher",
                keep=one["keep"],
            )
            for name, one in ((name, searched(arm, name, task)) for name in CANDIDATE_RECIPES[arm])
        ]
        what = f"{arm} ({found['way']})"
        rows.append(row(f"{what}: predicted, times fewer multiply-adds; no time", found["predicted"], "x"))
        network = original()
        rows += clock_rows(what, load(CACHE / found["file"], network), network, task)
        rows += report_rows(what, found["report"])
    for place, when in enumerate(("without recovery", "after 5 epochs")):
        bar = -lost["uniform"][place].difference
        for arm in ("ours", "uniform"):
            one = lost[arm][place]
            label = f"{arm} {when}: points lost ({interval(one)})"
            rows.append(row(label, -one.difference, "points", bar if arm == "ours" else None, accuracy=one.compressed))
    return rows


def clock_rows(what: str, small: nn.Module, network: nn.Module, task: Task) -> list[dict[str, Any]]:
    """Times in all runtimes; the bar is on the ratio in ONNX Runtime at batch 32."""
    rows = times_in_runtimes(small, network, task.example, what, (1, BATCH), THREADS)
    for found in rows:
        if f"batch {BATCH}, onnxruntime: measured, times faster than plain in the same" in found["what"]:
            found.update(bar=TIMES, met=found["value"] >= TIMES)
    return rows


def report_rows(what: str, text: str) -> list[dict[str, Any]]:
    """What the report calls the two ratios: both are there, and the predicted one is no speed-up."""
    shown = "predicted from multiply-adds" in text and "over the same runtime" in text
    called = [line for line in text.splitlines() if "predicted" in line and ("speed" in line or "faster" in line)]
    return [
        row(f"{what}: report shows the predicted and the measured ratio", float(shown), "of 1", 1, "higher"),
        row(f"{what}: lines of the report that call the predicted ratio a speed-up", len(called), "lines", 0),
    ]


def interval(found: Compared) -> str:
    if found.low is None or found.high is None:
        return "interval unknown"
    return f"95 % interval {-found.high:.2f} to {-found.low:.2f}, paired, {found.samples} images"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m bench.cut_clock", description=__doc__)
    parser.add_argument("words", nargs="+", help="ours or uniform, with search before it to stop before recovery")
    parser.add_argument("--images", type=int, help="train on so few, to see whether it runs")
    options = parser.parse_args()
    torch.set_num_threads(THREADS)
    given, arm_named = task_of(options.images), options.words[-1]
    if options.words[0] == "search":
        print(chosen(arm_named, given))
    else:
        done = finished(arm_named, given)
        print(done.pop("report"))
        print(done)
