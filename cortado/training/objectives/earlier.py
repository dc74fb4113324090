"""Earlier: what the targets of a clip say of the frames before, and what network and teachers give for those."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from torch import Tensor

from cortado.errors import BadTask
from cortado.training.objectives.objective import TrainingStep
from cortado.video.clips import BEFORE, EARLIER, FLOW, VISIBLE

NAMES = (EARLIER, FLOW, VISIBLE)


@dataclass(frozen=True)
class EarlierFrames:
    """Of each frame of a batch: the prepared frame before (N, C, H, W), the flow to it (N, 2, H, W) in pixels, how far its
    pixels can be followed (N, H, W), and the frames before that, in order of time."""

    earlier: Tensor
    flow: Tensor
    visible: Tensor
    before: tuple[Tensor, ...] = ()


def earlier_frames(step: TrainingStep, name: str) -> EarlierFrames:
    """Return what a step's targets say of the frames before.  Raises BadTask without; `name` is the objective's."""
    given = step.targets
    if not isinstance(given, Mapping) or not all(isinstance(given.get(one), Tensor) for one in NAMES):
        got = ", ".join(map(str, given)) if isinstance(given, Mapping) else type(given).__name__
        raise BadTask(
            f"objectives/{name}: it learns from consecutive frames, so the targets must have {', '.join(NAMES)}, got {got}. "
            f"Write Task(unlabelled=clips(frames, flow)) and {name}: {{data: unlabelled}}."
        )
    before = given.get(BEFORE)
    return EarlierFrames(
        given[EARLIER], given[FLOW].float(), given[VISIBLE].float(), () if before is None else before.unbind(1)
    )


def step_on(step: TrainingStep, frames: Tensor) -> TrainingStep:
    """Return the same step on other frames: the network runs once more, with gradients, and the teachers, without."""
    seen = step.again(frames)
    return replace(step, inputs=frames, outputs=seen.outputs, taps=seen.taps, teachers=step.ask(frames))
