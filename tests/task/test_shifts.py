"""Shifted test pictures: what each shift does, that it is the same each time, and what a report makes of it."""

import numpy as np
import pytest
import torch
from torch import nn

import cortado
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.report import read_report
from cortado.task.data import Data
from cortado.task.shifts import SAMPLES, SHIFTS, shifted_copies
from cortado.task.task import Task
from cortado.tasks.pixels import Normalise

ALL = ["as they are", "noise", "blur", "brightness", "jpeg"]


def pictures(count=40, channels=3, size=12):
    """Pictures of bright squares on the left or the right: two classes."""
    generator = torch.Generator().manual_seed(0)
    made = torch.randint(0, 60, (count, channels, size, size), generator=generator)
    labels = torch.arange(count) % 2
    for number, label in enumerate(labels.tolist()):
        made[number, :, 3:9, 6 * label : 6 * label + 5] += 150
    return made.to(torch.uint8), labels


def data(**more):
    return Data(*pictures(**more), Normalise((0.5,) * more.get("channels", 3), (0.5,) * more.get("channels", 3)))


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_have_the_same_shape_and_targets_and_are_the_same_each_time(channels):
    made, again, other = (shifted_copies(data(channels=channels), seed) for seed in (0, 0, 1))
    assert list(made) == ALL
    for name, one in made.items():
        assert one.inputs.shape == (40, channels, 12, 12) and one.inputs.dtype == torch.uint8
        assert torch.equal(one.inputs, again[name].inputs) and torch.equal(one.targets, made["as they are"].targets)
        assert (name == "as they are") == torch.equal(one.inputs, made["as they are"].inputs)
    assert not torch.equal(made["noise"].inputs, other["noise"].inputs)


def test_shifts_are_what_their_names_say():
    images, generator = pictures()[0], torch.Generator().manual_seed(0)
    floats = {name: shift(images, generator).float() for name, shift in SHIFTS.items()}
    before = images.float()
    assert torch.equal(floats["brightness"], (before + 40).clamp(max=255))
    assert float((floats["noise"] - before)[before > 100].std()) == pytest.approx(20, rel=0.1)
    steps = {name: float((one[..., 1:] - one[..., :-1]).abs().mean()) for name, one in (floats | {"": before}).items()}
    assert steps["blur"] < 0.7 * steps[""] < steps["noise"]
    assert float(floats["blur"].mean()) == pytest.approx(float(before.mean()), rel=0.02)
    assert 1 < float((floats["jpeg"] - before).abs().mean()) < 25


def test_a_blur_of_one_point_is_the_kernel():
    image = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    image[0, 0, 4, 4] = 255
    found = SHIFTS["blur"](image, torch.Generator())[0, 0].numpy()
    line = np.exp(-0.5 * np.arange(-2, 3) ** 2)
    wanted = 255 * np.outer(line, line) / line.sum() ** 2
    assert np.abs(found[2:7, 2:7] - wanted).max() <= 0.5 and found[:2].sum() == 0


@pytest.mark.parametrize(
    "inputs",
    [torch.randn(4, 3, 8, 8), torch.zeros(4, 7, dtype=torch.uint8), torch.zeros(4, 2, 8, 8, dtype=torch.uint8),
     {"image": torch.zeros(4, 3, 8, 8, dtype=torch.uint8)}],
)  # fmt: skip
def test_other_inputs_are_not_shifted(inputs):
    assert shifted_copies(Data(inputs, torch.zeros(4)), 0) == {}


def test_no_more_samples_are_shifted_than_needed():
    many = Data(torch.zeros(SAMPLES + 20, 1, 6, 6, dtype=torch.uint8), torch.zeros(SAMPLES + 20))
    assert {len(one) for one in shifted_copies(many, 0).values()} == {SAMPLES}


def test_report_has_a_row_for_each_shift_and_reads_back(tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 2)).eval()
    images, labels = pictures(120)
    parts = [
        Data(images[a:b], labels[a:b], Normalise((0.5,) * 3, (0.5,) * 3)) for a, b in ((0, 40), (40, 80), (80, 120))
    ]
    _, report = cortado.compress(network, Task(*parts), "quantize/weights bits=3")
    assert list(report.shifts) == ALL and report.shifts["as they are"] == report.test
    text = report_text(report)
    assert "on 40 test pictures as they are, and shifted" in text and "\nbrightness" in text
    assert "On shifted pictures" in report_html(report)
    path = tmp_path / "report.json"
    path.write_text(report.as_json())
    assert read_report(path).shifts == report.shifts
