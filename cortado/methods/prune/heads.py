"""prune/heads: remove whole attention heads."""

from dataclasses import dataclass

from cortado.methods.method import knob
from cortado.methods.prune.channels import PruneChannels
from cortado.network.coupling.groups import Group
from cortado.network.view import View


@dataclass(frozen=True)
class PruneHeads(PruneChannels):
    """Remove the least important heads: their rows of query, key and value and their columns of the output.

    Michel, Levy, Neubig, 2019. Where query heads share a key and value, the shared head goes with all its queries.
    Attention whose code hard-codes its sizes cannot be cut and is listed in the report.
    """

    what = "heads"

    least: float = knob(0.0, low=0.0, high=1.0, help="minimum share of each attention's heads kept")

    def candidates(self, view: View) -> list[Group]:
        return [group for group in view.groups.free if group.heads]
