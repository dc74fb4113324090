"""Factorisations against mathematics: exact where the weight has the structure, best of their rank where it has not."""

import copy
import dataclasses

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue, NothingChanged
from cortado.layers.factors import factored_network
from cortado.methods.factorize import fitted
from cortado.methods.factorize.consumers import Consumer, consumers
from cortado.methods.factorize.cp import FactorizeCp, decompose, outer_sum
from cortado.methods.factorize.jaderberg import FactorizeJaderberg
from cortado.methods.factorize.nonlinear import FactorizeNonlinear, Fit
from cortado.methods.factorize.predict import FactorizePredict, by_distance, telling
from cortado.methods.factorize.response import FactorizeResponse
from cortado.methods.factorize.svd import FactorizeSvd
from cortado.methods.factorize.targets import find_targets
from cortado.methods.factorize.tucker import FactorizeTucker, pair_cut
from cortado.methods.factorize.vbmf import vbmf_rank
from cortado.methods.method import Method
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.quantize.weights import QuantizeWeights
from cortado.network.profile.profile import profile
from cortado.network.statistics.activations import patches
from cortado.network.view import View
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Data, Task

EVERY: dict[str, Method] = {
    "svd": FactorizeSvd(),
    "response": FactorizeResponse(),
    "jaderberg 1": FactorizeJaderberg(kind=1),
    "jaderberg 2": FactorizeJaderberg(),
    "jaderberg 2, filters": FactorizeJaderberg(fit="filters"),
    "cp": FactorizeCp(starts=1, sweeps=10),
    "tucker": FactorizeTucker(),
    "nonlinear": FactorizeNonlinear(rounds=2),
    "nonlinear, columns": FactorizeNonlinear(chain="columns", rounds=2),
}
every_method = pytest.mark.parametrize("name", list(EVERY))


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape)))


