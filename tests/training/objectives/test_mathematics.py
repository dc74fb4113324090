"""Objectives against their formulas: what they add up to, and what they do not see."""

import itertools
import math

import pytest
import torch
from torch.nn import functional

from cortado.errors import BadNetwork, BadTask, BadValue
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.tokens import Tokens
from cortado.training.objectives.attention import Attention, attention_map
from cortado.training.objectives.channelwise import channel_divergence
from cortado.training.objectives.contrastive import Contrastive, Negatives, in_batch, info_nce, other_class
from cortado.training.objectives.decoupled import Decoupled, decoupled_parts
from cortado.training.objectives.dist import Dist, correlations
from cortado.training.objectives.logits import Logits, distillation, standard_scores
from cortado.training.objectives.pairwise import Pairwise, affinity_loss
from cortado.training.objectives.relational import Relational, angle_loss, cosines, distance_loss
from cortado.training.objectives.relations import Relations, relation_divergence
from tests.training.objectives.given import given_step, random_numbers, total, with_modules

CLOSE = {"rtol": 1e-9, "atol": 1e-12}


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(random_numbers(width, width, seed=9))[0]


def kl(wanted: torch.Tensor, mine: torch.Tensor) -> torch.Tensor:
    """KL of softmaxes of rows."""
    return (wanted.softmax(1) * (wanted.log_softmax(1) - mine.log_softmax(1))).sum(1)


def test_decoupled_parts_add_up_to_kl_sample_by_sample():
    mine, wanted, labels = random_numbers(7, 5), random_numbers(7, 5, seed=1), torch.arange(7) % 5
    target, rest = decoupled_parts(mine, wanted, labels)
    others = 1 - wanted.softmax(1).gather(1, labels[:, None])[:, 0]
    torch.testing.assert_close(target + others * rest, kl(wanted, mine), **CLOSE)


def test_decoupled_weights_its_parts_by_alpha_and_beta():
    outputs, taught, labels = random_numbers(7, 5), random_numbers(7, 5, seed=1), torch.arange(7) % 5
    terms = Decoupled(alpha=0.5, beta=3.0, temperature=2.0).terms(given_step(outputs, taught, targets=labels))
    target, rest = decoupled_parts(outputs / 2, taught / 2, labels)
    torch.testing.assert_close(terms["decoupled target"], 4 * 0.5 * target.mean(), **CLOSE)
    torch.testing.assert_close(terms["decoupled rest"], 4 * 3.0 * rest.mean(), **CLOSE)


