"""Candidates: the forms that each weight can take, with their bytes in the file and their predicted KL.

Uncertain predictions are measured if they are on the lower hull of predicted KL over bytes, where an allocation picks from.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from cortado.engine.fingerprints import identity, sum_of_data
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode
from cortado.file.record_bytes import record_bytes
from cortado.network.compare.divergence import divergence_for
from cortado.network.profile.profile import profile
from cortado.network.profile.pruned_cost import kernels
from cortado.network.view import View
from cortado.network.weight import Weight, parameter_places
from cortado.parts.forms.form import Form
from cortado.planner.sensitivity.candidate_recipes import CANDIDATE_RECIPES, carried_out
from cortado.planner.sensitivity.checks import (
    DOMINATED,
    LEAST_SAMPLES,
    MEASURED_ABOVE,
    NOT_WORTH_MEASURING,
    PredictionCheck,
    samples_for,
)
from cortado.planner.sensitivity.deadline import Deadline
from cortado.planner.sensitivity.remembering import RememberingTask
from cortado.planner.sensitivity.sensitivity import Sensitivity, sensitivities
from cortado.report.candidate import pareto_front
from cortado.task.task import Task


@dataclass(frozen=True)
class Candidate:
    """A recipe for one weight: bytes of its record in the file, predicted KL in nats, and the multiply-adds of its layer
    for a sample (None if unknown)."""

    way: str
    size_bytes: int
    predicted_kl: float
    multiply_adds: float | None = None


@dataclass
class MeasuredCandidate:
    """A candidate with its `form` while it waits for a measurement, then with the measured divergence `found`, in nats at
    the temperature."""

    candidate: Candidate
    low_rank: bool = False
    form: Form | None = None
    found: float | None = None


@dataclass(frozen=True)
class Choices:
    """The Pareto front of one weight's candidates in bytes and predicted KL, smallest KL first."""

    path: str
    original_bytes: int
    candidates: tuple[Candidate, ...]


CARRIED_OUT, MEASURED = 0.6, 0.75
"""Shares of the time limit after which no further recipe is applied, and no further change is measured."""
CHECK_SHARE = 0.02
"""Share of the time limit for one measurement, which sets its samples where the network is slow."""


def choice_key(view: View, weights: list[Weight], task: Task, candidate_recipes: Sequence[str]) -> str:
    """Return a hash of everything that the choices depend on: networks, data, seed, weights, recipes."""
    sums = blake2b(encode(view.network, view.network, "bits"), digest_size=16)
    for one in (view.base,) if view.base is view.original else (view.base, view.original):
        sums.update(encode(one, one, "bits"))
    sums.update(sum_of_data(task.calibration))
    sums.update(
        repr(
            (task.seed, identity(task.outputs), [weight.path for weight in weights], tuple(candidate_recipes))
        ).encode()
    )
    return sums.hexdigest()


