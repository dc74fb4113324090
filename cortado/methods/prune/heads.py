"""prune/heads: remove whole attention heads."""

from dataclasses import dataclass

from cortado.importance.importance import Importance
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves
from cortado.methods.prune.groups import HEADS, cut_groups, selected, worth_of
from cortado.methods.prune.quota import Quota
from cortado.network.profile.pruned_cost import cost_of
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneHeads(Method):
    """Remove the least important heads: their rows of query, key and value and their columns of the output.

    Michel, Levy, Neubig, 2019. Where query heads share a key and value, the shared head goes with all its queries.
    Attention whose code hard-codes its sizes cannot be cut and is listed in the report.
    """

    lossy = True
    needs = (HEADS,)
    leaves = (Leaves.NARROWER,)

    keep: float = knob(0.5, low=0.0, high=1.0, help="share kept")
    by: str | Importance | type[Importance] = knob("magnitude", help="importance measure that ranks the heads")
    of: str = knob("channels", one_of=("channels", "multiply_adds", "parameters"), help="what keep is a share of")
    across: bool = knob(False, help="rank across groups, so that some lose more than others")
    least: float = knob(0.0, low=0.0, high=1.0, help="minimum share of each attention's heads kept")
    multiple: int = knob(1, low=1, help="round the number of heads to multiples of this")
    reconstruct: bool = knob(False, help="refit the layers that read removed heads by least squares")

    def apply(self, view: View, task: Task) -> None:
        groups = selected(self, view, task, HEADS, "heads")
        worth = worth_of(self.by, groups, view, task)
        quota = Quota(self.name(), "heads", self.of, self.keep, self.across, self.least, self.multiple)
        cut_groups(view, task, worth, quota, cost_of(view, self.of), self.reconstruct)