class Net(nn.Module):
    """Two convolutions with norms, of which one is followed by a ReLU, a depthwise one, and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.one_norm = nn.Conv2d(3, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.two, self.two_norm = nn.Conv2d(12, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.own = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.three = nn.Conv2d(12, 16, 3, stride=2)
        self.head = nn.Linear(16, 5)

    def forward(self, images: Tensor) -> Tensor:
        activation = torch.relu(self.one_norm(self.one(images)))
        activation = activation + self.two_norm(self.two(activation))
        return self.head(torch.relu(self.three(self.own(activation))).mean((2, 3)))


def problem() -> tuple[View, Task, nn.Module]:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        network = Net()
    smooth = functional.avg_pool2d(random(96, 3, 12, 12), 3, 1, 1) * 3
    for norm in (network.one_norm, network.two_norm):
        norm.weight.data.uniform_(0.5, 1.5, generator=torch.Generator().manual_seed(1))
        norm.bias.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(2))
    network.train()
    for _ in range(20):
        network(smooth)
    data = Data(smooth, torch.zeros(96, dtype=torch.long))
    task = Task(data, data, data, calibration=data)
    original = network.eval()
    return View(copy.deepcopy(original), original, task.example), task, original


def lost(view: View, original: nn.Module, task: Task) -> float:
    """Squared error of the outputs, as a share of their variance."""
    inputs = task.calibration.inputs
    with torch.no_grad():
        wanted = original(inputs)
        return float(((view.network(inputs) - wanted) ** 2).mean() / wanted.var(0).mean())


@every_method
def test_method_keeps_the_share_of_multiply_adds_and_little_is_lost(name):
    view, task, original = problem()
    method, whole = EVERY[name], profile(original, task.example)
    method.apply(view, task)
    attached = [path for path, layer in view.network.named_modules() if isinstance(form_of(layer, "weight"), LowRank)]
    assert attached and "own" not in attached
    targets = ("one", "two", "three", "head") if name in ("svd", "response", "nonlinear") else ("one", "two", "three")
    small = profile(view.network, task.example)
    before, after = (sum(table.row(path).multiply_adds for path in targets) for table in (whole, small))
    assert after <= 0.5 * before
    run = profile(factored_network(view.network), task.example).total("multiply_adds")
    assert run == small.total("multiply_adds")
    # The closest weight is far from the closest output where activations are smooth.
    assert lost(view, original, task) < (2.0 if name == "svd" else 0.6)


def test_fits_to_outputs_lose_less_than_fits_to_filters():
    found = {}
    for fit in ("filters", "outputs"):
        for kind in (1, 2):
            view, task, original = problem()
            FactorizeJaderberg(kind=kind, fit=fit, where="one, two, three").apply(view, task)
            found[fit, kind] = lost(view, original, task)
    assert found["outputs", 1] < found["filters", 1] and found["outputs", 2] < found["filters", 2]


def test_nonlinear_asymmetric_loses_less_than_linear_at_equal_ranks():
    found = []
    for method in (
        FactorizeResponse(rank=4, where="one, two, three"),
        FactorizeNonlinear(rank=4, where="one, two, three"),
    ):
        view, task, original = problem()
        method.apply(view, task)
        found.append(lost(view, original, task))
    assert found[1] < found[0]


def test_svd_is_the_closest_weight_of_its_rank():
    view, task, original = problem()
    FactorizeSvd(rank=3, where="two").apply(view, task)
    u, s, v = torch.linalg.svd(original.two.weight.detach().flatten(1), full_matrices=False)
    torch.testing.assert_close(view.network.two.weight.flatten(1), (u[:, :3] * s[:3]) @ v[:3], rtol=1e-4, atol=1e-5)


def outputs_of(network: nn.Module, path: str, task: Task) -> Tensor:
    found = []
    hook = network.get_submodule(path).register_forward_hook(lambda layer, inputs, output: found.append(output))
    with torch.no_grad():
        network(task.calibration.inputs)
    hook.remove()
    return found[0].movedim(1, -1).flatten(0, -2) if found[0].dim() == 4 else found[0]


def test_response_leaves_the_variance_of_the_lost_axes_and_no_mean():
    view, task, original = problem()
    FactorizeResponse(rank=4, where="three").apply(view, task)
    wanted, made = (outputs_of(network, "three", task) for network in (original, view.network))
    axes = torch.linalg.eigvalsh(torch.cov(wanted.T.double(), correction=0))
    error = ((wanted - made).double() ** 2).mean(0).sum()
    torch.testing.assert_close(error, axes[:-4].sum(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(made.mean(0), wanted.mean(0), rtol=1e-3, atol=1e-4)


LOOK_AT_NO_DATA = ("svd", "jaderberg 2, filters")


@pytest.mark.parametrize("name", [name for name in EVERY if name not in LOOK_AT_NO_DATA])
def test_mean_of_responses_behind_a_norm_is_kept(name):
    view, task, original = problem()
    method = type(EVERY[name])(**knobs(EVERY[name]))
    method.apply(view, task)
    wanted, made = (outputs_of(network, "one_norm", task) for network in (original, view.network))
    if "nonlinear" in name:
        wanted, made = wanted.relu(), made.relu()
    assert float((wanted.mean(0) - made.mean(0)).abs().max()) < 0.05


def knobs(method: Method) -> dict[str, object]:
    """The method's own knobs, for the first convolution."""
    values = {field.name: getattr(method, field.name) for field in dataclasses.fields(method)}
    return values | {"where": "one", "keep": 0.5}


def layered(weight: Tensor) -> tuple[View, Task]:
    """A network of one convolution with this weight."""
    layer = nn.Conv2d(weight.shape[1], weight.shape[0], weight.shape[2:], padding=1)
    layer.weight.data.copy_(weight)
    data = Data(random(32, weight.shape[1], 8, 8), torch.zeros(32, dtype=torch.long))
    task = Task(data, data, data, calibration=data)
    network = nn.Sequential(layer, nn.ReLU(), nn.Flatten())
    return View(network, network, task.example), task


@pytest.mark.parametrize("fit", ["filters", "outputs"])
def test_columns_and_rows_are_found_again(fit):
    weight = torch.einsum("kci,nkj->ncij", random(3, 6, 3), random(8, 3, 3))
    view, task = layered(weight)
    FactorizeJaderberg(rank=3, fit=fit).apply(view, task)
    torch.testing.assert_close(view.network[0].weight.detach(), weight, rtol=1e-3, atol=1e-3)


