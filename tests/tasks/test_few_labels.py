"""Few labels: the first samples keep them, and all inputs are unlabelled data."""

import pytest
import torch

from cortado.errors import BadTask
from cortado.task.disjoint import check_disjoint
from cortado.tasks import digits


def test_the_first_samples_keep_their_labels():
    whole, few = digits.task(), digits.task(labelled=100)
    assert torch.equal(few.train.targets, whole.train.targets[:100]) and torch.equal(
        few.train.inputs, whole.train.inputs[:100]
    )
    assert torch.equal(few.unlabelled.inputs, whole.train.inputs) and few.unlabelled.targets is None
    assert whole.unlabelled is None and check_disjoint(few) == []
    assert torch.equal(few.validation.inputs, whole.validation.inputs)


@pytest.mark.parametrize("count", [-1, 1001])
def test_no_more_labels_than_samples(count):
    with pytest.raises(BadTask, match=rf"labelled must lie in 0..1000, got {count}"):
        digits.task(labelled=count)
