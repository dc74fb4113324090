"""prune/channels: remove whole channels from the layers that produce, normalise and read them."""

from dataclasses import dataclass, replace

from cortado.importance.importance import Importance
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.prune.groups import CHANNELS, cut_groups, selected, worth_of
from cortado.methods.prune.quota import BLOCK, LEAST, Quota
from cortado.network.coupling.groups import Group
from cortado.network.profile.pruned_cost import cost_of
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneChannels(Method):
    """Remove the least important channels; layers become narrower and run faster on any hardware.

    Li et al., 2017 (by magnitude), Hu et al., 2016 (zeros), Liu et al., 2017 (gains), Molchanov et al., 2017 (taylor),
    LeCun et al., 1990 (curvature), He, Zhang, Sun, 2017 (reconstruction). Channels coupled by residual sums,
    concatenations, grouped convolutions and norms form groups and go together. `keep` is a share of each group's
    channels or, with `of`, of the network's predicted multiply-adds or parameters. With `across`, the channels of all
    groups compete by importance per cost; otherwise each group loses the same share.

    No group falls below the share `least`, because a layer with one or two channels carries no network: AMC (He et al.,
    2018) bounds its layers at 0.2. A `keep` below `least` is met all the same where it counts channels. Kernels compute
    channels in blocks, so counts are multiples of `multiple`: by default the block of the runtimes that are measured,
    else 8. Groups that small take a smaller step, and multiple=1 rounds nothing.
    """

    lossy = True
    needs = (CHANNELS,)
    leaves = (Leaves.NARROWER,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure that ranks the channels")
    of: str = knob("channels", one_of=("channels", "multiply_adds", "parameters"), help="what keep is a share of")
    across: bool = knob(False, help="rank across groups, so that some lose more than others")
    least: float = knob(LEAST, low=0.0, high=1.0, help="minimum share of each group's channels kept")
    multiple: int | None = knob(None, low=1, help="round channel counts to multiples of this, for fast kernels")
    reconstruct: bool = knob(False, help="refit the layers that read removed channels by least squares")

    def apply(self, view: View, task: Task) -> None:
        worth = worth_of(self.by, self.groups(view, task), view, task)
        cut_groups(view, task, worth, self.quota(), cost_of(view, self.of), self.reconstruct)

    def groups(self, view: View, task: Task) -> list[Group]:
        """Return the groups that `where` selects completely; whole attention heads are left to prune/heads."""
        return selected(self, view, task, CHANNELS, "channels")

    def quota(self) -> Quota:
        """Return what may be kept."""
        multiple = self.multiple or BLOCK
        return Quota(self.name(), "channels", self.of, self.keep, self.across, self.least, multiple)

    def for_blocks(self, size: int) -> "PruneChannels":
        return self if self.multiple else replace(self, multiple=size)
