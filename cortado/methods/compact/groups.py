"""compact/groups: a convolution in groups, of the channels that share most."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.compact.orders import Wanted, give_orders
from cortado.methods.compact.partition import partition, shared_energy
from cortado.methods.compact.places import convolution_need, find_convolutions, stand_for
from cortado.methods.factorize.consumers import consumer_of
from cortado.methods.factorize.fitted import lifted
from cortado.methods.factorize.inputs import LARGEST_METRIC
from cortado.methods.factorize.targets import Target
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.network.statistics.activations import Moments, patch_moments
from cortado.network.view import View
from cortado.parts.blocks.grouped import Grouped
from cortado.parts.blocks.picked import changes_places, set_order
from cortado.parts.blocks.window import window_of
from cortado.task.task import Task

DIVIDED = convolution_need(
    "an ungrouped, zero-padded convolution over two axes, that is called, whose inputs and outputs its groups divide",
    lambda method, target: not any(size % method.groups for size in target.shape[:2]),
)


@dataclass(frozen=True)
class CompactGroups(Method):
    """Group convolutions in place of convolutions, with the groups that keep most.  Xie et al., 2017; Zhang et al., 2018.

    Inputs and outputs are divided into `groups` so that the energy of the filters between channels of one group is largest;
    each group is then fitted to the layer's outputs, in closed form. Neighbours take over the order of the channels where
    they can, which costs nothing; what remains is an index of the inputs, the counterpart of ShuffleNet's shuffle. Channels
    that an index picks cannot be cut later. `finetune` after it recovers most of what is lost.
    """

    lossy = True
    needs = (DIVIDED,)
    leaves = (Leaves.COMPACT,)

    groups: int = knob(2, low=2, help="groups of each convolution; they divide its inputs and outputs")
    images: int = knob(256, low=1, help="calibration samples")
    patches: int = knob(16384, low=1, help="positions sampled, over all images")
    fit: str = knob(
        "outputs", one_of=("outputs", "filters"), help="what to approximate: the layer's outputs or filters"
    )
    starts: int = knob(4, low=1, help="starts of the search for groups, the first in the present order")

    def apply(self, view: View, task: Task) -> None:
        targets = DIVIDED.require(self, view, task)
        found = {one.path: self.divided(one, task.generator(131 + at)) for at, one in enumerate(targets)}
        indices = give_orders(view, targets, found, self.where)
        with view.progress.bar(self.name(), len(targets)) as bar:
            for number, path in enumerate(one.path for one in targets):
                returns, reads = indices[path]
                # Channels may have changed places, so the layer is looked up again.
                self.stand(view, task, find_convolutions(view, path)[0], number, returns, reads)
                bar.advance()

    def divided(self, target: Target, generator: torch.Generator) -> Wanted:
        """Return the order of a layer's outputs and inputs, group by group."""
        energy = target.weight.dense().double().cpu().flatten(2).square().sum(2)
        left, right = partition(energy, self.groups, generator, self.starts)
        return Wanted(left.argsort(stable=True), right.argsort(stable=True))

    def stand(self, view: View, task: Task, target: Target, number: int, returns: Tensor, reads: Tensor) -> None:
        """Put a group convolution in a layer's place; its outputs and inputs are picked as these indices say."""
        weight, made = target.weight.dense(), returns.argsort()
        share = self.shared(target, made, reads)
        after, seen = consumer_of(view, target), self.moments(view, task, target, number)
        kernel, constant = fitted_groups(
            weight[made].cpu(), reads, self.groups, seen, after.takes_constant(target.layer)
        )
        bias = target.layer.bias
        outputs, inputs = target.shape[:2]
        window = window_of(target.layer)
        block = Grouped(
            inputs, outputs, self.groups, window, bias is not None, changes_places(reads), changes_places(returns)
        )
        set_order(block.before, reads)
        set_order(block.after, returns)
        with torch.no_grad():
            block.conv.weight.copy_(kernel)
            if bias is not None:
                block.conv.bias.copy_(bias[made.to(bias.device)])  # type: ignore[union-attr]
        stand_for(view, target, block)
        after.add_constant(block.conv, constant if bias is not None else constant[returns])
        picks = " and ".join(
            word for word, one in (("inputs", block.before), ("outputs", block.after)) if one is not None
        )
        view.notes.append(
            f"{target.path}: {self.groups} groups keep {share:.0%} of the filters' energy"
            + (f", with an index of its {picks}" if picks else "")
        )

    def shared(self, target: Target, made: Tensor, reads: Tensor) -> float:
        """Return the share of the filters' energy between channels of one group."""
        energy = target.weight.dense().double().cpu().flatten(2).square().sum(2)[made][:, reads]
        left, right = (torch.arange(size) * self.groups // size for size in energy.shape)
        return shared_energy(energy, left, right) / max(float(energy.sum()), 1e-30)

    def moments(self, view: View, task: Task, target: Target, number: int) -> Moments | None:
        """Return the moments of what a layer reads; None to fit its filters."""
        if self.fit == "filters" or target.flat.shape[1] > LARGEST_METRIC:
            return None
        return patch_moments(view.network, {target.path: number}, task, self.images, self.patches)[target.path]


def fitted_groups(
    weight: Tensor, reads: Tensor, groups: int, seen: Moments | None, free: bool
) -> tuple[Tensor, Tensor]:
    """Return the kernel of a group convolution, and the constant that keeps the mean of its outputs.

    `weight`: (outputs in the order of groups, inputs, high, wide); `reads`: the inputs in the order of groups. With the
    moments `seen` of the inputs, each group's outputs are as close as they can be. `free`: a constant can be added, so that
    only deviations from the mean count.
    """
    outputs, inputs = weight.shape[:2]
    rows, columns, taps = outputs // groups, inputs // groups, weight.shape[2:].numel()
    flat = weight.double().flatten(2)
    made = []
    for group in range(groups):
        mine, own = flat[group * rows : (group + 1) * rows], reads[group * columns : (group + 1) * columns]
        kept = mine[:, own].flatten(1)
        if seen is not None:
            places = (own[:, None] * taps + torch.arange(taps)).flatten()
            metric = seen.covariance if free else seen.covariance + torch.outer(seen.mean, seen.mean)
            metric = lifted(metric, 1e-4)
            kept = torch.linalg.solve(metric[places][:, places], (mine.flatten(1) @ metric[:, places]).T).T
        made.append(kept.unflatten(1, (columns, taps)))
    kernel = torch.cat(made)
    if seen is None:
        return kernel.reshape(outputs, columns, *weight.shape[2:]).to(weight), torch.zeros(outputs).double()
    means = seen.mean.unflatten(0, (inputs, taps))
    read = torch.stack([means[one] for one in reads.chunk(groups)]).repeat_interleave(rows, 0)
    constant = torch.einsum("nct,ct->n", flat, means) - (kernel * read).sum((1, 2))
    return kernel.reshape(outputs, columns, *weight.shape[2:]).to(weight), constant