def test_a_basis_of_each_input_is_found_again():
    weight = torch.einsum("ncm,cmi,cmj->ncij", random(20, 6, 1), random(6, 1, 3), random(6, 1, 3))
    view, task = layered(weight)
    FactorizeJaderberg(kind=1, rank=1, fit="filters").apply(view, task)
    torch.testing.assert_close(view.network[0].weight.detach(), weight, rtol=1e-3, atol=1e-3)
    chain = factored_network(view.network)[0]
    assert [layer.groups for layer in chain] == [6, 6, 1]


def test_sum_of_outer_products_is_found_again():
    factors = [random(size, 4) for size in (8, 6, 3, 3)]
    tensor = outer_sum(factors)
    torch.testing.assert_close(tensor, torch.einsum("nr,cr,ir,jr->ncij", *factors))
    made = decompose(tensor, 4, 300, 1e-7, torch.Generator().manual_seed(3))
    assert float((outer_sum(made) - tensor).norm() / tensor.norm()) < 0.02


def test_core_is_found_again_with_the_ranks_of_vbmf():
    weight = torch.einsum("na,abij,cb->ncij", random(20, 4), random(4, 3, 3, 3), random(18, 3))
    view, task = layered(weight + 0.01 * random(*weight.shape, seed=5))
    FactorizeTucker(ranks="vbmf", fit="filters").apply(view, task)
    assert [tuple(layer.weight.shape) for layer in factored_network(view.network)[0]] == [
        (3, 18, 1, 1),
        (4, 3, 3, 3),
        (20, 4, 1, 1),
    ]
    torch.testing.assert_close(view.network[0].weight.detach(), weight, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("rank", [0, 1, 5])
@pytest.mark.parametrize("shape", [(40, 150), (150, 40), (60, 60)])
def test_vbmf_counts_what_stands_out_of_noise(rank, shape):
    matrix = random(shape[0], max(rank, 1))[:, :rank] @ random(max(rank, 1), shape[1])[:rank]
    assert vbmf_rank(matrix + 0.3 * random(*shape, seed=9)) == rank


def test_auxiliary_responses_are_the_best_there_are():
    """Against a fine grid, entry by entry."""
    fit = Fit.__new__(Fit)
    fit.wanted, made = random(50, 4, seed=1), random(50, 4, seed=2)
    found = fit.auxiliary(made, 0.3)

    def energy(z: Tensor) -> Tensor:
        return (z.clamp(min=0) - fit.wanted.clamp(min=0)) ** 2 + 0.3 * (z - made) ** 2

    grid = torch.linspace(-4, 4, 4001)
    best = torch.stack([energy(torch.full_like(made, float(z))) for z in grid]).amin(0)
    assert bool((energy(found) <= best + 1e-4).all())


def test_weights_that_are_smooth_over_inputs_are_predicted_from_a_few():
    alike = by_distance(torch.Size([9, 40]))
    smooth = (torch.linalg.cholesky(alike + 1e-6 * torch.eye(40)) @ random(40, 9).double()).T.float()
    network = nn.Sequential(nn.Linear(40, 9))
    network[0].weight.data.copy_(smooth)
    data = Data(random(32, 40), torch.zeros(32, dtype=torch.long))
    task = Task(data, data, data, calibration=data)
    FactorizePredict(keep=0.15, kernel="distance", ridge=1e-4).apply(View(network, network, task.example), task)
    assert form_of(network[0], "weight").rank == 6
    made, kept = network[0].weight.detach(), telling(alike, 6)
    torch.testing.assert_close(made[:, kept], smooth[:, kept], rtol=1e-2, atol=1e-2)
    others = torch.ones(40, dtype=torch.bool)
    others[kept] = False
    assert float((made - smooth)[:, others].norm()) < 0.95 * float(smooth[:, others].norm())
    places = telling(alike, 20)
    assert len(set(places.tolist())) == 20
    known = torch.linalg.lstsq(alike[places][:, places], alike[places]).solution
    assert float((smooth[:, places].double() @ known - smooth).norm() / smooth.norm()) < 0.6


LAYERS = {
    "plane": (nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(1, 2)), (5, 3, 9, 8)),
    "line": (nn.Conv1d(3, 4, 5, padding="same"), (5, 3, 9)),
    "room": (nn.Conv3d(2, 3, 2, padding="valid"), (5, 2, 4, 5, 4)),
}


