"""Compressed networks as whole objects: torch.save, other processes, ties; and the file, made again from what came back."""

import pytest
import torch
from torch import Tensor, nn

import cortado
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import form_of
from tests.fresh import fresh
from tests.laws.tiny_nets import BY_NAME

NET = BY_NAME["residual"]
RECIPES = [
    "prune/weights keep=0.5",
    "share/kmeans bits=2",
    "quantize/weights bits=8 | quantize/activations",
    "quantize/aware bits=4",
    "factorize/svd keep=0.7",
    "prune/channels keep=0.6 | prune/weights keep=0.5 | share/kmeans bits=3",
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_network_comes_back_from_torch_save_and_can_be_saved_again(recipe, tmp_path):
    original, task = NET.make(), NET.task()
    small, _ = cortado.compress(original, task, recipe)
    torch.save(small, tmp_path / "whole.pt")
    again = torch.load(tmp_path / "whole.pt", weights_only=False)
    assert torch.equal(again(task.example), small(task.example))
    sizes = [
        cortado.save(one, tmp_path / f"{name}.cortado", original=original) for name, one in (("a", small), ("b", again))
    ]
    assert sizes[0] == sizes[1]
    assert (tmp_path / "a.cortado").read_bytes() == (tmp_path / "b.cortado").read_bytes()


def test_network_comes_back_in_a_process_that_never_held_a_weight(tmp_path):
    small, _ = cortado.compress(NET.make(), NET.task(), "prune/weights keep=0.5 | share/kmeans bits=3")
    torch.save((small, NET.example), tmp_path / "whole.pt")
    code = (
        "import sys, torch; network, example = torch.load(sys.argv[1], weights_only=False); "
        "torch.save(network(example).detach(), sys.argv[2])"
    )
    child = fresh(code, str(tmp_path / "whole.pt"), str(tmp_path / "outputs.pt"))
    assert child.returncode == 0, child.stderr
    assert torch.equal(torch.load(tmp_path / "outputs.pt"), small(NET.example).detach())


class Tied(nn.Module):
    """A language model whose output layer is its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mid, self.out = nn.Embedding(12, 8), nn.Linear(8, 8), nn.Linear(8, 12, bias=False)
        self.out.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        activation = self.embed(ids)
        return self.out(activation + torch.relu(self.mid(activation))).mean(1)


def ids(seed: int) -> tuple[Tensor, Tensor]:
    made = torch.randint(0, 12, (32, 5), generator=torch.Generator().manual_seed(seed))
    return made, made[:, 0]


@pytest.mark.parametrize(
    "recipe",
    ["prune/weights keep=0.5", "quantize/aware bits=4", "quantize/ternary | finetune epochs=1", "share/kmeans bits=2 | prune/weights keep=0.5"],
)  # fmt: skip
def test_tied_weights_are_one_object_at_the_end_of_a_recipe(recipe, tmp_path):
    torch.manual_seed(0)
    original, task = Tied().eval(), cortado.Task(ids(1), ids(2), ids(3), device="cpu")
    small, _ = cortado.compress(original, task, recipe)
    assert form_of(small.out, "weight") is form_of(small.embed, "weight") is not None
    cortado.save(small, tmp_path / "net.cortado", original=original)
    loaded = cortado.load(tmp_path / "net.cortado", original=Tied)
    assert torch.equal(loaded(task.example), small(task.example))
    if sites(small):
        return
    # Without rounded activations it computes what the dense weight does in both places.
    dense, example = small.embed.weight.detach(), task.example
    activation = dense[example]
    activation = activation + torch.relu(nn.functional.linear(activation, small.mid.weight, small.mid.bias))
    torch.testing.assert_close(small(example), (activation @ dense.T).mean(1))
