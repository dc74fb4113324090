"""For bytes: recipes whose one dial is the size of the file, by training or by rounding."""

from cortado.methods.method import Method
from cortado.methods.prune.rate_distortion import PruneRateDistortion
from cortado.methods.quantize.rate_distortion import QuantizeRateDistortion
from cortado.methods.quantize.scales import QuantizeScales
from cortado.planner.search.proposal import Proposal, stages_of
from cortado.planner.search.strengths import STRONGEST
from cortado.training.training import Training

FOR_BYTES, ROUNDED = "trained for bytes", "rounded for bytes"
EXPECTED_KL = 0.6
"""Weight of all bits of a file in the first training loss."""
LR, SCALES_LR = 1e-3, 3e-3
SEEN, PLACES = 256, 128
"""Calibration samples, and places of each, by which weights are rounded."""


def first_strength(size_bytes: float) -> float:
    """Return the strength of prune/rate_distortion that is tried first for a file of so many bytes."""
    return EXPECTED_KL / (8 * max(size_bytes, 1.0))


def for_bytes(strength: float, epochs: float, tail: str) -> Proposal:
    """Return prune/rate_distortion at this strength, and the tail."""
    stage = PruneRateDistortion(
        training=Training(epochs=0.75 * epochs, lr=LR, average=0.2, warmup=0.02),
        strength=min(STRONGEST, float(f"{strength:.3g}")), finish=0.25 * epochs, teacher="original", bias=False,
    )  # fmt: skip
    return Proposal.of((stage, *stages_of(tail)), FOR_BYTES)


def rounded_to(size_bytes: float, epochs: float, tail: str) -> Proposal:
    """Return quantize/rate_distortion to codes of so many bytes, their scales learned if there is time, and the tail."""
    room = float(round(max(1.0, size_bytes)))
    stages: list[Method] = [QuantizeRateDistortion(size=room, images=SEEN, slopes=SEEN // 2, rows=PLACES)]
    if epochs > 0:
        training = Training(epochs=epochs, lr=SCALES_LR, statistics="kept", cache="live")
        stages.append(QuantizeScales(training=training))
    return Proposal.of((*stages, *stages_of(tail)), ROUNDED)
