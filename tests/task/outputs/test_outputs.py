"""Outputs: each kind against the mathematics, for outputs of every shape and in every container."""

import copy
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cortado.errors import BadTask, BadValue
from cortado.network.compare.divergence import output_rows
from cortado.task.data import Data
from cortado.task.outputs.automatic import Automatic
from cortado.task.outputs.boxes import Boxes, overlap_of_pairs
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.outputs import Outputs, all_places, some_places
from cortado.task.outputs.several import several
from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Task
from cortado.training.objectives.pseudo_labels import PseudoLabels
from tests.training.objectives.given import given_step

BOTH = several({"logits": Classes(), "boxes": Boxes(2.0)})


@dataclass
class Found:
    logits: Tensor
    boxes: Tensor


def test_maps_are_compared_pixel_by_pixel_over_their_classes():
    """The second axis of (N, classes, H, W) holds the classes, not the last."""
    torch.manual_seed(0)
    network, inputs = nn.Conv2d(2, 3, 3, padding=1).eval(), torch.randn(8, 2, 4, 6)
    other = copy.deepcopy(network)
    with torch.no_grad():
        other.bias += torch.tensor([0.5, 0.0, -0.3])
        original, changed = (one(inputs).permute(0, 2, 3, 1).log_softmax(-1) for one in (network, other))
    wanted = (original.exp() * (original - changed)).sum(-1).mean((1, 2))
    kind = Classes()
    found = kind.divergence(output_rows(network, inputs, kind), output_rows(other, inputs, kind))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize(
    ("shape", "rows"), [((5, 4), (5, 1, 4)), ((5, 7, 4), (5, 7, 4)), ((5, 4, 2, 3), (5, 6, 4)), ((5,), (5, 1, 1))]
)
def test_outputs_are_rows_of_places(shape, rows):
    for kind in (Automatic(), Classes(), Numbers()):
        assert output_rows(nn.Identity(), torch.randn(shape), kind).shape == rows


def test_axis_of_classes_and_vocabulary_can_be_another():
    logits = torch.randn(2, 3, 5)
    assert torch.equal(Classes(axis=1).rows(logits), logits.mT)
    assert Tokens().rows(torch.randn(2, 3, 4, 6)).shape == (2, 12, 6)


def test_divergence_at_a_temperature_is_that_of_softened_outputs():
    wanted, found = torch.randn(6, 2, 5), torch.randn(6, 2, 5)
    soft = (
        nn.functional.kl_div((found / 4).log_softmax(-1), (wanted / 4).softmax(-1), reduction="none").sum(-1).mean(-1)
    )
    torch.testing.assert_close(Classes().divergence(wanted, found, 4.0), soft)


def test_masked_classes_add_nothing():
    mask, wanted, found = torch.tensor([0.0, 0.0, -torch.inf]), torch.randn(4, 1, 3), torch.randn(4, 1, 3)
    masked = Classes().divergence(wanted + mask, found + mask)
    torch.testing.assert_close(masked, Classes().divergence(wanted[..., :2], found[..., :2]))


def test_single_numbers_count_by_half_their_squared_error():
    wanted, found = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 4.0])
    kind = Numbers(1.0)
    assert kind.divergence(kind.rows(wanted), kind.rows(found)).tolist() == [0, 2]


def test_numbers_count_by_the_share_of_variance_that_is_lost():
    """Whatever unit they are in, and however many there are."""
    torch.manual_seed(0)
    wanted = torch.randn(4000, 1, 5) * torch.tensor([1.0, 2, 3, 0, 1]) + 7
    found = wanted + 0.3 * (wanted - wanted.mean(0))
    for unit in (1.0, 1000.0):
        nats = Numbers().fitted(wanted * unit)
        assert float(nats.divergence(wanted * unit, found * unit).mean()) == pytest.approx(0.5 * 0.09, rel=1e-4)
    assert Automatic().fitted(wanted) == Classes()
    single = float(wanted[..., 0].var(correction=0))
    assert Automatic().fitted(wanted[..., :1]).variance == pytest.approx(single, rel=1e-5)
    assert Numbers().fitted(torch.ones(3, 1, 2)).variance == 1
    assert Numbers(3.0).fitted(wanted) == Numbers(3.0)


KINDS = {
    "classes": (Classes(), (2, 3, 4)),
    "tokens": (Tokens(), (2, 3, 4)),
    "numbers": (Numbers(1.7), (2, 3, 4)),
    "boxes": (Boxes(0.6), (2, 3, 4)),
}


@pytest.mark.parametrize("name", list(KINDS))
def test_slope_squared_is_the_hessian_of_the_divergence(name):
    """The mean of v v^T over random signs, at temperature 1, sample by sample."""
    torch.manual_seed(0)
    kind, shape = KINDS[name]
    wanted, generator = torch.randn(shape, dtype=torch.float64), torch.Generator().manual_seed(0)
    mean = torch.zeros(24, 24, dtype=torch.float64)
    for _ in range(4000):
        rows = wanted.clone().requires_grad_()
        (v,) = torch.autograd.grad(kind.slope(rows, 1.0, generator), rows)
        mean += torch.outer(v.flatten(), v.flatten()) / 4000
    exact = torch.autograd.functional.hessian(lambda rows: kind.divergence(wanted, rows).sum(), wanted)
    torch.testing.assert_close(mean, exact.view(24, 24), rtol=0, atol=0.03)


