"""Networks by name, by maker and with weights, as jobs, teachers and students name them."""

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cortado.errors import BadNetwork, BadRecipe
from cortado.nets.lenet import LeNet300100
from cortado.nets.named import named_network
from tests.laws.tiny_nets import BY_NAME, Depthwise, mlp

OWN = "tests.laws.tiny_nets"


@pytest.mark.parametrize(
    ("named", "kind"),
    [("lenet_300_100", LeNet300100), (f"{OWN}:Depthwise", Depthwise), (Depthwise, Depthwise), (mlp, nn.Sequential)],
)
def test_network_is_made_of_a_name_or_a_maker(named, kind):
    assert type(named_network(named, "job")) is kind
    assert type(named_network({"network": named}, "job")) is kind


def test_network_itself_is_passed_through():
    network = mlp()
    assert named_network(network, "teacher") is network


def test_weights_are_loaded_into_a_copy(tmp_path):
    """The maker may return a network of the user's."""
    kept, trained = mlp(), mlp()
    before = kept[0].weight.clone()
    save_file(trained.state_dict(), tmp_path / "net.safetensors")
    made = named_network({"network": lambda: kept, "weights": str(tmp_path / "net.safetensors")}, "teacher")
    assert torch.equal(made[0].weight, trained[0].weight) and torch.equal(kept[0].weight, before)


def test_options_are_the_makers_arguments():
    with torch.device("meta"):
        wide = named_network(
            {"network": "cortado.nets.resnet:CifarResNet", "options": {"blocks": 1, "width": 4}}, "job"
        )
    assert wide.linear.in_features == 16


@pytest.mark.parametrize(
    ("named", "kind", "says"),
    [
        ({"netwrk": "x:y"}, BadRecipe, "teacher: no key 'netwrk'; did you mean 'network'"),
        ({"weights": "x.npz"}, BadRecipe, "teacher: .* has no network. Write {network: package.module:maker"),
        (f"{OWN}:none", BadRecipe, f"teacher: '{OWN}:none' cannot be loaded"),
        ("lenet_4", BadRecipe, "teacher: nets: there is no network 'lenet_4'. Did you mean lenet_5"),
        ({"network": mlp, "options": {"width": 3}}, BadRecipe, r"mlp does not take \['width'\]"),
        ({"network": mlp, "weights": "nowhere.npz"}, BadNetwork, "teacher: the weights nowhere.npz do not exist"),
        (3, BadRecipe, "teacher: 3 names no network"),
        (f"{OWN}:BY_NAME", BadRecipe, "BY_NAME does not take"),
        (lambda: BY_NAME, BadNetwork, "made dict, not a network. Return an nn.Module"),
    ],
)
def test_what_names_no_network_is_refused_in_words(named, kind, says):
    with pytest.raises(kind, match=says):
        named_network(named, "teacher")
