"""A profile's counts agree with formulas, and what it does not know it calls unknown."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.lenet import lenet_5
from cortado.nets.resnet import resnet_20
from cortado.network.profile.profile import Total, profile
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked


def test_profile_of_lenet_5_has_the_papers_columns():
    """Han et al., 2015, table 4: FLOP are two a multiply-add."""
    table = profile(lenet_5(), torch.zeros(3, 1, 28, 28))
    assert [row.path for row in table.rows] == ["conv1", "conv2", "fc1", "fc2"]
    assert [row.weights for row in table.rows] == [500, 25_000, 400_000, 5_000]
    assert [2 * row.multiply_adds for row in table.rows] == [576_000, 3_200_000, 800_000, 10_000]
    assert [row.activations for row in table.rows] == [20 * 24 * 24, 50 * 8 * 8, 500, 10]
    assert [row.parameters for row in table.rows] == [520, 25_050, 400_500, 5_010]
    assert table.total("multiply_adds") == Total(2_293_000, True)
    assert table.total("size_bytes") == Total(431_080 * 4, True)


def test_profile_does_not_depend_on_the_batch():
    one, many = (profile(resnet_20(), torch.zeros(batch, 3, 32, 32)).rows for batch in (1, 5))
    assert [row.multiply_adds for row in one] == [row.multiply_adds for row in many]
    assert [row.activations for row in one] == [row.activations for row in many]


def test_profile_on_the_meta_device_agrees_but_for_the_nonzeros():
    with torch.device("meta"):
        network = resnet_20()
    meta, original = profile(network, torch.zeros(1, 3, 32, 32)), profile(resnet_20(), torch.zeros(1, 3, 32, 32))
    for column in ("parameters", "weights", "multiply_adds", "activations", "size_bytes"):
        assert meta.total(column) == original.total(column)
    assert original.total("multiply_adds") == Total(40_551_040, True)
    assert meta.row("conv1").nonzero_weights is None and meta.row("conv1").remaining_multiply_adds is None
    assert not meta.total("nonzero_weights").exact


def test_layer_that_runs_twice_costs_twice_and_weighs_once():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(6, 6, bias=False)

        def forward(self, activation):
            return self.layer(self.layer(activation))

    (row,) = profile(Twice(), torch.zeros(4, 6)).rows
    assert (row.calls, row.parameters, row.multiply_adds, row.activations) == (2, 36, 72, 12)


class Tied(nn.Module):
    """An embedding whose matrix is also that of the output layer."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, symbols):
        return self.head(self.embedding(symbols))


def test_profile_counts_tied_weights_once():
    network = Tied()
    with torch.no_grad():
        network.head.weight[:5] = 0
    table = profile(network, torch.zeros(2, 3, dtype=torch.long))
    assert [row.parameters for row in table.rows] == [40, 0]
    assert table.total("size_bytes").value == 160
    assert table.row("embedding").multiply_adds == 0
    # Three symbols a sample; the head's matrix is half zero though its parameters are counted elsewhere.
    assert table.row("head").multiply_adds == 3 * 40
    assert table.row("head").remaining_multiply_adds == 3 * 20


def test_profile_counts_an_lstm():
    network = nn.LSTM(5, 7, batch_first=True)
    with torch.no_grad():
        network.weight_hh_l0[:14] = 0
    (row,) = profile(network, torch.zeros(2, 6, 5)).rows
    weights = 28 * (5 + 7)
    assert (row.weights, row.multiply_adds) == (weights, 6 * weights)
    assert row.nonzero_weights == weights - 14 * 7
    assert row.remaining_multiply_adds == pytest.approx(6 * (weights - 14 * 7))
    assert row.activations == 6 * 7


def test_profile_counts_attention_with_its_output_projection():
    network = nn.MultiheadAttention(8, 2, batch_first=True)
    activation = torch.zeros(2, 3, 8)
    (row,) = profile(network, (activation, activation, activation)).rows
    assert row.parameters == 3 * 8 * 8 + 3 * 8 + 8 * 8 + 8
    assert row.multiply_adds == 3 * (3 * 8 * 8) + 2 * (3 * 3 * 8) + 3 * 8 * 8
    assert row.remaining_multiply_adds == row.multiply_adds


def test_profile_does_not_guess_what_zeros_save_in_attention():
    network = nn.MultiheadAttention(8, 2, batch_first=True)
    with torch.no_grad():
        network.out_proj.weight[0] = 0
    activation = torch.zeros(2, 3, 8)
    table = profile(network, (activation, activation, activation))
    assert table.rows[0].remaining_multiply_adds is None
    assert table.total("remaining_multiply_adds") == Total(0, False)


class Own(nn.Module):
    """A user's layer: a parameter and a product, no torch layer."""

    def __init__(self):
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(5, 3))
        self.frequencies = nn.Linear(3, 3)

    def forward(self, activation):
        return torch.fft.fft(self.frequencies(activation @ self.matrix)).abs()


def test_profile_is_unknown_where_an_operator_is():
    network = nn.Sequential(Own(), nn.Linear(3, 2))
    table = profile(network, torch.ones(4, 5))
    own = table.row("0")
    assert own.multiply_adds is None and own.remaining_multiply_adds is None
    assert own.unknown_operators == ("aten._fft_r2c.default",)
    assert own.parameters == 15
    assert table.row("0.frequencies").multiply_adds == 9
    assert table.total("multiply_adds") == Total(9 + 6, False)
    assert "at least 15" in table.text() and "aten._fft_r2c" in table.text()


