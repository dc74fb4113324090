"""Own texts: what a decoder writes follows its own distribution, begins with the data, and leaves padding out."""

import pytest
import torch
from torch import nn

from cortado.errors import BadNetwork, BadTask, BadValue
from cortado.task.outputs.classes import Classes
from cortado.task.outputs.numbers import Numbers
from cortado.task.outputs.tokens import Tokens
from cortado.training.own_texts import OwnTexts, TextWriter, check_decoders

LIMIT = 22.5
"""A sum of squares over three distributions of three tokens has 6 degrees of freedom: above this once in a thousand times."""


class Chain(nn.Module):
    """A decoder whose logits depend on the last token alone: rows of a table."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(table, freeze=False)

    def forward(self, input_ids, attention_mask=None):
        assert not self.training and not torch.is_grad_enabled()
        return self.table(input_ids)


class Counting(nn.Module):
    """A decoder that is sure of the next token: the number of real tokens so far, modulo 7."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(100.0))

    def forward(self, input_ids, attention_mask):
        return nn.functional.one_hot(attention_mask.cumsum(1) % 7, 7) * self.scale


TABLE = torch.tensor([[0.0, 1.0, -0.5], [2.0, 0.0, 0.5], [-1.0, 0.3, 0.2]])


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_drawn_tokens_follow_the_softmax_of_the_logits(temperature):
    """Chi-square over the pairs of tokens that follow each other."""
    network, starts = Chain(TABLE).train(), torch.zeros(100, 1, dtype=torch.int64)
    texts, _ = TextWriter(Tokens(), 1, 40, temperature).write(network, starts, generator())
    counts = torch.zeros(3, 3).index_put_((texts[:, :-1].flatten(), texts[:, 1:].flatten()), torch.ones(4000), True)
    wanted = (TABLE / temperature).softmax(1) * counts.sum(1, keepdim=True)
    assert float(((counts - wanted) ** 2 / wanted).sum()) < LIMIT
    other = TABLE.softmax(1) * counts.sum(1, keepdim=True)
    assert temperature == 1.0 or float(((counts - other) ** 2 / other).sum()) > 100
    assert network.training and texts.shape == (100, 41)


def test_texts_begin_with_the_data_and_end_at_its_length():
    ids = torch.randint(0, 3, (5, 9), generator=generator(1))
    texts, targets = TextWriter(Tokens()).write(Chain(TABLE), ids, generator())
    assert texts.shape == targets.shape == (5, 9) and torch.equal(texts[:, :4], ids[:, :4])
    assert torch.equal(targets[:, 3:8], texts[:, 4:])
    assert bool((targets[:, :3] == -100).all()) and bool((targets[:, 8] == -100).all())


def test_the_same_seed_writes_the_same():
    ids, writer = torch.zeros(4, 12, dtype=torch.int64), TextWriter(Tokens(), 2)
    texts = [writer.write(Chain(TABLE), ids, generator(seed))[0] for seed in (0, 0, 1)]
    assert torch.equal(texts[0], texts[1]) and not torch.equal(texts[0], texts[2])


def test_padding_is_left_out_wherever_it_is():
    """Padded left, right, longer than the prompt, and not at all: four real tokens each but for one with two."""
    ids = torch.tensor([[0, 0, 5, 5, 5, 5], [5, 5, 5, 5, 0, 0], [5, 5, 0, 0, 0, 0], [5, 5, 5, 5, 5, 5]])
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1]])
    given, targets = TextWriter(Tokens(), 3, 2).write(
        Counting(), {"input_ids": ids, "attention_mask": mask}, generator()
    )
    assert given["input_ids"].tolist() == [[5, 5, 5, 3, 4], [5, 5, 5, 3, 4], [5, 5, 2, 3, 0], [5, 5, 5, 3, 4]]
    assert given["attention_mask"].tolist() == [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 1, 1]]
    assert given["attention_mask"].dtype == mask.dtype
    assert targets[2].tolist() == [-100, 2, 3, -100, -100] and targets[3].tolist() == [-100, -100, 3, 4, -100]


