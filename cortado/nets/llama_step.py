"""LlamaStep: a decoder that reads one token at a time and remembers keys and values, as a device runs it."""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.nets.llama import DecoderLayer, GroupedAttention, Llama, rotated

Memory = tuple[Tensor, Tensor]
"""Keys and values so far, each (N, layers, shared heads, places, width of a head)."""


class LlamaStep(nn.Module):
    """One step of a `Llama`, whose modules it shares: a compressed one stays compressed.

    >>> from cortado.nets.catalog import by_name
    >>> step = LlamaStep(by_name("llama", positions=32))
    >>> logits, keys, values = step(torch.tensor([[5]]), torch.tensor([0]), *step.memory(1))

    Inputs: tokens (N, 1), the place of each (N,), keys and values as `memory` begins them. Outputs: logits (N, words) of the
    next token, and the memory with this token in it. The memory has `places` from the start, so that all shapes are fixed and
    any runtime that exports networks runs it; attention skips places that are still to come.
    """

    def __init__(self, llama: Llama, places: int | None = None) -> None:
        """Take `places` of memory, by default as many as the network has positions.  Raises BadValue for more, or none."""
        super().__init__()
        most = llama.cosines.shape[0]
        if not 1 <= (places or most) <= most:
            raise BadValue(f"llama: places must lie in 1..{most}, the positions of the network, got {places}.")
        self.llama, self.places = llama, places or most

    def memory(self, count: int) -> Memory:
        """Return empty keys and values for so many texts."""
        first = self.llama.layers.get_submodule("0.attention")
        assert isinstance(first, GroupedAttention)
        shape = count, len(self.llama.layers), first.shared, self.places, first.head_width
        return torch.zeros(shape), torch.zeros(shape)

    def forward(self, tokens: Tensor, place: Tensor, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read, made = self.llama.embedding(tokens), list[Memory]()
        turns = self.llama.cosines[place][:, None, None], self.llama.sines[place][:, None, None]
        for number, layer in enumerate(self.llama.layers):
            read, memory = step(layer, read, turns, place, (keys[:, number], values[:, number]))
            made.append(memory)
        logits = self.llama.head(self.llama.norm(read)).squeeze(1)
        return logits, torch.stack([one for one, _ in made], 1), torch.stack([two for _, two in made], 1)


def step(layer: Any, read: Tensor, turns: Memory, place: Tensor, memory: Memory) -> tuple[Tensor, Memory]:
    """Return what a layer makes of one token (N, 1, width), and its memory (N, shared heads, places, width of a head)."""
    assert isinstance(layer, DecoderLayer)
    own, normed = layer.attention, layer.before(read)
    query, key, value = (
        part(normed).unflatten(2, (-1, own.head_width)).transpose(1, 2) for part in (own.query, own.key, own.value)
    )
    number = torch.arange(memory[0].shape[2], device=read.device)
    here = (number == place[:, None])[:, None, :, None]
    keys, values = torch.where(here, rotated(key, *turns), memory[0]), torch.where(here, value, memory[1])
    # The queries that share keys are rows of one product.
    asked = rotated(query, *turns).unflatten(1, (own.shared, -1)).squeeze(3)
    later = (number > place[:, None])[:, None, None]
    shares = (asked @ keys.mT / own.head_width**0.5).masked_fill(later, -torch.inf).softmax(3)
    read = read + own.out((shares @ values).flatten(1).unsqueeze(1))
    normed = layer.between(read)
    return read + layer.down(functional.silu(layer.gate(normed)) * layer.up(normed)), (keys, values)


def continued(run: Callable[..., Any], memory: Memory, tokens: list[int], count: int) -> Iterator[int]:
    """Yield the `count` likeliest tokens after those of a text; `run` is a LlamaStep, or a session of its file.

    Raises BadValue for an empty text, and for more tokens than the memory has places.
    """
    places = memory[0].shape[3]
    if not tokens or len(tokens) + count > places + 1:
        raise BadValue(
            f"llama: a text of {len(tokens)} tokens and {count} more do not fit: there must be one, and at most {places + 1}."
        )
    given, place = list(tokens), 0
    with torch.no_grad():
        while count > 0:
            logits, *found = run(torch.tensor([[given.pop(0)]]), torch.tensor([place]), *memory)
            memory, place = (found[0], found[1]), place + 1
            if not given:
                given, count = [int(logits.argmax())], count - 1
                yield given[0]