def test_profile_counts_products_in_a_users_forward():
    class Product(Own):
        def forward(self, activation):
            return self.frequencies(activation @ self.matrix)

    assert profile(Product(), torch.ones(4, 5)).row("").multiply_adds == 15


def test_profile_reads_held_weights_through_their_forms():
    network = nn.Sequential(nn.Linear(8, 4), nn.ReLU(), nn.Linear(4, 2))
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[:2] = True
    form = Dense(torch.ones(4, 8)).select(mask)
    attach(network[0], "weight", form)
    table = profile(network, torch.ones(3, 8))
    row = table.row("0")
    assert [row.path for row in table.rows] == ["0", "2"]
    assert (row.parameters, row.weights, row.nonzero_weights) == (36, 32, 16)
    assert (row.multiply_adds, row.remaining_multiply_adds, row.decode_multiply_adds) == (32, 16, 0)
    assert row.size_bytes == form.bits() / 8 + 4 * 4
    assert row.kind == "Linear"


class Factors(Masked):
    """A form that multiplies to give its weight."""

    def dense(self):
        return super().dense() @ torch.eye(8)


def test_profile_keeps_the_products_of_a_form_apart():
    network = nn.Sequential(nn.Linear(8, 4))
    attach(network[0], "weight", Factors(torch.ones(4, 8, dtype=torch.bool), Dense(torch.ones(32))))
    table = profile(network, torch.ones(3, 8))
    assert table.row("0").multiply_adds == 32
    assert table.row("0").decode_multiply_adds == 4 * 8 * 8
    assert "decode" in table.text()


def test_profile_measures_what_remains_of_the_multiply_adds():
    """Remaining = multiply-adds x nonzero weights x nonzero inputs; the network's own input counts as dense."""
    first, second = nn.Linear(4, 4, bias=False), nn.Linear(4, 2, bias=False)
    with torch.no_grad():
        first.weight.copy_(torch.diag(torch.tensor([1.0, 1, 1, -1])))
        second.weight.copy_(torch.tensor([[1.0, 0, 1, 1], [1, 0, 1, 1]]))
    network = nn.Sequential(first, nn.ReLU(), second)
    data = torch.ones(6, 4)
    data[:, 0] = 0
    table = profile(network, torch.ones(1, 4), data=data)
    assert table.row("0").remaining_multiply_adds == 16 * 4 / 16
    # Of the four activations the first is 0 and the last is made 0 by the ReLU.
    assert table.row("2").nonzero_inputs == 0.5
    assert table.row("2").remaining_multiply_adds == pytest.approx(8 * 0.75 * 0.5)
    assert table.row("0").nonzero_outputs == 0.5
    without = profile(network, torch.ones(1, 4))
    assert without.row("2").remaining_multiply_adds == 8 * 0.75
    assert without.row("2").nonzero_inputs is None


def test_profile_lists_a_layer_that_never_ran_at_no_cost():
    class Unused(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.spare = nn.Linear(2, 2), nn.Linear(2, 5)

        def forward(self, activation):
            return functional.relu(self.used(activation))

    row = profile(Unused(), torch.zeros(1, 2)).row("spare")
    assert (row.calls, row.parameters, row.multiply_adds, row.activations) == (0, 15, 0, 0)


def test_profile_text_is_a_table_of_equal_lines():
    text = profile(lenet_5(), torch.zeros(1, 1, 28, 28)).text()
    heading, rule, *rows, second_rule, total = text.splitlines()
    assert " ".join(heading.split()) == (
        "layer kind parameters weights nonzero multiply-adds remaining activations bytes"
    )
    assert set(rule) == set(second_rule) == {" ", "─"} and len(rows) == 4
    assert " ".join(total.split()) == "total 431,080 430,500 430,500 2,293,000 2,293,000 15,230 1,724,320"
    assert len({len(line) for line in (rule, second_rule, *rows, total)}) == 1


def test_profile_refuses_rows_and_columns_it_does_not_have():
    table = profile(lenet_5(), torch.zeros(1, 1, 28, 28))
    with pytest.raises(BadValue, match="no row 'fc3'"):
        table.row("fc3")
    with pytest.raises(BadValue, match="no total of 'kind'"):
        table.total("kind")


def test_profile_takes_a_recurrent_layers_inputs_as_dense():
    """Half of what the LSTM reads is 0, but its state is not, so nothing is taken off."""

    class Silenced(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.lstm = nn.Linear(4, 4, bias=False), nn.LSTM(4, 3, batch_first=True)
            with torch.no_grad():
                self.linear.weight.copy_(torch.diag(torch.tensor([1.0, 1, -1, -1])))

        def forward(self, activation):
            return self.lstm(functional.relu(self.linear(activation)))[0]

    row = profile(Silenced(), torch.ones(1, 2, 4), data=torch.ones(5, 2, 4)).row("lstm")
    assert row.nonzero_inputs == 0.5
    assert row.remaining_multiply_adds == row.multiply_adds == 2 * 12 * (4 + 3)


def test_profile_counts_the_bytes_of_saved_buffers_only():
    network = nn.BatchNorm1d(6)
    network.register_buffer("scratch", torch.zeros(100), persistent=False)
    (row,) = profile(network, torch.zeros(2, 6)).rows
    assert row.parameters == 12 and row.weights == 0
    # Four vectors of six floats, and the counter of batches in eight bytes.
    assert row.size_bytes == 4 * 6 * 4 + 8
