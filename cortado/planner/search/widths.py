"""Widths: cut the channels that cost least for the time they take, by a table of layer times."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from torch import fx

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.prune.groups import CHANNELS, cut_groups, selected, worth_of
from cortado.methods.prune.quota import LEAST, Quota
from cortado.network.coupling.groups import Keeps
from cortado.network.graph.axes.step import node_shape as entries_of
from cortado.network.graph.trace import trace
from cortado.network.view import View
from cortado.runtimes.layer_times import LayerShape, LayerTimes, call_shape
from cortado.runtimes.runtime import runtime_by_name
from cortado.task.task import Task


@dataclass(frozen=True)
class Widths(Method):
    """Cut channels like prune/channels, to a share of the time of all layers, by a table measured on this machine.

    Channels of all groups compete by importance per time saved, as in Yang et al., 2018 (NetAdapt) and Shen et al., 2022
    (HALP), whose tables also hold whole layers. Times are of float layers: the time of a single integer layer is mostly
    the rounding of its input and output, which layers inside a network do not pay. Layers missing from the table cost
    nothing; a low-rank weight counts as the whole one.
    """

    called: ClassVar[str] = "prune/widths"
    lossy = True
    needs = (CHANNELS,)
    leaves = (Leaves.NARROWER,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share kept")
    by: str = knob("curvature", help="importance that ranks the channels")
    of: str = knob("time", one_of=("time",), help="the quantity that `keep` is a share of")
    across: bool = knob(True, help="rank channels across groups")
    least: float = knob(LEAST, low=0.0, high=1.0, help="minimum share of each group's channels kept")
    multiple: int | None = knob(
        None, low=1, help="round channel counts to multiples of this; by default, the runtime's block"
    )
    reconstruct: bool = knob(False, help="refit the layers that read removed channels by least squares")
    runtime: str = knob("onnxruntime", help="runtime that times the layers")
    threads: int = knob(1, low=1, help="threads for timing")

    def apply(self, view: View, task: Task) -> None:
        groups = selected(self, view, task, CHANNELS, "channels")
        worth = worth_of(self.by, groups, view, task)
        times = Times(view, layer_times_in(self.runtime, self.threads))
        multiple = self.multiple or runtime_by_name(self.runtime).channel_block
        quota = Quota(self.name(), "channels", self.of, self.keep, self.across, self.least, multiple)
        cut_groups(view, task, worth, quota, times, self.reconstruct)
        view.notes.append(f"the layers take {times.total:.3g} ms by this machine's table, which decided where to cut")


def layer_times_in(runtime: str, threads: int = 1) -> LayerTimes:
    """Return the layer times of a runtime."""
    return LayerTimes(runtime_by_name(runtime), threads)


class Times:
    """The time of each convolution and linear layer as a function of its channels; same interface as `Costs`."""

    def __init__(self, view: View, times: LayerTimes) -> None:
        self.times, self.groups = times, view.groups
        nodes = {name: node for node, names in self.groups.walked.captured.tensors.items() for name in names}
        self.parts: list[tuple[LayerShape, float, fx.Node | None]] = []
        traced = trace(view.network, view.example)
        for call in traced.calls:
            found = call_shape(call.layer, call.inputs[0], traced.batch) if call.inputs else None
            if found is not None:
                names = (f"{path}.weight".removeprefix(".") for path in call.paths)
                self.parts.append((*found, next((nodes[name] for name in names if name in nodes), None)))
        self.total = self.after({})

    def after(self, keeps: Keeps) -> float:
        """Return the milliseconds when only these units stay."""
        kept = self.groups.kept_rows(self.groups.gone(keeps)) if keeps else {}
        return sum(often * self.part(shape, node, kept) for shape, often, node in self.parts)

    def part(self, shape: LayerShape, node: fx.Node | None, kept: dict[tuple[fx.Node, int], np.ndarray]) -> float:
        """Return the milliseconds of one layer."""
        if node is None:
            return self.times.between(shape, shape.inputs, shape.outputs)
        given, made = (
            len(kept[node, axis]) / entries_of(node)[axis] if (node, axis) in kept else 1.0 for axis in (1, 0)
        )
        if shape.groups > 1:
            given = made
        return self.times.between(shape, given * shape.inputs, made * shape.outputs)

    def share(self, keeps: Keeps) -> float:
        """Return the share of the time that remains."""
        return self.after(keeps) / self.total if self.total else 1.0
