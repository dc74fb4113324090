"""quantize/awq: scale up the channels that matter, so that rounding the weights which read them costs less."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cortado.errors import NothingChanged
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.quantize.links import LINKS, answers_of, movable, moved
from cortado.network.quantizers.scaling import Link, by_channel
from cortado.network.statistics.one_pass import input_products
from cortado.network.view import View
from cortado.parts.forms.quantized import Quantized
from cortado.task.task import Task

REACH = 1e3
"""Factors are within this of their mean, so that none leaves the floats' range."""

Grams = dict[str, Tensor]
"""By the path of a layer: mean products (groups, inputs, inputs) of what its rows multiply."""


@dataclass(frozen=True)
class QuantizeAwq(Method):
    """Activation-aware weight quantization (AWQ; Lin et al., 2024): the scaling that goes before rounding.

    Weights that read a large channel cost more when they are rounded. In each link between a layer or norm and its readers,
    the weights that read channel j are multiplied by s_j = a_j^share and the channel is divided by it; a_j is the channel's
    root mean square on calibration samples. Of `shares` values from 0 to 1 each link takes that at which rounding changes
    the readers' outputs least. Outputs do not change until something rounds: let `quantize/weights` follow, with the same
    bits, per, group and symmetric. The error of the outputs comes from one pass over the network; no labels, no gradients.
    """

    needs = (LINKS,)
    leaves = (Leaves.FLOATS,)

    bits: int = knob(4, low=1, high=8, help="bits of the rounding to come")
    per: str = knob("group", one_of=("tensor", "channel", "group"), help="granularity of its scales")
    group: int = knob(64, low=1, help="neighbours that share a scale, with per: group")
    symmetric: bool = knob(True, help="grid symmetric around zero; otherwise with a zero point")
    shares: int = knob(20, low=1, help="shares tried above 0, which leaves a link as it is")
    images: int = knob(128, low=1, help="calibration samples")
    rows: int = knob(512, low=1, help="places of each sample that are read; a token or a position of a kernel is one")
    precision: str = knob("float32", one_of=("float32", "bfloat16"), help="of the network while it is observed")

    def apply(self, view: View, task: Task) -> None:
        links = LINKS.require(self, view, task)
        layers = {path: view.network.get_submodule(path) for link in links for path in link.readers}
        grams = input_products(view.network, layers, task, self.images, self.rows, self.precision == "bfloat16")
        wanted = answers_of(view, task)
        kept = [share for link in links if (share := self.link(view, task, link, grams, wanted)) is not None]
        if not kept:
            raise NothingChanged(
                f"quantize/awq: none of the {len(links)} links rounds better with scaled channels, or outputs change. "
                "Leave it out."
            )
        shares = f"{min(kept):.2g} to {max(kept):.2g}"
        view.notes.append(f"{len(kept)} of {len(links)} links between layers were scaled, with shares from {shares}.")

    def link(self, view: View, task: Task, link: Link, grams: Grams, wanted: list[Tensor]) -> float | None:
        """Scale one link by the best share; return it, or None if the link stays as it is."""
        maker = view.network.get_submodule(link.maker)
        channels = len(maker.weight)  # type: ignore[arg-type]
        readers = [(view.network.get_submodule(path), grams[path]) for path in link.readers if path in grams]
        sizes = None if not readers else channel_sizes(*readers[0], channels)
        columns = [by_channel(layer, layer.weight.detach(), channels) for layer, _ in readers]  # type: ignore[operator, union-attr, arg-type]
        if sizes is None or any(one is None for one in columns) or len(readers) < len(link.readers):
            return None
        shares = [step / self.shares for step in range(self.shares + 1)]
        errors = [self.error(readers, factors_of(sizes, share)) for share in shares]
        best = min(range(len(shares)), key=errors.__getitem__)
        if not best or not moved(view, task, link, factors_of(sizes, shares[best]), wanted):
            return None
        return shares[best]

    def error(self, readers: list[tuple[nn.Module, Tensor]], factors: Tensor) -> float:
        """Return the squared error of the readers' outputs when their scaled weights are rounded."""
        return sum(self.error_of(layer, gram, factors) for layer, gram in readers)

    def error_of(self, layer: nn.Module, gram: Tensor, factors: Tensor) -> float:
        """Return the mean squared error of one reader's outputs, summed over them."""
        weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr, assignment]
        scaled = weight.clone()
        multiply(layer, scaled, factors)
        off = Quantized.of(scaled, self.bits, self.per, self.group, self.symmetric).dense().detach()
        multiply(layer, off, 1 / factors)
        off = (off - weight).flatten(1).to(gram).view(len(gram), -1, gram.shape[-1])
        return float(((off @ gram) * off).sum())


def multiply(layer: nn.Module, weight: Tensor, factors: Tensor) -> None:
    """Multiply what a reader's weight reads of each channel, in place."""
    columns = by_channel(layer, weight, len(factors))
    assert columns is not None
    columns.mul_(factors.view(-1, *[1] * (columns.dim() - 1)))


def channel_sizes(layer: nn.Module, gram: Tensor, channels: int) -> Tensor | None:
    """Return each channel's root mean square as a layer reads it; None where its weight does not read so many channels."""
    weight: Tensor = layer.weight.detach()  # type: ignore[operator, union-attr, assignment]
    # A squared size for every weight, the same in each row, ordered like the weight.
    squares = gram.diagonal(dim1=-2, dim2=-1)
    rows = squares[:, None].expand(-1, len(weight) // len(squares), -1).reshape(weight.shape)
    columns = by_channel(layer, rows.contiguous(), channels)
    return None if columns is None else columns.flatten(1).mean(1).sqrt().to(weight)


def factors_of(sizes: Tensor, share: float) -> Tensor:
    """Return the factors of a share, with a geometric mean of 1; those of dead channels are 1."""
    alive = sizes > 0
    logs = share * torch.where(alive, sizes, torch.ones_like(sizes)).float().log()
    logs = torch.where(alive, logs - logs[alive].mean(), torch.zeros_like(logs)) if alive.any() else logs
    return movable(logs.exp().clamp(1 / REACH, REACH).to(sizes))
