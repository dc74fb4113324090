"""The two LeNets have the shapes that the literature counts."""

import torch

from cortado.nets.lenet import lenet_5, lenet_300_100


def weights_of(network):
    return {name: tensor.numel() for name, tensor in network.named_parameters() if name.endswith("weight")}


def test_lenet_5_has_caffes_weights():
    assert weights_of(lenet_5()) == {
        "conv1.weight": 20 * 5 * 5,
        "conv2.weight": 50 * 20 * 5 * 5,
        "fc1.weight": 800 * 500,
        "fc2.weight": 500 * 10,
    }
    assert sum(weights_of(lenet_5()).values()) == 430_500


def test_lenet_300_100_has_its_weights():
    assert list(weights_of(lenet_300_100()).values()) == [784 * 300, 300 * 100, 100 * 10]


def test_lenets_take_pictures_of_28_by_28():
    for network in (lenet_5(), lenet_300_100()):
        assert network(torch.zeros(3, 1, 28, 28)).shape == (3, 10)


def test_lenet_5_scales_with_its_input_when_it_has_no_biases():
    """Without biases everything in it scales with its input."""
    network = lenet_5()
    with torch.no_grad():
        for name, tensor in network.named_parameters():
            if name.endswith("bias"):
                tensor.zero_()
        images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(network(3 * images), 3 * network(images))
