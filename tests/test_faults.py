"""Faults: full disks, data and networks that raise; each is one sentence, what was finished stays, and --resume goes on."""

import dataclasses
import errno
import os
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from cortado.engine.bundle import check_bundle
from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadTask, BadValue, CortadoError, Failed
from cortado.file.artifact import encode
from cortado.methods.finetune import Finetune
from cortado.methods.method import Method
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.task.task import Data
from tests.laws.tiny_nets import BY_NAME
from tests.test_cli import cortado, here

__all__ = ["here"]

NET = BY_NAME["mlp"]
STAGES = (PruneWeights(keep=0.5), Finetune(epochs=2.0), QuantizeWeights(bits=5))
SENTENCE = r"(?s)^[a-z].*: .*\. 1 finished stages are kept in .*; --resume continues\.$"


class Items(Dataset):
    """The training data one by one; `fault` is called with each item's number."""

    def __init__(self, fault) -> None:
        self.data, self.fault = NET.task().train, fault

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, number: int):
        self.fault(number)
        return self.data.inputs[number], self.data.targets[number]


class Breaking(Method):
    """A method of somebody's with a mistake in it."""

    def apply(self, view, task):
        {}["nothing"]


def task_of(fault):
    """The tiny task whose training data raise once the calibration data were read."""
    return dataclasses.replace(NET.task(), train=Data(Items(fault)), calibration=NET.task().train)


def second_time(seen: list) -> bool:
    """Items are read once before any stage, to see that the test data's are others."""
    seen.append(True)
    return len(seen) > 1


def bytes_of(network) -> bytes:
    return encode(network, NET.make())


