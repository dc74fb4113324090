"""conditional/cascade: put smaller trained networks in front of the network, for the samples of which they are sure."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import nn

from cortado.errors import BadNetwork, BadValue
from cortado.methods.method import Method, knob
from cortado.methods.student import check_outputs
from cortado.nets.cascade import Cascade, member_of
from cortado.network.view import View
from cortado.parts.blocks.rows import RULES
from cortado.parts.forms.same import same_state
from cortado.running.brought import accept
from cortado.running.call import call_arguments
from cortado.task.task import Task

MEMBERS = (
    "networks before this one, fastest first: a name, package.module:maker, or {network: ..., options, weights, scale, shift, "
    "size}, where scale, shift and size make a member's inputs from the task's"
)


@dataclass(frozen=True)
class ConditionalCascade(Method):
    """Put trained networks in front, fastest first; a sample continues until one is sure.  Viola and Jones, 2001.

    Of networks: Park et al., 2015. The cascade replaces the network and begins at its weights as they came; the stages that
    follow prune and quantize the members like any layers (where: members.0.*), and conditional/thresholds, the last stage,
    says from which confidence on a sample stops: before it every sample goes to the last member. A member pays if the share
    of samples that stop there is larger than its time over the time of all that follows.
    """

    restarts: ClassVar[bool] = True

    members: tuple[Any, ...] | list[Any] = knob((), help=MEMBERS)
    rule: str = knob("top", one_of=RULES, help="confidence: the largest probability, or its distance from the second")

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.members:
            raise BadValue(f"{self.name()}: members is empty. Name at least one network, such as members: [resnet_8].")
        object.__setattr__(self, "members", tuple(self.members))

    def apply(self, view: View, task: Task) -> None:
        if not same_state(view.network, view.base):
            raise BadNetwork(
                f"{self.name()}: earlier stages changed the network, and a cascade begins with it as it came. Put this stage "
                "first; the following ones change all members."
            )
        positional, named = call_arguments(view.example)
        if named or len(positional) != 1 or not isinstance(positional[0], torch.Tensor):
            raise BadNetwork(
                f"{self.name()}: members take one tensor, and this network takes more. Wrap it in a network of one."
            )
        made = self.around(view.base)
        for number, member in enumerate(made.members):
            check_outputs(view.original, nn.Sequential(made.adapters[number], member).eval(), view.example)
        view.become(made.eval())

    def around(self, last: nn.Module) -> Cascade:
        """Return the cascade with a network as its last member."""
        pairs = [member_of(one) for one in self.members]
        for network, _ in pairs:
            accept(network, self.name())
        return Cascade(
            [*(network for network, _ in pairs), last], [*(adapter for _, adapter in pairs), nn.Identity()], self.rule
        )

    def architecture(self, before: nn.Module) -> nn.Module:
        # Weights come from the file.
        bare = [{**one, "weights": None} if isinstance(one, Mapping) else one for one in self.members]
        return replace(self, members=tuple(bare)).around(before)
