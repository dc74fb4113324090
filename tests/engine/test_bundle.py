"""The bundle: it predicts by itself, and any change of any of its files is found."""

import contextlib
import importlib.util
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cortado.engine.bundle import check_bundle, script, write_bundle
from cortado.engine.compress import compress, compress_within
from cortado.engine.options import RunOptions
from cortado.errors import BadFile, BadValue
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.planner.search.goal import GoalSearch
from cortado.runtimes.onnxruntime import Onnxruntime
from cortado.runtimes.openvino import Openvino
from cortado.runtimes.speed import Speed
from tests.laws.tiny_nets import BY_NAME
from tests.test_cli import cortado, here
from tests.test_faults import FullDisk

__all__ = ["here"]

NET = BY_NAME["mlp"]
JOB = {"network": "tests.laws.tiny_nets:Mlp", "task": "digits"}
RUNTIMES = [runtime for runtime in (Onnxruntime(), Openvino()) if runtime.available()]


@pytest.fixture(scope="module")
def made():
    """A network compressed, and its report."""
    return compress(NET.make(), NET.task(), "quantize/weights bits=4")


def predicted(folder: Path, inputs: torch.Tensor) -> torch.Tensor:
    """What run.py of a bundle gives, in a process of its own."""
    np.save(folder / "inputs.npy", inputs.numpy())
    command = [sys.executable, str(folder / "run.py"), str(folder / "inputs.npy"), str(folder / "outputs.npy")]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return torch.from_numpy(np.load(folder / "outputs.npy"))


@pytest.mark.parametrize("runtime", RUNTIMES, ids=lambda runtime: runtime.name())
def test_bundle_predicts_with_nothing_but_its_runtime(made, runtime, tmp_path):
    small, report = made
    folder = write_bundle(tmp_path / "out", small, NET.make(), report, JOB, [runtime], NET.task())
    inputs = NET.task().test.inputs[:5]
    torch.testing.assert_close(predicted(folder, inputs), small(inputs).detach(), rtol=1e-3, atol=1e-4)
    text = (folder / "run.py").read_text()
    assert len(text.splitlines()) < 30 and "import cortado" not in text
    assert f"{runtime.name()}/net{runtime.suffix}" in check_bundle(folder)


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_any_change_of_any_file_is_found(made, tmp_path):
    small, report = made
    folder = write_bundle(tmp_path / "out", small, NET.make(), report, JOB, [Onnxruntime()], NET.task())
    names = check_bundle(folder)
    assert {"run.py", "environment.json", "report.md", "onnxruntime/export.json"} <= set(names)
    for name in names:
        body = (folder / name).read_bytes()
        (folder / name).write_bytes(body + b" ")
        with pytest.raises(BadFile, match=f"{name} was altered"):
            check_bundle(folder)
        (folder / name).write_bytes(body)
    lines = (folder / "checksums.txt").read_text().splitlines()
    (folder / "checksums.txt").write_text("\n".join(line for line in lines if "net.cortado" not in line))
    with pytest.raises(BadFile, match=r"does not list net\.cortado"):
        check_bundle(folder)
    (folder / "checksums.txt").write_text("00  ../secret\n")
    with pytest.raises(BadFile, match="is missing from"):
        check_bundle(folder)


def test_plain_weights_may_be_left_out_but_not_altered(made, tmp_path):
    small, report = made
    (tmp_path / "original_0123.safetensors").write_bytes(b"weights")
    folder = write_bundle(tmp_path, small, NET.make(), report, JOB)
    assert "original_0123.safetensors" in check_bundle(folder)
    (folder / "original_0123.safetensors").write_bytes(b"others")
    with pytest.raises(BadFile, match=r"original_0123.safetensors was altered"):
        check_bundle(folder)
    (folder / "original_0123.safetensors").unlink()
    with (folder / "checksums.txt").open("a") as file:
        file.write("00  onnxruntime/original_0.safetensors\n")
    with pytest.raises(BadFile, match="is missing from"):
        check_bundle(folder)
    lines = (folder / "checksums.txt").read_text().splitlines()
    (folder / "checksums.txt").write_text("\n".join(lines[:-1]) + "\n")
    assert "original_0123.safetensors" not in check_bundle(folder)


