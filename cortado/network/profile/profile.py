"""Profile: the size and cost of each layer of a network, as a table."""

from dataclasses import dataclass, replace
from math import prod
from typing import Any

from torch import nn

from cortado.errors import BadValue
from cortado.layers.kinds import kind_of
from cortado.layers.low_rank import low_rank_of
from cortado.network.graph.graph import Graph
from cortado.network.graph.operators.table import multiply_adds
from cortado.network.graph.record import Call, Operator
from cortado.network.graph.trace import trace
from cortado.network.profile.execution import Spread, inside_of, multiply_adds_of_samples, rows_run, spread_of
from cortado.network.profile.storage_count import StoredCount, TensorCounter
from cortado.network.statistics.activity import Activity, measure_activity
from cortado.parts.forms.attach import form_of
from cortado.parts.forms.form import Form
from cortado.parts.forms.low_rank import run_cost
from cortado.parts.part import own_modules
from cortado.running.brought import accept
from cortado.table import aligned


@dataclass(frozen=True)
class Row:
    """One layer.  Costs are per sample; None means unknown, never 0.

    `weights` are the parameters with two or more axes; shared parameters count in the first layer that has them.
    `multiply_adds` come from the operators that really ran, summed over `calls`; `decode_multiply_adds` are those
    that compute dense weights from forms, once per call of the network for any batch size. A layer with a low-rank
    weight costs as much as its factors in sequence, which is how layers/factors.py runs it.
    `remaining_multiply_adds` = multiply_adds x share of nonzero weights x share of nonzero inputs (Han et al., 2015).
    `executed` is the measured share of samples (or of their rows) that run a layer which only some need, None elsewhere;
    all costs are those of a sample that runs it. `activations` is the number of elements of the first output.
    `size_bytes` is the size of parameters and buffers in their forms.
    """

    path: str
    kind: str
    calls: int
    parameters: int
    weights: int
    nonzero_weights: int | None
    multiply_adds: float | None
    remaining_multiply_adds: float | None
    decode_multiply_adds: float | None
    activations: float
    size_bytes: float
    nonzero_inputs: float | None = None
    nonzero_outputs: float | None = None
    executed: float | None = None
    unknown_operators: tuple[str, ...] = ()


@dataclass(frozen=True)
class Total:
    """A sum over rows. When some row is unknown it is not `exact`: the true sum is at least `value`."""

    value: float
    exact: bool

    def text(self) -> str:
        """Return the sum as text, preceded by "at least" when it is not exact."""
        if not self.exact and not self.value:
            return "unknown"
        return f"{self.value:,.0f}" if self.exact else f"at least {self.value:,.0f}"


SUMMED = (
    "parameters",
    "weights",
    "nonzero_weights",
    "multiply_adds",
    "remaining_multiply_adds",
    "decode_multiply_adds",
    "activations",
    "size_bytes",
)


DECODE = "decode_multiply_adds"
FREE = Total(0, True)


