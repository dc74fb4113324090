"""Llama: it reads only what came before, its positions are relative, and its file's arrays land where they belong."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from cortado.errors import BadNetwork, BadValue
from cortado.nets.llama import dreams_llama, llama, rotated


def small(**more):
    torch.manual_seed(0)
    return llama(
        **{"words": 30, "width": 16, "layers": 2, "heads": 4, "shared": 2, "inner": 24, "positions": 12} | more
    ).eval()


def test_later_tokens_change_nothing_before_them():
    network, tokens = small(), torch.randint(0, 30, (2, 10))
    other = tokens.clone()
    other[:, 6:] = (other[:, 6:] + 1) % 30
    assert torch.allclose(network(tokens)[:, :6], network(other)[:, :6], atol=1e-5)
    assert not torch.allclose(network(tokens)[:, 6:], network(other)[:, 6:], atol=1e-3)


def test_products_of_rotated_values_depend_on_the_distance_alone():
    network = small()
    torch.manual_seed(1)
    query, key = torch.randn(4), torch.randn(4)

    def product(at, past):
        turned = [
            rotated(one.view(1, 1, 1, 4), network.cosines[place : place + 1], network.sines[place : place + 1])
            for one, place in ((query, at), (key, past))
        ]
        return (turned[0] * turned[1]).sum().item()

    assert product(3, 1) == pytest.approx(product(9, 7), abs=1e-5) and product(3, 1) != pytest.approx(
        product(9, 6), abs=1e-3
    )


def test_attention_is_that_of_each_query_with_the_keys_it_shares():
    network = small(layers=1)
    attention, read = network.layers[0].attention, torch.randn(1, 5, 16)
    cosines, sines = network.cosines[:5], network.sines[:5]
    heads = []
    for head in range(4):
        query = attention.query.weight[4 * head : 4 * head + 4]
        key, value = (one.weight[4 * (head // 2) : 4 * (head // 2) + 4] for one in (attention.key, attention.value))
        turned = [rotated((read @ one.T)[:, None], cosines, sines)[0, 0] for one in (query, key)]
        scores = (turned[0] @ turned[1].T / 2).masked_fill(torch.ones(5, 5).triu(1).bool(), -torch.inf)
        heads.append(functional.softmax(scores, -1) @ (read[0] @ value.T))
    wanted = torch.cat(heads, -1) @ attention.out.weight.T
    assert torch.allclose(attention(read, cosines, sines)[0], wanted, atol=1e-5)


def test_arrays_of_the_file_land_where_they_belong(tmp_path):
    draw, arrays = np.random.default_rng(0), {}
    shapes = {
        "wq": (64, 64),
        "wk": (64, 64),
        "wv": (64, 64),
        "wo": (64, 64),
        "w1": (172, 64),
        "w2": (64, 172),
        "w3": (172, 64),
    }
    shapes |= {"attention_norm": (64,), "ffn_norm": (64,)}
    for layer in range(4):
        arrays |= {f"layers.{layer}.{name}.weight": draw.normal(size=shape) for name, shape in shapes.items()}
    arrays |= {"tok_embeddings.weight": draw.normal(size=(512, 64)), "norm.weight": draw.normal(size=64)}
    arrays = {name: array.astype("float32") for name, array in arrays.items()}
    np.savez(tmp_path / "net.npz", config=np.arange(7), **arrays)
    network = dreams_llama(tmp_path / "net.npz")
    assert torch.equal(network.layers[2].down.weight, torch.from_numpy(arrays["layers.2.w2.weight"]))
    assert torch.equal(network.layers[3].attention.out.weight, torch.from_numpy(arrays["layers.3.wo.weight"]))
    assert torch.equal(network.layers[1].between.weight, torch.from_numpy(arrays["layers.1.ffn_norm.weight"]))
    assert network.head.weight is network.embedding.weight
    del arrays["layers.0.w3.weight"]
    np.savez(tmp_path / "part.npz", **arrays)
    with pytest.raises(BadNetwork, match=r"layers\.0\.up\.weight"):
        dreams_llama(tmp_path / "part.npz")


@pytest.mark.parametrize("given", [{"width": 20, "heads": 4}, {"heads": 4, "shared": 3}])
def test_sizes_that_do_not_fit_are_refused(given):
    with pytest.raises(BadValue, match="heads"):
        llama(**given)
