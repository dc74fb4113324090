"""Rate and distortion: less loss at fewer bits than nearest rounding, bits and bytes as asked, on networks of all kinds."""

import copy

import pytest
import torch
from torch import nn

from cortado.engine.recipe import Recipe
from cortado.engine.stage import apply_stage, begin
from cortado.errors import BadValue, NothingChanged
from cortado.file.artifact import decode, encode
from cortado.methods.observed import Problem, upper_factor
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.feedback import rounded, row_steps
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.methods.quantize.scales import QuantizeScales, WithFactors, with_codes
from cortado.methods.quantize.step_search import searched
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.planner.allocate.mix import Mix
from cortado.training.training import Training
from tests.methods.seen import task_of


def correlated(rows, inputs, seed=0):
    generator = torch.Generator().manual_seed(seed)
    few = torch.randn(rows, 4, generator=generator) @ torch.randn(4, inputs, generator=generator)
    return few + 0.1 * torch.randn(rows, inputs, generator=generator)


def applied(method, network, task):
    return apply_stage(method, begin(network, task.example), task, match_moments=False)


@torch.no_grad()
def kl(network, changed, task):
    inputs = task.test.inputs
    wanted, found = network(inputs).log_softmax(-1), changed(inputs).log_softmax(-1)
    return float((wanted.exp() * (wanted - found)).sum(-1).mean())


def coded_bits(network):
    """Bits of a code at zero order, over all weights with codes."""
    bits = entries = 0
    for layer in network.modules():
        form = form_of(layer, "weight")
        if form is not None and not isinstance(layer, nn.Embedding):
            counts = torch.unique(form.codes, return_counts=True)[1].double()
            bits -= float((counts * (counts / counts.sum()).log2()).sum())
            entries += form.codes.numel()
    return bits / entries


@pytest.mark.parametrize("kind", ["pictures", "words"])
def test_less_is_lost_than_by_nearest_rounding_at_as_many_bits(kind, request):
    network, task = request.getfixturevalue(kind)
    nearest = applied(QuantizeWeights(bits=3), network, task).network
    found = applied(QuantizeRateDistortion(bits=coded_bits(nearest), images=300), network, task).network
    assert coded_bits(found) < 1.05 * coded_bits(nearest)
    assert kl(network, found, task) < 0.6 * kl(network, nearest, task)


def stated_bits(state):
    """The bits of a weight that a stage notes."""
    return next(float(one.split(": ")[1].split(" bits")[0]) for one in state.notes if "bits a weight" in one)


@pytest.mark.parametrize("bits", [1.0, 2.5, 6.0])
def test_bits_are_as_asked(words, bits):
    network, task = words
    assert stated_bits(applied(QuantizeRateDistortion(bits=bits), network, task)) == pytest.approx(bits, rel=0.05)


def test_bits_are_as_asked_of_a_network_that_is_sure_of_all_its_answers():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 4)).eval()
    with torch.no_grad():
        network[2].weight *= 400
    task = task_of(torch.randn(400, 16), torch.zeros(400, dtype=torch.long))
    assert stated_bits(applied(QuantizeRateDistortion(bits=3.0), network, task)) == pytest.approx(3.0, rel=0.06)


def test_size_is_the_same_dial_as_bits(words):
    network, task = words
    entries = sum(one.numel() for one in network.parameters() if one.dim() > 1)
    by_bits, by_size = (
        applied(QuantizeRateDistortion(**dial), network, task).network
        for dial in ({"bits": 3.0}, {"size": f"{entries * 3 / 8:.0f} B"})
    )
    assert torch.equal(by_bits(task.example), by_size(task.example))


def test_a_size_is_a_number_or_a_text_here_and_in_a_mix():
    assert QuantizeRateDistortion(size="", bits=2.0).bits == 2.0
    for kind in (QuantizeRateDistortion, Mix):
        made = [Recipe((kind(size=given),)).as_data()["stages"] for given in ("40 KB", 40_000)]
        assert [stage[0][kind.name()]["size"] for stage in made] == ["40 KB", 40_000.0]
        with pytest.raises(BadValue, match=f"{kind.name()}: size: .*no known unit of size, got 'kilo'"):
            kind(size="40 kilo")
    assert Mix(size="40 KB").room == Mix(size=40_000).room == 40_000


