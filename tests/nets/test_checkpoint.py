"""Checkpoints of torch: the state is found and named as the network names it, and nothing in a file is run."""

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from cortado.errors import BadNetwork
from cortado.nets.checkpoint import load_weights, read_checkpoint, without_wrappers
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]


def other() -> nn.Module:
    """The network with other values."""
    network = NET.make()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(1)
    return network


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".bin"])
@pytest.mark.parametrize("key", [None, "state_dict", "model_state_dict", "model"])
def test_state_is_loaded_alone_or_from_inside_a_checkpoint(tmp_path, key, suffix):
    state, path = other().state_dict(), tmp_path / f"net{suffix}"
    torch.save(state if key is None else {"epoch": 3, key: state, "loss": 0.5}, path)
    network = NET.make()
    load_weights(network, path)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


WRAPPED = {
    "DataParallel": (nn.DataParallel, r"net.pt are read without 'module\.', which"),
    "torch.compile": (torch.compile, r"without '_orig_mod\.'"),
    "both": (lambda network: nn.DataParallel(torch.compile(network)), r"without 'module\.' and '_orig_mod\.'"),
}


@pytest.mark.parametrize("name", list(WRAPPED))
def test_prefix_of_a_wrapper_is_left_out_with_a_warning(tmp_path, name):
    wrap, says = WRAPPED[name]
    wrapped = wrap(other())
    torch.save(wrapped.state_dict(), tmp_path / "net.pt")
    network = NET.make()
    with pytest.warns(UserWarning, match=says):
        load_weights(network, tmp_path / "net.pt")
    for got, wanted in zip(network.state_dict().values(), other().state_dict().values(), strict=True):
        assert torch.equal(got, wanted)
    # A network that is wrapped itself has the names of the file.
    again = wrap(NET.make())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_weights(again, tmp_path / "net.pt")
    assert all(torch.equal(value, wrapped.state_dict()[key]) for key, value in again.state_dict().items())


def test_prefix_inside_a_path_is_left_out_too():
    state = {"body._orig_mod.weight": torch.ones(1), "head.weight": torch.zeros(1)}
    with pytest.warns(UserWarning, match="_orig_mod"):
        made = without_wrappers(state, {"body.weight", "head.weight"}, "net.pt")
    assert list(made) == ["body.weight", "head.weight"]
    kept = {"module.weight": torch.ones(1), "weight": torch.ones(1)}
    assert without_wrappers(kept, {"weight"}, "net.pt") is kept, "two names would become one"


class Runs:
    """What a malicious file holds."""

    def __reduce__(self):
        return print, ("run",)


REFUSED = {
    "code": ({"state_dict": Runs()}, "is not a checkpoint of tensors"),
    "a whole network": (nn.Linear(2, 2), "is not a checkpoint of tensors"),
    "no state": ({"epoch": 3, "lr": 0.1}, r"holds dict \['epoch', 'lr'\], not the state"),
    "a tensor": (torch.zeros(3), "holds Tensor"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_file_that_is_no_state_is_refused_in_words_and_not_run(tmp_path, name, capsys):
    body, says = REFUSED[name]
    torch.save(body, tmp_path / "net.pt")
    with pytest.raises(BadNetwork, match=says):
        read_checkpoint(tmp_path / "net.pt")
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("body", [b"", b"not weights at all", b"PK\x03\x04 cut short"])
def test_damaged_file_is_refused_in_words(tmp_path, body):
    (tmp_path / "net.pt").write_bytes(body)
    with pytest.raises(BadNetwork, match=r"net\.pt is not a checkpoint of tensors"):
        load_weights(NET.make(), tmp_path / "net.pt")


def test_prefix_of_a_trainer_is_left_out_and_what_is_not_the_network_too(tmp_path):
    """Lightning keeps the network as an attribute beside the loss."""
    state = {f"model.{name}": value for name, value in other().state_dict().items()} | {"loss.weight": torch.ones(3)}
    torch.save({"epoch": 3, "state_dict": state}, tmp_path / "last.ckpt")
    network = NET.make()
    with pytest.warns(UserWarning, match=r"without 'model\.'.* 1 tensors outside it are left out, such as loss.weight"):
        load_weights(network, tmp_path / "last.ckpt")
    assert all(torch.equal(value, other().state_dict()[name]) for name, value in network.state_dict().items())


def test_weights_in_the_wrong_part_of_a_network_are_refused(tmp_path):
    """A prefix counts only if all names of the network stand behind it."""
    state = {f"teacher.{name}": value for name, value in list(other().state_dict().items())[:3]}
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(BadNetwork, match="does not fit"):
        load_weights(NET.make(), tmp_path / "half.pt")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin"])
def test_folder_of_save_pretrained_is_read_whole_or_split(tmp_path, name, split):
    state = {key: value.clone() for key, value in other().state_dict().items()}
    write = save_file if name.endswith("safetensors") else torch.save
    if split:
        keys = list(state)
        halves = {f"{place}-{name}": {key: state[key] for key in keys[place::2]} for place in (0, 1)}
        for file, part in halves.items():
            write(part, tmp_path / file)
        index = {"weight_map": {key: file for file, part in halves.items() for key in part}}
        (tmp_path / f"{name}.index.json").write_text(json.dumps(index))
    else:
        write(state, tmp_path / name)
    network = NET.make()
    load_weights(network, tmp_path)
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_folder_without_weights_and_a_broken_index_are_refused(tmp_path):
    with pytest.raises(BadNetwork, match=r"has none of model\.safetensors"):
        load_weights(NET.make(), tmp_path)
    (tmp_path / "model.safetensors.index.json").write_text("[]")
    with pytest.raises(BadNetwork, match="no index of weights"):
        load_weights(NET.make(), tmp_path)
