"""A user's detector in one file: trained with its flips, compressed, stored, loaded elsewhere, exported and reported."""

from pathlib import Path

import pytest
import torch

import cortado
from cortado.task.measure import mean_score
from tests.extension.grid_detector import Detector, flip, loss, task
from tests.fresh import fresh

LINES = 60
LOADED = """
import sys, torch
sys.path.insert(0, sys.argv[3])
import cortado
from tests.extension.grid_detector import Detector
found = cortado.load(sys.argv[1], Detector())(torch.ones(2, 1, 16, 16))
torch.save(found, sys.argv[2])
"""


@pytest.fixture(scope="module")
def trained():
    made = task()
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Detector()
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for epoch in range(6):
        for pictures, boxes in made.train.batches(made.batch, made.generator(epoch)):
            optimizer.zero_grad()
            loss(network(pictures), boxes).backward()
            optimizer.step()
    return network.eval(), made


def test_a_detector_is_one_file():
    text = Path(__file__).with_name("grid_detector.py").read_text(encoding="utf8")
    assert len(text.splitlines()) <= LINES


def test_boxes_flip_with_their_picture():
    made = task()
    pictures, targets = next(made.train.batches(1))
    turned, moved = pictures, targets
    while turned is pictures:
        turned, moved = flip(pictures, targets, made.generator(int(torch.randint(99, ()))))
    for (x0, y0, x1, y1), (u0, _, u1, _) in zip(targets[0]["boxes"].int(), moved[0]["boxes"].int(), strict=True):
        assert torch.equal(turned[0, 0, y0:y1, u0:u1], pictures[0, 0, y0:y1, x0:x1].flip(1))


def test_a_detector_goes_all_the_way(trained, tmp_path):
    network, made = trained
    assert mean_score(network, made.validation, made.metric) > 5, (
        "it finds something, so that there is something to lose"
    )
    recipe = "prune/channels keep=0.8 | quantize/weights bits=6"
    small, report = cortado.compress(
        network,
        made,
        recipe,
    )
    assert report.metric_name == "mAP at IoU 0.5" and report.test.low <= report.test.difference <= report.test.high
    assert report.size_bytes < report.original_bytes / 3 and "mAP at IoU 0.5" in str(report)
    cortado.save(small, tmp_path / "small.cortado", network)
    done = fresh(LOADED, str(tmp_path / "small.cortado"), str(tmp_path / "found.pt"), str(Path(__file__).parents[2]))
    assert done.returncode == 0, done.stderr
    found, wanted = torch.load(tmp_path / "found.pt"), small(torch.ones(2, 1, 16, 16))
    assert list(found) == ["logits", "boxes"] and all(torch.equal(found[name], wanted[name]) for name in found)
    row = cortado.export(small, made, "onnxruntime", tmp_path / "out")
    assert row.difference < 1e-4 and row.same_top == 1 and row.score == pytest.approx(row.torch_score)
    assert row.score == pytest.approx(mean_score(small, made.validation, made.metric))


def test_the_same_detector_has_the_same_score(trained):
    network, made = trained
    _, report = cortado.compress(network, made, "quantize/weights bits=8")
    assert abs(report.test.difference) < 5 and report.test.samples == 96


def test_both_outputs_of_a_detector_count_in_a_plan(trained):
    network, made = trained
    curve = cortado.plan(network, made, ["size <= 3 KB"], time_limit="20 s")
    assert curve.limits[0].value == 3000 and curve.original_bytes > 3000 and curve.size_accuracy_curve.measured
