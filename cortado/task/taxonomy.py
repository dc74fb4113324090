"""Taxonomy: several sets of labels on one set of classes, so that data with other labels can be trained on together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

import torch
from torch import Tensor

from cortado.errors import BadTask
from cortado.task.data import Data
from cortado.task.metric import Metric
from cortado.task.overlap import mean_of_classes, overlaps

IGNORED = -100
"""The target of samples and pixels without a label, as in torch's cross entropy."""


@dataclass(frozen=True)
class Taxonomy:
    """The classes that a network tells apart, and for each set of labels which of them each label contains.

    >>> kinds = {"animal": ("cat", "dog"), "thing": "car"}
    >>> taxonomy = Taxonomy(("cat", "dog", "car"), {"fine": ("cat", "dog", "car"), "kinds": kinds})

    A label may contain classes, or labels named before. A class that no label of a set contains is missing in the set: its
    probability counts against every label there. `loss` is the negative logarithm of the summed probability of what a
    label contains; for labels that are classes it is the cross entropy. Targets of several sets are numbers over all labels
    of all sets (`encode`), -100 where there is none. MSeg (Lambert et al., 2020) merges data sets so. Raises BadTask for a
    class in two labels of a set, for a name that is no class, and for labels that contain each other.
    """

    classes: tuple[str, ...]
    sets: Mapping[str, Mapping[str, Sequence[str]] | Sequence[str]]
    members: dict[str, Tensor] = field(init=False, compare=False)
    """For each set whether a label contains a class, bool (labels, classes)."""

    def __post_init__(self) -> None:
        if len(set(self.classes)) < len(self.classes) or not self.classes:
            raise BadTask(f"taxonomy: classes need names of their own, got {', '.join(self.classes) or 'none'}.")
        object.__setattr__(self, "members", {name: self.read_set(name) for name in self.sets})

    def labels_of(self, name: str) -> dict[str, tuple[str, ...]]:
        """Return the labels of a set with what they contain.  Raises BadTask for an unknown set."""
        if name not in self.sets:
            raise BadTask(f"taxonomy: there is no set {name!r}. There are: {', '.join(self.sets)}.")
        found = self.sets[name]
        if isinstance(found, Mapping):
            return {label: tuple([inside] if isinstance(inside, str) else inside) for label, inside in found.items()}
        return {label: (label,) for label in found}

    def read_set(self, name: str) -> Tensor:
        """Return which classes each label of a set contains."""
        labels = self.labels_of(name)
        rows = [self.contained(name, label, labels, ()) for label in labels]
        found = torch.zeros(len(labels), len(self.classes), dtype=torch.bool)
        owner: dict[str, str] = {}
        for row, (label, inside) in enumerate(zip(labels, rows, strict=True)):
            for one in inside:
                if one in owner:
                    raise BadTask(
                        f"taxonomy: in {name} the class {one} is in {owner[one]} and in {label}. Leave it in one of them."
                    )
                owner[one] = label
                found[row, self.classes.index(one)] = True
        return found

    def contained(
        self, name: str, label: str, labels: Mapping[str, Sequence[str]], above: tuple[str, ...]
    ) -> list[str]:
        """Return the classes in a label, through other labels of the set."""
        if label in above:
            raise BadTask(f"taxonomy: in {name} {' contains '.join((*above, label))}. A label cannot contain itself.")
        found: list[str] = []
        for one in labels[label]:
            if one in self.classes:
                found.append(one)
            elif one in labels:
                found += self.contained(name, one, labels, (*above, label))
            else:
                near = ", ".join(get_close_matches(one, (*self.classes, *labels), 2)) or ", ".join(self.classes[:5])
                raise BadTask(f"taxonomy: in {name} {label} contains {one!r}, which is no class. Near: {near}.")
        if not found:
            raise BadTask(f"taxonomy: in {name} {label} contains no class. Leave the label out.")
        return list(dict.fromkeys(found))

    @property
    def every_member(self) -> Tensor:
        """Return the members of all labels of all sets, in the order of `encode`: bool (all labels, classes)."""
        return torch.cat(list(self.members.values()))

    def encode(self, name: str, labels: Tensor) -> Tensor:
        """Return labels 0, 1, ... of a set as numbers over all sets; -100 stays.  Raises BadTask for labels outside the set."""
        count = len(self.labels_of(name))
        given = labels[labels != IGNORED]
        if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < count:
            raise BadTask(
                f"taxonomy: labels of {name} must lie in 0..{count - 1}, got {int(given.min())}..{int(given.max())}."
            )
        names = list(self.sets)
        start = sum(len(self.labels_of(other)) for other in names[: names.index(name)])
        return torch.where(labels == IGNORED, IGNORED, labels + start)

    def log_probabilities(self, outputs: Tensor, members: Tensor) -> Tensor:
        """Return the logarithm of each label's summed probability, (N, labels, ...), from logits (N, classes, ...)."""
        logs = outputs.float().log_softmax(1).movedim(1, -1)
        inside = members.to(outputs.device)
        shown = logs[..., None, :].masked_fill(~inside, -torch.inf)
        return shown.logsumexp(-1).movedim(-1, 1)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean negative logarithm of what the targets (numbers over all sets) contain."""
        known = targets != IGNORED
        logits, wanted = outputs.movedim(1, -1)[known], targets[known]
        if not wanted.numel():
            return 0 * outputs.sum()
        inside = self.every_member.to(outputs.device)[wanted]
        logs = logits.float().log_softmax(-1).masked_fill(~inside, -torch.inf)
        return -logs.logsumexp(-1).mean()

    def loss_on(self, name: str) -> "SetLoss":
        """Return the loss for the own labels, 0, 1, ..., of one set, such as for a `Source` with a weight of its own."""
        self.labels_of(name)
        return SetLoss(self, name)

    def accuracy(self, name: str, merged: bool = False) -> Metric:
        """Return the share of samples whose most probable label of a set is right, of classes and of maps alike.

        Targets are the set's own labels, 0, 1, ...; with `merged`, numbers over all sets.
        """
        self.labels_of(name)
        return Metric(f"accuracy on {name}", "%", SetAccuracy(self, name, merged))

    def mean_iou(self, name: str, merged: bool = False) -> Metric:
        """Return the mean intersection over union of a set's labels, in maps (N, H, W) of its own labels, over all images.

        With `merged`, of numbers over all sets.
        """
        self.labels_of(name)
        return Metric(f"mean IoU on {name}", "%", SetOverlaps(self, name, merged), whole=mean_of_classes)

    def own_labels(self, name: str, targets: Tensor, merged: bool) -> Tensor:
        """Return targets as labels of a set, where they are numbers over all sets.  Raises BadTask for those of other sets."""
        count = len(self.members[name])
        first = int(self.encode(name, torch.zeros(1, dtype=torch.int64))) if merged else 0
        labels = torch.where(targets == IGNORED, IGNORED, targets - first)
        given = labels[labels != IGNORED]
        if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < count:
            raise BadTask(
                f"taxonomy: targets of {name} must lie in {first}..{first + count - 1}, got {int(given.min()) + first}.."
                f"{int(given.max()) + first}. Score each set on data of its own, with merged=True for numbers of `encode`."
            )
        return labels

    def merged(self, parts: Mapping[str, Data]) -> Data:
        """Return data of several sets, in memory, as one: targets are numbers over all sets.

        Raises BadTask for data that are not in memory, and for parts that are prepared differently.
        """
        given = list(parts.items())
        first = given[0][1]
        for name, data in given:
            if not isinstance(data.inputs, Tensor) or not isinstance(data.targets, Tensor):
                raise BadTask(
                    f"taxonomy: the data of {name} must be tensors in memory. Read them first: data.first(len(data))."
                )
            if (data.prepare, data.augment, data.vary) != (first.prepare, first.augment, first.vary):
                raise BadTask(f"taxonomy: the data of {name} are prepared otherwise than those of {given[0][0]}.")
        inputs = torch.cat([data.inputs for _, data in given])  # type: ignore[misc]
        targets = torch.cat([self.encode(name, torch.as_tensor(data.targets)) for name, data in given])
        return Data(inputs, targets, first.prepare, first.augment, vary=first.vary)


@dataclass(frozen=True)
class SetLoss:
    """The loss of one set's own labels."""

    taxonomy: Taxonomy
    name: str

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean over what has a label, from logits (N, classes, ...) and labels (N, ...)."""
        return self.taxonomy.loss(outputs, self.taxonomy.encode(self.name, targets))


@dataclass(frozen=True)
class SetAccuracy:
    """1 for each sample whose most probable label of a set is right, for maps the share of right pixels."""

    taxonomy: Taxonomy
    name: str
    merged: bool = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return (N,), from logits (N, classes, ...) and labels (N, ...)."""
        labels = self.taxonomy.own_labels(self.name, targets, self.merged)
        known = (labels != IGNORED).flatten(1) if labels.dim() > 1 else (labels != IGNORED)[:, None]
        right = self.taxonomy.log_probabilities(outputs, self.taxonomy.members[self.name]).argmax(1) == labels
        right = right.flatten(1) if right.dim() > 1 else right[:, None]
        return (right & known).sum(1) / known.sum(1).clamp_min(1)


@dataclass(frozen=True)
class SetOverlaps:
    """For each image the pixels of intersection and of union, label by label of a set."""

    taxonomy: Taxonomy
    name: str
    merged: bool = False

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return (N, 2 x labels), from logits (N, classes, H, W) and labels (N, H, W)."""
        members = self.taxonomy.members[self.name]
        labels = self.taxonomy.own_labels(self.name, targets, self.merged)
        void = torch.where(labels == IGNORED, len(members), labels)
        return overlaps(self.taxonomy.log_probabilities(outputs, members), void, len(members))
