"""frame_sequence: how the similarities within a frame change over several frames."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadValue
from cortado.knobs.knob import knob
from cortado.training.objectives.earlier import earlier_frames, step_on
from cortado.training.objectives.layer_pairs import LayerPairs, mean_of_pairs
from cortado.training.objectives.objective import Terms, TrainingStep
from cortado.training.objectives.pairwise import affinities, grids


class MapMemory(nn.Module):
    """A convolutional LSTM over pictures of one channel, [(N, 1, H, W), ...] to (N, width).  Shi et al., 2015.

    The embedding is the mean over places of the state that it puts out after the last picture, each number in -1..1. No
    weight w is larger than `bound`: it counts as bound x tanh(w / bound).
    """

    def __init__(self, width: int, bound: float) -> None:
        super().__init__()
        self.width, self.bound = width, bound
        self.gates = nn.Conv2d(1 + width, 4 * width, 3, padding=1)

    def forward(self, pictures: Sequence[Tensor]) -> Tensor:
        weight, bias = (self.bound * (one / self.bound).tanh() for one in self.gates.parameters())
        hidden = pictures[0].new_zeros(len(pictures[0]), self.width, *pictures[0].shape[2:])
        memory = torch.zeros_like(hidden)
        for picture in pictures:
            made = functional.conv2d(torch.cat([picture, hidden], 1), weight, bias, padding=1)
            write, keep, show, news = made.chunk(4, 1)
            memory = keep.sigmoid() * memory + write.sigmoid() * news.tanh()
            hidden = show.sigmoid() * memory.tanh()
        return hidden.mean((2, 3))


@dataclass(frozen=True)
class FrameSequence(LayerPairs):
    """The squared difference between embeddings of the pairwise maps of several frames.  Liu et al., 2020 (multi-frame
    dependency).

    Each frame's map (N, C, H, W) gives the cosines between any two cells of a grid of at most `cells` x `cells`, as in
    `pairwise`. A convolutional LSTM, learned along, reads these tables in order of time, the network's and the teacher's with
    the same weights. Its two embeddings are compared: averaged over their numbers, samples and pairs of layers.

    An LSTM that maps everything to 0 would have nothing left to compare. So it is also paid for large embeddings of the
    teacher: the second term is -`enlarge` x their mean square, without effect on the network; and its weights stay within
    +-`bound`. Network and teachers run once more on each earlier frame. `clips(length=...)` says how many frames there are.
    """

    recordable: ClassVar[bool] = False

    cells: int = knob(8, low=2, help="most cells of the grid along each side")
    width: int = knob(8, low=1, help="numbers of an embedding")
    bound: float = knob(1.0, low=1e-3, help="largest weight of the LSTM")
    enlarge: float = knob(0.1, low=0.0, help="weight of the teacher's embeddings' mean square")

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        return {f"memory{number}": MapMemory(self.width, self.bound) for number, _ in enumerate(self.pairs())}

    def terms(self, step: TrainingStep) -> Terms:
        given = earlier_frames(step, self.name())
        steps = [*(step_on(step, frames) for frames in (*given.before, given.earlier)), step]
        apart, sizes = [], []
        for number, layers in enumerate(zip(*(self.both(one) for one in steps), strict=True)):
            if f"memory{number}" not in step.modules:
                raise BadValue("objectives/frame_sequence: it has no LSTM yet. Train with what modules(step) returns.")
            frames = [grids(pair, self.cells, step.label, self.name()) for pair in layers]
            memory = step.modules[f"memory{number}"]
            mine, wanted = (memory([cosine_map(frame[which], frame[2]) for frame in frames]) for which in (0, 1))
            apart.append((mine - wanted).square().mean())
            sizes.append(wanted.square().mean())
        return {"frame_sequence": mean_of_pairs(apart), "embeddings": -self.enlarge * mean_of_pairs(sizes)}


def cosine_map(cells: Tensor, counted: Tensor) -> Tensor:
    """Return the cosines between any two cells (N, cells, C) as pictures (N, 1, cells, cells); 0 where one does not count."""
    return (affinities(cells, cells) * (counted[:, :, None] & counted[:, None]))[:, None]