def test_layers_whose_errors_cost_more_have_more_bits(pictures):
    network, task = pictures
    with torch.no_grad():
        network[5].weight.mul_(0.05)
    found = applied(QuantizeRateDistortion(bits=2.0), network, task).network
    spread = [float(found[at].held_weight.codes.float().std()) for at in (0, 2, 5)]
    assert spread[0] > spread[2] and spread[1] > spread[2]


def test_a_weight_far_outside_of_the_others_is_not_clipped():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(16, 4)).eval()
    with torch.no_grad():
        network[0].weight[1, 3] = 400.0
    task = task_of(torch.randn(200, 16) * 0.02, torch.zeros(200, dtype=torch.long))
    found = applied(QuantizeRateDistortion(bits=4.0), network, task).network
    codes = found[0].held_weight.codes
    assert int(codes[1, 3]) > 127 and found[0].weight[1, 3].item() == pytest.approx(400.0, rel=0.01)


def test_masked_weights_stay_zero_and_others_make_up_for_errors(pictures):
    network, task = pictures
    pruned = applied(PruneWeights(keep=0.5), network, task)
    zero = [layer.weight == 0 for layer in (pruned.network[0], pruned.network[5])]
    found = apply_stage(QuantizeRateDistortion(bits=4.0), pruned, task, match_moments=False).network
    assert all(bool((layer.weight[mask] == 0).all()) for layer, mask in zip((found[0], found[5]), zero, strict=True))


def test_a_matrix_that_is_read_and_multiplied_keeps_one_form(words):
    network, task = words
    found = applied(QuantizeRateDistortion(bits=3.0), network, task).network
    assert form_of(found.head, "weight") is form_of(found.embedding, "weight")
    read = decode(encode(found, network), network)
    assert torch.equal(read(task.example), found(task.example))


def test_scales_have_eight_steps_an_octave(words):
    network, task = words
    found = applied(QuantizeRateDistortion(bits=3.0), network, task).network
    mantissa = torch.frexp(form_of(found.layers[0].up, "weight").scale.detach())[0] * 16
    assert torch.equal(mantissa, mantissa.round())


def test_errors_go_to_inputs_that_are_alike():
    """With two inputs that are nearly one, the second makes up for the first."""
    gram = torch.tensor([[[1.0, 0.999], [0.999, 1.0]]])
    problem = Problem.of(torch.tensor([[[0.4, 0.4]]]), upper_factor(gram, 1e-6), torch.ones(1, 1))
    found = rounded(problem, 1.0 / float(row_steps(problem)))
    assert found.codes.sum() == 1 and float(found.scale) == 1.0


def test_without_feedback_and_price_the_nearest_code_is_taken():
    torch.manual_seed(0)
    weight = torch.randn(1, 5, 8)
    problem = Problem.of(weight, torch.eye(8)[None], torch.ones(1, 5))
    found = rounded(problem, 0.01 / float(row_steps(problem)[0, 0]))
    near = (weight / found.scale[..., None]).round()
    # Bits make a code smaller, never larger, and by one at most.
    assert bool((found.codes.abs() <= near.abs()).all()) and int((near - found.codes).abs().max()) <= 1
    assert float((near == found.codes).float().mean()) > 0.7


def test_the_search_finds_the_step_of_a_falling_count():
    assert searched(lambda step: 1000.0 / (1 + step * 1e3), 250.0) == pytest.approx(3e-3, rel=0.01)


def test_a_layer_that_dominates_is_named(pictures):
    network, task = pictures
    network = copy.deepcopy(network)
    for at in (0, 2):
        network[at].weight.data *= 1e-4
    notes = applied(QuantizeRateDistortion(step=0.5), network, task).notes
    assert any("of the predicted loss" in one for one in notes)


