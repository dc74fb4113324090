"""Feasibility: before any training, the expected loss under limits, and the methods that help to meet them."""

import math
from dataclasses import dataclass, replace

from cortado.planner.allocate.allocation import allocate
from cortado.planner.allocate.size_accuracy_curve import Expected, SizeAccuracyCurve
from cortado.quantities import size_text
from cortado.table import aligned
from cortado.task.limits import Limit, limit_of_kind

ROWS = 7
HELPS = {
    "size": (
        (
            "quantize/*, share/*, prune/weights, prune/rate_distortion, factorize/*",
            "fewer bits, equal values and zeros compress well",
        ),
        ("prune/channels, prune/heads, prune/blocks", "removed channels, heads and blocks take no bytes"),
    ),
    "latency": (
        ("prune/channels, prune/heads, prune/blocks", "narrower or fewer layers are faster in any runtime"),
        ("quantize/weights with quantize/activations", "8-bit integer kernels, if the runtime has them; needs both stages"),
        ("factorize/*", "fewer multiply-adds but more layers: faster for wide layers, slower for narrow ones"),
    ),
}  # fmt: skip
IDLE = {
    "size": (("quantize/activations", "activations are not in the file"),),
    "latency": (
        (
            "prune/weights, prune/rate_distortion",
            "zeros are left out in onnxruntime only, where most weights are zero",
        ),
        ("share/*", "values are expanded to floats, but for linear layers of at most 16 values in onnxruntime"),
        ("quantize/weights alone", "weights are expanded to floats; linear layers of up to 4 bits may stay packed"),
    ),
}
"""The methods that help each limit, and those that do not, with the reason."""


