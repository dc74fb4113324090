"""Text: windows of tokens from any text and tokenizer, and the task of predicting each next token."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from cortado.errors import BadTask, in_own_code
from cortado.task.data import Data
from cortado.task.metric import first_floats
from cortado.task.outputs.tokens import Tokens
from cortado.task.perplexity import IGNORED, perplexity
from cortado.task.task import Task

Tokenizer = Callable[[str], Any]
"""Text to the numbers of its tokens: a list, a tensor, what `tokenizers` returns (`.ids`) or `transformers` ("input_ids")."""


@dataclass(frozen=True)
class Windows:
    """How a text is cut into windows.

    `tokens` in each; a window begins `stride` tokens after the one before, by default where that ends. With a smaller stride
    windows overlap, and a token counts once, in the first window that has it, so all but those of the first window have at
    least tokens - stride others before them. The last window ends where the text ends. `first`: the number of a token that
    begins every window, for networks that were trained so. `words`: how many tokens the network knows, to check the tokenizer.
    """

    tokens: int = 1024
    stride: int | None = None
    first: int | None = None
    words: int | None = None

    def __post_init__(self) -> None:
        if self.tokens < 2 + (self.first is not None):
            raise BadTask(f"text: a window needs at least two tokens of the text, got tokens={self.tokens}. Use more.")
        if self.stride is not None and not 1 <= self.stride <= self.room:
            raise BadTask(
                f"text: stride must lie in 1..{self.room}, or tokens between windows would be skipped, got {self.stride}."
            )

    @property
    def room(self) -> int:
        """Return how many tokens of the text a window has."""
        return self.tokens - (self.first is not None)

    def of(self, text: str | Sequence[str], tokenizer: Tokenizer) -> Data:
        """Return inputs (N, tokens) and targets (N, tokens), the next tokens, IGNORED where none counts.

        Of several texts, each has its own windows, and one that is shorter than a window is filled up behind its end with
        places that do not count. Raises BadTask for a single text shorter than a window, and for a tokenizer that does not fit.
        """
        texts = [text] if isinstance(text, str) else list(text)
        found = [self.numbers(one, tokenizer) for one in texts]
        if isinstance(text, str) and len(found[0]) < self.room:
            raise BadTask(
                f"text: a window has {self.room} tokens of the text, and the text has {len(found[0])}. Pass a longer text, or "
                f"tokens={max(2, len(found[0]))} at most."
            )
        pairs = [pair for numbers in found for pair in self.cut(numbers)]
        if not pairs:
            raise BadTask(f"text: none of the {len(texts)} texts has two tokens, so no next token can be predicted.")
        inputs, targets = zip(*pairs, strict=True)
        return Data(torch.stack(inputs), torch.stack(targets))

    def numbers(self, text: str, tokenizer: Tokenizer) -> Tensor:
        """Return the numbers of a text's tokens, (count,).  Raises BadTask."""
        with in_own_code(BadTask, "text: the tokenizer", "Pass a function from a text to the numbers of its tokens."):
            given = tokenizer(text)
        given = given["input_ids"] if isinstance(given, Mapping) else getattr(given, "ids", given)
        try:
            found = torch.as_tensor(given)
        except (TypeError, ValueError, RuntimeError):
            found = torch.zeros(0, 0)
        whole = not found.is_floating_point() and not found.is_complex()
        # An empty list has no type.
        if found.dim() != 1 or not (whole or found.numel() == 0):
            raise BadTask(
                f"text: the tokenizer must return the numbers of a text's tokens, a list of whole numbers, got "
                f"{type(given).__name__}. Pass a function such as lambda text: tokenizer.encode(text).ids."
            )
        found = found.long()
        if len(found) and (int(found.min()) < 0 or self.words is not None and int(found.max()) >= self.words):
            raise BadTask(
                f"text: the tokenizer gives numbers from {int(found.min())} to {int(found.max())}, and the network knows "
                f"{'0 and above' if self.words is None else f'0..{self.words - 1}'}. Pass the tokenizer of this network."
            )
        return found

    def cut(self, numbers: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the windows of one text, inputs and targets."""
        room, stride = self.room, self.stride or self.room
        if len(numbers) < 2 - (self.first is not None):
            return []
        last = max(0, len(numbers) - room)
        starts = [*range(0, last, stride), last]
        found, counted = [], 0
        for start in starts:
            found.append(self.window(numbers[start : start + room], max(0, counted - start)))
            counted = start + room
        return found

    def window(self, own: Tensor, known: int) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of one window, of whose tokens the first `known` count elsewhere."""
        inputs, targets = torch.zeros(self.tokens, dtype=torch.long), torch.full((self.tokens,), IGNORED)
        begin = self.tokens - self.room
        inputs[:begin] = self.first or 0
        inputs[begin : begin + len(own)] = own
        # Token i of the window is predicted at the place before it.
        counts = torch.arange(len(own)) >= max(known, 1 - begin)
        places = torch.arange(len(own))[counts] + begin - 1
        targets[places] = own[counts]
        return inputs, targets


def next_token_loss(outputs: Any, targets: Tensor, logits: Callable[[Any], Tensor] = first_floats) -> Tensor:
    """Return the mean cross entropy of logits (N, tokens, vocabulary) with targets (N, tokens), those IGNORED left out."""
    return functional.cross_entropy(logits(outputs).transpose(1, 2), targets, ignore_index=IGNORED)


def task(
    train: str | Sequence[str],
    validation: str | Sequence[str],
    test: str | Sequence[str],
    tokenizer: Tokenizer,
    tokens: int = 1024,
    stride: int | None = None,
    first: int | None = None,
    words: int | None = None,
    calibration: int = 16,
    batch: int = 1,
    seed: int = 0,
) -> Task:
    """Return the task of predicting each next token of texts, scored by perplexity; `Windows` has what the numbers mean.

    >>> task = text.task(train, validation, test, tokenizer=lambda one: tokenizer.encode(one).ids, tokens=1024)

    Training windows do not overlap, whatever `stride` is. `calibration`: how many of them, evenly spaced, statistics are
    taken on. The network takes tokens (N, tokens) and returns logits (N, tokens, vocabulary), or several outputs of which
    these are the first floats. Raises BadTask for texts shorter than a window and for a tokenizer that does not fit.
    """
    apart = Windows(tokens, None, first, words).of(train, tokenizer)
    over = Windows(tokens, stride, first, words)
    chosen = torch.linspace(0, len(apart) - 1, min(max(1, calibration), len(apart))).round().long()
    return Task(
        apart, over.of(validation, tokenizer), over.of(test, tokenizer), next_token_loss, perplexity(shift=False),
        calibration=apart.pick(chosen), seed=seed, batch=batch, name="text", outputs=Tokens(),
    )  # fmt: skip