@dataclass(frozen=True)
class Profile:
    """The rows of a network in the order its layers first ran, and their sums.

    `spread` says what samples need where paths depend on them; None if all need the same, or without data.
    """

    rows: tuple[Row, ...]
    spread: Spread | None = None

    def total(self, column: str) -> Total:
        """Return the sum of a column.  Raises BadValue when there is no such column to sum."""
        if column not in SUMMED:
            raise BadValue(f"profile: there is no total of {column!r}. There are: {', '.join(SUMMED)}.")
        values = [getattr(row, column) for row in self.rows]
        return Total(sum(value for value in values if value is not None), None not in values)

    def expected_multiply_adds(self) -> Total:
        """Return the multiply-adds of an average sample: each row's, times the share of samples that run it."""
        costs = [(row.multiply_adds, 1.0 if row.executed is None else row.executed) for row in self.rows]
        known = [cost * share for cost, share in costs if cost is not None]
        return Total(sum(known), len(known) == len(costs))

    def row(self, path: str) -> Row:
        """Return the row of the layer at `path`.  Raises BadValue when there is none."""
        for row in self.rows:
            if row.path == path:
                return row
        raise BadValue(f"profile: there is no row {path!r}. There are: {', '.join(row.path for row in self.rows)}.")

    def text(self) -> str:
        """Return the table in plain text, without columns in which nothing was measured."""
        lines = [HEADINGS, *(cells(row) for row in self.rows), self.total_cells()]
        used = [at for at in range(len(HEADINGS)) if any(line[at] for line in lines[1:])]
        shown = aligned([[line[at] for at in used] for line in lines], "<<>", rules=(1, -1))
        unknown = sorted({name for row in self.rows for name in row.unknown_operators})
        notes = [f"unknown cost: {', '.join(unknown)}"] if unknown else []
        if any(row.executed is not None for row in self.rows):
            notes.append(f"multiply-adds of an average sample: {self.expected_multiply_adds().text()}")
        if self.spread is not None:
            one = self.spread
            notes.append(
                f"of single samples: half need at most {one.p50:,.0f}, 99 % at most {one.p99:,.0f}, the most {one.most:,.0f}; "
                f"all paths together {self.total('multiply_adds').text()}"
            )
        return "\n".join([shown, *notes])

    def total_cells(self) -> tuple[str, ...]:
        """Return the last line of the table."""
        sums = {column: self.total(column) for column in SUMMED}
        texts = ["" if column == DECODE and total == FREE else total.text() for column, total in sums.items()]
        return ("total", "", *texts, "", "", "")


HEADINGS = (
    "layer",
    "kind",
    "parameters",
    "weights",
    "nonzero",
    "multiply-adds",
    "remaining",
    "decode",
    "activations",
    "bytes",
    "nonzero in",
    "nonzero out",
    "runs for",
)


def cells(row: Row) -> tuple[str, ...]:
    """Return a row as text."""
    sums = [count_or_unknown(getattr(row, column)) for column in SUMMED]
    sums[SUMMED.index(DECODE)] = count_or_unknown(row.decode_multiply_adds) if row.decode_multiply_adds != 0 else ""
    shares = [
        "" if value is None else f"{value:.0%}" for value in (row.nonzero_inputs, row.nonzero_outputs, row.executed)
    ]
    return (row.path or "(network)", row.kind, *sums, *shares)


def count_or_unknown(value: float | None) -> str:
    """Return a count with thousands separators, or "unknown"."""
    return "unknown" if value is None else f"{value:,.0f}"


def profile(network: nn.Module, example: Any, data: Any = None, batch: int | None = None) -> Profile:
    """Return the size and cost per sample of each layer of `network`.

    >>> weights = cortado.profile(net, task.example).total("weights")

    `example` (tensor, tuple or dict of inputs) is run once, and its costs are divided by the number of its samples
    (`batch`, by default the first axis of the first tensor). Elementwise operators, norms, pooling and data movement
    cost no multiply-adds; an unknown operator makes its row unknown. The meta device suffices for counts other than
    nonzeros. `data` (inputs, samples first) adds the shares of nonzero activations, which `remaining_cost` then
    includes, and the shares of samples that run what only some need; the network's own input counts as dense. A layer is
    listed if it has a size, a cost or an unknown cost; one that never ran costs 0.
    """
    accept(network, "profile")
    traced = trace(network, example, batch)
    activities = {} if data is None else measure_activity(network, data)
    executed = {} if data is None else inside_of(traced, rows_run(network, [data]))
    counter, costs = TensorCounter(), dict[int, float]()
    rows = []
    for path, layer, owned in layers_in_order(network, traced):
        calls = tuple(call for call in traced.calls if call.layer is layer)
        row = profile_row(path, layer, calls, counter.take(owned), traced.batch, activities.get(path))
        costs[id(layer)] = row.multiply_adds or 0.0
        row = replace(row, executed=float(executed[id(layer)].mean()) if id(layer) in executed else None)
        if row.parameters or row.size_bytes or row.multiply_adds != 0 or row.decode_multiply_adds != 0:
            rows.append(row)
    return Profile(tuple(rows), spread_of(multiply_adds_of_samples(costs, executed)) if executed else None)


