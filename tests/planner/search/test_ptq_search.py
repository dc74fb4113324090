"""PTQ search: each step told of, kept only for what it is worth, and every weight rounded to the bits that it may have."""

from functools import partial

import pytest
import torch
from torch import nn

from cortado.engine.compress import compress
from cortado.engine.recipe import method_class, read_recipe
from cortado.errors import BadValue
from cortado.methods.quantize.adaround import QuantizeAdaround
from cortado.network.view import View
from cortado.network.weight import parameter_places
from cortado.parts.activations.quantizer import sites
from cortado.parts.forms.attach import attach, form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.masked import Masked
from cortado.parts.forms.quantized import Quantized
from cortado.planner.search import ptq_search
from cortado.planner.search.ptq_search import STEPS, PtqSearch, Rounder
from cortado.task.task import Data, Task
from tests.laws.tiny_nets import BY_NAME


@pytest.fixture(autouse=True)
def short_roundings(monkeypatch):
    """A tenth of the steps in which adaround learns: what it learns is not what is tested."""
    monkeypatch.setitem(ptq_search.ROUNDINGS, "adaround", partial(QuantizeAdaround, steps=100))


def searched(net="residual", **knobs):
    made = BY_NAME[net]
    network, original, task = made.make(), made.make(), made.task()
    view = View(network, original, made.example, reference=original)
    PtqSearch(**({"images": 32} | knobs)).apply(view, task)
    return network, original, view, task


def test_search_tells_of_every_step_and_ends_nearer_than_it_began():
    network, original, view, task = searched(bits=3, activations=4)
    said = view.notes[-1]
    assert said.startswith("nearest rounding: ") and all(
        f"; {step}: " in said for step in ("match_moments", "range", "second_order")
    )
    first = float(said.split()[2])
    kept = [float(part.split("-> ")[1].split(",")[0]) for part in said.split("; ") if "kept" in part]
    assert kept and kept == sorted(kept, reverse=True) and kept[-1] < 0.7 * first
    assert sites(network) and any(isinstance(module, Quantized) for module in network.modules())


@pytest.mark.parametrize("net", ["mlp", "attention", "transformer", "recurrent"])
def test_fragile_layers_are_found_in_every_kind_of_network(net):
    _, _, view, _ = searched(net, bits=2, activations=0, steps="fragile", fragile=0.3)
    assert "; fragile: " in view.notes[-1]


def test_search_without_activations_and_without_data():
    network, _, view, _ = searched(bits=4, activations=0, data="synthetic", steps="match_moments, second_order")
    assert not sites(network) and "range" not in view.notes[-1]


def test_step_that_is_not_known_is_refused():
    with pytest.raises(BadValue, match="no step is called 'magic'. Known: match_moments, range"):
        PtqSearch(steps="match_moments, magic")
    assert PtqSearch().chosen == list(STEPS)


def largest_codes(network):
    """The largest code of each rounded weight, by the path of its layer."""
    forms = {weight.layer_path: weight.form for weight in parameter_places(network) if len(weight.shape) > 1}
    return {path: int(form.codes.abs().max()) for path, form in forms.items() if isinstance(form, Quantized)}


@pytest.mark.parametrize("runs_over", [False, True])
@pytest.mark.parametrize("bits", [4, 8])
def test_weights_have_7_bits_only_where_8_would_overflow(monkeypatch, runs_over, bits):
    monkeypatch.setattr(ptq_search, "processor_saturates", lambda: runs_over)
    monkeypatch.setattr(Rounder, "bits_a_weight", lambda self, steps: 0.0)
    network, _, view, _ = searched(bits=bits, activations=8, steps="edges", gain=0.0)
    wide = {"stem", "head"} if bits == 4 else {"stem", "first", "second", "head"}
    top = 63 if runs_over else 127
    assert largest_codes(network) == {path: top if path in wide else 7 for path in ("stem", "first", "second", "head")}
    assert any("has no VNNI" in note for note in view.notes) == runs_over


def test_without_activations_no_product_of_8_bits_runs_over(monkeypatch):
    monkeypatch.setattr(ptq_search, "processor_saturates", lambda: True)
    network, _, view, _ = searched(bits=8, activations=0, steps="match_moments")
    assert set(largest_codes(network).values()) == {127} and "VNNI" not in " ".join(view.notes)


def rounder_of(net, **knobs):
    made = BY_NAME[net]
    asked = PtqSearch(**({"bits": 4, "activations": 0, "fragile": 0.0} | knobs))
    return Rounder(asked, View(made.make(), made.make(), made.example), made.task(), made.task().calibration.inputs[:8])


def test_bits_a_weight_are_counted_over_all_that_is_rounded():
    found = rounder_of("residual")
    sizes = {"stem": 54, "first": 432, "second": 432, "head": 24}
    assert found.bits_a_weight(()) == 4
    assert found.bits_a_weight(("edges",)) == pytest.approx(4 + 4 * (54 + 24) / sum(sizes.values()))
    found.fragile = {"stem", "first"}
    assert found.bits_a_weight(("edges", "fragile")) == pytest.approx(8 - 4 * 432 / 942)


