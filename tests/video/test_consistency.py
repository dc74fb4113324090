"""Consistency: what it is by hand, of networks that move with the picture, and of CamVid's true masks."""

import pytest
import torch
from torch import nn

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.measure import scores
from cortado.tasks import camvid
from cortado.tasks.store import find
from cortado.video.consistency import consistency, flows_in_order, label_consistency
from cortado.video.flow import Dis
from cortado.video.temporal_metric import frames_in_order, temporal_consistency
from tests.video.moving import Steady, smooth_pictures, video_of

CLASSES = 3
MOVE = Steady(3, 1)


def pixel_network(classes=CLASSES, stride=1):
    """A network that looks at one pixel at a time, so that it moves with the picture."""
    torch.manual_seed(0)
    network = nn.Conv2d(3, classes, 1, stride)
    with torch.no_grad():
        network.weight.mul_(20)
        network.bias.copy_(-network.weight.sum((1, 2, 3)) / 2)
    return network


class Place(nn.Module):
    """Predicts a class by the place in the picture alone."""

    def forward(self, pictures):
        columns = torch.arange(pictures.shape[3]) * CLASSES // pictures.shape[3]
        return (
            nn.functional.one_hot(columns, CLASSES)
            .T.float()[None, :, None]
            .expand(len(pictures), -1, pictures.shape[2], -1)
        )


def moving(count=11):
    pictures = video_of(smooth_pictures(1, 32)[0], count, 3, 1)
    return Data(pictures, torch.zeros(count), prepare=lambda frames: frames.float() / 255)


def test_predictions_that_never_change_are_fully_consistent():
    labels = torch.randint(5, (1, 8, 8), generator=torch.Generator().manual_seed(0)).expand(4, 8, 8)
    still = torch.zeros(3, 2, 8, 8)
    assert label_consistency(labels, still, 5) == (100.0, 100.0, 3)
    assert label_consistency(torch.ones(4, 8, 8), still + 2.5, 5) == (100.0, 100.0, 3)


def test_consistency_is_what_it_is_by_hand():
    """Of six pixels one is void; four of five agree: class 0 in 2 of 3, class 1 in 2 of 3."""
    labels = torch.tensor([[[0, 0, 0], [1, 1, 2]], [[0, 0, 1], [1, 1, 0]]])
    found = label_consistency(labels, torch.zeros(1, 2, 2, 3), 2)
    assert found == (pytest.approx(100 * 2 / 3), pytest.approx(80), 1)


def test_pairs_are_pooled_and_classes_are_not_averaged_pair_by_pair():
    labels = torch.tensor([[[0, 0, 0, 0]], [[0, 0, 0, 1]], [[0, 0, 0, 1]]])
    found = label_consistency(labels, torch.zeros(2, 2, 1, 4), 2)
    assert found == (pytest.approx(100 * (6 / 7 + 1 / 2) / 2), pytest.approx(100 * 7 / 8), 2)


def test_network_that_moves_with_the_picture_is_consistent_and_one_that_stays_is_not():
    follows = consistency(pixel_network(), moving(), MOVE, CLASSES)
    assert follows == (100.0, 100.0, 10)
    assert consistency(pixel_network(), moving(), Steady(0, 0), CLASSES).agreement < 95
    assert consistency(Place(), moving(), MOVE, CLASSES).agreement < 95
    assert consistency(Place(), moving(), Steady(0, 0), CLASSES).agreement == 100


def test_small_outputs_are_brought_to_the_pictures_size():
    found = consistency(pixel_network(stride=2), moving(), MOVE, CLASSES)
    assert 75 < found.agreement < 100 and found.pairs == 10


def test_metric_of_a_task_is_the_same_number_whatever_the_batches():
    network, metric, flow = pixel_network(), temporal_consistency(CLASSES), Steady(1, 0)
    wanted = consistency(network, moving(), flow, CLASSES)
    for batch in (1, 4, 64):
        found = scores(network, frames_in_order(moving(), flow), metric, batch=batch)
        assert len(found) == 11 and 100 * float(found.mean()) == pytest.approx(wanted.iou, abs=1e-9)
    assert wanted.iou < 95 and float(found.std()) > 0


def test_frames_and_networks_that_do_not_fit_are_refused_in_words():
    with pytest.raises(BadTask, match="no motion in 1 frame"):
        flows_in_order(moving(1), MOVE)
    with pytest.raises(BadTask, match=r"raw pictures \(N, 3, H, W\), got shape \(4, 5\)"):
        flows_in_order(Data(torch.zeros(4, 5), torch.zeros(4)), MOVE)
    with pytest.raises(BadTask, match=r"maps of logits \(N, C, H, W\), got shape"):
        consistency(nn.Sequential(nn.Flatten(), nn.Linear(3072, 3)), moving(), MOVE, CLASSES)
    with pytest.raises(BadTask, match="Make the data by frames_in_order"):
        scores(pixel_network(), moving(), temporal_consistency(CLASSES))


@pytest.mark.skipif(find("camvid", ("camvid_val.npz",)) is None, reason="needs camvid/camvid_val.npz in CORTADO_DATA")
def test_true_masks_of_camvid_along_medium_flow_are_as_measured_before():
    frames, masks = zip(*camvid.Frames(camvid.file_of("val")), strict=True)
    video = Data(torch.stack(frames), torch.zeros(len(frames)))
    found = label_consistency(torch.stack(masks), flows_in_order(video, Dis()), camvid.CLASSES)
    assert found == (pytest.approx(88.99, abs=0.05), pytest.approx(97.50, abs=0.05), 100)