def test_what_follows_the_end_does_not_count():
    inputs = {"input_ids": torch.full((1, 2), 5), "attention_mask": torch.ones(1, 2, dtype=torch.int64)}
    given, targets = TextWriter(Tokens(), 2, 4, end=3).write(Counting(), inputs, generator())
    assert given["input_ids"].tolist() == [[5, 5, 2, 3, 4, 5]]
    assert given["attention_mask"].tolist() == [[1, 1, 1, 1, 0, 0]]
    assert targets.tolist() == [[-100, 2, 3, -100, -100, -100]]


def test_another_axis_of_the_vocabulary_is_that_of_the_outputs():
    class Turned(Chain):
        def forward(self, input_ids):
            return self.table(input_ids).transpose(1, 2)

    ids = torch.randint(0, 3, (4, 8), generator=generator(2))
    texts = TextWriter(Classes(axis=1)).write(Turned(TABLE), ids, generator())[0]
    assert torch.equal(texts, TextWriter(Tokens()).write(Chain(TABLE), ids, generator())[0])


def test_a_share_of_the_batches_is_written_and_all_others_are_the_data():
    own = OwnTexts(Chain(TABLE), TextWriter(Tokens()), 0.3, lambda inputs, targets, draw: (inputs + 1, targets))
    ids, draws = torch.ones(3, 8, dtype=torch.int64), generator()
    for _ in range(200):
        inputs, targets = own.vary(ids, "labels", draws)
        assert (targets == "labels") != own.own
        assert bool((inputs == 2).all()) or own.own
    assert own.batches == 200 and own.written == pytest.approx(60, abs=20)


IDS, TOKENS = torch.randint(0, 3, (2, 8), generator=generator(3)), Tokens()


def refused(kind, match, network=None, teachers=(), example=IDS, outputs=TOKENS, **how):
    with pytest.raises(kind, match=match):
        check_decoders(network or Linked(), list(teachers), TextWriter(outputs, label="distill/text", **how), example)


class Linked(nn.Module):
    """A decoder of some vocabulary; `back`: tokens are told of later ones."""

    def __init__(self, size: int = 3, back: bool = False) -> None:
        super().__init__()
        self.table, self.back = nn.Embedding(8, size), back

    def forward(self, ids):
        found = self.table(ids)
        return found + found.mean(1, keepdim=True) if self.back else found


def test_networks_that_cannot_write_or_teach_are_refused():
    check_decoders(Linked(), [Linked(), Linked()], TextWriter(Tokens()), IDS)
    refused(BadNetwork, "vocabulary of 3 tokens, its teachers of 3, 5.*same tokenizer", teachers=(Linked(), Linked(5)))
    refused(BadNetwork, "logits change with later tokens", network=Linked(back=True))
    refused(BadNetwork, r"Sequential is no decoder: for tokens \(2, 8\).*got rows of \(2, 1, 3\)",
            network=nn.Sequential(nn.EmbeddingBag(8, 3)))  # fmt: skip
    refused(BadNetwork, "is no decoder.*Numbers", outputs=Numbers())


def test_inputs_that_are_no_tokens_and_prompts_that_are_too_long_are_refused():
    refused(BadTask, r"token numbers \(N, L\).*got Tensor of \(2, 4\), torch.float32", example=torch.randn(2, 4))
    refused(BadTask, "got input_ids, labels", example={"input_ids": IDS, "labels": IDS})
    refused(BadValue, "prompt must be less than the 8 tokens of a sequence, got 8", prompt=8)
    refused(BadValue, "got 9. Write a smaller prompt", prompt=9, new_tokens=4)
    refused(BadNetwork, "fails on inputs of shape", example=IDS + 8)
