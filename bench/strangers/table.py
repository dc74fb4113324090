"""The table of strangers: each network in a process of its own, by one command, and verified in another."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.kept import kept
from bench.result import CACHE, PIECES, row
from cortado.report.report import read_report

HERE = Path(__file__).parent
PACKAGES, RUNS = CACHE / "strangers", CACHE / "strangers_runs"
NETWORKS = (
    "rnet", "dreams_llama", "spoken_digits", "silero_vad", "fracast", "char_lstm", "resnet_56", "espnet", "tiny_darknet",
    "mobilenet_v1", "mobilenet_v2", "picodet", "english_reader", "minilm", "smollm2",
)  # fmt: skip
"""Files of this folder, small networks first."""
LIMIT, MINUTES = "score >= -1 %", (10, 30)
"""The longer time is given where the shorter one was not enough."""
RUNTIMES = ("onnxruntime", "openvino")
SMALLER, FASTER = 8.0, 2.5
ENOUGH, COUNTED = 9, 12
"""So many of so many networks have to come back smaller or faster."""


def command(*words: str) -> subprocess.CompletedProcess[str]:
    """Run the command line in a fresh process."""
    path = os.pathsep.join([str(HERE.parents[1]), str(PACKAGES), os.environ.get("PYTHONPATH", "")])
    call = [sys.executable, "-c", "from cortado.cli import main; main()", *words]
    return subprocess.run(call, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": path})


def tried(name: str, minutes: float) -> dict[str, Any]:
    """Compress one network under the limit, verify its bundle, and return what its report says."""
    out, start = RUNS / name, time.perf_counter()
    shutil.rmtree(out, ignore_errors=True)
    measured = [word for runtime in RUNTIMES for word in ("--measure-in", runtime)]
    limits = ["--limit", LIMIT, "--time-limit", f"{minutes:g} min"]
    done = command("compress", str(HERE / f"{name}.py"), *limits, *measured, "--out", str(out))
    taken = (time.perf_counter() - start) / 60
    found: dict[str, Any] = {"status": done.returncode, "minutes": taken, "said": last_lines(done)}
    if (out / "report.json").exists():
        found |= figures(out) | {"verified": command("verify", str(out)).returncode == 0}
    return found


def figures(out: Path) -> dict[str, Any]:
    """Return the figures of a bundle's report."""
    report = read_report(out / "report.json")
    test, (clock, *_) = report.test, report.clocks or (None,)
    assert test is not None
    faster = {
        one.runtime: one.over_same.median
        for one in (clock.times if clock else ()) if one.network == "compressed" and one.over_same and one.runtime in RUNTIMES
    }  # fmt: skip
    sign = 1 if report.higher_is_better else -1
    return {
        "recipe": [stage.title for stage in report.stages], "original": test.original, "compressed": test.compressed,
        "unit": report.metric_unit, "metric": report.metric_name, "bytes": [report.original_bytes, report.size_bytes],
        "smaller": report.original_bytes / report.size_bytes, "faster": faster,
        "lost": 100 * sign * (test.original - test.compressed) / abs(test.original),
    }  # fmt: skip


def last_lines(done: subprocess.CompletedProcess[str]) -> str:
    """Return the end of what a command said, without control codes and without the folder where it ran."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", (done.stdout if done.returncode in (0, 3) else done.stderr) or done.stdout)
    text = text.replace(f"{RUNS}{os.sep}", "").replace(f"{HERE.parents[1]}{os.sep}", "")
    return "\n".join([line for line in text.splitlines() if line.strip()][-4:])[-600:]


def found(name: str) -> dict[str, Any]:
    """Return the kept piece of a network, or try it now: in the shorter time, and if that was not enough in the longer one."""
    one: dict[str, Any] = {}
    for some in MINUTES:
        one = kept("strangers", [name, LIMIT, some], partial(tried, name, some), PIECES)
        if good(one):
            break
    return one


def good(one: dict[str, Any]) -> bool:
    """Return whether a network came back small or fast enough, at no more than 1 % lost, and was verified."""
    enough = one.get("smaller", 0) >= SMALLER or max(one.get("faster", {}).values(), default=0) >= FASTER
    return bool(enough and one.get("lost", 100) <= 1 and one.get("verified"))


def run() -> list[dict[str, Any]]:
    """Return a row for each network, and how many came back smaller or faster and with a true sentence."""
    every = {name: found(name) for name in NETWORKS}
    rows = [
        row(
            f"{name}: times smaller" if "smaller" in one else f"{name}: refused", one.get("smaller"), "x", None, "higher",
            good=good(one), **{key: value for key, value in one.items() if key != "smaller"},
        )
        for name, one in every.items()
    ]  # fmt: skip
    ended = sum(one["status"] in (0, 3) or one["said"].startswith("Error") for one in every.values())
    return [
        *rows,
        row(
            f"back {SMALLER:g}x smaller or {FASTER}x faster at no more than 1 % lost, verified, of {len(every)}",
            sum(map(good, every.values())), "networks", ENOUGH * len(every) / COUNTED, "higher",
        ),
        row(f"ended with a result or a sentence, of {len(every)}", ended, "networks", len(every), "higher"),
    ]  # fmt: skip


if __name__ == "__main__":
    for wanted in sys.argv[1:] or NETWORKS:
        print(wanted, json.dumps(found(wanted), indent=1), flush=True)
