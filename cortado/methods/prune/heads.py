"""prune/heads: cut whole heads of attention."""

from dataclasses import dataclass

from cortado.methods.method import knob
from cortado.methods.prune.channels import PruneChannels
from cortado.network.coupling.groups import Group
from cortado.network.view import View


@dataclass(frozen=True)
class PruneHeads(PruneChannels):
    """Remove the heads that matter least, with their rows of query, key and value and their columns of the output.

    Michel, Levy, Neubig, 2019. Where several query heads share one key and value, a head is the shared one with all
    its queries. Attention whose code works out the number of heads from fixed sizes cannot follow, and says so.
    """

    what = "heads"

    least: float = knob(0.0, low=0.0, high=1.0, help="share of each attention's heads that stays in any case")

    def candidates(self, view: View) -> list[Group]:
        return [group for group in view.groups.free if group.heads]
