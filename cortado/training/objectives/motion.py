"""motion: a moving thing should be called the same one frame later."""

from dataclasses import dataclass

from torch import Tensor
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.running.trees import tensors_in
from cortado.training.objectives.earlier import earlier_frames
from cortado.training.objectives.objective import Objective, Terms, TrainingStep
from cortado.video.warp import resized_flow, warp

TINY = 1e-6


@dataclass(frozen=True)
class Motion(Objective):
    """The squared difference between the predictions of a frame and those of the frame before, carried along the flow.

    Liu et al., 2020 (temporal loss). Of outputs (N, C, H, W): probabilities over the C classes, or the numbers themselves where
    the task's outputs are no logits. Summed over C; averaged over pixels and samples, each weighted by how far it can be
    followed. Both predictions learn. Flow and weights are averaged to the size of the outputs. The network runs once more, on
    the earlier frame; its running statistics are those of the later one.

    Predictions that never change have no loss, so it goes beside labels or a teacher, which say what is right.
    """

    def terms(self, step: TrainingStep) -> Terms:
        before = earlier_frames(step, self.name())
        later, earlier = (predictions(step, outputs) for outputs in (step.outputs, step.again(before.earlier).outputs))
        size = (later.shape[2], later.shape[3])
        weights = functional.adaptive_avg_pool2d(before.visible[:, None], size)[:, 0]
        return {"motion": motion_loss(later, earlier, resized_flow(before.flow, size), weights)}


def predictions(step: TrainingStep, outputs: object) -> Tensor:
    """Return probabilities, or numbers, (N, C, H, W).  Raises BadNetwork for outputs that are no maps."""
    found = tensors_in(outputs)[0]
    if found.dim() != 4:
        raise BadNetwork(
            f"{step.label}: motion compares maps (N, C, H, W), and the network gives shape {tuple(found.shape)}. "
            "Use a network that predicts every pixel."
        )
    return found.softmax(1) if step.kind is None or step.kind.softens else found


def motion_loss(later: Tensor, earlier: Tensor, flow: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean of the squared distance between predictions (N, C, H, W) along a flow (N, 2, H, W).

    `weights`: (N, H, W).  0 where nothing can be followed.
    """
    apart = (later - warp(earlier, flow)).square().sum(1)
    return (apart * weights).sum() / weights.sum().clamp(min=TINY)
