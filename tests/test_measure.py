"""Measure: which outputs can be scored - masks may hold infinite values, what explodes may not."""

import math

import pytest
import torch
from torch import nn

from cortado.compress import compress
from cortado.errors import BadNetwork
from cortado.measure import mean_score, run, scores
from cortado.teachers import distillation
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
        "prune/weights keep=0.5 | tune epochs=0.5 | quantize/weights bits=6",
        "tune epochs=0.5 rate=0.01 teacher=0.5",
        "distill/logits epochs=0.5",
    ],
)
def test_network_that_masks_classes_is_compressed(recipe):
    network, task = masked(), TINY.task()
    small, report = compress(network, task, recipe)
    outputs = small(task.verdict.inputs)
    assert torch.equal(outputs.isinf(), network(task.verdict.inputs).isinf())
    right = (outputs.argmax(1) == task.verdict.targets).float().mean()
    assert report.verdict.compressed == pytest.approx(100 * float(right))


def test_infinite_outputs_are_sound_at_the_places_of_the_plain_network_only():
    task, plain = TINY.task(), masked()
    assert torch.equal(scores(plain, task.choice, task.score, plain=plain), scores(plain, task.choice, task.score))
    inf, nan = math.inf, math.nan
    wanted = Gives([0.0, -inf], [-inf, 1.0])
    same = Gives([5.0, -inf], [-inf, 7.0])
    assert torch.equal(run(same, torch.zeros(2), wanted), same.rows)
    assert run(Gives([0.0, 0.0], [0.0, 1.0]), torch.zeros(2), wanted).isfinite().all()
    for rows in ([-inf, 0.0], [0.0, 1.0]), ([0.0, inf], [-inf, 1.0]), ([-inf, -inf], [-inf, 1.0]):
        with pytest.raises(BadNetwork, match="infinite values that those of the plain network do not hold"):
            run(Gives(*rows), torch.zeros(2), wanted)
    with pytest.raises(BadNetwork, match="hold NaN or infinite values"):
        run(Gives([nan, -inf], [-inf, 1.0]), torch.zeros(2), wanted)
    with pytest.raises(BadNetwork, match="hold NaN or infinite values"):
        run(Gives([0.0, 1.0], [inf, -inf]), torch.zeros(2))


def test_network_that_explodes_is_refused():
    network = TINY.make()
    with torch.no_grad():
        network[2].bias[1] = math.inf
    task = TINY.task()
    assert math.isfinite(mean_score(TINY.make(), task.choice, task.score))
    with pytest.raises(BadNetwork, match="infinite values that those of the plain network do not hold"):
        mean_score(network, task.choice, task.score, plain=TINY.make())


def test_masked_class_teaches_nothing():
    outputs = torch.randn(5, 4, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    others = torch.randn(5, 4, generator=torch.Generator().manual_seed(2))
    mask = torch.tensor([0.0, 0.0, 0.0, -math.inf])
    loss = distillation(outputs + mask, (others + mask).softmax(1), 1.0)
    torch.testing.assert_close(loss, distillation(outputs[:, :3], others[:, :3].softmax(1), 1.0))
    (slope,) = torch.autograd.grad(loss, outputs)
    assert bool(slope.isfinite().all()) and not bool(slope[:, 3].any()) and bool(slope[:, :3].any())