def test_hot_kl_is_the_matching_of_logits():
    mine, wanted = random_numbers(6, 5).requires_grad_(), random_numbers(6, 5, seed=1)
    (gradient,) = torch.autograd.grad(distillation(mine, (wanted / 1e4).softmax(1), 1e4), mine)
    centred = [one - one.mean(1, keepdim=True) for one in (mine.detach(), wanted)]
    torch.testing.assert_close(gradient, (centred[0] - centred[1]) / 5 / 6, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen"])
def test_each_direction_is_its_formula(direction):
    mine, wanted = random_numbers(6, 5), random_numbers(6, 5, seed=1)
    middle = ((mine.softmax(1) + wanted.softmax(1)) / 2).log()
    formula = {
        "forward": kl(wanted, mine), "reverse": kl(mine, wanted), "jensen": (kl(wanted, middle) + kl(mine, middle)) / 2,
    }[direction]  # fmt: skip
    torch.testing.assert_close(distillation(mine, wanted.softmax(1), 1.0, direction), formula.mean(), **CLOSE)
    for kind in (None, Classes(), Tokens()):
        step = given_step(2.0 * mine, 2.0 * wanted, kind=kind)
        found = Logits(temperature=2.0, direction=direction).terms(step)["logits"]
        torch.testing.assert_close(found.double(), 4 * formula.mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen"])
def test_class_that_both_networks_mask_adds_nothing(direction):
    mine, wanted = random_numbers(6, 5), random_numbers(6, 5, seed=1)
    mask = torch.tensor([0, 0, 0, -torch.inf, -torch.inf], dtype=torch.float64)
    masked = (mine + mask).requires_grad_()
    found = distillation(masked, (wanted + mask).softmax(1), 2.0, direction)
    unmasked = distillation(mine[:, :3], wanted[:, :3].softmax(1), 2.0, direction)
    torch.testing.assert_close(found, unmasked, **CLOSE)
    assert bool(torch.isfinite(torch.autograd.grad(found, masked)[0]).all())


def test_standardised_logits_forget_scale_and_shift():
    mine, wanted = random_numbers(6, 5), random_numbers(6, 5, seed=1)
    scores = standard_scores(mine)
    torch.testing.assert_close(scores.mean(1), torch.zeros(6, dtype=torch.float64), rtol=0, atol=1e-12)
    torch.testing.assert_close(scores.std(1, unbiased=False), torch.ones(6, dtype=torch.float64), rtol=1e-9, atol=0)
    objective = Logits(standardised=True)
    before = total(objective, given_step(mine, wanted))
    torch.testing.assert_close(total(objective, given_step(3 * mine + 7, 0.5 * wanted - 1)), before, rtol=1e-9, atol=0)
    assert total(Logits(), given_step(3 * mine + 7, wanted)) > total(Logits(), given_step(mine, wanted)) + 0.1


def test_dist_is_one_less_correlation_of_rows_and_of_columns():
    outputs, taught = random_numbers(7, 5), random_numbers(7, 5, seed=1)
    terms = Dist(inter=2.0, intra=3.0, temperature=4.0).terms(given_step(outputs, taught))
    mine, wanted = (outputs / 4).softmax(1), (taught / 4).softmax(1)
    rows = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(mine, wanted, strict=True)])
    columns = torch.stack([torch.corrcoef(torch.stack(pair))[0, 1] for pair in zip(mine.T, wanted.T, strict=True)])
    torch.testing.assert_close(terms["dist inter"], 16 * 2 * (1 - rows).mean(), **CLOSE)
    torch.testing.assert_close(terms["dist intra"], 16 * 3 * (1 - columns).mean(), **CLOSE)


def test_correlations_forget_affine_maps_of_rows():
    mine, wanted = random_numbers(7, 5), random_numbers(7, 5, seed=1)
    moved = (random_numbers(7, 1, seed=2).abs() + 0.1) * mine + random_numbers(7, 1, seed=3)
    every = torch.ones_like(mine)
    torch.testing.assert_close(correlations(moved, wanted, every), correlations(mine, wanted, every), **CLOSE)


def test_channelwise_is_kl_over_places_and_forgets_constants_but_not_scales():
    mine, wanted = random_numbers(2, 3, 4, 5), random_numbers(2, 3, 4, 5, seed=1)
    found = channel_divergence(mine, wanted, 4.0, None)
    formula = 16 * kl(wanted.reshape(6, 20) / 4, mine.reshape(6, 20) / 4).mean()
    torch.testing.assert_close(found, formula, **CLOSE)
    moved = mine + random_numbers(1, 3, 1, 1, seed=2)
    torch.testing.assert_close(channel_divergence(moved, wanted, 4.0, None), found, **CLOSE)
    assert abs(channel_divergence(2 * mine, wanted, 4.0, None) - found) > 1e-2


def test_pairwise_forgets_rotations_of_channels_and_their_number():
    mine, wanted, every = random_numbers(2, 6, 4), random_numbers(2, 6, 7, seed=1), torch.ones(2, 6, dtype=torch.bool)
    found = affinity_loss(mine, wanted, every)
    torch.testing.assert_close(affinity_loss(mine @ rotation(4), 3 * wanted @ rotation(7), every), found, **CLOSE)
    each = [functional.cosine_similarity(one[:, :, None], one[:, None], dim=3) for one in (mine, wanted)]
    torch.testing.assert_close(found, (each[0] - each[1]).square().mean(), **CLOSE)
    assert found > 0.1


def test_attention_forgets_scale_order_and_rotation_of_channels():
    values = random_numbers(2, 6, 4, 5)
    found = attention_map(values, 2.0, None)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2, dtype=torch.float64), **CLOSE)
    turned = torch.einsum("nchw,cd->ndhw", 3 * values, rotation(6))
    torch.testing.assert_close(attention_map(turned, 2.0, None), found, **CLOSE)
    torch.testing.assert_close(attention_map(values.flip(1), 3.0, None), attention_map(values, 3.0, None), **CLOSE)
    by_hand = values.square().sum(1).flatten(1)
    torch.testing.assert_close(found, by_hand / by_hand.norm(dim=1, keepdim=True), **CLOSE)


