"""quantize/equalize: rescale channels so that weights and activations are easier to quantize; outputs do not change."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.errors import NothingChanged
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.methods.quantize.places import paths_of
from cortado.network.coupling.answers import difference, output_tensors
from cortado.network.graph.trace import call_with, device_of, undisturbed
from cortado.network.quantizers.scaling import Link, largest, links_of, range_of_maker, range_of_readers, rescale
from cortado.network.statistics.activations import channel_axis, collect_activations
from cortado.network.view import View
from cortado.running.trees import to_device
from cortado.task.task import Task

SAME = 1e-4


def chosen_links(method: Any, view: View, task: Task) -> list[Link]:
    """Return the links whose ends `where` selects."""
    links = links_of(view.network, view.flow)
    if method.where == type(method).where:
        return links
    chosen = {path for weight in view.weights(method.where) for path in paths_of(view.network, weight.layer)}
    return [link for link in links if chosen.issuperset((link.maker, *link.readers))]


LINKS = Need(
    "two plain float layers with only ReLUs, pooling and reshapes between them",
    chosen_links,
    "run it before weights are quantized",
)


@dataclass(frozen=True)
class QuantizeEqualize(Method):
    """Cross-layer equalization (Nagel et al., 2019), or smoothing between activations and weights (Xiao et al., 2023).

    Between two layers with only ReLUs, pooling and reshapes in between, channel j of the activation is divided by
    s_j = a_j^share / b_j^(1 - share), and the weights that read it are multiplied by s_j. b_j is the largest of these
    weights; a_j is the largest weight that produces the channel (by weights) or its largest value (by activations).
    Layer norms and batch norms count as producers; `where` must select producers and consumers. Each link is tested on
    the example, and left unchanged if outputs change by more than rounding. In half precision s_j is the nearest power
    of two, which is exact.
    """

    needs = (LINKS,)
    leaves = (Leaves.FLOATS,)

    by: str = knob("weights", one_of=("weights", "activations"), help="what is balanced against the reading weights")
    share: float = knob(0.5, low=0.0, high=1.0, help="share of the range that moves to the reading weights")
    rounds: int = knob(2, low=1, help="passes over all links")
    images: int = knob(128, low=1, help="calibration samples, with by: activations")

    def apply(self, view: View, task: Task) -> None:
        links = LINKS.require(self, view, task)
        wanted = answers_of(view)
        done = [link for _ in range(self.rounds) for link in links if self.link(view, task, link, wanted)]
        if not done:
            raise NothingChanged(
                f"quantize/equalize: all {len(links)} links between layers either changed outputs or have only dead "
                "channels. Leave it out."
            )
        view.notes.append(f"{len(set(done))} of {len(links)} links between layers were balanced.")

    def link(self, view: View, task: Task, link: Link, wanted: list[Tensor]) -> bool:
        """Balance one link; return whether it succeeded, judged by the outputs on the example."""
        made = range_of_maker(view.network, link)
        read = range_of_readers(view.network, link, len(made))
        observed = made if self.by == "weights" else self.activation(view, task, link.readers[0], len(made))
        if read is None or observed is None:
            return False
        factors = observed**self.share / read ** (1 - self.share)
        # A channel that is dead on either side is unchanged, and no scale leaves the floats' range.
        sound = (observed > 0) & (read > 0) & torch.isfinite(factors)
        factors = torch.where(sound, factors.clamp(1e-3, 1e3), torch.ones_like(factors))
        if factors.dtype in (torch.float16, torch.bfloat16):
            factors = factors.log2().round().exp2()
        rescale(view.network, link, factors)
        if difference(answers_of(view), wanted) > SAME:
            rescale(view.network, link, 1 / factors)
            return False
        return True

    def activation(self, view: View, task: Task, path: str, channels: int) -> Tensor | None:
        """Return the largest value of each channel as the layer at `path` reads it."""
        assert task.calibration is not None
        layer, found = view.network.get_submodule(path), torch.zeros(0)

        def note(path: str, activation: Tensor) -> None:
            nonlocal found
            now = largest(activation, channel_axis(layer, activation))
            found = now if not len(found) else torch.maximum(found, now)

        collect_activations(view.network, [path], task.calibration.first(self.images), note)
        if len(found) % channels or not len(found):
            return None
        return found.view(channels, -1).amax(1)


def answers_of(view: View) -> list[Tensor]:
    """Return the network's outputs on the example."""
    with undisturbed(view.network):
        return [
            tensor.clone()
            for tensor in output_tensors(call_with(view.network, to_device(view.example, device_of(view.network))))
        ]
