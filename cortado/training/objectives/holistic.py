"""holistic: a critic tells the teacher's maps from the network's, which learns to deceive it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado.errors import BadNetwork
from cortado.knobs.knob import knob
from cortado.running.trees import tensors_in
from cortado.training.objectives.counted import counted_outputs
from cortado.training.objectives.layer_pairs import first_teacher
from cortado.training.objectives.objective import Objective, Player, Terms, TrainingStep

BLOCKS = 3


class MapCritic(nn.Module):
    """Scores maps of classes that belong to a picture, (N, C + colours, H, W) to (N,): strided convolutions and a mean."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(BLOCKS):
            layers += [nn.Conv2d(channels, width << number, 3, 2, 1), nn.LeakyReLU(0.2)]
            channels = width << number
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 1, 1))

    def forward(self, maps: Tensor) -> Tensor:
        found: Tensor = self.body(maps)
        return found.mean((1, 2, 3))


@dataclass(frozen=True)
class Holistic(Objective):
    """The distance of the network's maps from the teacher's, by a critic that sees the picture too.  Liu et al., 2020.

    Of outputs (N, C, H, W), as probabilities; void pixels are 0. The distance is Wasserstein's: the network's term is minus
    the critic's mean score; the critic's is the difference of scores and `penalty` times the mean of (slope - 1)^2 between
    both maps (Gulrajani et al., 2017). Averaged over samples. The critic moves before the network, at every `every`-th step.
    For a network that equals its teacher the term is not 0, although nothing is left to learn.
    """

    taught: ClassVar[bool] = True

    weight: float = knob(0.1, low=0.0, help="factor of the objective's terms in the loss")
    penalty: float = knob(10.0, low=0.0, help="weight of the critic's gradient penalty")
    width: int = knob(16, low=1, help="channels of the critic's first layer")
    lr: float = knob(4e-4, low=0.0, help="learning rate of the critic")
    every: int = knob(1, low=1, help="the critic moves at each of so many steps")

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        mine, _ = self.maps(step)
        return {"critic": MapCritic(mine.shape[1], self.width)}

    def opponents(self) -> tuple[Player, ...]:
        return (Player(("critic",), self.critic_terms, lr=self.lr, every=self.every),)

    def terms(self, step: TrainingStep) -> Terms:
        mine, _ = self.maps(step)
        return {"holistic": -step.modules["critic"](mine).mean()}

    def critic_terms(self, step: TrainingStep) -> Terms:
        """Return what the critic minimises."""
        (mine, wanted), critic = self.maps(step), step.modules["critic"]
        far = critic(mine).mean() - critic(wanted).mean()
        return {"holistic critic": far + self.penalty * gradient_penalty(critic, mine, wanted)}

    def maps(self, step: TrainingStep) -> tuple[Tensor, Tensor]:
        """Return what the critic sees of the network and of the teacher.  Raises BadNetwork for other outputs than maps."""
        picture = tensors_in(step.inputs)[0]
        found = [tensors_in(one)[0] for one in (step.outputs, first_teacher(step, self.name()).outputs)]
        if any(one.dim() != 4 for one in (picture, *found)) or found[0].shape != found[1].shape:
            raise BadNetwork(
                f"{step.label}: holistic compares maps (N, C, H, W) of pictures, and the network gives shape "
                f"{tuple(found[0].shape)}, the teacher {tuple(found[1].shape)}, for inputs {tuple(picture.shape)}. "
                "Choose logits or relational."
            )
        size, classes = found[0].shape[2:], found[0].shape[1]
        counted = counted_outputs(step, classes, (len(picture), *size))
        colours = functional.interpolate(picture.float(), size, mode="bilinear", align_corners=False)
        shown = [one.softmax(1) if counted is None else one.softmax(1) * counted[:, None] for one in found]
        mine, wanted = (torch.cat([one, colours.to(one)], 1) for one in shown)
        return mine, wanted.detach()


def gradient_penalty(critic: nn.Module, mine: Tensor, wanted: Tensor) -> Tensor:
    """Return the mean of (slope - 1)^2, the slope being the L2 norm of the critic's gradient at random points between both.

    `mine`, `wanted`: (N, ...).  Gulrajani et al., 2017.
    """
    share = torch.rand(len(mine), *[1] * (mine.dim() - 1), device=mine.device, dtype=mine.dtype)
    between = (share * wanted + (1 - share) * mine).detach().requires_grad_(True)
    (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.flatten(1).square().sum(1).clamp(min=1e-20).sqrt() - 1).square().mean()
