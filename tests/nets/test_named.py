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


def test_maker_of_a_file_may_import_what_lies_beside_it(tmp_path):
    """The folder is not the one that Python was started in, and a file is run once."""
    (tmp_path / "beside_it.py").write_text("WIDTH = 7\n")
    (tmp_path / "own_net.py").write_text(
        "from torch import nn\nfrom beside_it import WIDTH\n\n\nclass Net(nn.Linear):\n"
        "    def __init__(self):\n        super().__init__(WIDTH, 2)\n"
    )
    made = [named_network(f"{tmp_path}/own_net.py:Net", "job") for _ in range(2)]
    assert made[0].in_features == 7 and type(made[0]) is type(made[1])


@pytest.mark.parametrize(
    ("text", "named", "says"),
    [
        (None, "net.py:Net", "teacher: there is no file .*net.py. Check the path"),
        ("class Net: pass", "net.py:Not", "'.*net.py:Not' cannot be loaded .*file.py:maker"),
        ("class Net(", "net.py:Net", "teacher: net.py raised SyntaxError"),
        ("1 / 0", "net.py:Net", "teacher: net.py raised ZeroDivisionError"),
    ],
)
def test_file_without_the_maker_is_refused(tmp_path, text, named, says):
    if text is not None:
        (tmp_path / "net.py").write_text(text)
    for _ in range(2):
        with pytest.raises(BadRecipe, match=says):
            named_network(f"{tmp_path}/{named}", "teacher")
