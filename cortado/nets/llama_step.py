"""LlamaStep: a decoder that reads one token at a time and remembers keys and values, as a device runs it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.llama import DecoderLayer, GroupedAttention, Llama

Memory = list[Tensor]
"""Keys and values of each layer in turn, each (N, shared heads, places, width of a head)."""


class LlamaStep(nn.Module):
    """One step of a `Llama`, whose modules it shares: a compressed one stays compressed.

    >>> from cortado.nets.catalog import by_name
    >>> step = LlamaStep(by_name("llama", positions=32))
    >>> memory, place = step.memory(1), torch.tensor([0])
    >>> logits, keys, values = step(torch.tensor([[5]]), place, *memory)
    >>> write_memory(memory, place, keys, values)

    Inputs: tokens (N, 1), the place of each (N,), and the memory, keys and values of each layer in turn. Outputs: logits
    (N, words) of the next token, and this token's keys and values, (N, shared heads, layers, width of a head), for `write_memory`
    to write. The memory has all its `places` from the start, so that shapes are fixed, any runtime that networks are exported
    to runs it, and nothing is copied; attention skips places that are still to come.
    """

    def __init__(self, llama: Llama, places: int | None = None) -> None:
        """Take `places` of memory, by default as many as the network has positions.  Raises BadValue for more, or none."""
        super().__init__()
        most = llama.cosines.shape[0]
        if not 1 <= (places or most) <= most:
            raise BadValue(f"llama: places must lie in 1..{most}, the positions of the network, got {places}.")
        self.llama, self.places = llama, places or most

    def memory(self, count: int) -> Memory:
        """Return an empty memory for so many texts."""
        first = self.llama.layers.get_submodule("0.attention")
        assert isinstance(first, GroupedAttention)
        shape = count, first.shared, self.places, first.head_width
        return [torch.zeros(shape) for _ in range(2 * len(self.llama.layers))]

    def forward(self, tokens: Tensor, place: Tensor, *memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read, keys, values = self.llama.embedding(tokens.squeeze(1)), list[Tensor](), list[Tensor]()
        cosines, sines = (table[place][:, None] for table in (self.llama.cosines, self.llama.sines))
        turn = cosines.repeat_interleave(2, 2), torch.stack([-sines, sines], 3).flatten(2)
        unknown = (torch.arange(self.places, device=read.device) >= place[:, None])[:, None, None]
        for layer, *known in zip(self.llama.layers, memory[0::2], memory[1::2], strict=True):
            assert isinstance(layer, DecoderLayer)
            mixed, key, value = attended(layer.attention, rms_normed(layer.before, read), turn, unknown, *known)
            read = read + mixed
            inner = rms_normed(layer.between, read)
            read = read + layer.down(functional.silu(layer.gate(inner)) * layer.up(inner))
            keys.append(key)
            values.append(value)
        return self.llama.head(rms_normed(self.llama.norm, read)), torch.cat(keys, 2), torch.cat(values, 2)


def attended(
    own: GroupedAttention, read: Tensor, turn: tuple[Tensor, Tensor], unknown: Tensor, keys: Tensor, values: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what attention makes of one token (N, width), and its key and value (N, shared heads, 1, width of a head).

    `turn`: cosines and signed sines (N, 1, width of a head) for queries and keys, which are turned together; `unknown`: the
    places that are still to come, (N, 1, 1, places).
    """
    both = torch.cat([own.query(read), own.key(read)], 1).unflatten(1, (-1, own.head_width))
    both = both * turn[0] + both.unflatten(2, (-1, 2)).flip(3).flatten(2) * turn[1]
    # The queries that share keys are rows of one product.
    query = both[:, : own.heads].unflatten(1, (own.shared, -1)) / own.head_width**0.5
    key, value = both[:, own.heads :].unsqueeze(2), own.value(read).unflatten(1, (own.shared, 1, -1))
    before = (query @ keys.mT).masked_fill(unknown, -torch.inf)
    shares = torch.cat([before, query @ key.mT], 3).softmax(3)
    mixed = shares[..., :-1] @ values + shares[..., -1:] * value
    return own.out(mixed.flatten(1)), key, value


def rms_normed(norm: nn.RMSNorm, read: Tensor) -> Tensor:
    """Return what a norm makes of values (N, width), in the operators that runtimes know as one."""
    assert norm.eps is not None
    return read / (read.pow(2).mean(1, keepdim=True) + norm.eps).sqrt() * norm.weight


def write_memory(memory: Memory, place: Tensor, keys: Tensor, values: Tensor) -> None:
    """Write the keys and values of a step into the memory, at the place of each text."""
    texts = torch.arange(len(place))
    for number, part in enumerate(memory):
        part[texts, :, place] = (keys, values)[number % 2][:, :, number // 2]


def continued(run: Callable[..., Any], memory: Memory, tokens: list[int], count: int) -> Iterator[int]:
    """Yield the `count` likeliest tokens after those of a text; `run` is a LlamaStep, or a session of its file.

    The memory is written. Raises BadValue for an empty text, and for more tokens than the memory has places.
    """
    places = memory[0].shape[2]
    if not tokens or len(tokens) + count > places + 1:
        raise BadValue(
            f"llama: a text of {len(tokens)} tokens and {count} more do not fit: there must be one, and at most {places + 1}."
        )
    given, place = list(tokens), 0
    with torch.no_grad():
        while count > 0:
            here = torch.tensor([place])
            logits, keys, values = run(torch.tensor([[given.pop(0)]]), here, *memory)
            write_memory(memory, here, torch.as_tensor(keys), torch.as_tensor(values))
            place += 1
            if not given:
                given, count = [int(logits.argmax())], count - 1
                yield given[0]
