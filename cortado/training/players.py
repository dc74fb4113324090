"""Players: the steps of those who learn against the network."""

from typing import Any

import torch
from torch import Tensor, nn

from cortado.running.trees import map_tensors
from cortado.training.distributed import Processes
from cortado.training.objectives.objective import Objective, Player, Terms, TrainingStep
from cortado.training.optimizers import optimizer_of
from cortado.training.training import Training


class PlayerLoss(nn.Module):
    """The loss of a player as a module over the modules that it moves, so that processes can average its gradients."""

    def __init__(self, player: Player, moved: dict[str, nn.Module]) -> None:
        super().__init__()
        self.player, self.moved = player, nn.ModuleDict(moved)

    def forward(self, step: TrainingStep) -> Terms:
        return self.player.terms(step)


class Opponent:
    """A player with its optimizer.  Its step leaves the network's gradients alone, and the network's step leaves its own."""

    def __init__(self, objective: Objective, player: Player, modules: dict[str, nn.Module], group: Processes) -> None:
        """`modules` are the objective's."""
        self.player, self.modules = player, {name: modules[name] for name in player.modules}
        self.parameters = [one for module in self.modules.values() for one in module.parameters()]
        self.loss: Any = group.wrapped(PlayerLoss(player, self.modules))
        training = Training(lr=player.lr, optimizer=player.optimizer)
        self.optimizer = optimizer_of(training, [{"params": self.parameters}])
        self.fixed()

    def fixed(self) -> None:
        """Let no gradient reach its parameters: the network moves now."""
        for one in self.parameters:
            one.grad = None
            one.requires_grad_(False)

    def step(self, seen: TrainingStep, number: int) -> dict[str, Tensor]:
        """Make its step, if it is its turn, and return its terms."""
        if number % self.player.every:
            return {}
        for one in self.parameters:
            one.requires_grad_(True)
        terms = self.loss(seen)
        torch.stack(list(terms.values())).sum().backward()
        self.optimizer.step()
        self.fixed()
        return {name: value.detach() for name, value in terms.items()}


def detached(step_part: Any) -> Any:
    """Return a tree without gradients."""
    return map_tensors(lambda one: one.detach(), step_part)
