"""One pass: second moments against sums by hand, and what errors cost against the KL that they cause."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.network.statistics.activations import rows_into, rows_of_layers
from cortado.network.statistics.one_pass import one_pass
from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Data, Task


def task_of(inputs, **more):
    labels = torch.zeros(len(inputs), dtype=torch.long)
    return Task(
        (inputs, labels), (inputs[:2], labels[:2]), (inputs[2:4], labels[2:4]), calibration=Data(inputs, labels), **more
    )


def seen(network, inputs, half=False, slopes=None, **more):
    layers = {
        path: one for path, one in network.named_modules() if isinstance(one, (nn.Linear, nn.Conv2d, nn.Embedding))
    }
    return one_pass(network, layers, task_of(inputs, **more), len(inputs), 10_000, slopes or len(inputs), half)


def test_second_moments_of_a_linear_layer():
    torch.manual_seed(0)
    inputs, network = torch.randn(70, 6), nn.Sequential(nn.Linear(6, 4)).eval()
    assert torch.allclose(seen(network, inputs).inputs["0"][0], inputs.T @ inputs / 70, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2])
def test_second_moments_of_a_convolution_are_those_of_its_patches(groups):
    torch.manual_seed(0)
    inputs = torch.randn(9, 4, 6, 5)
    network = nn.Sequential(
        nn.Conv2d(4, 8, 3, padding=1, groups=groups), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(240, 3)
    )
    found = seen(network.eval(), inputs).inputs["0"]
    patches = functional.unfold(inputs, 3, padding=1).transpose(1, 2).reshape(-1, groups, 36 // groups)
    assert torch.allclose(found, torch.einsum("rgi,rgj->gij", patches, patches) / len(patches), atol=1e-5)


class Side(nn.Module):
    """Two layers that read the same activation."""

    def __init__(self):
        super().__init__()
        self.words, self.one, self.two = nn.Embedding(7, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, tokens):
        read = self.words(tokens)
        return self.one(read) + self.two(read)


def test_layers_that_read_one_activation_share_its_moments():
    torch.manual_seed(0)
    found = seen(Side().eval(), torch.randint(0, 7, (8, 4)), outputs=Tokens())
    assert found.inputs["one"] is found.inputs["two"] and found.inputs["one"].shape == (1, 5, 5)


def test_rows_of_an_embedding_cost_as_often_as_they_are_read():
    torch.manual_seed(0)
    tokens = torch.zeros(40, 6, dtype=torch.long)
    tokens[:, 0] = 1
    found = seen(Side().eval(), tokens, outputs=Tokens()).outputs["words"]
    assert found[0] > 2 * found[1] and found[1] > found[2] > 0 and found[2] == found[3]


def kl(network, changed, inputs):
    with torch.no_grad():
        wanted, found = network(inputs).log_softmax(-1), changed(inputs).log_softmax(-1)
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


@pytest.mark.parametrize("half", [False, True])
def test_predicted_kl_of_a_small_error_is_the_measured_one(half):
    torch.manual_seed(0)
    inputs, network = torch.randn(2000, 8), nn.Sequential(nn.Linear(8, 5)).eval()
    found, error = seen(network, inputs, half), 0.02 * torch.randn(5, 8)
    predicted = 0.5 * float((found.outputs["0"] * (error @ found.inputs["0"][0] @ error.T).diagonal()).sum())
    changed = nn.Sequential(nn.Linear(8, 5)).eval()
    changed[0].weight.data, changed[0].bias.data = network[0].weight + error, network[0].bias
    assert predicted == pytest.approx(kl(network, changed, inputs), rel=0.35)


def test_weights_of_outputs_are_the_curvature_of_a_softmax():
    """Of logits that are a layer's own outputs it is p (1 - p), whatever the data."""
    torch.manual_seed(0)
    inputs, network = torch.randn(4000, 8), nn.Sequential(nn.Linear(8, 5)).eval()
    shares = network(inputs).detach().softmax(-1)
    wanted = (shares * (1 - shares)).mean(0)
    assert torch.allclose(seen(network, inputs).outputs["0"], wanted, rtol=0.05)


def test_the_network_stays_as_it_was():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 3)
    ).train()
    network[0].bias.requires_grad_(False)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    wanted = [one.requires_grad for one in network.parameters()]
    seen(network, torch.randn(40, 3, 6, 6))
    assert network.training and [one.requires_grad for one in network.parameters()] == wanted
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())


def test_rows_of_several_layers_are_those_of_each():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten(), nn.Linear(24, 3)
    ).eval()
    task, seeds = task_of(torch.randn(50, 3, 6, 6)), {"0": 3, "2": 4, "4": 5}
    each = [rows_into(network, path, task.calibration, 3, task.generator(seed)) for path, seed in seeds.items()]
    together = list(rows_of_layers(network, seeds, task.calibration, 3, task))
    assert all(torch.equal(one, other) for one, other in zip(each, together, strict=True))
