"""Strengths: how much a trial of rate-distortion training asked for, and how much the next one should."""

import math
from collections.abc import Sequence

from cortado.methods.prune.rate_distortion import PruneRateDistortion
from cortado.planner.search.trials import Trial

CLOSE = 1.06
"""Sizes closer than this factor count as equal."""
STRONGER = 1.6
"""Smallest factor to the next strength."""
STRONGEST, STALLED = 1.0, 0.99
"""The largest strength, and the share of a file from which on more of it has saved nothing."""
SHRINK = 0.75
"""Factor to the next smaller size after a trial within limits."""


FALLS, FLATTEST, STEEPEST = 4.0, 1.5, 8.0
"""The power of the bytes by which losses fall: an error falls to a quarter by one more bit, near two bits a weight."""
FARTHEST = 3.0
"""The largest factor between two sizes."""


def strength_of(trial: Trial) -> float:
    """Return the strength of a trial's prune/rate_distortion."""
    name = PruneRateDistortion.name()
    return float(next(stage[name]["strength"] for stage in trial.recipe["stages"] if name in stage))


def stronger(kept: Sequence[Trial]) -> float:
    """Return the factor on the strongest trial's strength for a file smaller by SHRINK.

    Extrapolated from the two strongest trials, between STRONGER and its cube.
    """
    if len(kept) < 2:
        return STRONGER
    weak, strong = sorted(kept, key=strength_of)[-2:]
    shrank = math.log(weak.size_bytes / strong.size_bytes) / math.log(strength_of(strong) / strength_of(weak))
    return min(STRONGER**3, max(STRONGER, math.exp(-math.log(SHRINK) / shrank))) if shrank > 0 else STRONGER**3


def next_strength(kept: Sequence[Trial], lost: Sequence[Trial], least: float) -> float | None:
    """Return the next strength after these trials: rising until the score is lost, then bisecting.

    None once the bisected sizes are close, more strength saves nothing, or less would make a file larger than `least`, that
    of the best trial of any kind.
    """
    strongest = max(map(strength_of, kept), default=0.0)
    weakest = min((value for value in map(strength_of, lost) if value > strongest), default=0.0)
    if any(one.size_bytes >= least for one in lost):
        return None
    if strongest and weakest:
        sizes = [one.size_bytes for one in (*kept, *lost) if strength_of(one) in (strongest, weakest)]
        return None if max(sizes) / min(sizes) < CLOSE else (strongest * weakest) ** 0.5
    if strongest >= STRONGEST or stalled(kept):
        return None
    return strongest * stronger(kept) if strongest else weakest / STRONGER


def step_up(lost: Sequence[Trial], kept: Sequence[Trial]) -> float:
    """Return the factor from the largest of the files that lost too much to the next one, by how much too much it was.

    Losses fall by a power of the bytes: the one that the two largest files show, else FALLS. `kept`: the trials within all
    limits; what they leave of the limit says what it allows.
    """
    allowed = max((-excess(one) for one in kept), default=0.0)
    if allowed <= 0:
        return 1 / SHRINK
    losses = [(one.size_bytes, 1 + excess(one) / allowed) for one in sorted(lost, key=lambda one: one.size_bytes)]
    (small, before), (large, after) = losses[-2:] if len(losses) > 1 else (losses[0], losses[0])
    power = FALLS if large == small else math.log(before / after) / math.log(large / small)
    return min(FARTHEST, max(1 / SHRINK, after ** (1 / min(STEEPEST, max(FLATTEST, power)))))


def excess(trial: Trial) -> float:
    """Return the share by which a trial exceeds the limit that it exceeds most; below 0 if it meets all."""
    return max(trial.over.values(), default=0.0)


def harmed(own: Sequence[Trial], sign: int) -> bool:
    """Return whether training lowered the score at no fewer bytes, as too few samples do; `own` are trials of one shape."""
    pairs = [(one, other) for one in own for other in own if one.trained and not other.trained]
    return any(sign * a.score < sign * b.score and b.size_bytes <= a.size_bytes for a, b in pairs)


def stalled(kept: Sequence[Trial]) -> bool:
    """Return whether the strongest trial made the file no smaller than the one before."""
    sizes = [one.size_bytes for one in sorted(kept, key=strength_of)[-2:]]
    return len(sizes) == 2 and sizes[1] > STALLED * sizes[0]
