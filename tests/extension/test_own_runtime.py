"""A user's runtime in one file: it exports, is compared, timed, and stands in the report and in a bundle."""

from pathlib import Path

import pytest

import cortado
from cortado.engine.compress import compress
from cortado.errors import BadValue
from cortado.report.pages.terminal import report_text
from cortado.runtimes.runtime import installed, runtime_by_name
from cortado.runtimes.speed import Speed, with_speed
from cortado.task.limits import read_limit, read_limits
from tests.laws.tiny_nets import BY_NAME

NAME, NET = "tests.extension.slow_runtime:Halves", BY_NAME["mlp"]


def test_a_runtime_is_one_file():
    assert len(Path(__file__).with_name("slow_runtime.py").read_text(encoding="utf8").splitlines()) <= 60


def test_own_runtime_exports_and_agrees(tmp_path):
    row = cortado.export(NET.make(), NET.task(), NAME, tmp_path / "out")
    assert row.runtime == NAME and row.difference < 1e-6 and row.same_top == 1
    assert (tmp_path / "out" / "net.halves").is_file() and (tmp_path / "out" / "export.json").is_file()


def test_own_runtime_is_timed_and_stands_in_the_report(tmp_path):
    network, task, limits = NET.make(), NET.task(), read_limits([f"latency <= 900 ms in {NAME}"])
    small, report = compress(network, task, "quantize/weights bits=8")
    speed = Speed(tuple(installed([limits[0].runtime])), seconds=0.02)
    report = with_speed(report, network, small, task, speed, limits, folder=tmp_path)
    assert [row.runtime for row in report.exports] == [NAME] and NAME in report_text(report) and report.met
    assert {one.runtime for one in report.clocks[0].times} >= {NAME, "torch_eager"}
    assert (tmp_path / runtime_by_name(NAME).folder_name() / "net.halves").is_file()


def test_limits_name_own_runtimes_and_threads():
    found = read_limit(f"latency <= 3 ms @ {NAME}:2threads")
    assert (found.runtime, found.threads) == (NAME, 2)
    known = read_limit("latency<=3ms@onnxruntime:1thread")
    assert (known.runtime, known.threads) == ("onnxruntime", 1)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("tests.extension.slow_runtime:Quarters", "cannot be loaded .*Quarters"),
        ("tests.extension.slow_runtime:HalvesSession", "cannot be loaded"),
        ("builtins:dict", "is not a Runtime. Subclass"),
        ("halves", r"there is no runtime 'halves'.*Your own is package\.module:Class"),
    ],
)
def test_what_is_no_runtime_is_refused(name, words):
    with pytest.raises(BadValue, match=words):
        runtime_by_name(name)