def logits_and_boxes() -> tuple[Tensor, Tensor]:
    return torch.randn(5, 3), torch.randn(5, 6, 4)


@pytest.mark.parametrize("holder", ["dict", "dataclass", "tuple"])
def test_several_outputs_add_up_in_every_container(holder):
    torch.manual_seed(0)
    pairs = [logits_and_boxes() for _ in range(2)]
    makers: dict[str, Any] = {
        "dict": lambda logits, boxes: {"boxes": boxes, "logits": logits},
        "dataclass": Found,
        "tuple": lambda logits, boxes: (logits, boxes),
    }
    kind = BOTH if holder != "tuple" else several((Classes(), Boxes(2.0)))
    wanted, found = (kind.rows(makers[holder](*pair)) for pair in pairs)
    parts = [
        one.divergence(one.rows(pairs[0][n]), one.rows(pairs[1][n])) for n, one in enumerate((Classes(), Boxes(2.0)))
    ]
    torch.testing.assert_close(kind.divergence(wanted, found), parts[0] + parts[1])
    assert not kind.divergence(wanted, wanted).any() and kind.softens


def test_an_output_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(BadTask, match=r"names the output 'boxes', but .* at: logits, heads\.0"):
        BOTH.rows({"logits": torch.zeros(2, 3), "heads": [torch.zeros(2, 1)]})


def test_agreement_is_the_share_of_places_that_decide_alike():
    wanted, found = torch.eye(4)[None], torch.eye(4)[[0, 1, 3, 2]][None]
    assert Classes().agreement(wanted, found).tolist() == [0.5]
    assert Numbers().agreement(wanted, found) is None
    boxes = torch.tensor([[[0.0, 0, 2, 2], [0, 0, 2, 2]]])
    moved = torch.tensor([[[0.0, 0, 2, 1.1], [1, 1, 3, 3]]])
    torch.testing.assert_close(overlap_of_pairs(boxes, moved), torch.tensor([[0.55, 1 / 7]]))
    assert Boxes().agreement(boxes, moved).tolist() == [0.5]
    assert several((Classes(), Boxes())).agreement((found, boxes), (found, moved)).tolist() == [0.5]


def test_many_places_are_thinned_out_evenly_and_batches_joined():
    rows = torch.arange(24.0).reshape(2, 6, 2)
    assert torch.equal(some_places(rows, 24), rows)
    assert torch.equal(some_places(rows, 12), rows.flatten(0, 1)[::2][None])
    thinned = some_places((rows, rows[:, :1]), 12)
    assert [part.shape[0] for part in thinned] == [1, 1]
    assert torch.equal(all_places([rows, rows[:1, :2]]), torch.cat([rows.flatten(0, 1), rows[0, :2]])[None])


def task(**how: Any) -> Task:
    data = Data(torch.randn(20, 3), torch.zeros(20))
    return Task(data, data, data, **how)


def test_a_task_takes_a_kind_or_several():
    assert task().outputs == Automatic()
    assert task(outputs=Tokens()).outputs == Tokens()
    assert task(outputs={"logits": Classes(), "boxes": Boxes(2.0)}).outputs == BOTH
    assert task(outputs=[Classes(), Numbers()]).outputs == several((Classes(), Numbers()))
    for wrong in ("words", 3, {"logits": "classes"}, ()):
        with pytest.raises(BadTask, match="outputs must be a kind of outputs, or several"):
            task(outputs=wrong)


def test_kinds_are_named_in_messages_without_their_insides():
    assert (
        str(BOTH) == "Classes (logits) and Boxes (boxes)"
        and str(several((Classes(), Numbers()))) == "Classes and Numbers"
    )
    with pytest.raises(BadTask, match=r"got the class Classes without \(\)\."):
        task(outputs=Classes)
    step = given_step(torch.zeros(3, 4), torch.zeros(3, 4), kind=Numbers())
    with pytest.raises(BadValue, match=r"compares logits of classes, and the task's outputs are Numbers\."):
        PseudoLabels().terms(step)


def test_former_words_for_outputs_are_understood():
    with pytest.warns(FutureWarning):
        assert task(answers="numbers").outputs == Numbers()
    with pytest.warns(FutureWarning):
        assert task(answers="classes").outputs == Classes()


def test_a_kind_of_ones_own_needs_three_methods():
    class Signs(Outputs):
        def rows(self, outputs):
            return outputs.sign()[:, None]

        def divergence(self, wanted, found, temperature=1.0):
            return (wanted != found).double().mean((1, 2))

        def slope(self, rows, temperature, generator):
            return rows.sum()

    kind = task(outputs=Signs()).outputs
    assert kind.divergence(kind.rows(torch.tensor([[1.0, -2]])), kind.rows(torch.tensor([[3.0, 2]]))).tolist() == [0.5]
    assert kind.fitted(None) is kind and kind.agreement(None, None) is None
