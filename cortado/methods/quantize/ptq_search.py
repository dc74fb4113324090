"""quantize/ptq_search: rounding after training, step by step - each step is tried, and kept only if it helps."""

from dataclasses import dataclass, replace
from typing import Any

from cortado.errors import BadTask, BadValue
from cortado.methods.method import Method, knob
from cortado.methods.quantize.climb import STEPS, WIDENS, PtqConfig, PtqSearch, PtqTarget
from cortado.network.graph.trace import device_of, moved
from cortado.network.statistics.synthetic import synthetic
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizePtqSearch(Method):
    """Round weights and activations after training, and climb from the plainest way to what this network needs.

    Steps are tried in order, each on top of those that were kept, and judged by the divergence (KL, nats) of the
    outputs from the original network's on calibration samples that no step has looked at: matched moments; clipped ranges;
    equalization between layers; smoothing between activations and weights; rounding of second order; learned rounding;
    first and last product wider; the most fragile layers wider. The report tells of each step's gain. Without data
    (`data` imagined) the samples are made from the batch norms. Where products of 8 bits run over on this processor,
    weights that meet rounded activations have 7.

    Wider layers cost bytes, which could be spent otherwise: a bit more for every weight divides the squared error of
    even rounding by four (Bennett, 1948), and the divergence goes with that. So widening that costs s bits a weight on
    average has to leave less than 4**-s of the divergence.
    """

    lossy = True
    trains = True

    bits: int = knob(8, low=2, high=8, help="bits of weights")
    activations: int = knob(
        8, low=0, high=8, help="bits of the activations that products read; 0 leaves activations as they are"
    )
    steps: str = knob(", ".join(STEPS), help="which steps are tried, always in this order")
    gain: float = knob(0.02, low=0.0, high=1.0, help="least share of the divergence that a step has to take away")
    fragile: float = knob(0.1, low=0.0, high=1.0, help="share of the layers that may be wider")
    data: str = knob("calibration", one_of=("calibration", "synthetic"), help="samples that are looked at")
    images: int = knob(256, low=4, help="of these, half to fit and half to judge")

    def apply(self, view: View, task: Task) -> None:
        fit, judge = self.samples(view, task)
        ptq_search = PtqSearch(PtqTarget(self.where, self.bits, self.activations, self.fragile), view, fit, judge)
        way, least = PtqConfig(), ptq_search.divergence(PtqConfig())
        said = [f"nearest rounding: {least:.4f} nats from the original network"]
        for step in STEPS:
            tried = ptq_search.with_step(step, way) if step in self.chosen else None
            if tried is None:
                continue
            found = ptq_search.divergence(tried)
            even = 4.0 ** (ptq_search.bits_a_weight(way) - ptq_search.bits_a_weight(tried)) if step in WIDENS else 1.0
            better = found < least * min(1 - self.gain, even)
            said.append(f"{step}: {least:.4f} -> {found:.4f}, {'kept' if better else 'left out'}")
            way, least = (tried, found) if better else (way, least)
        ptq_search.take(way, view)
        if ptq_search.left:
            view.notes.append(
                f"{len(ptq_search.left)} weights keep the form that they have: {', '.join(ptq_search.left)}."
            )
        if ptq_search.guarded(way):
            view.notes.append(
                "Products of 8 bits run over on this processor, which has no VNNI: weights that would have 8 bits have 7."
            )
        view.notes.append("; ".join(said) + ".")

    def __post_init__(self) -> None:
        super().__post_init__()
        unknown = [step for step in self.chosen if step not in STEPS]
        if unknown:
            raise BadValue(f"{self.name()}: no step is called {unknown[0]!r}. Known: {', '.join(STEPS)}.")

    @property
    def chosen(self) -> list[str]:
        """The steps that are tried."""
        return [word.strip() for word in self.steps.split(",") if word.strip()]

    def samples(self, view: View, task: Task) -> tuple[Task, Any]:
        """The task with half of the samples for calibration, and the inputs of the other half, in one batch."""
        if self.data == "synthetic":
            data = synthetic(view.network, view.example, self.images, 100, task.seed)
        else:
            assert task.calibration is not None
            data = task.calibration.first(min(self.images, len(task.calibration)))
        if len(data) < 4:
            raise BadTask(f"{self.name()}: it needs 4 calibration samples at least, got {len(data)}. Give some more.")
        half = len(data) // 2
        judge = [inputs for inputs, _ in data.batches(half)][1]
        return replace(task, calibration=data.first(half)), moved(judge, device_of(view.network))
