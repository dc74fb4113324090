"""Data, labels and metrics that cannot be used are refused in words."""

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import cortado
from cortado.errors import BadTask
from cortado.task.measure import reference_score
from cortado.task.metric import Metric, correct


@pytest.mark.parametrize(
    "targets, what",
    [(torch.zeros(4), "float32"), (["a"] * 4, "list"), (torch.zeros(4, 1, dtype=torch.long), r"\(4, 1\)")],
)
def test_accuracy_refuses_what_is_no_class_number(targets, what):
    with pytest.raises(BadTask, match=f"accuracy needs .* got .*{what}"):
        correct(torch.zeros(4, 3), targets)


def test_a_metric_without_a_value_for_the_original_network_is_refused():
    inputs = torch.randn(12, 2)
    nan = Metric("m", "", lambda outputs, targets: outputs[:, 0] * float("nan"))
    parts = [(inputs[at : at + 4], torch.zeros(4, dtype=torch.long)) for at in (0, 4, 8)]
    with pytest.raises(BadTask, match="the metric 'm' of the original network is nan on the 4 validation samples"):
        reference_score(nn.Linear(2, 2), cortado.Task(*parts, metric=nan))


def test_a_loader_without_batches_is_refused():
    with pytest.raises(BadTask, match="batch_size=None .* Give it a batch_size"):
        cortado.Data(DataLoader(TensorDataset(torch.zeros(4, 2), torch.zeros(4)), batch_size=None))
