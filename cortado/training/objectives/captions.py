"""captions: each sample finds its own sentence among those of the batch, and each sentence its sample."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.knobs.knob import knob
from cortado.task.outputs.outputs import first_floats_of
from cortado.task.outputs.words import Words
from cortado.training.objectives.objective import Objective, Terms, TrainingStep

LEAST = 0.01
"""The temperature does not fall below it: logits of cosines stay within 100."""
TEMPERATURE = "temperature"


class Temperature(nn.Module):
    """A learned temperature, as the logarithm of its inverse."""

    def __init__(self, start: float) -> None:
        super().__init__()
        self.sharpness = nn.Parameter(torch.tensor(-math.log(start)))

    def forward(self) -> Tensor:
        """Return the temperature, at least LEAST."""
        return self.sharpness.neg().exp().clamp(min=LEAST)


@dataclass(frozen=True)
class Captions(Objective):
    """The symmetric contrastive loss between samples and their sentences.  Radford et al., 2021 (CLIP).

    Embeddings (N, width) and the vectors of sentences are compared by cosine, over a temperature that is learned along and
    drawn as a curve. The loss is the cross entropy of each sample's sentence among those of the batch, and of each sentence's
    sample, halved. Samples of one class, or with equal sentences, share the target evenly (Yang et al., 2022); its entropy is
    subtracted, so that the least is 0.

    Targets are either the vectors of each sample's own sentence, float (N, width), or labels, for which the task's
    `outputs` are `Words`: then a prompt of each class is drawn at each step. Under torchrun, the samples of all processes are
    compared with each other.
    """

    labelled: ClassVar[bool] = True

    temperature: float = knob(0.07, low=LEAST, help="divides cosines to begin with; it is learned")

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        return {TEMPERATURE: Temperature(self.temperature)}

    def terms(self, step: TrainingStep) -> Terms:
        if TEMPERATURE not in step.modules:
            raise BadValue("objectives/captions: it has no temperature yet. Train with what modules(step) returns.")
        found = first_floats_of(step.outputs)
        sentences, numbers = own_sentences(step)
        check_widths(found, sentences)
        mine = step.gathered(functional.normalize(found, dim=1))
        theirs = step.gathered(functional.normalize(sentences.to(found), dim=1))
        same = step.gathered(numbers)[:, None] == step.gathered(numbers)[None]
        temperature = step.modules[TEMPERATURE]()
        step.figures[TEMPERATURE] = temperature.detach()
        return {"captions": both_ways(mine @ theirs.T / temperature, same)}


def both_ways(logits: Tensor, same: Tensor) -> Tensor:
    """Return how far rows and columns of logits (N, N) are from the shares of what belongs together, halved.

    Where each sample belongs to one sentence alone, that is the cross entropy.
    """
    counts = same.sum(1, keepdim=True)
    wanted = same.to(logits.dtype) / counts
    both = functional.cross_entropy(logits, wanted) + functional.cross_entropy(logits.T, wanted)
    return both / 2 - counts.to(logits.dtype).log().mean()


def own_sentences(step: TrainingStep) -> tuple[Tensor, Tensor]:
    """Return the vector of each sample's sentence, (N, width), and numbers (N,) that are equal where the samples belong together.

    Raises BadValue for targets without sentences.
    """
    targets = step.targets
    if isinstance(targets, Tensor) and targets.is_floating_point() and targets.dim() == 2:
        together = step.gathered(targets)
        # Equal sentences get equal numbers in all processes.
        unique = together.unique(dim=0)
        return targets, (targets[:, None] == unique[None]).all(-1).long().argmax(1)
    if not isinstance(targets, Tensor) or targets.is_floating_point() or targets.dim() != 1:
        raise BadValue(
            f"objectives/captions: targets must be vectors of sentences, float (N, width), or labels (N,), got "
            f"{getattr(targets, 'shape', type(targets).__name__)}. Pass one of them."
        )
    if not isinstance(step.kind, Words):
        raise BadValue(
            "objectives/captions: the targets are labels, and the task has no sentences for them. Write "
            "Task(outputs=Words.of(names, encoder)), or give vectors of sentences as targets."
        )
    words = step.kind
    if not 0 <= int(targets.min()) <= int(targets.max()) < len(words.names):
        raise BadValue(
            f"objectives/captions: labels must lie in 0..{len(words.names) - 1}, for {len(words.names)} classes with sentences, "
            f"got {int(targets.min())}..{int(targets.max())}. Name all classes in Words.of."
        )
    drawn = torch.randint(words.vectors.shape[1], (len(words.names),))
    sentences = words.vectors[torch.arange(len(words.names)), drawn].to(targets.device)
    return sentences[targets], targets


def check_widths(found: Tensor, sentences: Tensor) -> None:
    """Raise BadValue unless embeddings and sentences have as many numbers."""
    if found.dim() != 2 or found.shape[1] != sentences.shape[1]:
        raise BadValue(
            f"objectives/captions: the network gives shape {tuple(found.shape)}, and the sentences {tuple(sentences.shape)}. "
            f"Give the network's last layer {sentences.shape[1]} outputs."
        )
