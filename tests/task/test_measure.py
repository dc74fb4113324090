"""Measure: which outputs can be scored - masks may hold infinite values, what explodes may not."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.errors import BadNetwork, BadTask
from cortado.task.measure import check_stated, mean_score, run, scores
from cortado.task.task import Data, Metric, Task
from cortado.training.objectives.logits import distillation
from tests.laws.tiny_nets import BY_NAME

TINY = BY_NAME["mlp"]


class Masked(nn.Module):
    """Six classes of which two can never be."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = TINY.make(), nn.Linear(4, 6)
        self.register_buffer("mask", torch.tensor([0.0, 0.0, 0.0, 0.0, -math.inf, -math.inf]))

    def forward(self, inputs):
        return self.head(self.body(inputs)) + self.mask


class Gives(nn.Module):
    """Gives the same outputs whatever it reads."""

    def __init__(self, *rows: list[float]) -> None:
        super().__init__()
        self.register_buffer("rows", torch.tensor(rows))

    def forward(self, inputs):
        return self.rows


def masked() -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(3)
        return Masked().eval()


@pytest.mark.parametrize(
    "recipe",
    [
        "prune/weights keep=0.5 | finetune epochs=0.5 | quantize/weights bits=6",
        "finetune epochs=0.5 lr=0.01 teacher=0.5",
        "distill/logits epochs=0.5",
    ],
)
def test_network_that_masks_classes_is_compressed(recipe):
    network, task = masked(), TINY.task()
    small, report = compress(network, task, recipe)
    outputs = small(task.test.inputs)
    assert torch.equal(outputs.isinf(), network(task.test.inputs).isinf())
    right = (outputs.argmax(1) == task.test.targets).float().mean()
    assert report.test.compressed == pytest.approx(100 * float(right))


def test_infinite_outputs_are_sound_only_where_the_original_has_them():
    task, original = TINY.task(), masked()
    assert torch.equal(
        scores(original, task.validation, task.metric, original=original),
        scores(original, task.validation, task.metric),
    )
    inf, nan = math.inf, math.nan
    wanted = Gives([0.0, -inf], [-inf, 1.0])
    same = Gives([5.0, -inf], [-inf, 7.0])
    assert torch.equal(run(same, torch.zeros(2), wanted), same.rows)
    assert run(Gives([0.0, 0.0], [0.0, 1.0]), torch.zeros(2), wanted).isfinite().all()
    for rows in ([-inf, 0.0], [0.0, 1.0]), ([0.0, inf], [-inf, 1.0]), ([-inf, -inf], [-inf, 1.0]):
        with pytest.raises(BadNetwork, match="infinite where those of the original network are not"):
            run(Gives(*rows), torch.zeros(2), wanted)
    with pytest.raises(BadNetwork, match="contain NaN or infinite values"):
        run(Gives([nan, -inf], [-inf, 1.0]), torch.zeros(2), wanted)
    with pytest.raises(BadNetwork, match="contain NaN or infinite values"):
        run(Gives([0.0, 1.0], [inf, -inf]), torch.zeros(2))


def test_network_that_explodes_is_refused():
    network = TINY.make()
    with torch.no_grad():
        network[2].bias[1] = math.inf
    task = TINY.task()
    assert math.isfinite(mean_score(TINY.make(), task.validation, task.metric))
    with pytest.raises(BadNetwork, match="infinite where those of the original network are not"):
        mean_score(network, task.validation, task.metric, original=TINY.make())


def test_masked_class_teaches_nothing():
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    others = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([0.0, 0.0, 0.0, -math.inf])
    loss = distillation(outputs + mask, (others + mask).softmax(1), 1.0)
    torch.testing.assert_close(loss, distillation(outputs[:, :3], others[:, :3].softmax(1), 1.0))
    (slope,) = torch.autograd.grad(loss, outputs)
    assert bool(slope.isfinite().all()) and not bool(slope[:, 3].any()) and bool(slope[:, :3].any())


def counting(right: int, samples: int = 400, test: int = 100) -> tuple[nn.Module, Task]:
    """A network that is right on so many of the validation samples, and a task with other test samples."""
    inputs = torch.zeros(samples, 2)
    inputs[torch.arange(samples), (torch.arange(samples) >= right).long()] = 1.0
    inputs = inputs + torch.arange(samples)[:, None] * 1e-4
    part = Data(inputs, torch.zeros(samples).long())
    other = Data(torch.randn(test, 2), torch.zeros(test).long())
    return nn.Identity(), Task(part, part, other, calibration=part)


def allowed(stated: float, share: float, samples: int, test: int) -> float:
    """Three standard errors of a difference of two shares, and 1 % of what is stated, in points."""
    return 300 * math.sqrt(share * (1 - share) * (1 / samples + 1 / test)) + 0.01 * stated


def test_stated_score_may_be_off_by_what_chance_explains_and_no_more():
    network, task = counting(360)
    close = allowed(80.0, 0.8, 400, 100)
    assert abs(90 - 80) < close and check_stated(network, task, 80.0) == pytest.approx(90.0)
    far = 90 - allowed(70.0, 0.7, 400, 100) - 1
    with pytest.raises(BadTask, match="the stated accuracy of the original network is") as caught:
        check_stated(network, task, far)
    for words in (
        "reaches 90.00 % on the 400 validation samples",
        "normalisation",
        "channel order",
        "eval mode",
        "trained on the validation data",
    ):
        assert words in str(caught.value)


def test_more_samples_allow_less():
    network, few = counting(180, 200)
    _, many = counting(7200, 8000, 10000)
    assert check_stated(network, few, 84.0)
    with pytest.raises(BadTask, match=r"with 8000 and 10000 samples"):
        check_stated(network, many, 84.0)


def test_guessing_network_is_found_without_test_data():
    network, task = counting(40)

    def untouched(inputs):
        raise AssertionError("the test data were read")

    task = dataclasses.replace(task, test=Data(torch.zeros(50, 2), torch.zeros(50).long(), prepare=untouched))
    with pytest.raises(
        BadTask, match=r"the stated accuracy of the original network is 91.5 %, but it reaches 10.00 %"
    ) as caught:
        check_stated(network, task, 91.5)
    assert "trained on the validation data" not in str(caught.value)


def test_stated_loss_is_compared_with_its_spread():
    network, task = counting(200)
    error = Metric("error", "", lambda outputs, targets: outputs[:, 0] * 3, higher_is_better=False, scale=1.0)
    task = dataclasses.replace(task, metric=error)
    found = check_stated(network, task, 1.57)
    spread = 3 * float((task.validation.inputs[:, 0] * 3).std()) * math.sqrt(1 / 400 + 1 / 100)
    assert abs(found - 1.57) < spread + 0.0157
    with pytest.raises(BadTask):
        check_stated(network, task, found + (spread + 0.01 * found) / 0.99 + 0.01)
    assert check_stated(network, task, 9.0, tolerance=100.0) == found


@pytest.mark.parametrize("recipe", ["quantize/activations", "quantize/ptq_search", "prune/weights keep=0.5"])
def test_calibration_data_that_hold_nan_are_refused_before_anything_runs(recipe):
    tiny = BY_NAME["mlp"]
    task = tiny.task()
    inputs = task.calibration.inputs.clone()
    inputs[3].view(-1)[0] = float("nan")
    holed = dataclasses.replace(task, calibration=Data(inputs, task.calibration.targets))
    with pytest.raises(BadTask, match="sample 3 of the calibration data contains NaN"):
        compress(tiny.make(), holed, recipe)
