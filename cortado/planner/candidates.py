"""Candidates: for each weight the ways to hold it, each with its bytes in the file and its predicted damage.

A way is a short recipe ("prune/weights keep=0.3 | share/kmeans bits=4"). It is applied to all weights of a copy at once and
read off weight by weight, so that nothing here knows a method.
"""

import contextlib
import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b

from torch import nn

from cortado.errors import NothingChanged
from cortado.file.accounting import layer_rows
from cortado.file.artifact import encode, encode_value, record_body
from cortado.file.plane import QUICK
from cortado.fingerprints import sum_of_data
from cortado.forms.form import Form
from cortado.forms.hold import form_of
from cortado.network.divergence import nats_for
from cortado.network.view import View, Weight, parameter_places
from cortado.planner.currency import Price, prices
from cortado.planner.doubt import BEATEN, DOUBTED, HOPELESS, Doubt
from cortado.recipe import read
from cortado.task import Task

CODES = ("share/kmeans bits=3", "quantize/weights bits=4 symmetric=false")
"""How the factors of low rank are held."""
WAYS = (
    *(f"quantize/weights bits={bits}" for bits in (8, 7, 6, 5, 4, 3)),
    *(f"quantize/weights bits={bits} symmetric=false" for bits in (4, 3, 2)),
    *(f"quantize/weights bits={bits} per=tensor clip=range" for bits in (7, 6, 5, 4)),
    *(f"share/kmeans bits={bits} start=density" for bits in (5, 4, 3, 2, 1)),
    *(
        f"prune/weights keep={keep} | share/kmeans bits={bits}"
        for keep in (0.7, 0.5, 0.3, 0.2, 0.1)
        for bits in (4, 3, 2)
    ),
    *(f"factorize/svd rank={rank} | {codes}" for rank in (4, 8, 16, 32, 64, 128) for codes in CODES),
)
"""What is tried when nothing else is asked for: weights alone, nothing trained, each weight by itself."""


@dataclass(frozen=True)
class Candidate:
    """One way to hold one weight: bytes of its record in the file, and nats that it is predicted to cost."""

    way: str
    size_bytes: int
    damage: float


@dataclass(frozen=True)
class Choices:
    """All ways to hold one weight that no other one beats in both, smallest damage first."""

    path: str
    plain_bytes: int
    candidates: tuple[Candidate, ...]


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
    before = {row.path: row.size_bytes for row in layer_rows(view.network, view.plain)}
    return tuple(
        Choices(path, before[path], undominated([Candidate("", before[path], 0.0), *some]))
        for path, some in every_candidate(view, task, priced, ways).items()
    )


def every_candidate(
    view: View, task: Task, priced: dict[str, Price], ways: Sequence[str] = WAYS
) -> dict[str, list[Candidate]]:
    """Each weight in each way, whatever is beaten."""
    network, plain = view.network, view.plain
    values = {weight.path: weight.dense() for weight in parameter_places(network)}
    found: dict[str, list[tuple[Candidate, float | None]]] = {path: [] for path in priced}
    doubt = Doubt(network, task, nats_for(plain, task))
    with view.progress.bar("candidates", len(ways)) as bar:
        for way in ways:
            for weight in changed_by(network, plain, task, way):
                if weight.path in priced and weight.shape == values[weight.path].shape:
                    price, changed, form = priced[weight.path], weight.dense(), weight.form
                    damage = price.damage(values[weight.path], changed, form)
                    made, some = Candidate(way, record_bytes(form), damage), found[weight.path]
                    hopeless = damage > HOPELESS or any(
                        one.size_bytes <= made.size_bytes and BEATEN * one.damage <= damage
                        for one in (believed(*pair, doubt.factor) for pair in some)
                    )
                    doubted = None if hopeless else doubt.measured(weight.path, price, changed, form, damage)
                    some.append((made, doubted))
            bar.advance()
    return {path: settled(some, doubt.factor) for path, some in found.items()}


def settled(some: Sequence[tuple[Candidate, float | None]], factor: float | None) -> list[Candidate]:
    """Candidates of one weight with what is believed of each.

    What was doubted but not measured costs no less than what was measured and predicted to cost less: a quadratic form takes
    large changes for too little, and would make the worst ones look best.
    """
    told = [believed(one, measured, factor) for one, measured in some]
    known = [(one.damage, now.damage) for (one, measured), now in zip(some, told, strict=True) if measured is not None]
    made = []
    for (one, measured), now in zip(some, told, strict=True):
        least = max((found for predicted, found in known if predicted < one.damage), default=0.0)
        unsure = measured is None and one.damage > DOUBTED
        made.append(replace(now, damage=max(now.damage, least)) if unsure else now)
    return made


def believed(one: Candidate, measured: float | None, factor: float | None) -> Candidate:
    """The candidate with what was measured in the place of what was predicted, where that was doubted."""
    return one if measured is None or factor is None else replace(one, damage=measured * factor)


def record_bytes(form: Form) -> int:
    """About what a form costs in the file, rather a little more."""
    return 1 + len(record_body(encode_value(form, QUICK)))


def changed_by(network: nn.Module, plain: nn.Module, task: Task, way: str) -> list[Weight]:
    """The weights of a copy after the stages of a way, nothing matched or trained: those that every stage has changed."""
    made = copy.deepcopy(network)
    found, chosen = parameter_places(made), set[str]()
    for number, stage in enumerate(read(way).stages):
        before = {weight.path: form_of(*weight.places[0]) for weight in found}
        with contextlib.suppress(NothingChanged):
            stage.apply(View(made, plain, task.example), task)
        found = parameter_places(made)
        changed = {one.path for one in found if form_of(*one.places[0]) is not before.get(one.path)}
        chosen = changed if number == 0 else chosen & changed
    return [weight for weight in found if weight.path in chosen]


def undominated(some: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Those than which none is both smaller and less harmful, by rising damage."""
    kept: list[Candidate] = []
    for one in sorted(some, key=lambda one: (one.damage, one.size_bytes)):
        if not kept or one.size_bytes < kept[-1].size_bytes:
            kept.append(one)
    return tuple(kept)
