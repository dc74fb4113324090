"""Words: outputs are embeddings among those of sentences; the classes are sentences, and the nearest one is the answer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadTask, in_own_code
from cortado.task.metric import Metric, check_labels
from cortado.task.outputs.outputs import Rows, as_rows, first_floats_of
from cortado.task.outputs.softmax import Softmax

TextEncoder = Callable[[list[str]], Any]
"""Texts to vectors (texts, width)."""
NAME = "{}"
"""Where the name of the class goes in a prompt."""
PROMPTS = ("a photo of a {}.", "a small photo of a {}.", "a blurry photo of a {}.", "a picture of one {}.")
TEMPERATURE = 0.07


@dataclass(frozen=True, eq=False)
class Words(Softmax):
    """Embeddings (N, width) or maps (N, width, H, W), compared with the sentences of classes.  Radford et al., 2021 (CLIP).

    >>> words = Words.of(("cat", "dog"), encoder, prompts=("a photo of a {}.", "a drawing of a {}."))
    >>> task = cortado.Task(..., outputs=words, loss=words.loss, metric=words.accuracy())

    A class is the mean of the vectors of its prompts. The logits are cosines over `temperature`: of two networks they are
    compared as logits of classes are, and teach as such. No class has to occur in the training data, and others may be
    named afterwards. `vectors` is float (classes, prompts, width), each of length 1.
    """

    names: tuple[str, ...]
    vectors: Tensor
    temperature: float = TEMPERATURE

    @classmethod
    def of(
        cls,
        names: Sequence[str],
        encoder: TextEncoder,
        prompts: Sequence[str] = PROMPTS,
        temperature: float = TEMPERATURE,
    ) -> "Words":
        """Return the words of classes, whose prompts `encoder` turns into vectors.

        Raises BadTask for a prompt without the place of the name, for names that are not there or occur twice, and for an
        encoder that is no function or gives anything but one vector for each text.
        """
        check_prompts(names, prompts, temperature)
        if not callable(encoder):
            raise BadTask(
                f"words: the text encoder must be a function from a list of texts to vectors (texts, width), got {encoder!r}. "
                "Pass one, such as cortado.nets.minilm.sentence_vectors."
            )
        texts = [prompt.replace(NAME, name) for name in names for prompt in prompts]
        with in_own_code(BadTask, "words: the text encoder", "Fix it for a list of texts."), torch.no_grad():
            found = torch.as_tensor(encoder(texts)).detach().float().cpu()
        if found.dim() != 2 or len(found) != len(texts) or not bool(found.isfinite().all()):
            raise BadTask(
                f"words: the text encoder must give finite vectors of shape ({len(texts)}, width), got {tuple(found.shape)}. "
                "Return one row for each text."
            )
        made = functional.normalize(found, dim=1).view(len(names), len(prompts), -1)
        return cls(tuple(names), made, temperature)

    @property
    def classes(self) -> Tensor:
        """Return the vector of each class, (classes, width), of length 1."""
        return functional.normalize(self.vectors.mean(1), dim=1)

    def rows(self, outputs: Any) -> Rows:
        return logits_of(as_rows(first_floats_of(outputs)), self.classes, self.temperature)

    def only(self, names: Sequence[str]) -> "Words":
        """Return the words of some of the classes, in this order.  Raises BadTask for a name that is not there."""
        unknown = [name for name in names if name not in self.names]
        if unknown or not names:
            raise BadTask(
                f"words: there is no class {', '.join(unknown) or 'in an empty list'}. There are: {', '.join(self.names)}."
            )
        return replace(self, names=tuple(names), vectors=self.vectors[[self.names.index(name) for name in names]])

    def numbers(self, names: Sequence[str]) -> Tensor:
        """Return the labels of classes by name."""
        self.only(names)
        return torch.tensor([self.names.index(name) for name in names])

    def loss(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return the cross entropy of the classes' sentences.  Targets are labels (N, ...)."""
        rows = self.rows(outputs)
        return functional.cross_entropy(rows.flatten(0, 1), targets.flatten())

    def accuracy(self, among: Sequence[str] = ()) -> Metric:
        """Return the share of samples whose sentence is nearest, among all classes or some, which all samples are of."""
        return Metric("zero-shot accuracy", "%", NearestWord(self, self.numbers(among or self.names)))

    def classifier(self, encoder: nn.Module) -> nn.Module:
        """Return a network with logits of the classes, (N, classes), made of an encoder of inputs."""
        return ZeroShot(encoder, self.classes, self.temperature)


@dataclass(frozen=True, eq=False)
class NearestWord:
    """1 for each sample whose sentence is the nearest of some classes'; of maps the share of places."""

    words: Words
    among: Tensor

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """Return (N,), from embeddings and labels (N, ...).  Raises BadTask for labels of other classes."""
        embeddings = first_floats_of(outputs)
        check_labels(embeddings, targets)
        if not bool(torch.isin(targets.cpu(), self.among).all()):
            known = ", ".join(self.words.names[number] for number in self.among.tolist())
            raise BadTask(
                f"words: the labels must be those of {known} ({', '.join(map(str, self.among.tolist()))}), got "
                f"{', '.join(map(str, targets.unique().tolist()))}. Leave other samples out, or score among all classes."
            )
        rows = self.words.rows(outputs)
        chosen = self.among.to(rows.device)
        found = chosen[rows[..., chosen].argmax(-1)]
        return (found == targets.reshape(len(targets), -1)).float().mean(1)


class ZeroShot(nn.Module):
    """An encoder with the vectors of classes behind it: logits (N, classes), cosines over a temperature."""

    def __init__(self, encoder: nn.Module, classes: Tensor, temperature: float = TEMPERATURE) -> None:
        super().__init__()
        self.encoder, self.temperature = encoder, temperature
        self.register_buffer("classes", classes.clone())
        self.classes: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        return logits_of(self.encoder(inputs), self.classes, self.temperature)


def logits_of(embeddings: Tensor, classes: Tensor, temperature: float) -> Tensor:
    """Return cosines of embeddings (..., width) with classes (classes, width), over a temperature.  Raises BadTask."""
    if embeddings.shape[-1] != classes.shape[1]:
        raise BadTask(
            f"words: the network gives {embeddings.shape[-1]} numbers for a sample, and a sentence is {classes.shape[1]}. "
            f"Give the network's last layer {classes.shape[1]} outputs."
        )
    return functional.normalize(embeddings, dim=-1) @ classes.to(embeddings).T / temperature


def check_prompts(names: Sequence[str], prompts: Sequence[str], temperature: float) -> None:
    """Raise BadTask for names and prompts that make no sentences of their own."""
    if isinstance(names, str) or len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise BadTask(f"words: classes need two names or more, all different, got {names!r}. Write ('cat', 'dog').")
    without = [prompt for prompt in ([prompts] if isinstance(prompts, str) else prompts) if NAME not in prompt]
    if isinstance(prompts, str) or not prompts or without:
        raise BadTask(
            f"words: each prompt needs {NAME} where the name of the class goes, got {without or prompts!r}. "
            "Write prompts=('a photo of a {}.',)."
        )
    if not temperature > 0:
        raise BadTask(f"words: temperature must be above 0, got {temperature}. Write 0.07.")
