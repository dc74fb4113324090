"""A form on any parameter of any layer: the layer computes what it did, and stays what it was."""

import copy
import io

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork
from cortado.network.weight import parameter_places
from cortado.parts.forms.attach import attach, attached_names, finalize_forms, form_of, original_class, release
from cortado.parts.forms.codebook import Codebook
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.learned_step import LearnedStep
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


class Scaled(nn.Module):
    """A user's own layer: a parameter of any name and any shape."""

    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(2, 1, 3))
        self.list = nn.ParameterList([nn.Parameter(torch.randn(3))])

    def forward(self, activation):
        return (activation * self.gain).sum(0) + self.list[0]


class Own(nn.Linear):
    """A subclass of a stock layer with state of its own."""

    def __init__(self):
        super().__init__(3, 4)
        self.calls = 0

    def forward(self, activation):
        self.calls += 1
        return super().forward(activation) * 2


def attention():
    return nn.MultiheadAttention(4, 2, batch_first=True)


LAYERS = {
    "Linear": (lambda: nn.Linear(3, 4), [(5, 3)]),
    "Linear without bias": (lambda: nn.Linear(3, 4, bias=False), [(5, 3)]),
    "Conv1d": (lambda: nn.Conv1d(2, 4, 3), [(2, 2, 7)]),
    "Conv2d in groups": (lambda: nn.Conv2d(2, 4, 3, groups=2), [(2, 2, 5, 5)]),
    "Conv3d": (lambda: nn.Conv3d(2, 3, 2), [(1, 2, 3, 3, 3)]),
    "ConvTranspose1d": (lambda: nn.ConvTranspose1d(2, 4, 3), [(2, 2, 7)]),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(2, 4, 3, groups=2), [(2, 2, 5, 5)]),
    "ConvTranspose3d": (lambda: nn.ConvTranspose3d(2, 3, 2), [(1, 2, 3, 3, 3)]),
    "Embedding": (lambda: nn.Embedding(6, 3), [torch.tensor([[0, 5, 2]])]),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(6, 3), [torch.tensor([[0, 5, 2]])]),
    "Bilinear": (lambda: nn.Bilinear(2, 3, 4), [(5, 2), (5, 3)]),
    "LayerNorm": (lambda: nn.LayerNorm(4), [(5, 4)]),
    "BatchNorm2d": (lambda: nn.BatchNorm2d(3), [(2, 3, 4, 4)]),
    "RNN": (lambda: nn.RNN(3, 4), [(5, 2, 3)]),
    "LSTM": (lambda: nn.LSTM(3, 4), [(5, 2, 3)]),
    "LSTM, two directions, two levels, projected": (lambda: nn.LSTM(3, 4, 2, bidirectional=True, proj_size=2), [(5, 2, 3)]),
    "GRU, two directions": (lambda: nn.GRU(3, 4, bidirectional=True, batch_first=True), [(5, 2, 3)]),
    "MultiheadAttention": (attention, [(2, 5, 4), (2, 5, 4), (2, 5, 4)]),
    "MultiheadAttention, other widths": (lambda: nn.MultiheadAttention(4, 2, kdim=3, vdim=5), [(6, 2, 4), (7, 2, 3), (7, 2, 5)]),
    "TransformerEncoderLayer": (lambda: nn.TransformerEncoderLayer(4, 2, 8, batch_first=True), [(2, 5, 4)]),
    "a user's own": (Scaled, [(2, 5, 3)]),
    "a user's own linear": (Own, [(5, 3)]),
}  # fmt: skip


def made(name):
    """The layer in eval mode, and inputs for it."""
    torch.manual_seed(3)
    maker, inputs = LAYERS[name]
    return maker().eval(), [torch.randn(one) if isinstance(one, tuple) else one for one in inputs]


def outputs_of(layer, inputs):
    """Every tensor that the layer gives."""
    found = layer(*inputs)
    flat = []
    for one in found if isinstance(found, tuple) else (found,):
        flat += list(one) if isinstance(one, tuple) else [one]
    return flat


