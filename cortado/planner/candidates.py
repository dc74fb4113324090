"""Candidates: for each weight the ways to hold it, each with its bytes in the file and its predicted damage.

All are predicted; what is doubted is measured as far as it lies on the lower hull of damage over bytes, which is where an
allocation takes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

import torch

from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode, encode_value, record_body
from cortado.file.plane import MIX_LIMIT, QUICK
from cortado.fingerprints import sum_of_data
from cortado.forms.form import Form
from cortado.forms.low_rank import LowRank
from cortado.network.budgeting import kernels
from cortado.network.divergence import nats_for
from cortado.network.profile import profile
from cortado.network.view import View, Weight, parameter_places
from cortado.planner.currency import Price, prices
from cortado.planner.doubt import BEATEN, DOUBTED, HOPELESS, Doubt, samples_for
from cortado.planner.ways import WAYS, carried_out
from cortado.task import Task


@dataclass(frozen=True)
class Candidate:
    """One way to hold one weight: bytes of its record in the file, nats that it is predicted to cost, and the multiply-adds
    that its layer takes for a sample with it; None where they are not known."""

    way: str
    size_bytes: int
    damage: float
    multiply_adds: float | None = None


@dataclass
class Tried:
    """A candidate as it is being judged; with its `form` as long as it is doubted and may be measured, then with what was
    `found`, in nats at the temperature."""

    candidate: Candidate
    low_rank: bool = False
    form: Form | None = None
    found: float | None = None


@dataclass(frozen=True)
class Choices:
    """All ways to hold one weight that no other one beats in both, smallest damage first."""

    path: str
    plain_bytes: int
    candidates: tuple[Candidate, ...]


FAST, LARGE, SAMPLED, FEWEST_ROWS = "rans", 1 << 18, 1 << 16, 16
"""Forms of more numbers than LARGE are coded fast; and of so many entries of them, in rows, the best coder's gain is told."""
KEPT: dict[str, tuple[Choices, ...]] = {}
MOST_KEPT = 4


def choices_for(view: View, weights: list[Weight], task: Task, ways: Sequence[str] = WAYS) -> tuple[Choices, ...]:
    """The choices for some weights of a view's network.  Those of the last few networks are kept while the process runs: each
    trial of a goal that begins with the plain one asks for the same."""
    assert task.calibration is not None
    sums = blake2b(encode(view.network, view.network, "bits"), digest_size=16)
    sums.update(encode(view.plain, view.plain, "bits"))
    sums.update(sum_of_data(task.calibration))
    sums.update(repr((task.seed, task.answers, [weight.path for weight in weights], tuple(ways))).encode())
    key = sums.hexdigest()
    if key not in KEPT:
        found = candidates_of(view, task, prices(view, weights, task), ways)
        for oldest in list(KEPT)[: max(0, len(KEPT) + 1 - MOST_KEPT)]:
            del KEPT[oldest]
        KEPT[key] = found
    return KEPT[key]


def candidates_of(view: View, task: Task, priced: dict[str, Price], ways: Sequence[str] = WAYS) -> tuple[Choices, ...]:
    """The choices for each priced weight of a view's network; staying as it is is always one."""
    found = every_candidate(view, task, priced, ways)
    return tuple(Choices(path, some[0].size_bytes, undominated(some)) for path, some in found.items())


def every_candidate(
    view: View, task: Task, priced: dict[str, Price], ways: Sequence[str] = WAYS
) -> dict[str, list[Candidate]]:
    """Each weight as it is and in each way, whatever is beaten.

    In memory for the forms of what is doubted, beside a few copies of the network and what `Replay` remembers.
    """
    network, plain = view.network, view.plain
    before = {row.path: row.size_bytes for row in layer_rows(network, plain)}
    weights = {weight.path: weight for weight in parameter_places(network) if weight.path in priced}
    whole, total = products_of(view)
    doubt = Doubt(network, task, nats_for(plain, task), samples_for(total))
    found = {path: [Tried(Candidate("", before[path], 0.0, whole.get(path)))] for path in priced}
    with view.progress.bar("candidates", len(ways) + 2 * len(priced)) as bar:
        for way, changed in carried_out(network, plain, task, ways):
            for weight in changed:
                path, form = weight.path, weight.form
                if path in priced and weight.shape == weights[path].shape:
                    damage = priced[path].damage(weights[path].dense(), weight.dense(), form)
                    cost = whole.get(path)
                    cost = None if cost is None else cost * share_of_products(weights[path].form, form)
                    one = Tried(Candidate(way, record_bytes(form), damage, cost), isinstance(form, LowRank))
                    if doubt.doubts(form, damage):
                        one.form = None if hopeless(one, found[path]) else form
                    else:
                        doubt.note(path, form, damage)
                    found[path].append(one)
            bar.advance()
        for path in priced:
            doubt.learn(path, priced[path])
            bar.advance()
        for path, some in found.items():
            measure_hull(path, priced[path], some, doubt)
            bar.advance()
    return {path: settled(some, doubt, path) for path, some in found.items()}


