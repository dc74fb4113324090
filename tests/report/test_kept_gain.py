"""The share of a teacher's gain that a taught network keeps: a ratio of paired means, with its interval, or a refusal."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional

import cortado
from cortado.errors import BadNetwork, BadValue
from cortado.report.kept_gain import Ensemble, kept_gain, kept_of_scores
from cortado.task.metric import Metric
from cortado.task.task import Data, Task

COUNT = 2000


def drawn(share: float, seed: int) -> torch.Tensor:
    """Which samples are answered right, a share of them."""
    return (torch.rand(COUNT, generator=torch.Generator().manual_seed(seed)) < share).float()


class Answers(nn.Module):
    """Answers the samples in these places right: inputs are (place, label)."""

    def __init__(self, right: torch.Tensor) -> None:
        super().__init__()
        self.right = nn.Parameter(right)

    def forward(self, inputs):
        wrong = 1 - self.right[inputs[:, 0].long()].long()
        return functional.one_hot((inputs[:, 1].long() + wrong) % 3, 3).float()


def task(**changes) -> Task:
    labels = torch.arange(COUNT) % 3
    data = Data(torch.stack([torch.arange(COUNT), labels], 1).float(), labels)
    return Task(data, data, data, trial=True, **changes)


ALONE, TAUGHT, TEACHER = (drawn(share, seed) for share, seed in ((0.6, 0), (0.75, 1), (0.8, 2)))


def test_share_is_that_of_the_gains_and_its_interval_that_of_drawn_samples():
    found = kept_gain(Answers(ALONE), Answers(TAUGHT), Answers(TEACHER), task())
    gains = float((TAUGHT - ALONE).mean()), float((TEACHER - ALONE).mean())
    assert found.share == pytest.approx(gains[0] / gains[1], rel=1e-5)
    assert (found.alone, found.taught, found.teacher) == pytest.approx(
        tuple(100 * float(one.mean()) for one in (ALONE, TAUGHT, TEACHER)), rel=1e-5
    )
    generator, shares = torch.Generator().manual_seed(3), []
    for _ in range(2000):
        places = torch.randint(0, COUNT, (COUNT,), generator=generator)
        alone, taught, teacher = (one[places].mean() for one in (ALONE, TAUGHT, TEACHER))
        shares.append(float((taught - alone) / (teacher - alone)))
    low, high = torch.tensor(shares).quantile(torch.tensor([0.025, 0.975])).tolist()
    assert found.high - found.low == pytest.approx(high - low, rel=0.1)


def test_less_may_be_better():
    errors = Metric(
        "error", "%", lambda outputs, targets: (outputs.argmax(1) != targets).float(), higher_is_better=False
    )
    found, other = (kept_gain(*map(Answers, (ALONE, TAUGHT, TEACHER)), task(**how)) for how in ({"metric": errors}, {}))
    assert found.share == pytest.approx(other.share, rel=1e-5) and found.low == pytest.approx(other.low, rel=1e-5)


def test_several_networks_count_by_their_mean_and_several_teachers_as_one():
    both = [Answers(ALONE), Answers(drawn(0.6, 7))]
    found = kept_gain(both, Answers(TAUGHT), Answers(TEACHER), task())
    assert found.alone == pytest.approx(50 * float((ALONE + both[1].right.detach()).mean()), rel=1e-5)
    logits = [torch.randn(4, 3, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]

    class Given(nn.Module):
        def __init__(self, values):
            super().__init__()
            self.values = values

        def forward(self, inputs):
            return self.values

    ensemble = Ensemble([Given(one) for one in logits], True)(torch.zeros(4))
    torch.testing.assert_close(ensemble.exp(), (logits[0].softmax(1) + logits[1].softmax(1)) / 2)


@pytest.mark.parametrize(
    ("teacher", "says"),
    [
        (ALONE, r"difference is ±0.00 points"),
        (drawn(0.4, 5), r"difference is −\d+.\d\d points \(95 % interval −"),
        (torch.where(torch.arange(COUNT) < 2, 1.0, ALONE), r"within|not surely better"),
    ],
    ids=["equal", "worse", "hardly better"],
)
def test_a_gain_within_its_error_has_no_share(teacher, says):
    with pytest.raises(BadValue, match=says):
        kept_gain(Answers(ALONE), Answers(TAUGHT), Answers(teacher), task())


def test_few_samples_and_no_networks_are_refused():
    few = [one[:20] for one in (ALONE, TAUGHT, TEACHER)]
    with pytest.raises(BadValue, match="on 20 samples, so a share of it means nothing"):
        kept_of_scores(*few, Metric())
    with pytest.raises(BadValue, match="there is no network, got an empty list"):
        kept_gain([], Answers(TAUGHT), Answers(TEACHER), task())
    with pytest.raises(BadNetwork, match="kept_gain, taught: the network must be a torch.nn.Module, got str"):
        kept_gain(Answers(ALONE), "taught.cortado", Answers(TEACHER), task())


def test_text_has_the_share_and_the_scores():
    text = str(cortado.kept_gain(Answers(ALONE), Answers(TAUGHT), Answers(TEACHER), task()))
    share = float((TAUGHT - ALONE).mean() / (TEACHER - ALONE).mean())
    assert text.startswith(f"{share:.0%} of the teacher's gain is kept (95 % interval ")
    assert f"Accuracy on 2,000 samples: alone {100 * float(ALONE.mean()):.2f} %, taught " in text
    assert math.isfinite(share)
