"""Sources: losses and weights by source, how often samples are visited, truths of several shapes, variation, and what is refused."""

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import Dataset

from cortado.errors import BadTask
from cortado.task.aligned_loss import UpToScaleAndShift
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.metric import Metric
from cortado.task.move import Move
from cortado.task.noisy_loss import NoisyLabels
from cortado.task.ordinal_loss import OrdinalPairs
from cortado.task.sources import SOURCE, Source, Sources
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.training import Training

MAPS = torch.rand(6, 5, 4, generator=torch.Generator().manual_seed(0))


def pairs_of(maps, count, seed=0):
    """Random pairs of places of maps (N, H, W), with which has more: (N, count, 5)."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randint(maps.shape[1], (len(maps), count, 2), generator=generator)
    columns = torch.randint(maps.shape[2], (len(maps), count, 2), generator=generator)
    samples = torch.arange(len(maps))[:, None]
    first, second = (maps[samples, rows[..., side], columns[..., side]] for side in (0, 1))
    relation = (first - second).sign().long()
    return torch.stack([rows[..., 0], columns[..., 0], rows[..., 1], columns[..., 1], relation], -1)


def three(**changed):
    inputs = torch.randn(6, 1, 5, 4, generator=torch.Generator().manual_seed(1))
    parts = {
        "exact": Source(Data(inputs[:1], MAPS[:1]), functional.l1_loss, 1.0, times=3),
        "stereo": Source(Data(inputs[1:3], 7 * MAPS[1:3] - 2), UpToScaleAndShift(), 0.5),
        "clicks": Source(Data(inputs[3:], pairs_of(MAPS[3:], 9)), OrdinalPairs(), 0.25),
    }
    return Sources(parts | changed)


def test_the_loss_is_the_mean_of_each_samples_own_loss_times_the_weight():
    made = three()
    assert len(made.data) == 3 + 2 + 3 and made.slots == {"exact": "exact", "stereo": "exact", "clicks": "clicks"}
    inputs, targets = next(made.data.batches(8))
    assert targets[SOURCE].tolist() == [0, 0, 0, 1, 1, 2, 2, 2]
    outputs = inputs[:, 0]
    exact = functional.l1_loss(outputs[:3], MAPS[:1].expand(3, -1, -1))
    stereo = UpToScaleAndShift()(outputs[3:5], 7 * MAPS[1:3] - 2)
    clicks = OrdinalPairs()(outputs[5:], pairs_of(MAPS[3:], 9))
    torch.testing.assert_close(made.loss(outputs, targets), (3 * exact + 0.5 * 2 * stereo + 0.25 * 3 * clicks) / 8)
    found = made.losses(outputs, targets)
    assert list(found) == ["exact", "stereo", "clicks"]
    some = made.losses(outputs[:3], next(made.data.batches(3))[1])
    assert list(some) == ["exact"]


def test_an_epoch_visits_each_sample_as_often_as_its_source_says():
    made = three()
    seen = [targets[SOURCE] for _, targets in made.data.batches(3, torch.Generator().manual_seed(0))]
    assert torch.bincount(torch.cat(seen)).tolist() == [3, 2, 3] and torch.cat(seen).tolist() != [
        0,
        0,
        0,
        1,
        1,
        2,
        2,
        2,
    ]


def test_each_source_is_varied_with_its_own_truth():
    inputs = torch.arange(24.0).view(6, 1, 2, 2)
    moved = Source(Data(inputs[:3], inputs[:3, 0].clone(), vary=Move()), functional.l1_loss, 1.0)
    still = Source(Data(inputs[3:], torch.arange(3), augment=lambda some, _: some + 100), functional.cross_entropy, 1.0)
    made = Sources({"moved": moved, "still": still})
    flips = 0
    for seed in range(4):
        for pictures, targets in made.data.batches(4, torch.Generator().manual_seed(seed)):
            own = targets[SOURCE] == 0
            truth = targets["truth"]["moved"][own]
            assert torch.equal(pictures[own][:, 0], truth)
            flips += int((truth[:, 0, 0] > truth[:, 0, 1]).sum())
            assert bool((pictures[~own] >= 100).all())
            labels = targets["truth"]["still"][~own]
            assert torch.equal(pictures[~own][:, 0, 0, 0], 112 + 4 * labels.float())
    assert 0 < flips < 12
    plain, _ = next(made.data.original().batches(6))
    assert torch.equal(plain, inputs)


class Items(Dataset):
    """Inputs and labels, read one by one."""

    def __len__(self):
        return 5

    def __getitem__(self, number):
        return torch.full((3,), float(number)), number % 2


def test_datasets_are_sources_too():
    whole = Data(torch.zeros(2, 3), torch.tensor([1, 1]))
    made = Sources(
        {"read": Source(Data(Items()), functional.cross_entropy, 1.0), "held": Source(whole, NoisyLabels(), 1.0)}
    )
    inputs, targets = next(made.data.batches(7))
    assert inputs[:5, 0].tolist() == [0, 1, 2, 3, 4] and made.slots["held"] == "read"
    assert targets["truth"]["read"].tolist() == [0, 1, 0, 1, 0, 1, 1]


def test_depth_is_learned_from_truths_of_three_kinds_better_than_from_the_exact_ones():
    """Maps that a convolution can make of pictures: few are exact, others up to scale and shift, or pairs of places."""
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(340, 3, 8, 8, generator=generator)
    true = nn.Conv2d(3, 1, 3, padding=1, bias=False)
    torch.nn.init.normal_(true.weight, generator=generator)
    with torch.no_grad():
        depth = true(pictures)[:, 0]
    few = Source(Data(pictures[:2], depth[:2]), functional.l1_loss, 1.0, times=60)
    parts = {
        "few": few,
        "stereo": Source(Data(pictures[2:100], 3 * depth[2:100] + 5), UpToScaleAndShift(), 1.0),
        "clicks": Source(Data(pictures[100:200], pairs_of(depth[100:200], 20)), OrdinalPairs(), 1.0),
    }
    error = Metric(
        "error", "", lambda found, wanted: (found - wanted).abs().flatten(1).mean(1), higher_is_better=False, scale=1.0
    )
    rest = Data(pictures[200:220], depth[200:220]), Data(pictures[220:], depth[220:])
    scores = {}
    for name, chosen in {"few": ("few",), "all": tuple(parts)}.items():
        made = Sources({one: parts[one] for one in chosen})
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), nn.Conv2d(32, 1, 1), nn.Flatten(1, 2))
        task = Task(made.data, *rest, loss=made.loss, metric=error, batch=16)
        train(network, task, Training(epochs=40 * 318 / len(made.data), lr=5e-3, precision="float32"))
        scores[name] = mean_score(network, task.test, error)
    assert scores["all"] < 0.6 * scores["few"]


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ({}, "there is none"),
        ({"web": Source(Data(MAPS, MAPS), functional.l1_loss)}, "web has no weight. Write Source"),
        ({"web": Source(Data(MAPS, MAPS), None, 1.0)}, "web has no loss. Write Source"),
        ({"web": Source(Data(MAPS), functional.l1_loss, 1.0)}, "web has no truth, only inputs.*unlabelled=inputs"),
        ({"web": Data(MAPS, MAPS)}, "web must be a Source, got Data"),
        ({"web": Source(Data(MAPS, MAPS), functional.l1_loss, 0.0)}, "a weight above 0"),
        ({"web": Source(Data(MAPS, MAPS), functional.l1_loss, 1.0, times=0)}, "times of 1 or more"),
        (
            {"web": Source(Data(MAPS[:, None], pairs_of(MAPS, 3), vary=Move()), OrdinalPairs(), 1.0)},
            "does not move the pairs",
        ),
        (
            {
                "one": Source(Data(MAPS, MAPS), functional.l1_loss, 1.0),
                "web": Source(Data(MAPS, MAPS, torch.relu), functional.l1_loss, 1.0),
            },
            "web are prepared otherwise than those of one",
        ),
    ],
)
def test_sources_with_faults_are_refused(parts, says):
    with pytest.raises(BadTask, match=says):
        Sources(parts)


def test_targets_of_other_data_are_refused():
    with pytest.raises(BadTask, match="reads targets of Sources.data, got others"):
        three().loss(MAPS, MAPS)
