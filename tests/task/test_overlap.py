"""Mean IoU: counted by hand, over all pictures together, and the shares of single pictures."""

import pytest
import torch
from torch import nn

from cortado.errors import BadTask
from cortado.report.report import paired_interval
from cortado.runtimes.compare import compare
from cortado.runtimes.torch_eager import TorchSession
from cortado.task.measure import mean_score, scores
from cortado.task.overlap import mean_iou, overlaps
from cortado.task.task import Data, Metric


def drawn(count=40, classes=3, seed=0):
    source = torch.Generator().manual_seed(seed)
    outputs = torch.randn(count, classes + 1, 6, 7, generator=source)
    targets = torch.randint(0, classes + 1, (count, 6, 7), generator=source)
    outputs.scatter_add_(1, targets[:, None], torch.rand(count, 1, 6, 7, generator=source) * 3)
    return outputs, targets


def by_hand(outputs, targets, classes):
    """Class by class with sets of pixels."""
    answers, known, found = outputs.argmax(1), targets != classes, []
    for one in range(classes):
        is_it, said = (targets == one) & known, (answers == one) & known
        if bool((is_it | said).any()):
            found.append(float((is_it & said).sum()) / float((is_it | said).sum()))
    return 100 * sum(found) / len(found)


def test_score_is_that_of_all_pictures_together():
    outputs, targets = drawn()
    found = mean_score(nn.Identity(), Data(outputs, targets), mean_iou(3))
    assert found == pytest.approx(by_hand(outputs, targets, 3), abs=1e-9)
    alone = [by_hand(outputs[i : i + 1], targets[i : i + 1], 3) for i in range(len(targets))]
    assert abs(found - sum(alone) / len(alone)) > 0.1


def test_void_is_nobodys_and_a_class_that_never_occurs_does_not_count():
    outputs = torch.zeros(1, 4, 1, 4)
    outputs[0, [0, 1, 3, 0], 0, [0, 1, 2, 3]] = 1
    targets = torch.tensor([[[0, 0, 0, 3]]])
    # Of class 0 one pixel of three is found; class 1 is said once and never there; class 2 does not occur.
    assert overlaps(outputs, targets, 3).tolist() == [[1, 0, 0, 3, 1, 0]]
    assert mean_score(nn.Identity(), Data(outputs, targets), mean_iou(3)) == pytest.approx(100 * (1 / 3 + 0) / 2)


def test_wrong_labels_are_told():
    with pytest.raises(BadTask, match=r"must lie in 0\.\.3, where 3 is void, got 0\.\.5"):
        overlaps(torch.zeros(1, 4, 1, 2), torch.tensor([[[0, 5]]]), 3)


def test_shares_spread_as_the_score_does():
    """The interval from one draw of pictures, against the scores of many draws."""
    many = [scores(nn.Identity(), Data(*drawn(60, seed=seed)), mean_iou(3)) for seed in range(60)]
    real = float(torch.stack([one.mean() for one in many]).std())
    said = float(torch.stack([one.std() / len(one) ** 0.5 for one in many]).mean())
    assert said == pytest.approx(real, rel=0.3)


def test_equal_networks_differ_by_nothing_and_differences_are_paired():
    data = Data(*drawn())
    rows = scores(nn.Identity(), data, mean_iou(3))
    same = paired_interval(rows, rows, 100.0)
    assert (same.difference, same.low, same.high) == (0, 0, 0)


def test_shares_of_a_score_that_is_a_mean_are_the_samples_own():
    """A ratio whose lower part is one for each sample is a mean."""
    own = torch.rand(30, generator=torch.Generator().manual_seed(0)).double()
    ratio = Metric(whole=lambda sums: sums[..., 0] / sums[..., 1])
    assert torch.allclose(ratio.shares(torch.stack([own, torch.ones_like(own)], 1)), own)
    assert ratio.shares(torch.tensor([[3.0, 4.0]])).tolist() == [0.75]


def test_a_file_is_scored_as_the_network_is():
    outputs, targets = drawn()
    data = Data(outputs, targets)
    agreement = compare(TorchSession(nn.Identity(), (), 1), nn.Identity(), data, mean_iou(3), batch=7)
    assert agreement.score == pytest.approx(by_hand(outputs, targets, 3), abs=1e-9)
    assert agreement.same_top == 1


def test_a_score_without_rows_is_told():
    with pytest.raises(BadTask, match="must return one row of numbers per sample"):
        scores(
            nn.Identity(),
            Data(*drawn()),
            Metric("odd", each=lambda outputs, targets: targets.flatten(1).float()[:, 0], whole=sum),
        )