def test_runtimes_without_data_are_refused(made, tmp_path):
    small, report = made
    with pytest.raises(BadValue, match="Pass task="):
        write_bundle(tmp_path / "out", small, NET.make(), report, JOB, [Onnxruntime()])


ONE_LINE = ("--recipe", "prune/weights keep=0.5 | quantize/weights bits=4")
PLANNED = ("--limit", "size <= 400 B", "--minimise", "loss", "--time-limit", "30 s")


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
@pytest.mark.parametrize("words", [ONE_LINE, PLANNED], ids=["recipe", "planner"])
def test_what_was_measured_is_what_ships_exported_once_and_encoded_once(here, monkeypatch, words):  # noqa: F811
    looked_at, written, encoded = set(), [], []
    load, lower = Onnxruntime.load, Onnxruntime.lower
    monkeypatch.setattr(GoalSearch, "enough", lambda search: len(search.trials) > 1)

    def loading(runtime, file, threads):
        if "exports" in file.parts:
            looked_at.add(file.read_bytes())
        return load(runtime, file, threads)

    def lowering(runtime, network, example, folder):
        written.append(folder) if "exports" in folder.parts or folder.parent == here / "out" else None
        return lower(runtime, network, example, folder)

    def encoding(network, original, codec="smallest"):
        encoded.append(encode(network, original, codec))
        return encoded[-1]

    monkeypatch.setattr(Onnxruntime, "load", loading)
    monkeypatch.setattr(Onnxruntime, "lower", lowering)
    for user in (compress_within, write_bundle, layer_rows):
        monkeypatch.setattr(sys.modules[user.__module__], "encode", encoding)
    done = cortado("compress", "job.yaml", "--out", "out", "--measure-in", "onnxruntime", *words)
    assert done.exit_code == 0, done.output
    assert len(written) == 1 and looked_at == {(here / "out/onnxruntime/net.onnx").read_bytes()}
    assert "onnxruntime/net.onnx" in check_bundle(here / "out") and not list((here / "out").rglob("exports"))
    body = (here / "out/net.cortado").read_bytes()
    (best,) = {path.parent for path in (here / "out").rglob("stages/*.cortado") if path.read_bytes() == body}
    if words is ONE_LINE:
        assert [path.read_bytes() for path in sorted(best.glob("*.cortado"))] == encoded and len(encoded) == 2
    else:
        assert encoded.count(body) == 1


@pytest.mark.skipif(importlib.util.find_spec("onnxruntime") is None, reason="onnxruntime is not installed")
def test_full_disk_while_a_bundle_is_written_loses_nothing(tmp_path):
    """At any write: one sentence with a way out, and the bundle can be written once there is room."""
    folder, writes, hit = tmp_path / "out", 0, True
    options = replace(
        RunOptions.read(folder=folder, runtimes=["onnxruntime"]), speed=Speed((Onnxruntime(),), seconds=0.05)
    )
    made = compress_within(NET.make(), NET.task(), "quantize/weights bits=4", options)
    measured = (made.exported / "onnxruntime/net.onnx").read_bytes()
    given = (folder, made.network, NET.make(), made.report, JOB, [Onnxruntime()], NET.task())
    while hit:
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, writes)
            with contextlib.suppress(BadValue) if writes else pytest.raises(BadValue, match="No space left on device"):
                write_bundle(*given, body=made.body, exported=made.exported)
        hit = disk.hit
        if hit:
            assert (made.exported / "onnxruntime/net.onnx").read_bytes() == measured and not (
                folder / "checksums.txt"
            ).exists()
            assert (folder / "stages/01.cortado").read_bytes() == made.body and not list(folder.rglob(".*"))
        writes += 1
    check_bundle(folder)
    assert writes > 10 and (folder / "net.cortado").read_bytes() == made.body
    assert (folder / "onnxruntime/net.onnx").read_bytes() == measured and not made.exported.exists()


def test_without_a_runtime_cortado_predicts():
    text = script([])
    assert "cortado.load(FILE" in text and len(text.splitlines()) < 30
    compile(text, "run.py", "exec")
