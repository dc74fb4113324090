"""Shifted test pictures: what each shift does, that it is the same each time, and what a report makes of it."""

import numpy as np
import pytest
import torch

import cortado
from cortado.errors import BadValue
from cortado.report.pages.bounds import score_bound
from cortado.report.pages.html import report_html
from cortado.report.pages.terminal import report_text
from cortado.report.report import read_report
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.shifts import SAMPLES, SHIFTS, shifted_copies
from tests.laws.tiny_nets import BY_NAME
from tests.squares import data, network, pictures, task

ALL = ["as they are", "noise", "blur", "brightness", "jpeg"]


@pytest.mark.parametrize("channels", [1, 3])
def test_copies_have_the_same_shape_and_targets_and_are_the_same_each_time(channels):
    made, again, other = (dict(shifted_copies(data(channels=channels), seed)) for seed in (0, 0, 1))
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
    assert not list(shifted_copies(Data(inputs, torch.zeros(4)), 0))


def test_no_more_samples_are_shifted_than_needed():
    many = Data(torch.zeros(SAMPLES + 20, 1, 6, 6, dtype=torch.uint8), torch.zeros(SAMPLES + 20))
    assert {len(one) for _, one in shifted_copies(many, 0)} == {SAMPLES}
    limited = dict(shifted_copies(many, 0, ["blur"], others=False))
    assert list(limited) == ["blur"] and len(limited["blur"]) == SAMPLES + 20


def test_a_limited_shift_moves_the_first_samples_as_the_reports_row_does():
    """Samples are moved a few at a time, so that noise is the same however many there are."""
    many = Data(torch.full((SAMPLES + 20, 1, 6, 6), 99, dtype=torch.uint8), torch.zeros(SAMPLES + 20))
    few, all_of = dict(shifted_copies(many, 3)), dict(shifted_copies(many, 3, ["noise"]))
    assert torch.equal(few["noise"].inputs, all_of["noise"].inputs[:SAMPLES])
    assert not torch.equal(all_of["noise"].inputs[:20], all_of["noise"].inputs[SAMPLES:])


def waves(count=20, length=800):
    """Tones of 100 to 2000 cycles in 8000 samples, loud and quiet."""
    tone = torch.linspace(100, 2000, count)[:, None] * torch.arange(length) / 8000 * 2 * torch.pi
    return (tone.sin() * torch.logspace(2, 4, count)[:, None]).round().to(torch.int16)


@pytest.mark.parametrize("axes", [2, 3])
def test_sounds_have_shifts_of_their_own(axes):
    made = waves() if axes == 2 else waves()[:, None]
    copies = dict(shifted_copies(Data(made, torch.zeros(20)), 0))
    assert list(copies) == ["as they are", "hiss", "quiet", "muffled"]
    found = {name: one.inputs.float() for name, one in copies.items()}
    assert all(one.inputs.shape == made.shape and one.inputs.dtype == torch.int16 for one in copies.values())
    power = {name: one.square().mean(-1).flatten() for name, one in found.items()}
    before = power["as they are"]
    hiss = (found["hiss"] - made.float()).square().mean(-1).flatten()
    # 20 decibels are a factor of 100 in power.
    assert torch.allclose(hiss, before / 100, rtol=0.25) and torch.allclose(power["quiet"], before / 100, rtol=0.05)
    # The mean of 5 samples of a tone is sin(5 w / 2) / (5 sin(w / 2)) of it: next to all of the lowest, little of the highest.
    inside = {name: one[..., 5:-5].square().mean(-1).flatten() for name, one in found.items()}
    ratio = (inside["muffled"] / inside["as they are"]).sqrt()
    turn = torch.linspace(100, 2000, 20) / 8000 * torch.pi
    assert torch.allclose(ratio, ((5 * turn).sin() / (5 * turn.sin())).abs(), atol=0.03)


def test_report_has_a_row_for_each_shift_and_reads_back(tmp_path):
    _, report = cortado.compress(network(), task(), "quantize/weights bits=3")
    assert list(report.shifts) == ALL and report.shifts["as they are"] == report.test
    text = report_text(report)
    assert "on 40 test samples as they are, and shifted" in text and "\nbrightness" in text
    assert "On shifted samples" in report_html(report)
    path = tmp_path / "report.json"
    path.write_text(report.as_json())
    assert read_report(path).shifts == report.shifts


@pytest.mark.parametrize("points", [-100, 100])
@pytest.mark.parametrize("shift", ["noise", "tests.squares:darker"])
def test_limit_under_a_shift_is_kept_or_missed_by_the_score_there(shift, points):
    text = f"score >= {points:+} % under {shift}"
    small, report = cortado.compress(network(), task(), "quantize/weights bits=2", limits=[text, "score >= -100 %"])
    line = report.lines[2]
    assert (line.what, line.limit, line.met) == (f"accuracy under {shift}", text, points < 0)
    copy = dict(shifted_copies(task().test, 0, [shift]))[shift]
    assert line.compressed == mean_score(small, copy, task().metric) and line.original == report.shifts[shift].original
    assert report.met is (points < 0) and text in report_text(report) and report.lines[1].limit == "score >= -100 %"
    assert "size of the file" in report_html(report) and line.what in report_html(report)


def test_a_score_under_a_shift_is_no_line_of_a_chart_and_read_back(tmp_path):
    _, report = cortado.compress(network(), task(), "quantize/weights bits=3", limits=["score >= -100 % under jpeg"])
    path = tmp_path / "report.json"
    path.write_text(report.as_json())
    assert read_report(path).met and score_bound(read_report(path)) is None


def test_trial_looks_at_the_shifts_of_its_limits_alone():
    blind = task().for_trial()
    _, without = cortado.compress(network(), blind, "quantize/weights bits=3")
    _, limited = cortado.compress(network(), blind, "quantize/weights bits=3", limits=["score >= -100 % under blur"])
    assert without.shifts == {} and list(limited.shifts) == ["blur"]


@pytest.mark.parametrize(
    ("made", "shift", "says"),
    [
        (task, "jpg", "there is no shift 'jpg'. Did you mean jpeg?"),
        (
            task,
            "rain",
            "There are: noise, blur, brightness, jpeg, hiss, quiet, muffled. Your own is package.module:function",
        ),
        (
            task,
            "hiss",
            r"'hiss' is of waves of 16 bits, .* the samples are uint8 \(2, 3, 12, 12\). These have: noise, blur",
        ),
        (
            BY_NAME["mlp"].task,
            "jpeg",
            r"of pictures in bytes, .* the samples are float32 .* turn them to floats in prepare",
        ),
        (task, "tests.squares:rain", "'tests.squares:rain' cannot be loaded"),
        (task, "tests.squares:pictures", "the shift 'tests.squares:pictures' raised TypeError"),
    ],
)
def test_shift_that_cannot_be_meant_is_refused_before_anything_is_computed(made, shift, says):
    given = made()
    net = network() if made is task else BY_NAME["mlp"].make()
    with pytest.raises(BadValue, match=says):
        cortado.compress(net, given, "quantize/weights bits=3", limits=[f"score >= -1 % under {shift}"])