def test_attention_takes_networks_of_other_widths_and_names_other_sizes():
    step = given_step(taps={"a": random_numbers(2, 3, 4, 4)}, taught_taps={"a": random_numbers(2, 8, 4, 4, seed=1)})
    assert 0 < total(Attention(at="a"), step) < 2
    tokens = given_step(taps={"a": random_numbers(2, 5, 3)}, taught_taps={"a": random_numbers(2, 5, 8, seed=1)})
    assert 0 < total(Attention(at="a"), tokens) < 2
    smaller = given_step(taps={"a": random_numbers(2, 3, 4, 4)}, taught_taps={"a": random_numbers(2, 3, 2, 2)})
    with pytest.raises(BadNetwork, match=r"a gives shape \(2, 3, 4, 4\), the teacher's a \(2, 3, 2, 2\)"):
        total(Attention(at="a"), smaller)
    assert total(Pairwise(at="a"), smaller) > 1e-3


@pytest.mark.parametrize("objective", [Decoupled(), Dist(), Logits(standardised=True)], ids=str)
def test_what_compares_logits_refuses_numbers_and_other_teachers(objective):
    labels = torch.arange(6) % 5
    with pytest.raises(BadValue, match="compares logits of classes"):
        total(objective, given_step(random_numbers(6, 5), random_numbers(6, 5), targets=labels, kind=Numbers()))
    with pytest.raises(BadNetwork, match="teacher's outputs have"):
        total(objective, given_step(random_numbers(6, 5), random_numbers(6, 4), targets=labels))


def test_decoupled_needs_classes_and_relations_three_layers_of_whole_heads():
    with pytest.raises(BadTask, match="objectives/decoupled: it needs a class for each row"):
        total(Decoupled(), given_step(random_numbers(6, 5), random_numbers(6, 5), targets=random_numbers(6, 5)))
    taps = {"a": random_numbers(2, 5, 8)}
    with pytest.raises(BadValue, match="queries, keys and values of each block, got 2 layers"):
        total(Relations(at="a, a"), given_step(taps=taps, taught_taps=taps))
    with pytest.raises(BadNetwork, match="8 channels, no multiple of 3 heads"):
        total(Relations(at="a, a, a", heads=3), given_step(taps=taps, taught_taps=taps))


def test_several_teachers_teach_dist_and_decoupled_by_their_mean_probabilities():
    outputs, one, other, labels = (
        random_numbers(6, 5),
        random_numbers(6, 5, seed=1),
        random_numbers(6, 5, seed=2),
        torch.arange(6) % 5,
    )
    mean = ((one.softmax(1) + other.softmax(1)) / 2).log()
    for objective in (Dist(), Decoupled(temperature=1.0)):
        found = total(objective, given_step(outputs, one, others=(other,), targets=labels))
        torch.testing.assert_close(found, total(objective, given_step(outputs, mean, targets=labels)), **CLOSE)


