"""What objectives return is checked, and faults are named."""

from dataclasses import dataclass

import pytest
import torch
from torch import nn

import cortado
from cortado.errors import BadValue
from cortado.methods.finetune import Finetune


@dataclass(frozen=True)
class Returns(cortado.Objective):
    """Returns what `made` makes of the outputs."""

    made: object = None

    def terms(self, step):
        return self.made(step.outputs)


@pytest.mark.parametrize(
    "made, match",
    [
        (lambda outputs: {"x": outputs}, r"Returns: the term 'x' must be one number, .* got shape \(10, 2\)"),
        (lambda outputs: {"x": 0.5}, "the term 'x' must be one number, .* got float"),
        (lambda outputs: None, "terms must return a dict of scalar tensors, got NoneType"),
        (lambda outputs: {"x": outputs.detach().mean()}, r"the loss has no gradient: its terms \(x\)"),
        (lambda outputs: outputs.nothing, "the objective Returns raised AttributeError"),
    ],
)
def test_faulty_terms_are_refused(made, match):
    inputs, labels = torch.randn(30, 3), torch.randint(2, (30,))
    parts = [(inputs[at : at + 10], labels[at : at + 10]) for at in (0, 10, 20)]
    with pytest.raises(BadValue, match=match):
        cortado.compress(nn.Linear(3, 2), cortado.Task(*parts), [Finetune(epochs=1, objectives=(Returns(made=made),))])