def choices_for(
    view: View,
    weights: list[Weight],
    task: Task,
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> tuple[Choices, ...]:
    """Return the choices for some weights of a view's network, from the task's cache if it has one."""
    key = choice_key(view, weights, task, candidate_recipes) if isinstance(task, RememberingTask) else ""
    if isinstance(task, RememberingTask) and key in task.kept:
        kept: tuple[Choices, ...] = task.kept[key]
        return kept
    found = candidates_of(
        view, task, sensitivities(view, weights, task, deadline=deadline), candidate_recipes, deadline
    )
    # A trial has to come out the same whenever it runs: it takes no choices that a clock has cut short.
    if isinstance(task, RememberingTask) and (deadline is None or not deadline.bound):
        task.keep(key, found)
    return found


def candidates_of(
    view: View,
    task: Task,
    rated: dict[str, Sensitivity],
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> tuple[Choices, ...]:
    """Return the choices for each weight with a sensitivity; keeping the weight's form is always one."""
    found = every_candidate(view, task, rated, candidate_recipes, deadline)
    return tuple(Choices(path, some[0].size_bytes, undominated(some)) for path, some in found.items())


def every_candidate(
    view: View,
    task: Task,
    rated: dict[str, Sensitivity],
    candidate_recipes: Sequence[str] = CANDIDATE_RECIPES,
    deadline: Deadline | None = None,
) -> dict[str, list[Candidate]]:
    """Return all candidates of each weight; after the first recipe, stop at the deadline.

    Holds the forms that wait for a measurement, a few copies of the network and the cache of `Replay` in memory.
    """
    deadline = deadline or Deadline()
    network, base = view.network, view.base
    before = {row.path: row.size_bytes for row in layer_rows(network, base)}
    weights = {weight.path: weight for weight in parameter_places(network) if weight.path in rated}
    whole, total = matmuls_a_sample(view)
    samples = deadline.samples(samples_for(total), CHECK_SHARE, LEAST_SAMPLES)
    check = PredictionCheck(network, task, divergence_for(view.original, task), samples)
    found = {path: [MeasuredCandidate(Candidate("", before[path], 0.0, whole.get(path)))] for path in rated}
    with view.progress.bar("candidates", len(candidate_recipes) + 2 * len(rated)) as bar:
        for number, (way, changed) in enumerate(carried_out(network, base, task, candidate_recipes), 1):
            for weight in changed:
                unchanged, path = weights.get(weight.path), weight.path
                if unchanged is not None and weight.shape == unchanged.shape:
                    one = predicted_candidate(way, weight, unchanged, rated[path], whole.get(path))
                    if check.needs_measurement(weight.form, one.candidate.predicted_kl):
                        one.form = None if not_worth_measuring(one, found[path]) else weight.form
                    else:
                        check.note(path, weight.form, one.candidate.predicted_kl)
                    found[path].append(one)
            bar.advance()
            if deadline.over(CARRIED_OUT) and number < len(candidate_recipes):
                skipped = f"{len(candidate_recipes) - number} of {len(candidate_recipes)} candidate recipes"
                deadline.left_out.append(f"{skipped}, from {candidate_recipes[number]} on")
                break
        for path in rated:
            if not deadline.over(MEASURED):
                check.learn(path, rated[path])
            bar.advance()
        for path, some in found.items():
            measure_hull(path, rated[path], some, check, deadline)
            bar.advance()
    return {path: trusted_candidates(some, check, path) for path, some in found.items()}


def predicted_candidate(
    way: str, changed: Weight, weight: Weight, sensitivity: Sensitivity, multiply_adds: float | None
) -> MeasuredCandidate:
    """Return the candidate that a recipe made of a weight, with its predicted KL."""
    form = changed.form
    predicted_kl = sensitivity.predicted_kl(weight.dense(), changed.dense(), form)
    cost = None if multiply_adds is None else multiply_adds * share_of_matmuls(weight.form, form)
    return MeasuredCandidate(Candidate(way, record_bytes(form), predicted_kl, cost), form.factors() is not None)


def not_worth_measuring(one: MeasuredCandidate, some: Sequence[MeasuredCandidate]) -> bool:
    """Return whether a candidate's KL is too large, or far larger than that of a smaller candidate of its kind."""
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
    """Measure the uncertain candidates on the lower hull until all of the hull is trusted or measured, or time is up."""
    while check.factor is not None and not deadline.over(MEASURED):
        on_hull = {one.way for one in hull(trusted_candidates(some, check, path))}
        waiting = [one for one in some if one.form is not None and one.candidate.way in on_hull]
        if not waiting:
            break
        for one in waiting:
            if deadline.over(MEASURED):
                return
            assert one.form is not None
            one.found, one.form = check.measured(path, kl_per_byte, one.form), None


def trusted_candidates(some: Sequence[MeasuredCandidate], check: PredictionCheck, path: str) -> list[Candidate]:
    """Return the candidates of one weight with corrected KL.

    An uncertain candidate that was not measured costs at least as much as the measured ones of its kind with a smaller
    prediction: a quadratic form underestimates large changes, which would make the worst candidates look best.
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
    """Return the known multiply-adds of each weight for a sample, by path, and their total over the network.

    A layer's multiply-adds are split among its weights by entries; a weight used by the enclosing layer counts there.
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
    """Return the multiply-adds of a layer with a new form of its weight, as a share of those with the old form."""
    entries = [sum(size for size, _ in kernels(one, one.shape, ())) for one in (before, form)]
    return entries[1] / max(entries[0], 1.0)


def undominated(some: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Return the Pareto front of bytes and predicted KL, by rising KL."""
    return tuple(pareto_front(some, lambda one: one.predicted_kl, lambda one: one.size_bytes))


def hull(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the lower convex hull of predicted KL over bytes, from the largest to the smallest candidate."""
    points: list[Candidate] = []
    for one in sorted(candidates, key=lambda one: (-one.size_bytes, one.predicted_kl)):
        if points and one.size_bytes == points[-1].size_bytes:
            continue
        while len(points) > 1 and kl_per_byte(points[-2], points[-1]) >= kl_per_byte(points[-2], one):
            points.pop()
        points.append(one)
    # Candidates larger than the one with the smallest KL gain nothing.
    least = min(range(len(points)), key=lambda number: (points[number].predicted_kl, points[number].size_bytes))
    return points[least:]


def kl_per_byte(larger: Candidate, smaller: Candidate) -> float:
    """Return the nats per byte saved between a candidate and a smaller one."""
    return (smaller.predicted_kl - larger.predicted_kl) / (larger.size_bytes - smaller.size_bytes)
