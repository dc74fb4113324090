"""Every network by name: it runs, it runs on the meta device, and a wrong name is answered in words."""

import pytest
import torch

from cortado.errors import BadValue
from cortado.nets.catalog import NETWORKS, by_name
from cortado.running.trees import tensors_in

INPUTS = {
    "lenet_300_100": (1, 28, 28),
    "lenet_5": (1, 28, 28),
    "mlp_1024": (1, 28, 28),
    "mlp_1024_signed": (1, 28, 28),
    "digits_net": (1, 8, 8),
    "resnet_8": (3, 32, 32),
    "resnet_20": (3, 32, 32),
    "resnet_56": (3, 32, 32),
    "cifar_resnet": (3, 32, 32),
    "bi_real_resnet_20": (3, 32, 32),
    "msdnet": (3, 32, 32),
    "vgg_16_cifar": (3, 32, 32),
    "alexnet": (3, 227, 227),
    "squeezenet": (3, 227, 227),
    "espnet": (3, 32, 48),
}
OUTPUTS = {"espnet": (12, 32, 48)}
"""One row of logits a picture, 10 or 1000 of them, but for these."""
# Parameters as published, biases and norms included: an independent count of each architecture.
PARAMETERS = {
    "alexnet": 60_965_224,
    "vgg_16": 138_357_544,
    "vgg_19": 143_667_240,
    "googlenet": 6_998_552,
    "squeezenet": 1_248_424,
    "mobilenet": 4_231_976,
    "mobilenet_v2": 3_504_872,
    "efficientnet": 5_288_548,
    "resnet_20": 269_722,
    "resnet_56": 853_018,
}
WORDS = {"llama": 512, "dreams_llama": 512}
"""How many tokens they know, for networks that read tokens."""
DETECTORS = {"ssdlite_mobilenet_v1": 4, "ssdlite_mobilenet_v2": 4, "ssd_mobilenet_v1": 4, "yolo": 3}
"""Their numbers of logits for each place; they return offsets as well."""


@pytest.mark.parametrize("name", NETWORKS)
def test_network_runs_on_the_meta_device(name):
    with torch.device("meta"):
        network = by_name(name)
        tokens = torch.zeros(2, 9, dtype=torch.long)
        outputs = network(tokens if name in WORDS else torch.zeros(2, *INPUTS.get(name, (3, 224, 224))))
    assert all(one.is_meta for one in tensors_in(outputs))
    if name in WORDS:
        assert outputs.shape == (2, 9, WORDS[name])
        return
    if name in DETECTORS:
        places = network.grid(224, 224).places
        assert [one.shape for one in outputs] == [(2, places, DETECTORS[name]), (2, places, 4)]
        return
    classes = 10 if INPUTS.get(name, (0, 224))[1] <= 32 else 1000
    assert outputs.shape == (2, *OUTPUTS.get(name, (classes,)))


@pytest.mark.parametrize("name", PARAMETERS)
def test_network_has_the_published_number_of_parameters(name):
    with torch.device("meta"):
        network = by_name(name)
    assert sum(parameter.numel() for parameter in network.parameters()) == PARAMETERS[name]


def test_network_takes_options():
    with torch.device("meta"):
        narrow = by_name("mobilenet", width=0.5, classes=5)
        thin = by_name("vgg_16_cifar", width=0.25)
        assert narrow(torch.zeros(1, 3, 160, 160)).shape == (1, 5)
    assert narrow.blocks[-1].pointwise.weight.shape == (512, 512, 1, 1)
    assert thin.linear.in_features == 128


def test_by_name_says_what_was_meant():
    with pytest.raises(BadValue, match="Did you mean resnet_20"):
        by_name("resnet20")
    with pytest.raises(BadValue, match="Known: lenet_300_100"):
        by_name("zzz")


def test_by_name_refuses_options_that_do_not_exist():
    with pytest.raises(BadValue, match="no option 'depth'. It has: classes"):
        by_name("vgg_16", depth=3)
    with pytest.raises(BadValue, match="It has none"):
        by_name("lenet_5", classes=3)
    with pytest.raises(BadValue, match="no option 'widht'. Did you mean width"):
        by_name("mobilenet_v2", widht=0.5)


@pytest.mark.parametrize(("name", "options"), [("mobilenet", {"width": 0}), ("vgg_16_cifar", {"width": -1.0})])
def test_network_refuses_a_width_of_nothing(name, options):
    with pytest.raises(BadValue, match="width must be above 0"):
        by_name(name, **options)


def test_digits_net_has_its_weights_and_a_norm_after_each_convolution():
    network = by_name("digits_net")
    weights = {name: value.numel() for name, value in network.named_parameters() if value.dim() > 1}
    assert weights == {
        "conv1.weight": 9 * 16,
        "conv2.weight": 9 * 16 * 32,
        "conv3.weight": 9 * 32 * 64,
        "linear.weight": 2560,
    }
    assert network(torch.zeros(3, 1, 8, 8)).shape == (3, 10)


def test_grouped_alexnet_keeps_its_halves_apart():
    """The first half of conv2's outputs must not see the second half of its inputs."""
    layer = by_name("alexnet").conv2
    activation = torch.randn(1, 96, 7, 7, generator=torch.Generator().manual_seed(0))
    changed = activation.clone()
    changed[:, 48:] += 1
    with torch.no_grad():
        before, after = layer(activation), layer(changed)
    assert torch.equal(before[:, :128], after[:, :128])
    assert not torch.allclose(before[:, 128:], after[:, 128:])