@pytest.mark.parametrize("name", list(LAYERS))
def test_patches_are_what_the_layer_multiplies(name):
    layer, shape = LAYERS[name]
    activation = random(*shape)
    rows = patches(layer, activation, 10_000, torch.Generator().manual_seed(0))
    made = rows @ layer.weight.flatten(1).T + layer.bias
    whole = layer(activation).movedim(1, -1).flatten(0, -2)
    assert rows.shape[0] == whole.shape[0]
    torch.testing.assert_close(made.sort(0).values, whole.sort(0).values, rtol=1e-4, atol=1e-4)
    assert len(patches(layer, activation, 3, torch.Generator().manual_seed(0))) == 3 * shape[0]


def test_followers_are_norms_and_relus_that_alone_read_the_layer():
    view, _, _ = problem()
    found = consumers(view, ["one", "two", "three", "head"])
    assert found["one"].norm is view.network.one_norm and found["one"].relu
    assert found["two"].norm is view.network.two_norm and not found["two"].relu
    assert found["three"].norm is None and found["three"].relu
    assert found["head"].norm is None and not found["head"].relu


class Tokens(nn.Module):
    """A linear layer on each of some tokens, and a batch norm over the tokens."""

    def __init__(self, tokens: int) -> None:
        super().__init__()
        self.each, self.norm = nn.Linear(12, 16, bias=False), nn.BatchNorm1d(tokens)

    def forward(self, sequence: Tensor) -> Tensor:
        return torch.relu(self.norm(self.each(sequence))).mean(1)


@pytest.mark.parametrize("tokens", [5, 16])
@pytest.mark.parametrize(
    "method", [FactorizeResponse(), FactorizeNonlinear(rounds=2)], ids=lambda method: method.name()
)
def test_norm_over_tokens_is_not_one_over_features(method, tokens):
    original = Tokens(tokens).eval()
    data = Data(random(32, tokens, 12), torch.zeros(32, dtype=torch.long))
    task = Task(data, data, data, calibration=data)
    view = View(copy.deepcopy(original), original, task.example)
    found = consumers(view, ["each"])["each"]
    assert found.norm is None and not found.relu
    method.apply(view, task)
    assert isinstance(form_of(view.network.each, "weight"), LowRank)
    assert torch.equal(view.network.norm.running_mean, original.norm.running_mean)


class Apart(nn.Module):
    """Two convolutions and a linear layer, called for one sample at a time without a batch axis, or for all at once."""

    def __init__(self, together: bool) -> None:
        super().__init__()
        self.together = together
        self.one, self.two, self.head = nn.Conv2d(3, 12, 3), nn.Conv2d(12, 8, 3), nn.Linear(8, 4)

    def forward(self, images: Tensor) -> Tensor:
        if self.together:
            return self.head(self.two(torch.relu(self.one(images))).mean((2, 3)))
        return torch.stack([self.head(self.two(torch.relu(self.one(one))).mean((1, 2))) for one in images])


@pytest.mark.parametrize("name", [name for name in EVERY if "svd" not in name and "filters" not in name])
def test_layer_called_without_a_batch_axis_is_factored_as_with_one(name):
    """With one sample of calibration both see the same; the others look at no data."""
    data = Data(random(1, 3, 9, 9), torch.zeros(1, dtype=torch.long))
    task, found = Task(data, data, data, calibration=data), []
    for together in (True, False):
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(0)
            network = Apart(together).eval()
        EVERY[name].apply(View(network, network, task.example), task)
        assert isinstance(form_of(network.two, "weight"), LowRank)
        found.append([layer.weight.detach() for layer in (network.one, network.two, network.head)])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)


def test_constant_goes_into_the_bias_or_into_the_mean_of_the_norm():
    view, task, original = problem()
    found, constant = consumers(view, ["one", "three"]), random(12)
    before = outputs_of(original, "one_norm", task)
    found["one"].add_constant(view.network.one, constant.double())
    scale = found["one"].scale(12).float()
    torch.testing.assert_close(outputs_of(view.network, "one_norm", task), before + scale * constant)
    assert found["three"].takes_constant(view.network.three)


