"""Own texts: what a decoder writes, token by token, in the place of training data."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from cortado.errors import BadNetwork, BadTask, BadValue
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.task.data import Vary
from cortado.task.ignored import NO_CLASS
from cortado.task.outputs.outputs import Outputs

IDS, MASK = "input_ids", "attention_mask"


@dataclass(frozen=True)
class TextWriter:
    """How a decoder continues the beginnings of sequences.

    It keeps `prompt` tokens of each, half of the sequence for None, and writes `new_tokens`, for None as many as the sequence
    had. Each is drawn from the softmax of its logits over `temperature`; what follows the token `end` does not count.
    `outputs` is the kind of the network's outputs. `label` starts messages.
    """

    outputs: Outputs
    prompt: int | None = None
    new_tokens: int | None = None
    temperature: float = 1.0
    end: int | None = None
    label: str = "own texts"

    def lengths(self, length: int) -> tuple[int, int]:
        """Return how many tokens are kept and how many written for sequences of a length.  Raises BadValue for too few."""
        kept = max(1, length // 2) if self.prompt is None else self.prompt
        written = length - kept if self.new_tokens is None else self.new_tokens
        if kept > length or written < 1:
            raise BadValue(
                f"{self.label}: prompt must be less than the {length} tokens of a sequence, got {kept}. "
                "Write a smaller prompt, or longer sequences."
            )
        return kept, written

    def write(self, network: nn.Module, inputs: Any, generator: torch.Generator) -> tuple[Any, Tensor]:
        """Return texts (N, kept + written) in the form of the inputs, and at each place the drawn token that follows.

        Without a drawn token that counts, the target is -100. Padding is left out: a text begins with the first real tokens of
        its sequence, fewer where there are no more, and padding comes last. The network runs in eval mode, without gradients.
        """
        ids, real = tokens_in_inputs(inputs, self.label)
        kept, written = self.lengths(ids.shape[1])
        ids = ids.gather(1, (~real).int().argsort(dim=1, stable=True))
        begun = real.sum(1).clamp(1, kept)
        texts = torch.cat([ids[:, :kept], ids.new_zeros(len(ids), written)], 1)
        samples, places, device = torch.arange(len(ids)), torch.arange(kept + written), device_of(network)
        with eval_mode(network):
            for step in range(written):
                now = begun + step
                seen = places[: int(now.max())] < now[:, None]
                given = to_device(as_inputs(texts[:, : seen.shape[1]], seen, inputs), device)
                logits = self.outputs.rows(call(network, given))[samples, now - 1].cpu()
                chances = (logits / self.temperature).softmax(1)
                texts[samples, now] = torch.multinomial(chances, 1, generator=generator)[:, 0].to(texts.dtype)
        counted = places < (begun + written)[:, None]
        drawn = counted & (places >= begun[:, None])
        if self.end is not None:
            ends = drawn & (texts == self.end)
            after = ends.cumsum(1) > ends.int()
            counted, drawn = counted & ~after, drawn & ~after
        targets = torch.where(drawn, texts, NO_CLASS)[:, 1:]
        return as_inputs(texts, counted, inputs), torch.nn.functional.pad(targets, (0, 1), value=NO_CLASS)


@dataclass
class OwnTexts:
    """Puts texts that a network writes into the place of a share of the batches; `own` says whether it did for the last one."""

    network: nn.Module
    writer: TextWriter
    share: float
    before: Vary | None = None
    """What varies the data's own sequences."""
    own: bool = False
    written: int = 0
    batches: int = 0

    def vary(self, inputs: Any, targets: Any, generator: torch.Generator) -> tuple[Any, Any]:
        """Return a batch of the data, or one that the network writes from it as it is now."""
        if self.before is not None:
            inputs, targets = self.before(inputs, targets, generator)
        self.own = bool(torch.rand((), generator=generator) < self.share)
        self.batches, self.written = self.batches + 1, self.written + self.own
        return self.writer.write(self.network, inputs, generator) if self.own else (inputs, targets)


