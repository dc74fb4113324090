"""Outlook: before any training, what limits will cost, and which methods can help to keep them."""

import math
from dataclasses import dataclass, replace

from cortado.planner.allocate.allocation import allocate
from cortado.planner.allocate.size_accuracy_curve import Expected, SizeAccuracyCurve
from cortado.quantities import size_text
from cortado.table import aligned
from cortado.task.limits import Limit

ROWS = 7
HELPS = {
    "size": (
        ("quantize/*, share/*, prune/weights, prune/rate_distortion, factorize/*", "fewer bits, equal values, zeros: all code well"),
        ("prune/channels, prune/heads, prune/blocks", "what is cut away needs no bytes"),
    ),
    "latency": (
        ("prune/channels, prune/heads, prune/blocks", "layers are narrower or gone: any runtime is faster"),
        ("quantize/weights with quantize/activations", "8-bit integers, where the runtime has them; half of it alone gains nothing"),
        ("factorize/*", "fewer multiply-adds, but more layers: gains on wide layers, loses on narrow ones"),
    ),
}  # fmt: skip
IDLE = {
    "size": (("quantize/activations", "activations are not in the file"),),
    "latency": (
        ("prune/weights, prune/rate_distortion", "zeros are multiplied like any other value in a dense runtime"),
        ("share/*", "shared values are looked up before the layer runs: it computes in floats"),
        (
            "quantize/weights alone",
            "weights are turned back to floats; linear layers of 4 bits and fewer may stay packed",
        ),
    ),
}
"""What each limit is helped by, and what is of no use to it, with the reason."""