def test_equal_ranks_keep_the_share_in_every_layer():
    view, task, original = problem()
    FactorizeSvd(ranks="equal", keep=0.4).apply(view, task)
    whole, small = profile(original, task.example), profile(view.network, task.example)
    for path in ("one", "two", "three", "head"):
        assert small.row(path).multiply_adds <= 0.4 * whole.row(path).multiply_adds


def test_layer_whose_factors_would_cost_more_is_left_alone():
    view, task, _ = problem()
    FactorizeSvd(rank=10).apply(view, task)
    assert form_of(view.network.one, "weight") is None
    assert isinstance(form_of(view.network.three, "weight"), LowRank)


@pytest.mark.parametrize("where", ["own", "head"])
def test_nothing_to_factor_says_so(where):
    view, task, _ = problem()
    with pytest.raises(NothingChanged, match="factorize"):
        FactorizeJaderberg(where=where).apply(view, task)


def test_whole_share_changes_nothing_and_says_so():
    view, task, _ = problem()
    with pytest.raises(NothingChanged, match="no layer .* has factors that cost less at keep=1"):
        FactorizeSvd(keep=1.0).apply(view, task)


@pytest.mark.parametrize("ranks", ["energy", "equal"])
@pytest.mark.parametrize("method", [FactorizeSvd, FactorizeResponse, FactorizeJaderberg, FactorizeCp, FactorizeTucker])
@pytest.mark.parametrize("keep", [0.0, 0.01])
def test_unreachable_share_is_refused_with_the_least_one(method, ranks, keep):
    view, task, original = problem()
    with pytest.raises(BadValue, match=rf"{method.name()}: the smallest ranks keep .* than keep={keep:g}\.") as refused:
        method(keep=keep, ranks=ranks).apply(view, task)
    assert view.network.state_dict().keys() == original.state_dict().keys()
    least = float(str(refused.value).split("ranks keep ")[1].split()[0])
    with pytest.raises(BadValue):
        method(keep=least - 2e-4, ranks=ranks).apply(view, task)
    method(keep=least, ranks=ranks).apply(view, task)
    whole, small = profile(original, task.example), profile(view.network, task.example)
    paths = [path for path, layer in view.network.named_modules() if isinstance(form_of(layer, "weight"), LowRank)]
    kept = {path: small.row(path).multiply_adds / whole.row(path).multiply_adds for path in paths}
    if ranks == "equal":
        assert least - 1e-4 < max(kept.values()) <= least
    else:
        before, after = (sum(table.row(path).multiply_adds for path in paths) for table in (whole, small))
        assert least - 1e-4 < after / before <= least


def test_rounding_afterwards_rounds_the_factors():
    view, task, _ = problem()
    FactorizeSvd(where="two").apply(view, task)
    QuantizeWeights(where="two").apply(View(view.network, view.original, view.example), task)
    form = form_of(view.network.two, "weight")
    assert isinstance(form, LowRank) and isinstance(form.first, Quantized) and isinstance(form.last, Quantized)


def test_factored_weight_can_be_factored_again():
    view, task, _ = problem()
    FactorizeSvd(where="two", rank=6).apply(view, task)
    FactorizeSvd(where="two", rank=3).apply(View(view.network, view.original, view.example), task)
    form = form_of(view.network.two, "weight")
    assert isinstance(form, LowRank) and form.rank == 3 and isinstance(form.first, Dense)