@pytest.mark.parametrize(("left", "kept"), [(0.45, True), (0.55, False)])
def test_widening_is_kept_if_it_helps_more_than_bits_for_all(monkeypatch, left, kept):
    """Half a bit a weight is worth 4**-0.5, which is half of the divergence."""
    monkeypatch.setattr(Rounder, "divergence", lambda self, steps: left if "edges" in steps else 1.0)
    monkeypatch.setattr(Rounder, "bits_a_weight", lambda self, steps: 4.5 if "edges" in steps else 4.0)
    _, _, view, _ = searched(bits=4, activations=0, steps="edges")
    assert f"{left:.4f}, {'kept' if kept else 'left out'}" in view.notes[0]


def test_layers_without_statistics_are_rounded_to_nearest():
    """A step that left the weights of a recurrent layer as they are would look like a gain."""
    network, _, _, _ = searched("recurrent", bits=3, activations=0, steps="second_order", gain=0.0)
    assert all(isinstance(weight.form, Quantized) for weight in parameter_places(network) if len(weight.shape) > 1)


def small_task(inputs):
    return Task(*(Data(inputs, torch.zeros(len(inputs), dtype=torch.long)) for _ in range(3)))


@pytest.mark.parametrize("name", ["a,b", "c*", "not", "[d] e?"])
def test_layers_of_any_name_are_rounded(name):
    torch.manual_seed(0)
    network, original = nn.Sequential(), nn.Sequential()
    for made in (network, original):
        made.add_module(name, nn.Linear(6, 6))
        made.add_module("last", nn.Linear(6, 4))
    original.load_state_dict(network.state_dict())
    task = small_task(torch.randn(16, 6))
    PtqSearch(bits=4, activations=0, steps="second_order").apply(View(network.eval(), original, task.example), task)
    assert set(largest_codes(network)) == {name, "last"}


def test_a_network_that_is_one_layer_can_be_searched():
    torch.manual_seed(0)
    network, task = nn.Linear(6, 4).eval(), small_task(torch.randn(16, 6))
    PtqSearch(bits=4, activations=0, steps="second_order").apply(View(network, nn.Linear(6, 4), task.example), task)
    assert largest_codes(network) == {"": 7}


def test_zeros_of_a_mask_stay_while_the_rest_is_rounded():
    made = BY_NAME["residual"]
    network, original, task = made.make(), made.make(), made.task()
    mask = network.first.weight.detach().abs() > 0.05
    attach(network.first, "weight", Dense(network.first.weight).select(mask))
    view = View(network, original, made.example)
    PtqSearch(bits=3, activations=0, images=32, steps="second_order", gain=0.0).apply(view, task)
    assert bool((network.first.weight[~mask] == 0).all()) and int(mask.sum()) < mask.numel()
    assert not any(parameter.dim() > 1 for parameter in network.parameters())
    assert form_of(network.first, "weight") is not None


def test_weights_that_have_a_form_already_are_named():
    original, task = BY_NAME["residual"].make(), BY_NAME["residual"].task()
    path = next(name for name, value in original.named_parameters() if value.dim() == 4).removesuffix(".weight")
    _, report = compress(
        original, task, f"share/kmeans bits=2 where={path} | quantize/ptq_search bits=4 activations=0 images=8"
    )
    assert any("keep their form" in note and f"{path}.weight" in note for note in report.stages[1].notes)


def test_the_name_from_before_is_understood():
    assert method_class("quantize/ptq_search") is method_class("quantize/ptq_search") is PtqSearch
    assert read_recipe("quantize/ptq_search bits=4").stages[0].name() == "quantize/ptq_search"


def test_survivors_of_a_mask_are_rounded_once():
    """What careful rounding has done to them, and the wider bits of some, are not rounded over."""
    made = BY_NAME["residual"]
    network, original, task = made.make(), made.make(), made.task()
    for layer in (network.stem, network.first):
        attach(layer, "weight", Dense(layer.weight).select(layer.weight.detach().abs() > 0.05))
    rounder = Rounder(
        PtqSearch(bits=3, activations=0), View(network, original, made.example), task, task.calibration.inputs[:8]
    )
    rounder.wide = 8
    rounder.run(("second_order", "edges"), network)
    codes = {}
    for weight in parameter_places(network):
        form = weight.form.kept if isinstance(weight.form, Masked) else weight.form
        if len(weight.shape) > 1:
            codes[weight.layer_path] = int(form.codes.abs().max())
    assert codes == {"stem": 127, "first": 3, "second": 3, "head": 127}


def test_the_fewest_layers_stay_in_floats_for_an_error():
    network, original, view, task = searched(bits=4, activations=4, steps="", error=0.02)
    note = next(note for note in view.notes if "layers in floats (" in note or "layer in floats (" in note)
    floats = note.rpartition(": ")[2].rstrip(".").split(", ")
    rounded = {weight.layer_path for weight in parameter_places(network) if isinstance(weight.form, Quantized)}
    assert floats and rounded and not rounded & {*floats}
    judge = task.calibration.inputs[16:20]
    assert (
        error_of(network, original, judge)
        < 0.03
        < error_of(searched(bits=4, activations=4, steps="")[0], original, judge)
    )


def error_of(network, original, inputs):
    """The root mean square error of the outputs, as a share of their spread."""
    with torch.no_grad():
        found, wanted = network.eval()(inputs), original.eval()(inputs)
    return float((found - wanted).square().mean().sqrt() / wanted.std())