@dataclass(frozen=True)
class Feasibility:
    """The expected loss at several file sizes, and for `limits`; `original_bytes` are those of the float network.

    `note` says what was noticed of the validation data, "" for nothing.
    """

    size_accuracy_curve: SizeAccuracyCurve
    original_bytes: int
    metric_name: str
    metric_unit: str
    limits: tuple[Limit, ...] = ()
    note: str = ""

    def rows(self) -> list[Expected]:
        """Return ROWS mixes from the largest to the smallest, with sizes in even ratios."""
        least, most = self.size_accuracy_curve.sizes
        sizes = [least * (most / least) ** (1 - number / (ROWS - 1)) for number in range(ROWS)]
        found = [self.size_accuracy_curve.expected(math.ceil(size)) for size in sizes]
        return [one for one in found if one is not None]

    def smallest(self, lost: float, shift: str = "") -> Expected | None:
        """Return the smallest file with an expected loss of at most `lost` points, after a shift; None if there is none."""
        curve = self.size_accuracy_curve
        low, high = (math.log(size) for size in curve.sizes)
        best = curve.expected(math.ceil(math.exp(high)))
        if best is None or curve.lost(best.kl[0], shift) > lost:
            return None
        for _ in range(20):
            middle = (low + high) / 2
            found = curve.expected(math.exp(middle))
            if found is not None and curve.lost(found.kl[0], shift) <= lost:
                best, high = found, middle
            else:
                low = middle
        return best

    def target(self) -> float:
        """Return the size limit, else the smallest file within the score limits, else a medium size."""
        least, most = self.size_accuracy_curve.sizes
        size = limit_of_kind(self.limits, "size")
        if size is not None:
            return size.value
        return (least * most) ** 0.5 if limit_of_kind(self.limits, "score") is None else self.smallest_kept()

    def smallest_kept(self) -> float:
        """Return the bytes of the smallest file within all score limits; the largest file's if there is none."""
        scores = [limit for limit in self.limits if limit.what == "score"]
        found = [self.smallest(max(0.0, self.allowed(limit)), limit.shift) for limit in scores]
        most = self.size_accuracy_curve.sizes[1]
        return max((most if best is None else best.size_bytes for best in found), default=most)

    def allowed(self, limit: Limit) -> float:
        """Return the points of score that a limit allows to lose."""
        score = self.size_accuracy_curve.score_under(limit.shift)
        return -limit.change(score) if limit.relative else self.size_accuracy_curve.sign * (score - limit.value)

    def families(self, size_bytes: float) -> dict[str, float | None]:
        """Return the predicted KL of a file of `size_bytes` by each family of recipes alone and by all; None if too small.

        A family is the recipes whose stages have the same names.
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
        """Return the whole report as text."""
        parts = [self.note, self.table(), self.limits_text(), self.families_text(), self.methods_text()]
        return "\n\n".join(part for part in parts if part)

    def table(self) -> str:
        unit = self.metric_unit
        rows = [["file", "smaller", "KL, nats", f"{self.metric_name} lost, {unit or chr(45)}", "mix"]]
        for one in self.rows():
            lost = "–" if math.isnan(one.lost[0]) else f"{one.lost[0]:.2f} ({one.lost[1]:.2f} to {one.lost[2]:.2f})"
            smaller = f"{self.original_bytes / one.size_bytes:.1f}x"
            rows.append([size_text(one.size_bytes), smaller, f"{one.kl[0]:.3g}", lost, mix_of(one)])
        title = (
            f"Original: {size_text(self.original_bytes)} as floats, "
            f"{self.metric_name} {self.size_accuracy_curve.score:.2f} {unit} on "
            "validation data. Weights alone, nothing trained, moments matched:"
        )
        parts = [title, aligned(rows, "" + ">" * (len(rows[0]) - 1) + "<"), self.trust()]
        return "\n\n".join([*parts, *self.left_out()])

    def left_out(self) -> list[str]:
        """Return a paragraph about what was skipped for lack of time, if anything."""
        if not self.size_accuracy_curve.left_out:
            return []
        return [f"Skipped, as time was up: {'; '.join(self.size_accuracy_curve.left_out)}. Raise --time-limit."]

    def trust(self) -> str:
        """Return how far these numbers can be trusted."""
        found = self.size_accuracy_curve
        if not found.measured:
            return "No mix was measured: all numbers are predictions of unknown scale in KL. Trust only their order."
        sizes = ", ".join(f"{size_text(one.size_bytes)} ({one.kl:.3g} nats)" for one in found.measured)
        lines = (
            f"Measured: {sizes}; {found.constant:.3g} times the sum of predicted KL. The rest is predicted "
            f"to a factor of {found.spread:.2f} in KL."
        )
        if found.misses:
            misses = ", ".join(f"{miss:.2f}" for miss in found.misses)
            lines += f" Predicted from the other measurements, each measured mix was off by a factor of {misses}."
        if found.measured and not 0.2 <= found.constant <= 5:
            lines += " The constant is far from 1: trust the order more than the numbers."
        return lines

    def limits_text(self) -> str:
        return "\n".join(self.limit_text(limit) for limit in self.limits)

    def limit_text(self, limit: Limit) -> str:
        """Return whether a limit looks feasible."""
        if limit.what == "size":
            found = self.size_accuracy_curve.expected(limit.value)
            if found is None:
                least = size_text(self.size_accuracy_curve.sizes[0])
                return (
                    f"{limit.text}: not by weights alone: their smallest file has {least}. Cut channels or layers too."
                )
            if math.isnan(found.lost[0]):
                return f"{limit.text}: feasible; the loss is unknown, as no mix was measured."
            lost = f"{found.lost[0]:.2f} {self.metric_unit} lost (up to {found.lost[2]:.2f}) before any training"
            return f"{limit.text}: feasible; {lost}."
        if limit.what == "score":
            best = self.smallest(self.allowed(limit), limit.shift)
            if not self.size_accuracy_curve.measured:
                return f"{limit.text}: unknown, as no mix was measured."
            if best is None:
                mildest = self.size_accuracy_curve.lost(self.rows()[0].kl[0], limit.shift)
                return f"{limit.text}: not without training; the best mix loses {mildest:.2f}."
            return f"{limit.text}: the smallest file before any training has about {size_text(best.size_bytes)}."
        measured = "latency is" if limit.what == "latency" else "files of runtimes are"
        return f"{limit.text}: {measured} measured, not predicted: see below."

    def families_text(self) -> str:
        """Return a table of each family's KL at the same sizes."""
        least, most = self.size_accuracy_curve.sizes
        sizes = [least * (most / least) ** share for share in (0.6, 0.35)]
        columns = [self.families(size) for size in sizes]
        rows = [["KL in nats at", *map(size_text, sizes)]]
        for name in columns[0]:
            rows.append([name, *("–" if column[name] is None else f"{column[name]:.3g}" for column in columns)])
        return aligned(rows)

    def methods_text(self) -> str:
        """Return the methods that help to meet the limits; those for size without limits."""
        wanted = [what for what in ("size", "latency") if any(limit.what == what for limit in self.limits)] or ["size"]
        lines = []
        for what in wanted:
            lines += [f"Helps {what}:", *(f"  {names}: {why}." for names, why in HELPS[what])]
            lines += [f"Does not help {what}:", *(f"  {names}: {why}." for names, why in IDLE[what])]
        return "\n".join(lines)


def family(way: str) -> str:
    """Return the stage names of a recipe, without knobs; "" for an empty one."""
    return " | ".join(stage.split()[0] for stage in way.split("|") if stage)


def mix_of(expected: Expected) -> str:
    """Return the number of weights in each family, the most frequent first."""
    families = [family(one.way) or "unchanged" for one in expected.plan.chosen.values()]
    counts = sorted(((families.count(name), name) for name in dict.fromkeys(families)), reverse=True)
    return ", ".join(f"{count} {name}" for count, name in counts)