@dataclass(frozen=True)
class Feasibility:
    """What files of several sizes are expected to cost, for limits if there are any; `original_bytes` as floats."""

    size_accuracy_curve: SizeAccuracyCurve
    original_bytes: int
    metric_name: str
    metric_unit: str
    limits: tuple[Limit, ...] = ()

    def rows(self) -> list[Expected]:
        """From the largest mix to the smallest one, sizes in even ratios."""
        least, most = self.size_accuracy_curve.sizes
        sizes = [least * (most / least) ** (1 - number / (ROWS - 1)) for number in range(ROWS)]
        found = [self.size_accuracy_curve.expected(math.ceil(size)) for size in sizes]
        return [one for one in found if one is not None]

    def smallest(self, lost: float) -> Expected | None:
        """The smallest file that is expected to lose at most so many points, by halving; None where none does."""
        low, high = (math.log(size) for size in self.size_accuracy_curve.sizes)
        best = self.size_accuracy_curve.expected(math.ceil(math.exp(high)))
        if best is None or best.lost[0] > lost:
            return None
        for _ in range(20):
            middle = (low + high) / 2
            found = self.size_accuracy_curve.expected(math.exp(middle))
            if found is not None and found.lost[0] <= lost:
                best, high = found, middle
            else:
                low = middle
        return best

    def target(self) -> float:
        """The bytes that the limits ask for: that of size, else the smallest file for the score; a middle one without."""
        by_what = {limit.what: limit for limit in self.limits}
        least, most = self.size_accuracy_curve.sizes
        if "size" in by_what:
            return by_what["size"].value
        if "score" in by_what:
            best = self.smallest(max(0.0, self.allowed(by_what["score"])))
            return most if best is None else best.size_bytes
        return (least * most) ** 0.5

    def allowed(self, limit: Limit) -> float:
        """Points that a limit of the score lets a file lose."""
        return (
            -limit.value
            if limit.relative
            else self.size_accuracy_curve.sign * (self.size_accuracy_curve.score - limit.value)
        )

    def families(self, size_bytes: float) -> dict[str, float | None]:
        """The predicted KL of a file of so many bytes by one family of ways alone, and by all; None where it cannot be.

        A family are the ways whose stages have the same names.
        """
        names = {
            family(candidate.way)
            for one in self.size_accuracy_curve.choices
            for candidate in one.candidates
            if candidate.way
        }
        room = size_bytes - self.size_accuracy_curve.rest_bytes
        found: dict[str, float | None] = {}
        for name in [*sorted(names), ""]:
            own = [
                replace(
                    one, candidates=tuple(c for c in one.candidates if not c.way or not name or family(c.way) == name)
                )
                for one in self.size_accuracy_curve.choices
            ]
            mix = allocate(own, room)
            total = None if mix is None else self.size_accuracy_curve.kl(sum(one.predicted_kl for one in mix.values()))
            found[name or "all together"] = total
        return found

    def text(self) -> str:
        """For people."""
        parts = [self.table(), self.limits_text(), self.families_text(), self.methods_text()]
        return "\n\n".join(part for part in parts if part)

    def table(self) -> str:
        unit = self.metric_unit
        rows = [["file", "smaller", "KL, nats", f"{self.metric_name} lost, {unit or chr(45)}", "mix"]]
        for one in self.rows():
            lost = "–" if math.isnan(one.lost[0]) else f"{one.lost[0]:.2f} ({one.lost[1]:.2f} to {one.lost[2]:.2f})"
            smaller = f"{self.original_bytes / one.size_bytes:.1f}x"
            rows.append([size_text(one.size_bytes), smaller, f"{one.kl[0]:.3g}", lost, mix_of(one)])
        title = (
            f"Original: {size_text(self.original_bytes)} as floats, {self.metric_name} {self.size_accuracy_curve.score:.2f} {unit} on "
            "validation data. Weights alone, nothing trained, moments matched:"
        )
        parts = [title, aligned(rows, "" + ">" * (len(rows[0]) - 1) + "<"), self.trust()]
        return "\n\n".join([*parts, *self.left_out()])

    def left_out(self) -> list[str]:
        """What there was no time for, as a paragraph; none where all was done."""
        if not self.size_accuracy_curve.left_out:
            return []
        return [f"Left out, as time was up: {'; '.join(self.size_accuracy_curve.left_out)}. Give more: --time-limit."]

    def trust(self) -> str:
        """How far these numbers are to be believed."""
        found = self.size_accuracy_curve
        if not found.measured:
            return "No mix was measured: all is predicted, and its scale in KL is not known. Trust the order alone."
        sizes = ", ".join(f"{size_text(one.size_bytes)} ({one.kl:.3g} nats)" for one in found.measured)
        lines = (
            f"Measured: {sizes}; {found.constant:.3g} of what the predicted KLs add up to. All else is predicted, "
            f"to a factor of {found.spread:.2f} in KL."
        )
        if found.misses:
            misses = ", ".join(f"{miss:.2f}" for miss in found.misses)
            lines += f" Each of the measured ones, predicted from the others alone, was off by a factor of {misses}."
        if found.measured and not 0.2 <= found.constant <= 5:
            lines += " The constant is far from 1: trust the order more than the numbers."
        return lines

    def limits_text(self) -> str:
        return "\n".join(self.limit_text(limit) for limit in self.limits)

    def limit_text(self, limit: Limit) -> str:
        """Whether a limit looks reachable."""
        if limit.what == "size":
            found = self.size_accuracy_curve.expected(limit.value)
            if found is None:
                least = size_text(self.size_accuracy_curve.sizes[0])
                return f"{limit.text}: not by weights alone, whose smallest file has {least}. Cut channels or layers as well."
            if math.isnan(found.lost[0]):
                return f"{limit.text}: reachable; no mix was measured that could say what is lost."
            lost = f"{found.lost[0]:.2f} {self.metric_unit} lost (to {found.lost[2]:.2f}) before any training"
            return f"{limit.text}: reachable; {lost}."
        if limit.what == "score":
            best = self.smallest(self.allowed(limit))
            if not self.size_accuracy_curve.measured:
                return f"{limit.text}: not known; no mix was measured that could say what is lost."
            if best is None:
                return (
                    f"{limit.text}: not without training; the least that any mix loses is {self.rows()[0].lost[0]:.2f}."
                )
            return f"{limit.text}: the smallest file before any training has about {size_text(best.size_bytes)}."
        return f"{limit.text}: time is measured, not predicted: see below."

    def families_text(self) -> str:
        """Which method when: what each family would cost at the same bytes."""
        least, most = self.size_accuracy_curve.sizes
        sizes = [least * (most / least) ** share for share in (0.6, 0.35)]
        columns = [self.families(size) for size in sizes]
        rows = [["KL in nats at", *map(size_text, sizes)]]
        for name in columns[0]:
            rows.append([name, *("–" if column[name] is None else f"{column[name]:.3g}" for column in columns)])
        return aligned(rows)

    def methods_text(self) -> str:
        """What can help, by the limits that are set; by size where none is."""
        wanted = [what for what in ("size", "latency") if any(limit.what == what for limit in self.limits)] or ["size"]
        lines = []
        for what in wanted:
            lines += [f"Helps {what}:", *(f"  {names}: {why}." for names, why in HELPS[what])]
            lines += [f"Does not help {what}:", *(f"  {names}: {why}." for names, why in IDLE[what])]
        return "\n".join(lines)


def family(way: str) -> str:
    """The names of a way's stages, without knobs; "" of none."""
    return " | ".join(stage.split()[0] for stage in way.split("|") if stage)


def mix_of(expected: Expected) -> str:
    """How many weights take which family, the most frequent ones first."""
    candidate_recipes = [family(one.way) if one.way else "as it is" for one in expected.plan.chosen.values()]
    counts = sorted(((candidate_recipes.count(way), way) for way in dict.fromkeys(candidate_recipes)), reverse=True)
    return ", ".join(f"{count} {way}" for count, way in counts)