def test_what_is_no_matrix_is_left_alone_and_named():
    torch.manual_seed(0)
    network = nn.Sequential(nn.ConvTranspose2d(2, 3, 2), nn.Flatten(), nn.Linear(75, 3)).eval()
    task = task_of(torch.randn(80, 2, 4, 4), torch.zeros(80, dtype=torch.long))
    notes = applied(QuantizeRateDistortion(), network, task).notes
    assert any("1 weights are unchanged" in one and "0.weight" in one for one in notes)
    with pytest.raises(NothingChanged, match="a linear layer, a convolution or an embedding in full rank"):
        applied(QuantizeRateDistortion(where="0"), network, task)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"size": "0 MB"}, "size must be above 0"),
        ({"size": "1 MB", "step": 0.1}, "both given"),
        ({"bits": 0.0}, "bits"),
    ],
)
def test_dials_that_cannot_be_are_refused(given, sentence):
    with pytest.raises(BadValue, match=sentence):
        QuantizeRateDistortion(**given)


def test_scales_that_learn_bring_the_outputs_nearer_and_keep_the_codes(words):
    network, task = words
    state = applied(QuantizeRateDistortion(bits=1.2), network, task)
    before, codes = kl(network, state.network, task), form_of(state.network.head, "weight").codes.clone()
    learned = apply_stage(
        QuantizeScales(training=Training(epochs=8, lr=3e-3, statistics="kept", batch=8)), state, task
    ).network
    assert kl(network, learned, task) < 0.8 * before
    assert torch.equal(form_of(learned.head, "weight").codes, codes)
    assert form_of(learned.head, "weight") is form_of(learned.embedding, "weight")
    assert not any(module._forward_hooks for module in learned.modules())
    assert not torch.equal(learned.norm.weight, network.norm.weight)
    assert all(one.requires_grad for name, one in learned.named_parameters() if "norm" in name)
    assert torch.equal(decode(encode(learned, network), network)(task.example), learned(task.example))


def test_factors_of_outputs_are_those_of_scales(pictures, words):
    """What a network computes while it learns is what its scales make afterwards: biases, groups and embeddings included."""
    for network, task in (pictures, words):
        state = applied(QuantizeWeights(bits=4), network, task)
        view = View(state.network, network, task.example)
        runner = WithFactors(view.network, with_codes(QuantizeScales(), view, task))
        with torch.no_grad():
            for factor in runner.factors:
                factor.normal_(0.0, 0.2)
            while_learning = runner(task.example)
        runner.remove()
        for weight, factor in zip(with_codes(QuantizeScales(), view, task), runner.factors, strict=True):
            QuantizeScales(mantissa=22).scale(weight, factor.detach().exp())
        with torch.no_grad():
            assert torch.allclose(view.network(task.example), while_learning, atol=1e-4)
            assert not torch.allclose(network(task.example), while_learning, atol=1e-2)


def test_scales_need_codes(pictures):
    network, task = pictures
    with pytest.raises(NothingChanged, match="quantize first"):
        applied(QuantizeScales(), network, task)
    one_scale = applied(QuantizeWeights(bits=4, per="tensor"), network, task)
    with pytest.raises(NothingChanged, match="quantize first"):
        apply_stage(QuantizeScales(), one_scale, task)


class Routed(nn.Module):
    """No gradient reaches the layer that chooses."""

    def __init__(self):
        super().__init__()
        self.choose, self.each = nn.Linear(6, 2), nn.Linear(6, 3)

    def forward(self, inputs):
        return self.each(inputs) * (self.choose(inputs).argmax(1) == 0).float()[:, None]


@pytest.mark.parametrize("where", ["*", "choose"])
def test_a_layer_that_no_gradient_reaches_is_rounded_like_the_others(where):
    torch.manual_seed(0)
    network = Routed().eval()
    task = task_of(torch.randn(400, 6), torch.zeros(400, dtype=torch.long))
    found = applied(QuantizeRateDistortion(bits=5.0, where=where), network, task).network
    before = network.choose.weight.detach()
    off = float((found.choose.weight.detach() - before).norm() / before.norm())
    assert form_of(found.choose, "weight").codes is not None and off < 0.2
