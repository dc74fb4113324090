"""Candidates: for each weight the ways to hold it, each with its bytes in the file and its predicted predicted KL.

All are predicted; what is doubted is measured as far as it lies on the lower hull of predicted KL over bytes, which is where an
allocation takes from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from hashlib import blake2b

import torch

from cortado.engine.fingerprints import sum_of_data
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode, encode_value, record_body
from cortado.file.plane import MIX_LIMIT, QUICK
from cortado.network.compare.divergence import divergence_for
from cortado.network.profile.profile import profile
from cortado.network.profile.pruned_cost import kernels
from cortado.network.view import View, Weight, parameter_places
from cortado.parts.forms.form import Form
from cortado.parts.forms.low_rank import LowRank
from cortado.planner.search.candidate_recipes import CANDIDATE_RECIPES, carried_out
from cortado.planner.search.deadline import Deadline
from cortado.planner.sensitivity.checks import (
    DOMINATED,
    MEASURED_ABOVE,
    NOT_WORTH_MEASURING,
    PredictionCheck,
    samples_for,
)
from cortado.planner.sensitivity.sensitivity import Sensitivity, sensitivities
from cortado.report.candidate import pareto_front
from cortado.task.task import Task


@dataclass(frozen=True)
class Candidate:
    """One way to hold one weight: bytes of its record in the file, nats that it is predicted to cost, and the multiply-adds
    that its layer takes for a sample with it; None where they are not known."""

    way: str
    size_bytes: int
    predicted_kl: float
    multiply_adds: float | None = None


@dataclass
class MeasuredCandidate:
    """A candidate as it is being judged; with its `form` as long as it is doubted and may be measured, then with what was
    `found`, in nats at the temperature."""

    candidate: Candidate
    low_rank: bool = False
    form: Form | None = None
    found: float | None = None


@dataclass(frozen=True)
class Choices:
    """All ways to hold one weight that no other one beats in both, smallest predicted KL first."""

    path: str
    original_bytes: int
    candidates: tuple[Candidate, ...]


FAST, LARGE, SAMPLED, FEWEST_ROWS = "rans", 1 << 18, 1 << 16, 16
"""Forms of more numbers than LARGE are coded fast; and of so many entries of them, in rows, the best coder's gain is told."""
MOST_KEPT = 4
"""Networks whose choices a search keeps."""
CARRIED_OUT, MEASURED = 0.6, 0.75
"""Shares of the time of a forecast after which no way more is carried out, and no change of one weight more is measured."""


@dataclass(frozen=True)
class RememberingTask(Task):
    """The task of one search, which keeps the choices for the last few networks as long as the search lasts: each trial that
    begins with the original network asks for the same."""

    choices: dict[str, tuple[Choices, ...]] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, task: Task) -> "RememberingTask":
        """Return the same task with nothing kept."""
        return cls(**{one.name: getattr(task, one.name) for one in fields(Task)})

    def keep(self, key: str, found: tuple[Choices, ...]) -> None:
        """Keep what was found, and let the oldest go."""
        self.choices[key] = found
        while len(self.choices) > MOST_KEPT:
            del self.choices[next(iter(self.choices))]


def choice_key(view: View, weights: list[Weight], task: Task, candidate_recipes: Sequence[str]) -> str:
    """Return what stands for a network with its values, and for what its choices depend on besides."""
    sums = blake2b(encode(view.network, view.network, "bits"), digest_size=16)
    sums.update(encode(view.original, view.original, "bits"))
    sums.update(sum_of_data(task.calibration))
    sums.update(repr((task.seed, task.answers, [weight.path for weight in weights], tuple(candidate_recipes))).encode())
    return sums.hexdigest()


