"""pseudo_labels: the classes of which the teacher is sure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import ClassVar

import torch
from torch.nn import functional

from cortado.knobs.knob import knob
from cortado.training.objectives.counted import both_count, mean_over
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.training.objectives.rows import logit_rows

LEAST_SHARE = 0.01
"""A teacher that is sure of less is noted."""


@dataclass(frozen=True)
class PseudoLabels(Objective):
    """Cross-entropy with the teacher's class where its probability is at least `confidence`.  Lee, 2013; Xie et al., 2020.

    Of outputs (N, C), or place by place of (N, C, H, W) and tokens. Averaged over what is confident, as if all else were left
    out of the data; under torchrun, over that of each process's share of a batch. The curve "confident" is its share,
    "highest" the teacher's largest probability in a batch. `soft` learns the teacher's probabilities instead. Several
    teachers: the mean of their probabilities.

    In self-training, the teacher is the network as the stage found it (`teacher: before`). Noisy student adds noise for the
    network alone: augmented data with `teacher_sees: original`, dropout, and new random values (`reinit`). The paper also
    balances the classes and lets the network grow.
    """

    recordable: ClassVar[bool] = True
    taught: ClassVar[bool] = True

    confidence: float = knob(0.8, low=0.0, high=1.0, help="least probability of the teacher's class")
    soft: bool = knob(False, help="learn all of the teacher's probabilities, not only its class")

    def terms(self, step: TrainingStep) -> Terms:
        rows = logit_rows(step, self.name())
        probabilities = rows.softened(1.0)
        best, classes = probabilities.max(1)
        confident = best >= self.confidence
        step.figures["confident"] = mean_over(confident.to(best.dtype), rows.counted)
        step.figures["highest"] = (best if rows.counted is None else torch.where(rows.counted, best, 0.0)).max()
        logs = functional.log_softmax(rows.mine, 1)
        if self.soft:
            # A class with probability 0 adds 0, even if the network masks it with minus infinity.
            losses = -(probabilities * logs.masked_fill(probabilities == 0, 0.0)).sum(1)
        else:
            losses = functional.nll_loss(logs, classes, reduction="none")
        return {"pseudo_labels": mean_over(losses, both_count(confident, rows.counted))}

    def hindrances(self, curves: Mapping[str, Sequence[float]]) -> list[str]:
        """Return a sentence where the teacher was sure of less than 1 % in the whole training."""
        confident, highest = (curves.get(self.drawn_as(name), ()) for name in ("confident", "highest"))
        if not confident or mean(confident) >= LEAST_SHARE:
            return []
        return [
            f"pseudo_labels: the teacher was sure of {100 * mean(confident):.2g} % of the samples, and the others teach nothing: "
            f"its probability must reach confidence={self.confidence:g}, and the highest of a batch was {mean(highest):.2f} on "
            "average. Lower confidence, or train the teacher longer."
        ]
