"""Cache: teachers' outputs that are kept teach as live ones do, and leave nothing on the disk."""

import tempfile
from pathlib import Path

import pytest
import torch

from cortado.training import cache
from cortado.training.loop import train
from cortado.training.objectives.features import Features
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
OBJECTIVES = (TaskLoss(), Logits(), Features(at="first_norm, head"))


def curves(where):
    teacher = NET.make()
    for parameter in teacher.parameters():
        parameter.data.mul_(1.3)
    training = Training(epochs=2, lr=0.01, precision="float32", cache=where)
    return train(NET.make(), NET.task(), training, objectives=OBJECTIVES, teachers=(teacher,)).curves


@pytest.mark.parametrize(("where", "rel"), [("memory", 1e-6), ("file", 2e-3), ("kept", 2e-3)])
def test_kept_outputs_give_the_losses_of_live_ones(where, rel, monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path / "cache"))
    made = []
    real = cache.Cache.created
    monkeypatch.setattr(cache.Cache, "created", lambda self, first: made.append(self.folder) or real(self, first))
    live, kept = curves("live"), curves(where)
    assert set(live) == {"task", "logits", "features"}
    for term, values in live.items():
        assert kept[term] == pytest.approx(values, rel=rel, abs=1e-6), term
    assert bool(made) == (where in ("file", "kept"))
    assert (tmp_path / "cache").exists() == (where == "kept") and not list(tmp_path.glob("cortado_*"))


def test_much_goes_to_a_file_by_itself_which_a_failure_removes_too(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(cache, "MOST_BYTES", 100)
    seen = []

    def fail(network, step):
        seen.extend(one.stat().st_size for one in Path(tmp_path).rglob("*.bin"))
        raise KeyError("stop")

    with pytest.raises(KeyError):
        train(
            NET.make(), NET.task(), Training(), objectives=(Logits(),), teachers=(NET.make(),), after_batch=fail
        )  # fmt: skip
    assert seen == [len(NET.task().train) * 4 * 2] and not list(Path(tmp_path).iterdir())


def test_kept_outputs_serve_later_trainings_with_the_same_teacher(monkeypatch, tmp_path):
    """A second training reads them; another teacher and a damaged file are not taken for them."""
    monkeypatch.setenv("CORTADO_CACHE", str(tmp_path))
    asked = []
    real = cache.Teachers.observe
    monkeypatch.setattr(cache.Teachers, "observe", lambda self, inputs: asked.append(len(inputs)) or real(self, inputs))

    def trained(factor):
        teacher = NET.make()
        teacher.head.weight.data.mul_(factor)
        training = Training(epochs=2, lr=0.01, precision="float32", cache="kept", batch=16)
        asked.clear()
        return train(NET.make(), NET.task(), training, objectives=(Logits(),), teachers=(teacher,)).curves

    monkeypatch.setattr(cache, "BATCH", 8)
    first, count = trained(1.0), len(asked)
    assert count == len(NET.task().train) / 8
    assert trained(1.0) == first and len(asked) == 1
    assert trained(2.0) != first and len(asked) == count
    for file in tmp_path.rglob("*.bin"):
        file.write_bytes(file.read_bytes()[:-2])
    assert trained(1.0) == first and len(asked) == count + 1
    assert len(list(tmp_path.rglob("*.bin"))) == 2


def test_what_has_no_row_for_each_sample_is_not_kept():
    """An LSTM gives its last state beside its outputs, (layers, N, width)."""
    net, found = BY_NAME["recurrent"], {}
    for where in ("live", "memory"):
        training, teacher = Training(epochs=2, lr=0.01, cache=where), net.make()
        with torch.no_grad():
            teacher.lstm.weight_hh_l0.mul_(2)
        found[where] = train(
            net.make(), net.task(), training, objectives=(Features(at="lstm"),), teachers=(teacher,)
        ).curves["features"]  # fmt: skip
    assert found["memory"] == pytest.approx(found["live"], rel=1e-5) and found["live"][0] > 0