def test_relations_of_samples_forget_isometries_and_scale():
    mine, wanted = random_numbers(6, 4), random_numbers(6, 7, seed=1)
    for loss in (distance_loss, angle_loss):
        found = loss(mine, wanted)
        moved = 5 * mine @ rotation(4) + random_numbers(1, 4, seed=3)
        torch.testing.assert_close(loss(moved, wanted), found, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(loss(mine, moved), torch.zeros((), dtype=torch.float64), rtol=0, atol=1e-9)
        assert found > 1e-2


def test_angles_are_those_at_the_second_of_three_samples():
    samples = random_numbers(4, 3)
    found = cosines(samples)
    for j, i, k in itertools.product(range(4), repeat=3):
        wanted = 0.0
        if len({i, j, k}) == 3:
            wanted = float(functional.cosine_similarity(samples[i] - samples[j], samples[k] - samples[j], dim=0))
        assert float(found[j, i, k]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("count", [1, 2])
def test_few_samples_have_no_relations_and_equal_ones_finite_gradients(count):
    mine = random_numbers(count, 4).requires_grad_()
    assert angle_loss(mine, random_numbers(count, 4, seed=1)) == 0
    same = torch.ones(4, 3, dtype=torch.float64, requires_grad=True)
    step = given_step(taps={"a": same}, taught_taps={"a": random_numbers(4, 3)})
    (gradient,) = torch.autograd.grad(total(Relational(at="a"), step), same)
    assert bool(torch.isfinite(gradient).all())


def test_contrast_is_the_cross_entropy_of_finding_the_partner():
    mine, wanted = (functional.normalize(random_numbers(6, 5, seed=seed), dim=1) for seed in (0, 1))
    unlabelled = torch.full((6,), -1)
    products, own = mine @ wanted.T / 0.1, torch.arange(6)
    formula = (functional.cross_entropy(products, own) + functional.cross_entropy(products.T, own)) / 2
    torch.testing.assert_close(in_batch(mine, wanted, unlabelled, 0.1), formula, **CLOSE)
    alike = torch.ones(6, 5, dtype=torch.float64) / 5**0.5
    assert float(in_batch(alike, alike, unlabelled, 0.1)) == pytest.approx(math.log(6))
    assert float(in_batch(alike, alike, torch.zeros(6), 0.1)) == pytest.approx(0, abs=1e-12)


def test_negatives_are_of_other_classes_where_classes_are_known():
    found = other_class(torch.tensor([0, 1, -1]), torch.tensor([0, 1, -1]))
    assert found.tolist() == [[False, True, True], [True, False, True], [True, True, True]]


def test_queue_holds_the_last_embeddings_and_gives_them_before_it_takes_new_ones():
    queue = Negatives(3, 2)
    keys = torch.arange(10.0).reshape(5, 2)
    _, _, filled = queue(keys[:2], torch.tensor([0, 1]))
    assert not bool(filled.any())
    given, labels, filled = queue(keys[2:4], torch.tensor([2, 3]))
    assert torch.equal(given[:2], keys[:2]) and labels.tolist() == [0, 1, -1] and filled.tolist() == [True, True, False]
    given, labels, filled = queue(keys[4:], torch.tensor([4]))
    assert sorted(labels.tolist()) == [1, 2, 3] and bool(filled.all())
    assert torch.equal(given[labels == 3][0], keys[3])


def test_queue_gives_negatives_from_earlier_steps():
    objective = Contrastive(at="a", width=4, negatives="queue", size=8)
    taps, taught = {"a": random_numbers(3, 5)}, {"a": random_numbers(3, 6, seed=1)}
    step = with_modules(objective, given_step(taps=taps, taught_taps=taught))
    assert total(objective, step).item() == pytest.approx(0, abs=1e-12)
    mine, wanted = (
        functional.normalize(step.modules[n](v), dim=1) for n, v in (("mine0", taps["a"]), ("wanted0", taught["a"]))
    )
    formula = info_nce(mine, wanted, wanted, torch.ones(3, 3, dtype=torch.bool), 0.07)
    torch.testing.assert_close(total(objective, step), formula, **CLOSE)
    assert formula > 0.1


@pytest.mark.parametrize("causal", [False, True])
def test_relations_of_tokens_are_kl_of_attention(causal):
    mine, wanted = ([random_numbers(2, 3, 5, width, seed=seed) for seed in range(2)] for width in (4, 8))
    found = relation_divergence(tuple(mine), tuple(wanted), None, causal)
    logs = []
    for query, key in (mine, wanted):
        products = query @ key.transpose(2, 3) / query.shape[3] ** 0.5
        mask = torch.full((5, 5), -torch.inf, dtype=torch.float64).triu(1) if causal else 0.0
        logs.append((products + mask).softmax(3).clamp(min=1e-300).log())
    formula = (logs[1].exp() * (logs[1] - logs[0])).sum(3).mean()
    torch.testing.assert_close(found, formula, **CLOSE)


@pytest.mark.parametrize(
    ("products", "names"), [("attention", ["attention", "values"]), ("own", ["queries", "keys", "values"])]
)
def test_relations_compare_networks_of_other_widths_with_as_many_heads(products, names):
    taps = {name: random_numbers(2, 5, 8, seed=seed) for seed, name in enumerate("qkv")}
    taught = {name: random_numbers(2, 5, 12, seed=9 + seed) for seed, name in enumerate("qkv")}
    terms = Relations(at="q, k, v", heads=4, products=products).terms(given_step(taps=taps, taught_taps=taught))
    assert list(terms) == [f"relations {name}" for name in names] and all(one > 1e-3 for one in terms.values())
