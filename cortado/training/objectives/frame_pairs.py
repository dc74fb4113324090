"""frame_pairs: how similar the places of a frame are to those of the frame before."""

from dataclasses import dataclass
from typing import ClassVar

from cortado.knobs.knob import knob
from cortado.training.objectives.earlier import earlier_frames, step_on
from cortado.training.objectives.layer_pairs import LayerPairs, mean_of_pairs
from cortado.training.objectives.objective import Terms, TrainingStep
from cortado.training.objectives.pairwise import affinities, grids, mean_over_pairs


@dataclass(frozen=True)
class FramePairs(LayerPairs):
    """The squared difference of the cosines between any cell of a frame's map and any cell of the map of the frame before.

    Liu et al., 2020 (pair-wise-frames dependency). As `pairwise`, but across two frames: maps (N, C, H, W) are averaged over
    a grid of at most `cells` x `cells`, and no rotation of channels matters, the same in both frames. Averaged over pairs of
    cells, samples and pairs of layers. Network and teachers run once more, on the earlier frame; it needs no flow.
    """

    recordable: ClassVar[bool] = False

    cells: int = knob(12, low=2, help="most cells of the grid along each side")

    def terms(self, step: TrainingStep) -> Terms:
        before = step_on(step, earlier_frames(step, self.name()).earlier)
        found = []
        for pair, earlier in zip(self.both(step), self.both(before), strict=True):
            mine, wanted, counted = grids(pair, self.cells, step.label, self.name())
            mine_before, wanted_before, counted_before = grids(earlier, self.cells, step.label, self.name())
            apart = affinities(mine, mine_before) - affinities(wanted, wanted_before)
            found.append(mean_over_pairs(apart, counted, counted_before))
        return {"frame_pairs": mean_of_pairs(found)}