class Changed(nn.Module):
    """Norms after a ReLU that works in place, before one, and of two layers at once."""

    def __init__(self) -> None:
        super().__init__()
        self.early, self.late, self.one, self.two = (nn.Conv2d(3, 8, 3, bias=False) for _ in range(4))
        self.after, self.before, self.shared = nn.BatchNorm2d(8), nn.BatchNorm2d(8), nn.BatchNorm2d(8)
        self.in_place, self.reads = nn.ReLU(inplace=True), nn.Conv2d(8, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        early = self.after(self.in_place(self.early(x)))
        late = self.reads(self.in_place(self.before(self.late(x))))
        both = self.shared(self.one(x)) + self.shared(self.two(x))
        return early.mean((1, 2, 3)) + late.mean((1, 2, 3)) + both.mean((1, 2, 3))


def test_followers_are_told_from_what_works_in_place_or_serves_others() -> None:
    network = Changed().eval()
    found = consumers(View(network, network, torch.randn(2, 3, 6, 6)), ["early", "late", "one", "two"])
    assert found["early"] == Consumer(None, relu=True)
    assert found["late"] == Consumer(network.before, relu=True)
    assert found["one"] == found["two"] == Consumer()


def test_a_basis_is_fitted_to_the_filters_where_they_are_not_separable():
    weight = random(20, 6, 3, 3)
    errors = []
    for rounds in (0, 4):
        view, task = layered(weight)
        FactorizeJaderberg(kind=1, rank=2, fit="filters", rounds=rounds).apply(view, task)
        errors.append(float((view.network[0].weight.detach() - weight).norm()))
    assert errors[1] < 0.97 * errors[0]


def test_larger_cores_cost_more():
    """64 -> 64 channels: (56, 63) costs more than (56, 64), as its first 1 x 1 kernel does not pay yet."""
    view, _ = layered(random(64, 64, 3, 3))
    (target,) = find_targets(view, "*")
    cut = pair_cut(target)
    costs = [cut.cost(rank) for rank in range(1, len(cut.energies) + 1)]
    assert costs == sorted(set(costs))
    assert bool((cut.energies > 0).all()) and float(cut.energies.sum()) <= 1 + 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
@every_method
def test_networks_of_other_floats_are_factored_in_a_type_that_will_do(name, dtype):
    view, task, original = problem()
    data = Data(task.calibration.inputs.to(dtype), task.calibration.targets)
    task, original = Task(data, data, data, calibration=data), original.to(dtype)
    view = View(copy.deepcopy(original), original, task.example)
    EVERY[name].apply(view, task)
    assert {value.dtype for value in view.network.parameters()} == {dtype}
    assert lost(view, original, task) < (0.9 if "filters" in name or name == "svd" else 0.6)


def test_layer_with_too_many_inputs_is_fitted_to_its_filters(monkeypatch):
    monkeypatch.setattr(fitted, "LARGEST_METRIC", 60)
    view, task, _ = problem()
    FactorizeTucker(keep=0.6).apply(view, task)
    assert any("two has too many inputs" in note for note in view.notes) and not any("one has" in n for n in view.notes)


@pytest.mark.parametrize("mode", ["reflect", "circular", "replicate"])
def test_patches_at_the_border_are_padded_as_the_layer_pads(mode):
    layer = nn.Conv2d(3, 4, 3, padding=1, padding_mode=mode)
    activation = random(5, 3, 6, 6)
    rows = patches(layer, activation, 10_000, torch.Generator().manual_seed(0))
    whole = layer(activation).movedim(1, -1).flatten(0, -2)
    made = rows @ layer.weight.flatten(1).T + layer.bias
    torch.testing.assert_close(made.sort(0).values, whole.sort(0).values, rtol=1e-4, atol=1e-4)


class Tied(nn.Module):
    """A head that shares its weight with the embedding, and was registered first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.inner, self.enter = nn.Linear(8, 12, bias=False), nn.Linear(8, 8), nn.Embedding(12, 8)
        self.enter.weight = self.head.weight

    def forward(self, numbers: Tensor) -> Tensor:
        return self.head(torch.tanh(self.inner(self.enter(numbers)))).mean(1)


def test_weight_that_a_table_shares_stays_whole():
    torch.manual_seed(4)
    network = Tied().eval()
    data = Data(torch.randint(0, 12, (24, 5)), torch.zeros(24, dtype=torch.long))
    task = Task(data, data, data, calibration=data)
    view = View(network, copy.deepcopy(network), data.inputs[:2])
    FactorizeSvd(keep=0.5).apply(view, task)
    assert form_of(network.head, "weight") is None and isinstance(form_of(network.inner, "weight"), LowRank)
    PruneWeights(keep=0.5, by="taylor").apply(View(network, view.original, data.inputs[:2]), task)
    assert network.head.weight is not None and float((network.enter.weight == 0).float().mean()) == 0.5
