"""Score table: several networks on the same samples, each compared with one of them."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cortado.errors import BadFile, BadNetwork, BadTask, BadValue
from cortado.network.profile.profile import profile
from cortado.quantities import size_text
from cortado.report.pages.words import MINUS, NOTHING, UNKNOWN, interval, points, quantity, signed_text
from cortado.report.record import Compared
from cortado.report.report import half_interval, paired_interval
from cortado.running.brought import accept
from cortado.running.devices import own_device
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import to_device
from cortado.table import aligned
from cortado.task.data import Data
from cortado.task.measure import run, scores
from cortado.task.outputs.outputs import first_floats_of
from cortado.task.task import Task


@dataclass(frozen=True)
class ScoreRow:
    """A network: its score with the ends of the 95 % interval (None: too few samples), and its difference from the base.

    `size_bytes` are those of parameters and buffers in their forms, `file_bytes` those of its file, None without one.
    """

    name: str
    score: float
    low: float | None
    high: float | None
    change: Compared | None
    parameters: int
    size_bytes: float
    file_bytes: int | None = None


@dataclass(frozen=True)
class ScoreTable:
    """The rows, in the order of the networks; `base` is the name of the network that the others are compared with."""

    rows: tuple[ScoreRow, ...]
    base: str
    metric_name: str
    metric_unit: str
    samples: int

    def row(self, name: str) -> ScoreRow:
        """Return the row of a network.  Raises BadValue without one."""
        for row in self.rows:
            if row.name == name:
                return row
        raise BadValue(f"compare: there is no row {name!r}. There are: {', '.join(row.name for row in self.rows)}.")

    def text(self) -> str:
        """Return the table as text."""
        filed = any(row.file_bytes is not None for row in self.rows)
        heads = ["", self.metric_name, "95 % interval", f"minus {self.base}", "95 % interval", "parameters", "bytes"]
        rows = [tuple(heads + ["file"] * filed), *(self.cells(row, filed) for row in self.rows)]
        unit = f" in {points(self.metric_unit)}" if self.metric_unit else ""
        return f"{aligned(rows)}\n\nDifferences{unit}, on the same {self.samples:,} samples."

    def cells(self, row: ScoreRow, filed: bool) -> tuple[str, ...]:
        """Return a row as text."""
        own = UNKNOWN if row.low is None else f"{row.low:.2f} to {row.high:.2f}".replace("-", MINUS)
        change = (NOTHING, NOTHING)
        if row.change is not None:
            change = signed_text(row.change.difference), interval(row.change).removeprefix("95 % interval ")
        size = () if not filed else (NOTHING if row.file_bytes is None else size_text(row.file_bytes),)
        score = quantity(row.score, self.metric_unit)
        return (row.name, score, own, *change, f"{row.parameters:,}", size_text(row.size_bytes), *size)

    __str__ = text


def compare_networks(
    networks: Mapping[str, nn.Module],
    task: Task,
    base: str | None = None,
    *,
    data: Data | None = None,
    files: Mapping[str, str | Path] | None = None,
) -> ScoreTable:
    """Return the scores of several networks on the task's test data, or on `data`, with 95 % intervals.

    >>> text = cortado.compare({"original": net, "compressed": small}, task).text()

    The interval of a difference from `base` (a name, by default the first) is that of the paired differences, sample by
    sample, which is much narrower than two intervals side by side. `files` adds the bytes of networks' files. Raises
    BadValue for anything but networks by name and for an unknown name, BadNetwork and BadTask as scoring does and for networks
    with other numbers of classes, BadFile for a missing file.
    """
    if not isinstance(networks, Mapping):
        raise BadValue(
            f"compare: networks must be a dict of names and networks, got {type(networks).__name__}. "
            'Write compare({"original": net, "compressed": small}, task).'
        )
    base, files = base or next(iter(networks), ""), files or {}
    for name in (base, *files):
        if name not in networks:
            raise BadValue(f"compare: there is no network {name!r}. Given: {', '.join(networks) or 'none'}.")
    samples = task.test if data is None else data
    found: dict[str, Tensor] = {}
    for name, network in networks.items():
        check_comparable(name, network, base, networks[base], samples)
        found[name] = scores_of(f"compare, {name}", network, samples, task)
    rows = [
        score_row(name, networks[name], found[name], None if name == base else found[base], task, files.get(name))
        for name in networks
    ]
    return ScoreTable(tuple(rows), base, task.metric.name, task.metric.unit, len(found[base]))


def check_comparable(name: str, network: Any, base: str, other: Any, samples: Data) -> None:
    """Raise BadNetwork for a file in the place of a network, and for one with other classes than the base has."""
    if isinstance(network, (str, Path)):
        raise BadNetwork(
            f"compare, {name}: {network} is a path, not a network. Read it with cortado.load(file, original), and give the path "
            "in files, whose bytes are then listed."
        )
    accept(network, f"compare, {name}")
    if name == base or not isinstance(other, nn.Module):
        return
    inputs, _ = next(samples.batches(2))
    mine, wanted = (outputs_of(one, inputs).shape[1:2] for one in (network, other))
    if mine != wanted:
        raise BadNetwork(
            f"compare, {name}: it gives {' x '.join(map(str, mine)) or 'single'} outputs for a sample, and {base} gives "
            f"{' x '.join(map(str, wanted)) or 'single'}. Compare networks for the same classes."
        )


def outputs_of(network: nn.Module, inputs: Any) -> Tensor:
    """Return the first float tensor of a network's outputs, in eval mode."""
    with eval_mode(network):
        return first_floats_of(run(network, to_device(inputs, own_device(network))))


def scores_of(where: str, network: nn.Module, samples: Data, task: Task) -> Tensor:
    """Return a network's scores, one per sample (N,); errors begin with `where`."""
    try:
        return scores(network, samples, task.metric)
    except (BadNetwork, BadTask) as error:
        raise type(error)(f"{where}: {error}") from error


def score_row(name: str, network: nn.Module, found: Tensor, base: Tensor | None, task: Task, file: Any) -> ScoreRow:
    """Return the row of a network from its scores, one per sample, and the base's."""
    scale, values = task.metric.scale, found.double() * task.metric.scale
    half, middle = half_interval(values), float(values.mean())
    low, high = (None, None) if half is None else (middle - half, middle + half)
    costs = profile(network, task.example)
    return ScoreRow(
        name, middle, low, high, None if base is None else paired_interval(base, found, scale),
        int(costs.total("parameters").value), costs.total("size_bytes").value, None if file is None else bytes_at(file),
    )  # fmt: skip


def bytes_at(file: str | Path) -> int:
    """Return the size of a file.  Raises BadFile if it cannot be read, or is a folder."""
    if Path(file).is_dir():
        raise BadFile(f"compare: {file} is a folder. Give the file of the network in it.")
    try:
        return Path(file).stat().st_size
    except OSError as error:
        raise BadFile(f"compare: {file} cannot be read ({error.strerror}). Check the path.") from error