def layers_in_order(network: nn.Module, traced: Graph) -> list[tuple[str, nn.Module, list[nn.Module]]]:
    """Return path, layer and the modules whose tensors it has, first those that ran, then those that never ran.

    A module that never ran itself belongs to the layer of known kind around it: attention uses the weight of its
    output projection without calling it.
    """
    ran: dict[int, Call] = {}
    for call in traced.calls:
        ran.setdefault(id(call.layer), call)
    idle = {path: part for path, part in own_modules(network).items() if id(part) not in ran}
    owned: dict[int, list[nn.Module]] = {key: [call.layer] for key, call in ran.items()}
    for call in ran.values():
        if kind_of(call.layer) is not None:
            inner = [path for path in idle if path.startswith(f"{call.path}.") or not call.path]
            owned[id(call.layer)] += [idle.pop(path) for path in inner]
    called = [(call.path, call.layer, owned[key]) for key, call in ran.items()]
    return called + [(path, part, [part]) for path, part in idle.items()]


def profile_row(
    path: str, layer: nn.Module, calls: tuple[Call, ...], stored: StoredCount, batch: int, activity: Activity | None
) -> Row:
    """Return the row of one layer from its calls, its stored tensors, and its measured activations."""
    operators = [operator for call in calls for operator in call.operators]
    running = [operator for operator in operators if not operator.decoding]
    form = form_of(layer, "weight") if low_rank_of(layer) is not None else None
    cost = per_sample(cost_of_calls(running) if form is None else cost_of_factors(form, calls), batch)
    return Row(
        path=path,
        kind=type(layer).__name__,
        calls=len(calls),
        parameters=stored.parameters,
        weights=stored.weights,
        nonzero_weights=stored.nonzero_weights,
        multiply_adds=cost,
        remaining_multiply_adds=remaining_cost(layer, cost, stored.nonzero_share, activity),
        decode_multiply_adds=cost_of_calls([o for o in operators if o.decoding]) if form is None else 0,
        activations=per_sample(sum(prod(call.outputs[0]) for call in calls if call.outputs), batch) or 0,
        size_bytes=stored.size_bytes,
        nonzero_inputs=activity.inputs if activity else None,
        nonzero_outputs=activity.outputs if activity else None,
        unknown_operators=tuple(sorted({operator.name for operator in operators if multiply_adds(operator) is None})),
    )


def cost_of_calls(operators: list[Operator]) -> int | None:
    """Return the multiply-adds of some operators; None when one of them is unknown."""
    costs = [multiply_adds(operator) for operator in operators]
    known = [cost for cost in costs if cost is not None]
    return sum(known) if len(known) == len(costs) else None


def cost_of_factors(form: Form, calls: tuple[Call, ...]) -> int:
    """Return the multiply-adds of all calls of a layer, run as the factors of its weight."""
    total, axes = 0, len(form.shape) - 2
    for call in calls:
        if not axes:
            total += prod(call.inputs[0][:-1]) * run_cost(form, (), ())
        else:
            samples = prod(call.inputs[0][: -axes - 1])
            total += samples * run_cost(form, call.inputs[0][-axes:], call.outputs[0][-axes:])
    return total


def per_sample(total: int | None, batch: int) -> float | None:
    """Return `total` divided by the batch, as an integer where possible."""
    if total is None:
        return None
    return total // batch if total % batch == 0 else total / batch


def remaining_cost(
    layer: nn.Module, cost: float | None, nonzero_share: float | None, activity: Activity | None
) -> float | None:
    """Return the multiply-adds in which neither the weight nor the input is 0.

    In a linear layer or convolution every weight is used equally often. A recurrent layer's state counts as dense.
    For any other layer with zero weights the result is unknown, since weights may be used unequally often.
    """
    if cost is None or cost == 0:
        return cost
    kind = kind_of(layer)
    family = None if kind is None else kind.family
    if nonzero_share == 1.0 and family not in ("linear", "conv"):
        return cost
    if nonzero_share is None or family not in ("linear", "conv", "recurrent"):
        return None
    read = activity.inputs if activity is not None and family != "recurrent" else None
    return cost * nonzero_share * (1.0 if read is None else read)
