"""Penalties against their formulas, and in a training that they change as they should."""

import dataclasses
from dataclasses import dataclass

import pytest
import torch

from cortado.errors import BadNetwork, BadRecipe, BadValue
from cortado.methods.finetune import Finetune
from cortado.network.view import View
from cortado.parts.forms.attach import attach
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.low_rank import LowRank as LowRankForm
from cortado.training.objectives.norm_gains import NormGains
from cortado.training.objectives.nuclear_norm import NuclearNorm, nuclear_norm
from cortado.training.objectives.objective import TrainingStep, read_objective
from cortado.training.objectives.penalty import Penalty
from tests.laws.tiny_nets import BY_NAME


@dataclass(frozen=True)
class Own(Penalty):
    """The sum of squares of everything."""

    def of(self, view, weights, task):
        return lambda: sum((p**2).sum() for p in view.network.parameters())


def with_penalty(name, **knobs):
    """Objectives with a penalty besides the task's loss."""
    return ("task", {name: knobs})


def seen(name):
    tiny = BY_NAME[name]
    network = tiny.make()
    return View(network, tiny.make(), tiny.example), tiny.task()


@pytest.mark.parametrize("shape", [(4, 7), (7, 4), (5, 2, 3, 3), (1, 6)])
def test_nuclear_norm_is_the_sum_of_singular_values_with_their_gradient(shape):
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1)).requires_grad_(True)
    found = nuclear_norm(weight)
    u, s, v = torch.linalg.svd(weight.detach().flatten(1), full_matrices=False)
    torch.testing.assert_close(found.detach(), s.sum(), rtol=1e-4, atol=1e-4)
    (gradient,) = torch.autograd.grad(found, weight)
    torch.testing.assert_close(gradient.flatten(1), u @ v, rtol=1e-3, atol=1e-3)


def test_nuclear_norm_of_a_rank_deficient_weight_has_a_finite_gradient():
    weight = torch.ones(4, 5).requires_grad_(True)
    (gradient,) = torch.autograd.grad(nuclear_norm(weight), weight)
    assert bool(torch.isfinite(gradient).all())
    torch.testing.assert_close(gradient, torch.full((4, 5), 1 / 20**0.5))


def test_low_rank_reads_weights_through_their_forms():
    view, task = seen("mlp")
    attach(view.network[0], "weight", LowRankForm(Dense(torch.ones(1, 12)), Dense(torch.ones(16, 1))))
    extra = NuclearNorm().of(view, view.weights("0"), task)()
    torch.testing.assert_close(extra.detach(), torch.tensor((12 * 16.0) ** 0.5))


def test_gains_are_summed_over_the_batch_norms_that_where_names():
    view, task = seen("residual")
    every = sum(n.weight.abs().sum() for n in (view.network.norm, view.network.first_norm, view.network.second_norm))
    torch.testing.assert_close(NormGains().of(view, view.weights("*"), task)(), every)
    one = NormGains().of(view, view.weights("first_norm.weight"), task)()
    torch.testing.assert_close(one, view.network.first_norm.weight.abs().sum())


def test_gains_without_batch_norms_are_refused_in_words():
    view, task = seen("mlp")
    with pytest.raises(BadNetwork, match="objectives/norm_gains: the network has no batch norm"):
        NormGains().of(view, view.weights("*"), task)


def tail_share(network) -> float:
    """Energy of the weight of layer 0 outside its three largest singular values."""
    squares = torch.linalg.svdvals(network[0].weight.detach()) ** 2
    return float(squares[3:].sum() / squares.sum())


@pytest.mark.parametrize("growing", [False, True])
def test_training_with_the_nuclear_norm_lowers_the_rank(growing):
    found = {}
    for strength in (0.0, 0.05):
        view, task = seen("mlp")
        objectives = with_penalty("nuclear_norm", weight=strength, growing=growing)
        Finetune(epochs=30, lr=0.01, schedule="constant", objectives=objectives).apply(view, task)
        found[strength] = tail_share(view.network)
    assert found[0.05] < 0.5 * found[0.0]


def test_training_with_gains_shrinks_them():
    found = {}
    for strength in (0.0, 0.05):
        view, task = seen("residual")
        Finetune(epochs=10, lr=0.02, schedule="constant", objectives=with_penalty("norm_gains", weight=strength)).apply(
            view, task
        )
        found[strength] = NormGains().of(view, view.weights("*"), task)().item()
    assert found[0.05] < 0.8 * found[0.0]


def test_growing_weight_is_a_share_of_the_progress():
    view, task = seen("mlp")
    whole = NuclearNorm().of(view, view.weights("*"), task)().item()
    bound = NuclearNorm(1.0, growing=True).on(view, view.weights("*"), task)
    step = TrainingStep(None, None, None, {}, (), 0.0, {}, None, None)
    for progress in (0.0, 0.5, 1.0):
        terms = bound.terms(dataclasses.replace(step, progress=progress))
        assert terms["nuclear_norm"].item() == pytest.approx(progress * whole)


def test_penalty_without_weights_says_where_they_come_from():
    with pytest.raises(BadValue, match=r"objectives/nuclear_norm: it has no weights yet"):
        NuclearNorm().terms(None)


def test_penalty_of_ones_own_is_found_by_its_path():
    name = "tests.training.objectives.test_penalties:Own"
    assert isinstance(read_objective(name, "here"), Own)
    view, task = seen("mlp")
    before = sum((p**2).sum().item() for p in view.network.parameters())
    Finetune(epochs=5, lr=0.01, objectives=with_penalty(name, weight=10.0)).apply(view, task)
    assert sum((p**2).sum().item() for p in view.network.parameters()) < before


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("nuclear_nrm", "there is no objective 'nuclear_nrm'. Did you mean: nuclear_norm"),
        ("no.such:Thing", "cannot be loaded .* Write package.module:Class"),
        ("collections:OrderedDict", "is not a Objective"),
    ],
)
def test_unknown_objective_is_refused_with_near_names(name, says):
    with pytest.raises(BadRecipe, match=says):
        read_objective(name, "here")
