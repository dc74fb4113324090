"""distill/text: the teacher's tokens, on data and on texts that the network writes itself."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.methods.distill.logits import DistillLogits
from cortado.methods.distill.text import DistillText
from cortado.methods.method import Method
from cortado.network.view import View
from cortado.task.data import Data
from cortado.task.outputs.tokens import Tokens
from cortado.task.task import Task


class Pair(nn.Module):
    """A small decoder: the next token from the last two."""

    def __init__(self, size: int = 5, width: int = 6) -> None:
        super().__init__()
        self.now, self.before, self.head = nn.Embedding(size, width), nn.Embedding(size, width), nn.Linear(width, size)

    def forward(self, ids):
        earlier = nn.functional.pad(ids[:, :-1], (1, 0))
        return self.head(torch.tanh(self.now(ids) + self.before(earlier)))


def made(seed: int, size: int = 5, width: int = 6) -> nn.Module:
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return Pair(size, width).eval()


def next_token_loss(outputs, targets):
    return nn.functional.cross_entropy(outputs.transpose(1, 2), targets)


def task(loss=next_token_loss, vary=None) -> Task:
    ids = torch.randint(0, 5, (48, 9), generator=torch.Generator().manual_seed(0))
    data = Data(ids[:, :-1], ids[:, 1:], vary=vary)
    return Task(data, data, data, loss=loss, outputs=Tokens(), batch=8, trial=True, device="cpu")


def taught(method: Method, own: Task, network: nn.Module | None = None) -> View:
    network = made(0) if network is None else network
    view = View(network, copy.deepcopy(network), own.example)
    method.apply(view, own)
    return view


def same(one: View, other: View) -> bool:
    values = zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True)
    return all(torch.equal(first, second) for first, second in values)


@pytest.mark.parametrize("hard", [0.0, 0.4])
def test_without_own_texts_it_is_distillation_from_logits_bit_for_bit(hard):
    teacher = made(1)
    found = taught(DistillText(epochs=2, on_policy=0.0, teacher=teacher, hard=hard, temperature=2.0), task())
    assert same(found, taught(DistillLogits(epochs=2, teacher=teacher, hard=hard, soft=1.0, temperature=2.0), task()))
    assert not same(found, taught(DistillText(epochs=2, on_policy=0.5, teacher=teacher, hard=hard), task()))


def test_the_same_seed_trains_the_same():
    method = DistillText(epochs=2, teacher=made(1), direction="jensen")
    before = torch.random.get_rng_state()
    assert same(taught(method, task()), taught(method, task()))
    assert not same(taught(method, task()), taught(method, dataclasses.replace(task(), seed=1)))
    assert torch.equal(before, torch.random.get_rng_state())


@pytest.mark.parametrize("direction", ["forward", "reverse", "jensen"])
def test_equal_networks_have_nothing_to_learn(direction):
    view = taught(DistillText(epochs=1, on_policy=1.0, direction=direction), task())
    assert view.curves["logits"] == pytest.approx([0.0], abs=1e-6)
    assert view.notes[-1] == "the network wrote 6 of 6 batches itself"


def on_own_texts(network: nn.Module, teacher: nn.Module) -> float:
    """KL(network || teacher) of the next token, over all pairs of tokens."""
    pairs = torch.cartesian_prod(torch.arange(5), torch.arange(5))
    with torch.no_grad():
        mine, wanted = (one(pairs)[:, -1].log_softmax(1) for one in (network, teacher))
    return float((mine.exp() * (mine - wanted)).sum(1).mean())


def test_own_texts_alone_teach_the_network():
    teacher = made(1, width=16)
    view = taught(DistillText(epochs=30, on_policy=1.0, direction="reverse", teacher=teacher, lr=0.02), task())
    assert on_own_texts(view.network, teacher) < 0.2 * on_own_texts(made(0), teacher)
    assert list(view.curves) == ["logits"]


def test_labels_count_on_the_data_alone():
    seen = []

    def loss(outputs, targets):
        seen.append(targets)
        return next_token_loss(outputs, targets)

    view = taught(DistillText(epochs=4, hard=1.0, teacher=made(1)), task(loss))
    written = int(view.notes[-1].split()[3])
    assert 0 < written < 24 and len(seen) == 24 - written and all(bool((one >= 0).all()) for one in seen)


class Listening(Pair):
    """A teacher that keeps what it reads and wants one token only."""

    heard: list[torch.Tensor] = []

    def forward(self, ids):
        Listening.heard.append(ids)
        return nn.functional.one_hot(torch.full_like(ids, 3), 5) * 20.0 + 0 * super().forward(ids)


def heard(**knobs) -> list[torch.Tensor]:
    """The batches that a teacher reads in a training."""
    Listening.heard = []
    taught(DistillText(teacher=Listening(), lr=0.05, prompt=2, **knobs), task(vary=ending_with_zeros))
    return [ids for ids in Listening.heard if len(ids) == 8]


def ending_with_zeros(inputs, targets, generator):
    return torch.cat([inputs[:, :1], torch.zeros_like(inputs[:, 1:])], 1), targets


def test_the_present_network_writes():
    """A network that learns to say one token only writes that token in the end."""
    shares = [float((ids[:, 2:] == 3).float().mean()) for ids in heard(epochs=30, on_policy=1.0)]
    assert shares[0] < 0.5 and shares[-1] > 0.9


def test_the_datas_own_variation_stays():
    """Own texts begin with the varied data, and all others are the varied data."""
    read = heard(epochs=4, on_policy=0.5)
    assert len(read) == 24 and all(bool((ids[:, 1] == 0).all()) for ids in read)
    assert 0 < sum(bool((ids[:, 2:] == 0).all()) for ids in read) < 24


def test_what_cannot_be_trained_is_refused_before():
    def refused(kind, match, network=None, **knobs):
        network = made(0) if network is None else network
        before = copy.deepcopy(network.state_dict())
        with pytest.raises(kind, match=match):
            taught(DistillText(**{"teacher": made(1)} | knobs), task(), network)
        assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())

    refused(BadNetwork, "distill/text: the network has a vocabulary of 5 tokens, its teachers of 7", teacher=made(1, 7))
    refused(BadNetwork, "distill/text: Sequential is no decoder", network=nn.Sequential(nn.EmbeddingBag(5, 4)))
    refused(BadValue, "distill/text: prompt must be less than the 8 tokens", prompt=8)
    refused(BadValue, "distill/text: shard must be false", shard=True)


@pytest.mark.parametrize("on_policy", [0.0, 0.5])
def test_a_decoder_of_transformers_with_padding(on_policy):
    transformers = pytest.importorskip("transformers")
    sizes = {"vocab_size": 20, "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 8}

    def decoder(width: int) -> nn.Module:
        torch.manual_seed(width)
        own = {"hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 1}
        network = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, **own)).eval()
        network.lm_head.weight.data.mul_(20)
        return network

    ids = torch.randint(0, 20, (24, 8), generator=torch.Generator().manual_seed(0))
    mask = torch.ones_like(ids)
    mask[::3, 5:] = 0
    data = Data(transformers.BatchEncoding({"input_ids": ids, "attention_mask": mask}), ids)
    own = Task(
        data, data, data, batch=8, trial=True, device="cpu",
        loss=lambda outputs, targets: nn.functional.cross_entropy(outputs.logits[:, :-1].transpose(1, 2), targets[:, 1:]),
    )  # fmt: skip
    method = DistillText(
        epochs=10, teacher=decoder(16), on_policy=on_policy, prompt=3, lr=0.03, direction="reverse", hard=0.01
    )
    view = taught(method, own, decoder(8))
    assert view.curves["logits"][-1] < 0.7 * view.curves["logits"][0]
