"""An objective of one's own: a critic tells the teacher's layer from the network's, which learns to deceive it."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from cortado import Objective, Player, Taps, TrainingStep, knob


@dataclass(frozen=True)
class Critic(Objective):
    """Wasserstein critic on one layer, with a gradient penalty.  After Liu et al., 2020 (holistic distillation)."""

    taught = True

    at: str = knob("", help="the layer, of the network and of the teacher")
    every: int = knob(1, low=1, help="the critic moves at each of so many steps")
    penalty: float = knob(10.0, low=0.0, help="weight of the gradient penalty")

    def taps(self) -> Taps:
        return Taps((self.at,), (self.at,))

    def modules(self, step: TrainingStep) -> Mapping[str, nn.Module]:
        mine, wanted = self.both(step)
        critic = nn.Sequential(nn.Linear(wanted.shape[1], 16), nn.ReLU(), nn.Linear(16, 1))
        return {"adapter": nn.Linear(mine.shape[1], wanted.shape[1]), "critic": critic}

    def opponents(self) -> tuple[Player, ...]:
        return (Player(("critic",), self.critic_terms, lr=5e-3, every=self.every),)

    def both(self, step: TrainingStep) -> tuple[Tensor, Tensor]:
        return step.taps[self.at].flatten(1), step.teachers[0].taps[self.at].flatten(1)

    def critic_terms(self, step: TrainingStep) -> Mapping[str, Tensor]:
        mine, wanted = self.both(step)
        mine, critic = step.modules["adapter"](mine).detach(), step.modules["critic"]
        share = torch.rand(len(mine), 1, device=mine.device)
        between = (share * wanted + (1 - share) * mine).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
        far = critic(mine).mean() - critic(wanted).mean()
        return {"critic": far + self.penalty * (slope.norm(dim=1) - 1).square().mean()}

    def terms(self, step: TrainingStep) -> Mapping[str, Tensor]:
        mine, wanted = self.both(step)
        given = step.modules["adapter"](mine)
        deceives = -step.modules["critic"](given).mean()
        return {"deceive": deceives, "near": functional.mse_loss(given, wanted)}