def sound_after(fault: list, tmp_path, wanted: type[CortadoError], says: str, task, network=None, stages=STAGES):
    """A run ends in these words with a stage kept, and once the fault is mended ends as a run without one."""
    whole, _ = compress(network or NET.make(), task, stages)
    fault.append(True)
    with pytest.raises(wanted, match=says) as caught:
        compress(network or NET.make(), task, stages, folder=tmp_path)
    assert re.match(SENTENCE, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    assert sorted(path.name for path in (tmp_path / "stages").iterdir()) == ["01.cortado", "01.json"]
    fault.clear()
    again, report = compress(network or NET.make(), task, stages, folder=tmp_path, resume=True)
    assert not report.warnings and bytes_of(again) == bytes_of(whole)


def test_data_that_raise_in_the_middle_of_an_epoch(tmp_path):
    fault, seen = [], []

    def read(number):
        if fault and number == 37 and second_time(seen):
            raise OSError("the camera was unplugged")

    says = r"stage 2 \(finetune\): task: item 37 of Items raised OSError: the camera was unplugged \(test_faults.py, line \d+, in read\)"
    sound_after(fault, tmp_path, BadTask, says, task_of(read))


class Dying(Dataset):
    """One item, for which a worker ends without a word."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, number: int):
        os._exit(1)


def test_a_worker_of_the_users_own_that_dies(tmp_path):
    """Cortado starts no workers; a Dataset that reads through a DataLoader may."""
    fault, seen = [], []

    def read(number):
        if fault and number == 5 and second_time(seen):
            next(iter(DataLoader(Dying(), num_workers=1)))

    says = r"stage 2 \(finetune\): task: item 5 of Items raised RuntimeError: DataLoader worker .* exited unexpectedly"
    sound_after(fault, tmp_path, BadTask, says, task_of(read))


@pytest.mark.parametrize("part", ["prepare", "augment"])
def test_prepare_or_augment_that_raises(part, tmp_path):
    fault = []

    def change(inputs, *_):
        if fault and torch.is_grad_enabled():
            raise KeyError("white balance")
        return inputs

    base = NET.task()
    task = dataclasses.replace(base, train=Data(base.train.inputs, base.train.targets, **{part: change}))
    says = r"task: prepare, augment or vary, on batch 1, raised KeyError: 'white balance'"
    sound_after(fault, tmp_path, BadTask, says, task)


class Fragile(nn.Module):
    """Raises in training, on its third batch."""

    fault: list = []  # noqa: RUF012 - seen by every copy

    def __init__(self) -> None:
        super().__init__()
        self.net, self.seen = NET.make(), 0

    def forward(self, inputs):
        self.seen += self.training and torch.is_grad_enabled()
        if self.fault and self.training and self.seen == 3:
            raise AttributeError("this batch is odd")
        return self.net(inputs)


def test_network_that_raises_on_one_batch(tmp_path):
    says = (
        r"stage 2 \(finetune\): finetune: batch 3 of epoch 1: the network, .* raised AttributeError: this batch is odd"
    )
    stages = (PruneWeights(keep=0.5), Finetune(epochs=2.0))
    whole, _ = compress(Fragile(), NET.task(), stages)
    Fragile.fault.append(True)
    with pytest.raises(BadNetwork, match=says) as caught:
        compress(Fragile(), NET.task(), stages, folder=tmp_path)
    Fragile.fault.clear()
    assert re.match(SENTENCE, str(caught.value))
    again, _ = compress(Fragile(), NET.task(), stages, folder=tmp_path, resume=True)
    assert encode(again, Fragile()) == encode(whole, Fragile())


@pytest.mark.parametrize(
    ("answer", "wanted", "says"),
    [
        (lambda: torch.tensor(torch.nan, requires_grad=True), BadNetwork, r"finetune: the loss of epoch 1 is nan, in float32 with moving batch norm statistics\. Lower lr"),
        (lambda: {}["loss"], BadTask, r"finetune: the task's loss, on outputs of shape \(16, 4\), .* raised KeyError: 'loss'"),
    ],
    ids=["nan", "raises"],
)  # fmt: skip
def test_loss_that_is_nan_or_raises(tmp_path, answer, wanted, says):
    fault = []

    def loss(outputs, targets):
        return answer() if fault else nn.functional.cross_entropy(outputs, targets)

    sound_after(fault, tmp_path, wanted, says, dataclasses.replace(NET.task(), loss=loss))


def test_a_mistake_in_a_method_is_reported_with_its_line(tmp_path):
    with pytest.raises(
        Failed, match=r"stage 2 .*Breaking\): it ended with KeyError: 'nothing' \(test_faults.py, line \d+"
    ) as caught:
        compress(NET.make(), NET.task(), (STAGES[0], Breaking()), folder=tmp_path)
    assert re.match(SENTENCE, str(caught.value)) and isinstance(caught.value.__cause__.__cause__, KeyError)


def test_validation_data_that_raise_before_the_first_stage_are_told():
    def read(number):
        raise PermissionError("no entry")

    task = dataclasses.replace(NET.task(), validation=Data(Items(read)))
    with pytest.raises(BadTask, match="item 0 of Items raised PermissionError: no entry"):
        compress(NET.make(), task, STAGES)


class FullDisk:
    """No room from the write of this number on: neither for files nor for folders."""

    def __init__(self, monkeypatch, writes: int) -> None:
        self.left, self.hit = writes, False
        for owner, name in ((Path, "write_bytes"), (Path, "mkdir"), (os, "replace")):
            monkeypatch.setattr(owner, name, self.limited(getattr(owner, name)))

    def limited(self, does):
        def write(*given, **how):
            self.left -= 1
            if self.left < 0:
                self.hit = True
                raise OSError(errno.ENOSPC, "No space left on device")
            return does(*given, **how)

        return write


def test_full_disk_at_any_write_ends_in_words_and_the_run_goes_on(here):
    """Of the command line: the original network, stages, bundle."""
    (here / "job.yaml").write_text(
        "network: tiny_job:network\ntask: tiny_job:task\ntrain: {epochs: 1}\n"
        "recipe: [prune/weights: {keep: 0.5}, quantize/weights: {bits: 4}]\n"
    )
    assert cortado("compress", "job.yaml", "--out", "whole").exit_code == 0
    wanted, writes, hit = (here / "whole/net.cortado").read_bytes(), 0, True
    while hit:
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, writes)
            done = cortado("compress", "job.yaml", "--out", "out", "--resume", "--quiet")
        hit = disk.hit
        if hit:
            assert done.exit_code == 1 and "No space left on device" in done.output, done.output
            assert (
                len(done.output.strip().splitlines()) == 1
                and "make room" in done.output
                or "Choose another" in done.output
            )
            assert not list((here / "out").rglob(".*")) if (here / "out").exists() else True
        writes += 2
    assert done.exit_code == 0 and writes > 10
    check_bundle(here / "out")
    assert (here / "out/net.cortado").read_bytes() == wanted


def test_full_disk_in_python_keeps_the_stages_before(tmp_path, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(BadValue, match="No space left on device") as caught:
        # One folder to try, one for the stages; a write and a rename for each of two files of a stage.
        FullDisk(patch, 8)
        compress(NET.make(), NET.task(), STAGES, folder=tmp_path / "run")
    assert re.match(SENTENCE, str(caught.value)), str(caught.value)
    again, _ = compress(NET.make(), NET.task(), STAGES, folder=tmp_path / "run", resume=True)
    assert bytes_of(again) == bytes_of(compress(NET.make(), NET.task(), STAGES)[0])


def test_full_disk_while_searching_keeps_the_study(here):
    """At any write of a trial: its stages, its note, the bundle of the best one.  The same trials come out at the end."""
    pytest.importorskip("optuna")
    (here / "job.yaml").write_text("network: tiny_job:network\ntask: tiny_job:task\ntrain: {epochs: 1}\n")
    words = [
        "search",
        "job.yaml",
        "--recipe",
        "prune/weights keep=0.3..0.8 | quantize/weights bits=3,4",
        "--trials",
        "3",
    ]
    assert cortado(*words, "--out", "whole").exit_code == 0
    wanted, writes, hit = (here / "whole/net.cortado").read_bytes(), 0, True
    while hit:
        with pytest.MonkeyPatch.context() as patch:
            disk = FullDisk(patch, writes)
            done = cortado(*words, "--out", "out", "--resume", "--quiet")
        hit = disk.hit
        if hit:
            assert done.exit_code == 1 and "No space left on device" in done.output, done.output
            assert len(done.output.strip().splitlines()) == 1, done.output
        writes += 9
    assert done.exit_code == 0 and writes > 20, done.output
    check_bundle(here / "out")
    assert (here / "out/net.cortado").read_bytes() == wanted
