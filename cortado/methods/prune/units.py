"""prune/units: remove dead units and sort the others by activity, without changing any output."""

from dataclasses import dataclass

import torch

from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.graph.chains import Units
from cortado.network.view import View
from cortado.task.task import Task


@dataclass(frozen=True)
class PruneUnits(Method):
    """Remove dead units (all weights and the bias are zero, or all consumers ignore them) and sort the rest.

    A dead unit outputs zero or is unused, so the network computes the same. Sorting by the number of nonzero weights is
    free too, and gathers the empty parts of a weight in one place for the coder.
    """

    needs = (
        Need(
            "units that are dead or stand behind less active ones",
            lambda method, view, task: any(method.moves(units) for units in method.chosen(view)),
            "use prune/channels",
        ),
    )
    leaves = (Leaves.NARROWER,)

    sort: bool = knob(True, help="put units with many nonzero weights first")

    def apply(self, view: View, task: Task) -> None:
        self.sweep(view)

    def sweep(self, view: View) -> int:
        """Remove and sort; return the number of units removed."""
        removed, fell = 0, 1
        while fell:
            fell = sum(self.tidy(view, units, sort=False) for units in self.chosen(view))
            removed += fell
        if self.sort:
            for units in self.chosen(view):
                self.tidy(view, units, sort=True)
        view.__dict__.pop("graph", None)
        return removed

    def chosen(self, view: View) -> list[Units]:
        """Return the units that `where` selects together with all their consumers."""
        if self.where == "*":
            return view.units
        layers = {id(weight.layer) for weight in view.weights(self.where)}
        return [units for units in view.units if all(id(layer) in layers for layer in (units.maker, *units.readers))]

    def moves(self, units: Units) -> bool:
        """Return whether units would be removed or change places."""
        return not in_place(*kept_units(units, self.sort))

    def tidy(self, view: View, units: Units, sort: bool) -> int:
        keep, count = kept_units(units, sort)
        if in_place(keep, count):
            return 0
        units.cut(keep)
        moved = {id(layer) for layer in (units.maker, *units.norms)}
        view.remember({path: keep for path, layer in view.network.named_modules() if id(layer) in moved})
        return count - len(keep)


def in_place(keep: torch.Tensor, count: int) -> bool:
    """Return whether these are all of `count` units in their order."""
    return torch.equal(keep, torch.arange(count, device=keep.device))


def kept_units(units: Units, sort: bool) -> tuple[torch.Tensor, int]:
    """Return the units that stay, with `sort` the busiest first, and how many there are."""
    alive, busy = activity(units)
    if not bool(alive.any()):
        # A layer without units cannot run, so one dead unit stays.
        alive[0] = True
    keep = alive.nonzero().squeeze(1)
    if sort:
        keep = keep[torch.sort(busy[keep], descending=True, stable=True).indices]
    return keep, len(alive)


def activity(units: Units) -> tuple[torch.Tensor, torch.Tensor]:
    """Return, for each unit, whether it can matter, and how many nonzero weights feed and read it."""
    fed = (units.maker.weight.detach() != 0).flatten(1).sum(1)  # type: ignore[union-attr, operator]
    read = sum((weight != 0).sum((0, 2)) for weight in units.read_weights())
    given = fed > 0
    if getattr(units.maker, "bias", None) is not None:
        given = given | (units.maker.bias.detach() != 0)  # type: ignore[union-attr, operator]
    if not units.zero_stays:
        # A norm adds its shift and a sigmoid maps 0 to 1/2: a unit without inputs is not silent.
        given = torch.ones_like(given)
    return given & (torch.as_tensor(read) > 0), fed + read
