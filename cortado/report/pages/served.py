"""Served: what a million inferences cost before and after, estimated from the times that were measured."""

from dataclasses import dataclass

from cortado.cost.costs import MILLION, CostEstimate, cost_of_inferences
from cortado.cost.devices import known_devices
from cortado.cost.text import energy_text, money_text
from cortado.report.record import Record

DEVICE = "core"
"""What the machine that measured is taken for, once for each thread."""


@dataclass(frozen=True)
class ServedTimes:
    """Milliseconds for a sample in one runtime on so many threads, before and after compression."""

    runtime: str
    threads: int
    before: float
    after: float


def served_times(report: Record) -> ServedTimes | None:
    """Return the times of the first clock, in the runtime in which the compressed network is fastest; None if not timed."""
    for clock in report.clocks:
        original = {time.runtime: time.median_ms for time in clock.times if time.network == "original"}
        made = [(time.median_ms, time.runtime) for time in clock.times
                if time.network != "original" and time.runtime in original]  # fmt: skip
        if made:
            ms, runtime = min(made)
            return ServedTimes(runtime, clock.threads, original[runtime] / clock.batch, ms / clock.batch)
    return None


def served_text(report: Record) -> str:
    """Return a sentence on a million inferences, marked as an estimate; "" without measured times."""
    found = served_times(report)
    if found is None:
        return ""
    device = known_devices()[DEVICE]
    before, after = (
        cost_of_inferences(ms, device, count=found.threads * MILLION) for ms in (found.before, found.after)
    )
    return (
        f"estimate: a million inferences in {found.runtime} on {found.threads} {DEVICE} take {both_texts(before)} before, "
        f"{both_texts(after)} after (cortado cost, with your own figures)"
    )


def both_texts(cost: CostEstimate) -> str:
    """Return energy and money."""
    return " and ".join(text for text in (energy_text(cost.energy), money_text(cost.money)) if text)
