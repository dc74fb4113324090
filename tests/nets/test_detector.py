"""Detector: a network that ends in boxes."""

import pytest
import torch

from cortado.boxes.detections import Detections
from cortado.errors import BadValue
from cortado.nets.catalog import by_name
from cortado.nets.detector import Detector
from cortado.task.outputs.found_boxes import found_detections


@pytest.fixture(scope="module", params=["ssdlite_mobilenet_v1", "yolo"])
def network(request):
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        return by_name(request.param, **({"width": 4} if request.param == "yolo" else {})).eval()


@pytest.fixture
def pictures():
    return torch.randn(3, 3, 64, 96, generator=torch.Generator().manual_seed(0))


def least_of(network, pictures):
    """A score that some boxes are above and others below."""
    with torch.no_grad():
        return float(network.grid(64, 96).class_scores(network(pictures)[0]).flatten().quantile(0.9))


def test_its_boxes_are_those_of_the_exact_suppression(network, pictures):
    grid, least = network.grid(64, 96), least_of(network, pictures)
    whole = Detector(network, grid, least, overlap=0.3, most=30, candidates=120, rounds=120)
    with torch.no_grad():
        found = found_detections(whole(pictures))
        wanted = Detections(grid, least, 0.3, 30, 120)(network(pictures))
    for one, other in zip(found, wanted, strict=True):
        assert len(one["scores"]) > 3
        assert torch.equal(one["labels"], other["labels"]) and torch.equal(one["boxes"], other["boxes"])


def test_it_is_traced_with_any_batch_and_has_fixed_sizes(network, pictures):
    whole = Detector(network, network.grid(64, 96), least_of(network, pictures), most=20)
    batch = {0: torch.export.Dim("batch", min=1, max=64)}
    traced = torch.export.export(whole, (pictures,), dynamic_shapes=(batch,)).module()
    with torch.no_grad():
        for count in (1, 3):
            found, wanted = traced(pictures[:count]), whole(pictures[:count])
            assert [tuple(one.shape) for one in found] == [(count, 20, 4), (count, 20), (count, 20)]
            assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))


def test_without_objects_all_rows_are_empty(network, pictures):
    with torch.no_grad():
        boxes, scores, classes = Detector(network, network.grid(64, 96), score=1.0)(pictures)
    assert not boxes.any() and not scores.any() and bool((classes == -1).all())


def test_no_round_is_refused(network):
    with pytest.raises(BadValue, match="rounds must be at least 1"):
        Detector(network, network.grid(64, 96), rounds=0)
