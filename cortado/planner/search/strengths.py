"""Strengths: how much a trial of rate-distortion training asked for, and how much the next one should."""

import math
from collections.abc import Sequence

from cortado.methods.prune.rate_distortion import PruneRateDistortion
from cortado.planner.search.trials import Trial

STRONGER = 1.6
"""Smallest factor to the next strength."""
STRONGEST, STALLED = 1.0, 0.99
"""The largest strength, and the share of a file from which on more of it has saved nothing."""
SHRINK = 0.75
"""Factor to the next smaller size after a trial within limits."""


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


def stalled(kept: Sequence[Trial]) -> bool:
    """Return whether the strongest trial made the file no smaller than the one before."""
    sizes = [one.size_bytes for one in sorted(kept, key=strength_of)[-2:]]
    return len(sizes) == 2 and sizes[1] > STALLED * sizes[0]