def choices_for(
    view: View,
    weights: list[Weight],
    task: Task,
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> tuple[Choices, ...]:
    """Return the choices for some weights of a view's network, from what the task has kept where it keeps some."""
    key = choice_key(view, weights, task, candidate_recipes) if isinstance(task, RememberingTask) else ""
    if isinstance(task, RememberingTask) and key in task.choices:
        return task.choices[key]
    found = candidates_of(
        view, task, sensitivities(view, weights, task, deadline=deadline), candidate_recipes, deadline
    )
    if isinstance(task, RememberingTask):
        task.keep(key, found)
    return found


def candidates_of(
    view: View,
    task: Task,
    rated: dict[str, Sensitivity],
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> tuple[Choices, ...]:
    """Return the choices for each priced weight of a view's network; staying as it is is always one."""
    found = every_candidate(view, task, rated, candidate_recipes, deadline)
    return tuple(Choices(path, some[0].size_bytes, undominated(some)) for path, some in found.items())


def every_candidate(
    view: View,
    task: Task,
    rated: dict[str, Sensitivity],
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> dict[str, list[Candidate]]:
    """Return each weight as it is and in each way, whatever is beaten; the first way in any case, the others before a deadline.

    In memory for the forms of what is doubted, beside a few copies of the network and what `Replay` remembers.
    """
    deadline = deadline or Deadline()
    network, original = view.network, view.original
    before = {row.path: row.size_bytes for row in layer_rows(network, original)}
    weights = {weight.path: weight for weight in parameter_places(network) if weight.path in rated}
    whole, total = matmuls_a_sample(view)
    check = PredictionCheck(network, task, divergence_for(original, task), samples_for(total))
    found = {path: [MeasuredCandidate(Candidate("", before[path], 0.0, whole.get(path)))] for path in rated}
    with view.progress.bar("candidates", len(candidate_recipes) + 2 * len(rated)) as bar:
        for number, (way, changed) in enumerate(carried_out(network, original, task, candidate_recipes), 1):
            for weight in changed:
                path, form = weight.path, weight.form
                if path in rated and weight.shape == weights[path].shape:
                    predicted_kl = rated[path].predicted_kl(weights[path].dense(), weight.dense(), form)
                    cost = whole.get(path)
                    cost = None if cost is None else cost * share_of_matmuls(weights[path].form, form)
                    one = MeasuredCandidate(
                        Candidate(way, record_bytes(form), predicted_kl, cost), isinstance(form, LowRank)
                    )
                    if check.needs_measurement(form, predicted_kl):
                        one.form = None if not_worth_measuring(one, found[path]) else form
                    else:
                        check.note(path, form, predicted_kl)
                    found[path].append(one)
            bar.advance()
            if deadline.over(CARRIED_OUT) and number < len(candidate_recipes):
                deadline.left_out.append(
                    f"{len(candidate_recipes) - number} of {len(candidate_recipes)} ways to hold a weight, from {candidate_recipes[number]} on"
                )
                break
        for path in rated:
            if not deadline.over(MEASURED):
                check.learn(path, rated[path])
            bar.advance()
        for path, some in found.items():
            measure_hull(path, rated[path], some, check, deadline)
            bar.advance()
    return {path: trusted_candidates(some, check, path) for path, some in found.items()}


def not_worth_measuring(one: MeasuredCandidate, some: Sequence[MeasuredCandidate]) -> bool:
    """Whether a candidate is not worth measuring: it costs too much, or several times more than a smaller one of its kind."""
    predicted_kl, size = one.candidate.predicted_kl, one.candidate.size_bytes
    return predicted_kl > NOT_WORTH_MEASURING or any(
        other.low_rank == one.low_rank
        and other.candidate.size_bytes <= size
        and DOMINATED * other.candidate.predicted_kl <= predicted_kl
        for other in some
    )


def measure_hull(
    path: str, kl_per_byte: Sensitivity, some: Sequence[MeasuredCandidate], check: PredictionCheck, deadline: Deadline
) -> None:
    """Measure what is doubted and on the lower hull, until all of the hull is believed or measured, or time is up."""
    while check.factor is not None and not deadline.over(MEASURED):
        on_hull = {one.way for one in hull(trusted_candidates(some, check, path))}
        waiting = [one for one in some if one.form is not None and one.candidate.way in on_hull]
        if not waiting:
            break
        for one in waiting:
            assert one.form is not None
            one.found, one.form = check.measured(path, kl_per_byte, one.form), None


def trusted_candidates(some: Sequence[MeasuredCandidate], check: PredictionCheck, path: str) -> list[Candidate]:
    """Candidates of one weight with what is believed of each.

    What was doubted but not measured costs no less than what of its kind was measured and predicted to cost less: a
    quadratic form takes large changes for too little, and would make the worst ones look best.
    """
    reported = [
        replace(
            one.candidate,
            predicted_kl=check.corrected_prediction(path, one.candidate.predicted_kl, one.found, one.low_rank),
        )
        for one in some
    ]
    made = []
    for one, now in zip(some, reported, strict=True):
        if one.found is None and (one.low_rank or one.candidate.predicted_kl > MEASURED_ABOVE):
            known = [
                judged.predicted_kl
                for other, judged in zip(some, reported, strict=True)
                if other.found is not None
                and other.low_rank == one.low_rank
                and other.candidate.predicted_kl < one.candidate.predicted_kl
            ]
            now = replace(now, predicted_kl=max([now.predicted_kl, *known]))
        made.append(now)
    return made


def matmuls_a_sample(view: View) -> tuple[dict[str, float], float]:
    """The multiply-adds that each weight takes for a sample, by its path, where they are known, and all that are known.

    A layer's are shared among its weights by their entries; a weight that the layer around its own uses is that one's.
    """
    rows = {row.path: row.multiply_adds for row in profile(view.network, view.example).rows}
    attached: dict[str, dict[str, int]] = {}
    for weight in parameter_places(view.network):
        path = weight.layer_path
        while path and not rows.get(path):
            path = path.rpartition(".")[0]
        if len(weight.shape) > 1:
            attached.setdefault(path, {})[weight.path] = weight.shape.numel()
    found = {
        path: cost * count / sum(counts.values())
        for layer, counts in attached.items()
        if (cost := rows.get(layer)) is not None
        for path, count in counts.items()
    }
    return found, sum(cost for cost in rows.values() if cost is not None)


def share_of_matmuls(before: Form, form: Form) -> float:
    """Of the multiply-adds of a layer what a form of its weight takes of those that the form before it takes."""
    entries = [sum(size for size, _ in kernels(one, one.shape, ())) for one in (before, form)]
    return entries[1] / max(entries[0], 1.0)


def record_bytes(form: Form) -> int:
    """About what a form costs in the file, mostly within a few percent.

    The best coder is slow for many numbers: of those it codes evenly spread rows, and what it gains on them over a fast one
    is taken to be gained on all.
    """
    attached = list(form.state_dict().values())
    numbers = sum(value.numel() for value in attached)
    rows, few = form.shape[0], form.shape[0] * SAMPLED // max(1, form.shape.numel())
    if not LARGE < numbers <= MIX_LIMIT or few < FEWEST_ROWS:
        return body_bytes(form, QUICK)
    some = form.narrow(0, torch.arange(few, device=attached[0].device) * rows // few)
    return round(body_bytes(form, FAST) * body_bytes(some, QUICK) / body_bytes(some, FAST))


def body_bytes(form: Form, codec: str) -> int:
    """Bytes of a form's record by one coder."""
    return 1 + len(record_body(encode_value(form, codec)))


def undominated(some: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return those than which none is both smaller and less harmful, by rising predicted KL."""
    return tuple(pareto_front(some, lambda one: one.predicted_kl, lambda one: one.size_bytes))


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """The lower convex hull of predicted KL over bytes, from the largest candidate to the smallest one."""
    points: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (-one.size_bytes, one.predicted_kl)):
        if points and one.size_bytes == points[-1].size_bytes:
            continue
        while len(points) > 1 and kl_per_byte(points[-2], points[-1]) >= kl_per_byte(points[-2], one):
            points.pop()
        points.append(one)
    # Before the least harmful one, nothing is gained by bytes.
    least = min(range(len(points)), key=lambda number: (points[number].predicted_kl, points[number].size_bytes))
    return points[least:]


def kl_per_byte(larger: Candidate, smaller: Candidate) -> float:
    """Nats that a byte saved costs, on the way from one candidate to a smaller one."""
    return (smaller.predicted_kl - larger.predicted_kl) / (larger.size_bytes - smaller.size_bytes)
