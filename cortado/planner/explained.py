"""Explained: which way each weight takes within so many bytes, and what the best of the other families would cost it there."""

from dataclasses import dataclass

from cortado.planner.candidates import Candidate, Choices
from cortado.planner.forecast import Forecast
from cortado.planner.outlook import family
from cortado.units import size_text


@dataclass(frozen=True)
class Reason:
    """One weight: its bytes as floats, the candidate that was taken, and of other families the one that costs least in as
    many bytes; None where none is as small."""

    path: str
    plain_bytes: int
    taken: Candidate
    other: Candidate | None

    def text(self) -> str:
        """Why, in a few words."""
        if self.other is None:
            return "nothing else is as small"
        times = self.other.damage / max(self.taken.damage, 1e-12)
        return f"{times:.1f}x the nats by {self.other.way or 'leaving it as it is'}"


def reasons(forecast: Forecast, size_bytes: float) -> list[Reason]:
    """For each weight what the plan of a file of so many bytes does, and what it leaves; none where no plan is as small."""
    plan = forecast.plan(size_bytes)
    return [] if plan is None else [reason_for(one, plan.chosen[one.path]) for one in forecast.choices]


def reason_for(choices: Choices, taken: Candidate) -> Reason:
    """The runner-up: of another family, in no more bytes than what was taken."""
    others = [
        one for one in choices.candidates if one.size_bytes <= taken.size_bytes and family(one.way) != family(taken.way)
    ]
    return Reason(choices.path, choices.plain_bytes, taken, min(others, key=lambda one: one.damage, default=None))


def explained(forecast: Forecast, size_bytes: float) -> str:
    """A table for people, a row for each weight, the dearest in nats first."""
    found = reasons(forecast, size_bytes)
    if not found:
        return f"Weights alone do not fit into {size_text(size_bytes)}: there is nothing to explain."
    total = forecast.kl(sum(one.taken.damage for one in found))
    scale = total / max(sum(one.taken.damage for one in found), 1e-30)
    wide = max(24, *(len(one.path) + 2 for one in found))
    ways = max(24, *(len(one.taken.way or "as it is") + 2 for one in found))
    head = f"{'weight':<{wide}}{'floats':>10}{'file':>10}  {'held by':<{ways}}{'nats':>10}   and the best of the others there"
    lines = [f"Which method where, in a file of {size_text(size_bytes)} ({total:.3g} nats expected):", "", head]
    lines.append("─" * len(head))
    for one in sorted(found, key=lambda one: -one.taken.damage):
        held = one.taken.way or "as it is"
        lines.append(
            f"{one.path:<{wide}}{size_text(one.plain_bytes):>10}{size_text(one.taken.size_bytes):>10}  {held:<{ways}}"
            f"{one.taken.damage * scale:>10.2g}   {one.text()}"
        )
    return "\n".join(lines)
