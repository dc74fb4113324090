"""contrastive: the network's embedding of a sample is nearer to the teacher's of the same sample than to those of others."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.knobs.knob import knob
from cortado.training.objectives.layer_pairs import LayerPairs, pooled
from cortado.training.objectives.objective import Terms, TrainingStep

BATCH, QUEUE = "batch", "queue"
NO_LABEL = -1


class Negatives(nn.Module):
    """The teacher's embeddings of the last samples, oldest out first, with their labels."""

    def __init__(self, size: int, width: int) -> None:
        super().__init__()
        self.register_buffer("keys", torch.zeros(size, width))
        self.register_buffer("labels", torch.full((size,), NO_LABEL))
        self.register_buffer("count", torch.zeros((), dtype=torch.long))
        self.keys: Tensor
        self.labels: Tensor
        self.count: Tensor

    def forward(self, keys: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the keys (size, C), labels and which are filled, (size,), and put in new keys (N, C) and labels (N,)."""
        size = len(self.keys)
        before = self.keys.clone(), self.labels.clone(), torch.arange(size, device=keys.device) < self.count
        keys, labels = keys.detach()[-size:], labels[-size:]
        rows = (self.count + torch.arange(len(keys), device=keys.device)) % size
        self.keys[rows], self.labels[rows] = keys.to(self.keys), labels.to(self.labels)
        self.count += len(keys)
        return before


@dataclass(frozen=True)
class Contrastive(LayerPairs):
    """The contrastive loss between embeddings of the network's and the teacher's layer.  Tian et al., 2020 (CRD).

    A sample is its mean over places, (N, C), mapped linearly to `width` numbers of L2 norm 1; both maps are learned along.
    The loss is the cross-entropy of finding the sample's partner among its negatives, by cosine over `temperature`: the
    InfoNCE form (van den Oord et al., 2018) of the paper's bound. Negatives are the other samples of the batch, in both
    directions, or a queue of the teacher's embeddings, in one; with class labels, only those of other classes. Averaged over
    samples, added over pairs of layers. Under torchrun, each process draws them from its share of the batch.

    As the maps start at random, it is not 0 for a network that equals its teacher.
    """

    recordable: ClassVar[bool] = False
    or_outputs: ClassVar[bool] = True

    width: int = knob(128, low=2, help="numbers of an embedding")
    temperature: float = knob(0.07, low=1e-3, help="divides cosines")
    negatives: str = knob(BATCH, one_of=(BATCH, QUEUE), help="where negatives come from")
    size: int = knob(4096, low=2, help="embeddings in the queue")

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        made: dict[str, nn.Module] = {}
        for number, pair in enumerate(self.both(step)):
            mine, wanted = (pooled(one, None).shape[1] for one in (pair.mine, pair.wanted))
            made[f"mine{number}"], made[f"wanted{number}"] = nn.Linear(mine, self.width), nn.Linear(wanted, self.width)
            if self.negatives == QUEUE:
                made[f"queue{number}"] = Negatives(self.size, self.width)
        return made

    def terms(self, step: TrainingStep) -> Terms:
        found = []
        for number, pair in enumerate(self.both(step)):
            if f"mine{number}" not in step.modules:
                raise BadValue(
                    "objectives/contrastive: it has no embeddings yet. Train with what modules(step) returns."
                )
            mine = embedded(step.modules[f"mine{number}"], pooled(pair.mine, pair.counted))
            wanted = embedded(step.modules[f"wanted{number}"], pooled(pair.wanted, pair.counted_wanted))
            labels = class_labels(step.targets, mine)
            if self.negatives == QUEUE:
                keys, theirs, filled = step.modules[f"queue{number}"](wanted, labels)
                usable = filled[None] & other_class(labels, theirs)
                found.append(info_nce(mine, wanted, keys, usable, self.temperature))
            else:
                found.append(in_batch(mine, wanted, labels, self.temperature))
        return {"contrastive": torch.stack(found).sum()}


def embedded(linear: nn.Module, samples: Tensor) -> Tensor:
    """Return embeddings of L2 norm 1, (N, width)."""
    return functional.normalize(linear(samples), dim=1)


def class_labels(targets: object, samples: Tensor) -> Tensor:
    """Return the classes of samples, (N,), or -1 where the targets are none."""
    if isinstance(targets, Tensor) and targets.shape == samples.shape[:1] and not targets.is_floating_point():
        return targets.long()
    return torch.full((len(samples),), NO_LABEL, device=samples.device)


def other_class(labels: Tensor, others: Tensor) -> Tensor:
    """Return (N, M): whether two samples may be of different classes; one without a label may."""
    return (labels[:, None] != others[None]) | (labels < 0)[:, None] | (others < 0)[None]


def in_batch(mine: Tensor, wanted: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Return the mean of both directions' losses, of embeddings (N, C) with the rest of the batch as negatives."""
    usable = other_class(labels, labels)
    usable = usable & ~torch.eye(len(labels), dtype=torch.bool, device=labels.device)
    return (info_nce(mine, wanted, wanted, usable, temperature) + info_nce(wanted, mine, mine, usable, temperature)) / 2


def info_nce(anchors: Tensor, partners: Tensor, negatives: Tensor, usable: Tensor, temperature: float) -> Tensor:
    """Return the mean over anchors (N, C) of -log of the softmax share of their partner among it and usable negatives.

    `partners`: (N, C); `negatives`: (M, C); `usable`: (N, M). Similarity is the inner product over `temperature`.
    """
    own = (anchors * partners).sum(1, keepdim=True) / temperature
    others = (anchors @ negatives.T / temperature).masked_fill(~usable, -torch.inf)
    return (torch.cat([own, others], 1).logsumexp(1) - own[:, 0]).mean()
