"""Matching: make the channels of two layers comparable: the teacher's surviving channels, or a learned linear map."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from cortado.network.coupling.survivors import surviving_channels
from cortado.network.view import View
from cortado.training.objectives.layer_pairs import LayerPair, Survivors, axis_of_channels, other_size


class SelectChannels(nn.Module):
    """Selects channels by number, such as those of the teacher that the network still has."""

    def __init__(self, numbers: Tensor) -> None:
        super().__init__()
        self.register_buffer("numbers", numbers, persistent=False)
        self.numbers: Tensor

    def forward(self, values: Tensor) -> Tensor:
        return values.index_select(axis_of_channels(values), self.numbers)


def tapped_survivors(taps: Sequence[str], teachers: Sequence[nn.Module], view: View) -> Survivors:
    """Return the surviving channels of each tap that lost some; none unless the first teacher is the original network."""
    if not teachers or teachers[0] is not view.base or not view.survivors:
        return {}
    return surviving_channels(view.network, view.example, view.survivors, list(taps))


def matching_modules(pairs: list[LayerPair], survivors: Survivors, *, always: bool = False) -> dict[str, nn.Module]:
    """Return what makes the channels of each pair comparable: "survivors0" for channels that were cut from the teacher's,
    else "regressor0" where the widths differ; with `always`, a regressor for each.
    """
    made: dict[str, nn.Module] = {}
    for number, pair in enumerate(pairs):
        mine, wanted = (one.shape[axis_of_channels(one)] for one in (pair.mine, pair.wanted))
        numbers = survivors.get(pair.at)
        if always:
            made[f"regressor{number}"] = regressor(pair.mine, pair.wanted)
        elif mine != wanted and numbers is not None and len(numbers) == mine and int(numbers.max()) < wanted:
            made[f"survivors{number}"] = SelectChannels(numbers.clone())
        elif mine != wanted:
            made[f"regressor{number}"] = regressor(pair.mine, pair.wanted)
    return made


def comparable(pair: LayerPair, number: int, modules: Mapping[str, nn.Module], label: str) -> tuple[Tensor, Tensor]:
    """Return what both layers gave, with the same channels.  Raises BadNetwork if the shapes still differ."""
    mine, wanted = pair.mine, pair.wanted
    if f"regressor{number}" in modules:
        mine = modules[f"regressor{number}"](mine)
    elif f"survivors{number}" in modules:
        wanted = modules[f"survivors{number}"](wanted)
    if mine.shape != wanted.shape:
        raise other_size(label, pair, mine, wanted)
    return mine, wanted


def regressor(mine: Tensor, wanted: Tensor) -> nn.Module:
    """Return a linear map over channels from the network's layer to the teacher's."""
    axis = axis_of_channels(mine)
    inputs, outputs = mine.shape[axis], wanted.shape[axis]
    if mine.dim() < 4:
        return nn.Linear(inputs, outputs)
    return (nn.Conv2d if mine.dim() == 4 else nn.Conv3d)(inputs, outputs, 1)
