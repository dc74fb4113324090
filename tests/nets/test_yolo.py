"""Yolo: shapes, distances as means of distributions, and that it learns."""

import pytest
import torch
from torch.nn import functional

from cortado.boxes.detections import Detections
from cortado.boxes.targets import padded_boxes
from cortado.errors import BadNetwork, BadValue
from cortado.nets.catalog import by_name
from cortado.nets.yolo import Distances, Yolo
from cortado.task.average_precision import mean_average_precision
from cortado.task.point_loss import PointLoss


def test_it_answers_at_each_place_of_three_levels():
    network = by_name("yolo", classes=5, width=4).eval()
    logits, distances = network(torch.zeros(2, 3, 72, 96))
    assert network.grid(72, 96).shapes == ((9, 12), (5, 6), (3, 3))
    assert logits.shape == (2, network.grid(72, 96).places, 5) and distances.shape == (2, logits.shape[1], 4)
    assert float(logits.detach().sigmoid().max()) < 0.1, "a fresh network sees no object"


def test_distances_are_the_means_of_their_distributions():
    answers = torch.randn(2, 3, 4 * 8, generator=torch.Generator().manual_seed(0))
    found = Distances(8)(answers)
    for place in range(3):
        for side in range(4):
            shares = functional.softmax(answers[1, place, 8 * side : 8 * side + 8], 0)
            assert float(found[1, place, side]) == pytest.approx(
                sum(i * float(s) for i, s in enumerate(shares)), rel=1e-5
            )
    sure = torch.full((1, 1, 32), -99.0)
    sure[0, 0, [3, 8, 16 + 7, 24 + 1]] = 99
    assert Distances(8)(sure)[0, 0].tolist() == [3, 0, 7, 1]


def test_any_batch_runs_and_is_traced():
    network = by_name("yolo", width=4).eval()
    pictures = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    traced = torch.export.export(network, (pictures,), dynamic_shapes=(batch,)).module()
    for one, other in zip(traced(pictures[:2]), network(pictures[:2]), strict=True):
        assert torch.equal(one, other)


def scenes(count, seed):
    """Bright and dark rectangles on grey."""
    generator = torch.Generator().manual_seed(seed)
    pictures, rows = 0.05 * torch.randn(count, 3, 32, 32, generator=generator), []
    for picture in pictures:
        x, y, label = torch.randint(2, 14, (2,), generator=generator).tolist() + [
            int(torch.randint(2, (), generator=generator))
        ]
        picture[:, y : y + 12, x : x + 14] = 1.0 if label else -1.0
        rows.append([[float(x), float(y), x + 14.0, y + 12.0, label]])
    return pictures, padded_boxes(rows, 32, 32, 2, most=2)


def test_it_learns_boxes():
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = by_name("yolo", classes=2, width=4, bins=4)
    grid, (pictures, targets) = network.grid(32, 32), scenes(64, 1)
    loss, optimizer = PointLoss(grid), torch.optim.Adam(network.parameters(), 1e-2)
    for step in range(40):
        part = slice(16 * (step % 4), 16 * (step % 4) + 16)
        optimizer.zero_grad()
        loss(network(pictures[part]), targets[part]).backward()
        optimizer.step()
    metric = mean_average_precision(2, Detections(grid), (0.5,))
    seen, truth = scenes(32, 2)
    with torch.no_grad():
        assert metric.score(metric.rows(network.eval()(seen), truth)) > 40


def test_networks_that_cannot_be_made_are_refused(tmp_path):
    for options in ({"width": 3}, {"width": 7}, {"blocks": 0}, {"bins": 1}):
        with pytest.raises(BadValue, match="yolo: width must be even"):
            Yolo(**options)
    with pytest.raises((BadNetwork, BadValue), match="weights"):
        by_name("yolo", weights=tmp_path / "none.npz")