def tokens_in_inputs(inputs: Any, label: str) -> tuple[Tensor, Tensor]:
    """Return token numbers (N, L), and where they are no padding.  Raises BadTask for other inputs."""
    named = isinstance(inputs, Mapping)
    ids = inputs.get(IDS) if named else inputs
    others = [name for name in inputs if name not in (IDS, MASK)] if named else []
    whole = isinstance(ids, Tensor) and ids.dim() == 2 and not ids.is_floating_point() and not ids.is_complex()
    if not whole or others:
        got = ", ".join(map(str, inputs)) if named else type(inputs).__name__
        shape = f" of {tuple(ids.shape)}, {ids.dtype}" if isinstance(ids, Tensor) else ""
        raise BadTask(
            f"{label}: inputs must be token numbers (N, L), or a dict of {IDS} and {MASK}, got {got}{shape}. "
            "Give the data in this form, or use distill/logits."
        )
    mask = inputs.get(MASK) if named else None
    return ids, torch.ones_like(ids, dtype=torch.bool) if mask is None else mask != 0


def as_inputs(ids: Tensor, real: Tensor, like: Any) -> Any:
    """Return token numbers in the form of other inputs, with a mask if those have one."""
    if not isinstance(like, Mapping):
        return ids
    return {IDS: ids, **({MASK: real.to(like[MASK].dtype)} if MASK in like else {})}


def check_decoders(network: nn.Module, teachers: list[nn.Module], writer: TextWriter, example: Any) -> None:
    """Raise BadNetwork unless all networks give logits of one vocabulary for each token, and from earlier tokens alone.

    Raises BadTask for inputs that are no tokens, BadValue for a prompt that is too long.
    """
    ids, _ = tokens_in_inputs(example, writer.label)
    length = sum(writer.lengths(ids.shape[1]))
    ids = ids.repeat(1, -(-length // ids.shape[1]))[:, :length]
    sizes = [vocabulary(one, ids, writer, example) for one in (network, *teachers)]
    if len(set(sizes)) > 1:
        raise BadNetwork(
            f"{writer.label}: the network has a vocabulary of {sizes[0]} tokens, its teachers of "
            f"{', '.join(map(str, sizes[1:]))}. Choose a teacher with the same tokenizer."
        )


def vocabulary(network: nn.Module, ids: Tensor, writer: TextWriter, like: Any) -> int:
    """Return the number of tokens that a decoder knows.  Raises BadNetwork for a network that is none."""
    other = ids.clone()
    other[:, -1] = ids[:, 0].where(ids[:, 0] != ids[:, -1], (ids[:, -1] == 0).to(ids.dtype))
    found = []
    with undisturbed(network):
        for texts in (ids, other):
            given = as_inputs(texts, torch.ones_like(texts, dtype=torch.bool), like)
            found.append(writer.outputs.rows(call_with(network, to_device(given, device_of(network)))))
    logits = found[0]
    if not isinstance(logits, Tensor) or not writer.outputs.softens or logits.shape[:2] != ids.shape:
        got = f"rows of {tuple(logits.shape)}" if isinstance(logits, Tensor) else f"{len(logits)} outputs"
        raise BadNetwork(
            f"{writer.label}: {type(network).__name__} is no decoder: for tokens {tuple(ids.shape)} it must give logits "
            f"(N, L, vocabulary), got {got} as {writer.outputs}. Use distill/logits, or state Task(outputs=Tokens())."
        )
    if not torch.allclose(logits[:, :-1], found[1][:, :-1], rtol=1e-3, atol=1e-3):
        raise BadNetwork(
            f"{writer.label}: {type(network).__name__} is no decoder: its logits change with later tokens, so it cannot write "
            "token by token. Use distill/logits."
        )
    return logits.shape[2]