def hold_all(layer, make):
    for weight in parameter_places(layer):
        weight.set_form(make(weight.dense()))


def masked_quantized(values):
    """A mask over the entries that are not small, and what it keeps in 5 bits."""
    mask = values.abs() >= values.abs().median()
    return Masked(mask, Quantized.of(values[mask], 5))


@pytest.mark.parametrize("name", list(LAYERS))
def test_layer_held_in_dense_forms_computes_what_it_did(name):
    layer, inputs = made(name)
    wanted = outputs_of(layer, inputs)
    hold_all(layer, Dense)
    for got, was in zip(outputs_of(layer, inputs), wanted, strict=True):
        assert torch.equal(got, was)


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("grad", [True, False])
def test_held_layer_computes_as_one_with_the_dense_values(name, grad):
    layer, inputs = made(name)
    original = copy.deepcopy(layer)
    hold_all(layer, masked_quantized)
    values = {weight.path: weight.dense() for weight in parameter_places(layer)}
    original.load_state_dict({**original.state_dict(), **values})
    with torch.set_grad_enabled(grad):
        for got, wanted in zip(outputs_of(layer, inputs), outputs_of(original, inputs), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("name", list(LAYERS))
def test_held_layer_stays_what_it_was(name):
    layer, _ = made(name)
    before = type(layer)
    names = [weight.path for weight in parameter_places(layer)]
    hold_all(layer, masked_quantized)
    assert isinstance(layer, before) and type(layer).__name__ == before.__name__
    assert original_class(layer) is before
    assert sorted(weight.path for weight in parameter_places(layer)) == sorted(names)


@pytest.mark.parametrize("name", list(LAYERS))
def test_gradients_reach_every_part_of_a_held_layer(name):
    layer, inputs = made(name)
    hold_all(layer, masked_quantized)
    sum(out.square().sum() for out in outputs_of(layer.train(), inputs)).backward()
    for path, parameter in layer.named_parameters():
        assert parameter.grad is not None, path


@pytest.mark.parametrize("name", list(LAYERS))
def test_state_dict_and_deep_copy_of_a_held_layer(name):
    layer, inputs = made(name)
    hold_all(layer, masked_quantized)
    duplicate = copy.deepcopy(layer)
    wanted = outputs_of(layer, inputs)
    with torch.no_grad():
        for parameter in duplicate.parameters():
            parameter.mul_(3)
    assert not all(torch.equal(a, b) for a, b in zip(outputs_of(duplicate, inputs), wanted, strict=True))
    duplicate.load_state_dict(layer.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(outputs_of(duplicate, inputs), wanted, strict=True))


@pytest.mark.parametrize("name", list(LAYERS))
def test_held_layer_comes_back_from_a_pickle(name):
    layer, inputs = made(name)
    hold_all(layer, masked_quantized)
    body = io.BytesIO()
    torch.save(layer, body)
    again = torch.load(io.BytesIO(body.getvalue()), weights_only=False)
    assert [type(part) for part in again.modules()] == [type(part) for part in layer.modules()]
    for got, was in zip(outputs_of(again, inputs), outputs_of(layer, inputs), strict=True):
        assert torch.equal(got, was)
    with torch.no_grad():
        next(again.parameters()).mul_(3)
    assert not all(torch.equal(a, b) for a, b in zip(outputs_of(again, inputs), outputs_of(layer, inputs), strict=True))


@pytest.mark.parametrize("name", list(LAYERS))
def test_release_gives_a_plain_layer_back(name):
    layer, inputs = made(name)
    names = list(layer.state_dict())
    hold_all(layer, masked_quantized)
    wanted = outputs_of(layer, inputs)
    for weight in parameter_places(layer):
        release(*weight.places[0])
    assert sorted(layer.state_dict()) == sorted(names)
    assert all(not attached_names(part) for part in layer.modules())
    for got, was in zip(outputs_of(layer, inputs), wanted, strict=True):
        torch.testing.assert_close(got, was)


@pytest.mark.parametrize("name", ["Linear", "LSTM", "MultiheadAttention"])
def test_held_layer_moves_to_another_type(name):
    layer, inputs = made(name)
    hold_all(layer, lambda values: Codebook(values.flatten()[:4], torch.arange(values.numel()).view(values.shape) % 4))
    doubled = layer.double()
    assert outputs_of(doubled, [one.double() for one in inputs])[0].dtype == torch.float64


def test_functional_call_replaces_the_floats_of_a_form():
    layer = nn.Linear(2, 2, bias=False)
    attach(layer, "weight", Codebook(torch.tensor([1.0, 2.0]), torch.tensor([[0, 1], [1, 0]])))
    got = torch.func.functional_call(layer, {"held_weight.codebook": torch.tensor([5.0, 7.0])}, torch.eye(2))
    assert torch.equal(got, torch.tensor([[5.0, 7.0], [7.0, 5.0]]))


def test_tied_weights_stay_tied_in_one_form():
    network = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    network[1].weight = network[0].weight
    (weight,) = [w for w in parameter_places(network) if w.name == "weight"]
    assert len(weight.places) == 2
    weight.map_values(lambda values: Quantized.of(values, 4))
    assert form_of(network[0], "weight") is form_of(network[1], "weight")
    duplicate = copy.deepcopy(network)
    assert form_of(duplicate[0], "weight") is form_of(duplicate[1], "weight")
    network(torch.randn(2, 3)).sum().backward()
    assert form_of(network[0], "weight").scale.grad is not None


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("pair", [(nn.Embedding, nn.Linear), (nn.Linear, nn.Linear), (nn.Embedding, nn.Embedding)])
def test_tied_weights_stay_tied_when_forms_are_finalized(pair, masked):
    network = nn.ModuleList([kind(3, 3) for kind in pair])
    values = torch.tensor([[0.9, -0.2, 0.26], [0.0, 0.5, -0.74], [0.1, 0.3, 0.61]])
    form = LearnedStep(values, 0.25)
    if masked:
        form = Masked(values > 0, LearnedStep(values[values > 0], 0.25))
    for layer in network:
        attach(layer, "weight", form)
    finalize_forms(network)
    assert form_of(network[0], "weight") is form_of(network[1], "weight") is not form
    # A quarter is a number of bfloat16, so the finalized step is the same.
    wanted = (values / 0.25).round() * 0.25
    assert torch.equal(network[1].weight, torch.where(values > 0, wanted, 0.0) if masked else wanted)


def test_frozen_weight_stays_frozen_in_its_form():
    layer = nn.Linear(2, 2)
    layer.weight.requires_grad_(False)
    attach(layer, "weight", Dense(layer.weight))
    assert not layer.held_weight.values.requires_grad and layer.bias.requires_grad


def test_held_weight_cannot_be_set_and_the_error_says_how_to_release():
    layer = nn.Linear(2, 2)
    attach(layer, "weight", Dense(layer.weight))
    for value in (nn.Parameter(torch.zeros(2, 2)), torch.zeros(2, 2)):
        with pytest.raises(
            BadNetwork, match=r"Linear\.weight is held in a form and cannot be set.*release\(layer, name\)"
        ):
            layer.weight = value


def test_hold_of_a_name_that_is_not_there_lists_the_names():
    with pytest.raises(BadNetwork, match=r"Linear has no parameter 'wieght'. Its parameters: weight, bias\."):
        attach(nn.Linear(2, 2), "wieght", Dense(torch.zeros(2, 2)))


def test_two_layers_of_one_class_do_not_share_what_they_hold():
    one, other = nn.Linear(2, 2), nn.Linear(2, 2)
    attach(one, "weight", Dense(one.weight))
    assert attached_names(one) == ("weight",) and attached_names(other) == () and attached_names(nn.Linear(1, 1)) == ()


def test_finalize_ends_the_training_of_every_latent_weight():
    layer = nn.Linear(3, 2)
    attach(layer, "weight", LearnedStep(layer.weight, 0.25))
    wanted = layer.weight.detach()
    finalize_forms(layer)
    assert isinstance(form_of(layer, "weight"), Quantized)
    assert torch.equal(layer.weight, wanted)