def hopeless(one: Tried, some: Sequence[Tried]) -> bool:
    """Whether a candidate is not worth measuring: it costs too much, or several times more than a smaller one of its kind."""
    damage, size = one.candidate.damage, one.candidate.size_bytes
    return damage > HOPELESS or any(
        other.low_rank == one.low_rank
        and other.candidate.size_bytes <= size
        and BEATEN * other.candidate.damage <= damage
        for other in some
    )


def measure_hull(path: str, price: Price, some: Sequence[Tried], doubt: Doubt) -> None:
    """Measure what is doubted and on the lower hull, until all of the hull is believed or measured."""
    while doubt.factor is not None:
        on_hull = {one.way for one in hull(settled(some, doubt, path))}
        waiting = [one for one in some if one.form is not None and one.candidate.way in on_hull]
        if not waiting:
            break
        for one in waiting:
            assert one.form is not None
            one.found, one.form = doubt.measured(path, price, one.form), None


def settled(some: Sequence[Tried], doubt: Doubt, path: str) -> list[Candidate]:
    """Candidates of one weight with what is believed of each.

    What was doubted but not measured costs no less than what of its kind was measured and predicted to cost less: a
    quadratic form takes large changes for too little, and would make the worst ones look best.
    """
    told = [
        replace(one.candidate, damage=doubt.believed(path, one.candidate.damage, one.found, one.low_rank))
        for one in some
    ]
    made = []
    for one, now in zip(some, told, strict=True):
        if one.found is None and (one.low_rank or one.candidate.damage > DOUBTED):
            known = [
                judged.damage
                for other, judged in zip(some, told, strict=True)
                if other.found is not None
                and other.low_rank == one.low_rank
                and other.candidate.damage < one.candidate.damage
            ]
            now = replace(now, damage=max([now.damage, *known]))
        made.append(now)
    return made


def products_of(view: View) -> tuple[dict[str, float], float]:
    """The multiply-adds that each weight takes for a sample, by its path, where they are known, and all that are known.

    A layer's are shared among its weights by their entries; a weight that the layer around its own uses is that one's.
    """
    rows = {row.path: row.multiply_adds for row in profile(view.network, view.example).rows}
    held: dict[str, dict[str, int]] = {}
    for weight in parameter_places(view.network):
        path = weight.layer_path
        while path and not rows.get(path):
            path = path.rpartition(".")[0]
        if len(weight.shape) > 1:
            held.setdefault(path, {})[weight.path] = weight.shape.numel()
    found = {
        path: cost * count / sum(counts.values())
        for layer, counts in held.items()
        if (cost := rows.get(layer)) is not None
        for path, count in counts.items()
    }
    return found, sum(cost for cost in rows.values() if cost is not None)


def share_of_products(before: Form, form: Form) -> float:
    """Of the multiply-adds of a layer what a form of its weight takes of those that the form before it takes."""
    entries = [sum(size for size, _ in kernels(one, one.shape, ())) for one in (before, form)]
    return entries[1] / max(entries[0], 1.0)


def record_bytes(form: Form) -> int:
    """About what a form costs in the file, mostly within a few percent.

    The best coder is slow for many numbers: of those it codes evenly spread rows, and what it gains on them over a fast one
    is taken to be gained on all.
    """
    held = list(form.state_dict().values())
    numbers = sum(value.numel() for value in held)
    rows, few = form.shape[0], form.shape[0] * SAMPLED // max(1, form.shape.numel())
    if not LARGE < numbers <= MIX_LIMIT or few < FEWEST_ROWS:
        return body_bytes(form, QUICK)
    some = form.narrow(0, torch.arange(few, device=held[0].device) * rows // few)
    return round(body_bytes(form, FAST) * body_bytes(some, QUICK) / body_bytes(some, FAST))


def body_bytes(form: Form, codec: str) -> int:
    """Bytes of a form's record by one coder."""
    return 1 + len(record_body(encode_value(form, codec)))


def undominated(some: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those than which none is both smaller and less harmful, by rising damage."""
    kept: list[Candidate] = []
    for one in sorted(some, key=lambda one: (one.damage, one.size_bytes)):
        if not kept or one.size_bytes < kept[-1].size_bytes:
            kept.append(one)
    return tuple(kept)


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The lower convex hull of damage over bytes, from the largest candidate to the smallest one."""
    points: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (-one.size_bytes, one.damage)):
        if points and one.size_bytes == points[-1].size_bytes:
            continue
        while len(points) > 1 and price(points[-2], points[-1]) >= price(points[-2], one):
            points.pop()
        points.append(one)
    # Before the least harmful one, nothing is gained by bytes.
    least = min(range(len(points)), key=lambda number: (points[number].damage, points[number].size_bytes))
    return points[least:]


def price(larger: Candidate, smaller: Candidate) -> float:
    """Nats that a byte saved costs, on the way from one candidate to a smaller one."""
    return (smaller.damage - larger.damage) / (larger.size_bytes - smaller.size_bytes)
