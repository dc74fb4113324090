"""quantize/equalize: rescale channels so that weights and activations are easier to quantize; outputs do not change."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.errors import NothingChanged
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.links import LINKS, answers_of, movable, moved
from cortado.network.quantizers.scaling import Link, largest, range_of_maker, range_of_readers
from cortado.network.statistics.activations import channel_axis, collect_activations
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class QuantizeEqualize(Method):
    """Cross-layer equalization (Nagel et al., 2019), or smoothing between activations and weights (Xiao et al., 2023).

    Between two layers with only ReLUs, products, pooling and reshapes in between, channel j of the activation is divided
    by s_j = a_j^share / b_j^(1 - share), and the weights that read it are multiplied by s_j. b_j is the largest of these
    weights; a_j is the largest weight that produces the channel (by weights) or its largest value (by activations).
    Norms count as producers; `where` must select producers and consumers. Each link is tested on the example and some
    calibration samples, and left unchanged if outputs change by more than rounding. In half precision s_j is the nearest
    power of two, which is exact.
    """

    needs = (LINKS,)
    leaves = (Leaves.FLOATS,)

    by: str = knob("weights", one_of=("weights", "activations"), help="what is balanced against the reading weights")
    share: float = knob(0.5, low=0.0, high=1.0, help="share of the range that moves to the reading weights")
    rounds: int = knob(2, low=1, help="passes over all links")
    images: int = knob(128, low=1, help="calibration samples, with by: activations")

    def apply(self, view: View, task: Task) -> None:
        links = LINKS.require(self, view, task)
        wanted, seen = answers_of(view, task), self.activations(view, task, links)
        done = [link for _ in range(self.rounds) for link in links if self.link(view, task, seen, link, wanted)]
        if not done:
            raise NothingChanged(
                f"quantize/equalize: all {len(links)} links between layers either changed outputs or have only dead "
                "channels. Leave it out."
            )
        view.notes.append(f"{len(set(done))} of {len(links)} links between layers were balanced.")

    def link(self, view: View, task: Task, seen: dict[str, Tensor], link: Link, wanted: list[Tensor]) -> bool:
        """Balance one link; return whether it succeeded, judged by the outputs on the example."""
        made = range_of_maker(view.network, link)
        read = range_of_readers(view.network, link, len(made))
        observed = made if self.by == "weights" else seen.get(link.readers[0], made[:0])
        if read is None or not len(observed) or len(observed) % len(made):
            return False
        # After flattening, a channel has several columns.
        observed = observed.view(len(made), -1).amax(1)
        factors = observed**self.share / read ** (1 - self.share)
        # A channel that is dead on either side is unchanged, and no scale leaves the floats' range.
        sound = (observed > 0) & (read > 0) & torch.isfinite(factors)
        factors = movable(torch.where(sound, factors.clamp(1e-3, 1e3), torch.ones_like(factors)))
        done = moved(view, task, link, factors, wanted)
        if done and link.readers[0] in seen:
            seen[link.readers[0]] = (seen[link.readers[0]].view(len(made), -1) / factors[:, None]).flatten()
        return done

    def activations(self, view: View, task: Task, links: list[Link]) -> dict[str, Tensor]:
        """Return, with by: activations, the largest value of each channel that the first reader of each link reads."""
        assert task.calibration is not None
        found: dict[str, Tensor] = {}

        def note(path: str, activation: Tensor) -> None:
            now = largest(activation, channel_axis(view.network.get_submodule(path), activation))
            found[path] = torch.maximum(found[path], now) if path in found else now

        if self.by == "activations":
            paths = list(dict.fromkeys(link.readers[0] for link in links))
            collect_activations(view.network, paths, task.calibration.first(self.images), note)
        return found
