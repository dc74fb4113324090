"""conditional/experts: feed-forward layers of which each row computes a few groups of neurons, picked by a router."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadNetwork, BadValue
from cortado.knobs.nested import flat_knobs
from cortado.methods.conditional.routing import Computed, draw_afresh, fit_router
from cortado.methods.learn import SEVERAL, learn
from cortado.methods.method import Method, knob
from cortado.methods.needs import Leaves, Need
from cortado.network.coupling.groups import Group
from cortado.network.graph.feed_forward import FeedForward, feed_forwards, pairs_of_layers
from cortado.network.statistics.activations import rows_into
from cortado.network.view import View
from cortado.parts.activations.quantizer import sites
from cortado.parts.blocks.experts import ACTIVATIONS, WEIGHTINGS, Experts
from cortado.running.eval_mode import eval_mode
from cortado.task.task import Task
from cortado.training.objectives.balance import Balance
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.task import TaskLoss
from cortado.training.teachers import check_teacher
from cortado.training.training import Training

SAME = 1e-3
"""How far a block that computes all experts may be from the layer it stands for, relative to the largest output."""
Rows = dict[str, Tensor]


def layers_for(method: Any, view: View, task: Task) -> list[FeedForward]:
    """Return the feed-forward layers that `where` selects whole, whose neurons divide into the experts asked for.

    Those with rounded activations are left out: experts do not call the layers that round.
    """
    chosen = {weight.path: weight for weight in view.weights(method.where)}
    found = []
    for feed in feed_forwards(view.graph, view.flow):
        pair = [chosen.get(f"{path}.weight") for path in feed.layers()]
        known = any(feed.activation in name for name in ACTIVATIONS)
        rounded = sites(view.network.get_submodule(feed.path))
        if known and not rounded and all(one is not None and len(one.places) == 1 for one in pair):
            fits = pair[0].shape[0] % method.experts == 0  # type: ignore[union-attr]
            if fits and (method.noisy or group_of(view, feed) is not None):
                found.append(feed)
    return found


def group_of(view: View, feed: FeedForward) -> Group | None:
    """Return the group of a layer's inner neurons, if they may change places."""
    first, second = feed.layers()
    for group in view.groups.all:
        makes = {slot.layer for slot in group.slots if slot.role != "consumer"}
        if makes == {first} and {slot.layer for slot in group.of_role("consumer")} == {second} and not group.ordered:
            return group
    return None


def held_with_more(view: View) -> str:
    """Return a sentence on linear layers with an activation between them that are no module of their own."""
    alone = {one for feed in feed_forwards(view.graph, view.flow) for one in feed.layers()}
    pair = next((one for one in pairs_of_layers(view.graph, view.flow) if one.first not in alone), None)
    if pair is None:
        return ""
    return (
        f" {pair.first} and {pair.second} are held by a module that does more than run them; put them and what is between "
        "them into a module of their own."
    )


FEEDS = Need(
    "a feed-forward layer (a module that runs linear, activation, linear and nothing else, with a number of inner neurons "
    "that the experts divide, and no rounded activations)",
    layers_for,
    "choose another number of experts, or other weights with where",
    held_with_more,
)


@flat_knobs
@dataclass(frozen=True)
class ConditionalExperts(Method):
    """Group the inner neurons of feed-forward layers into experts, of which a router picks `k` for each row (token).

    Of a trained layer (Zhang et al., 2022, MoEfication): neurons that are active together on calibration data make a group,
    a router learns which groups add most, a dropped group counts as what it adds on average where it is dropped, and all is
    trained with the teacher. `noisy` trains from scratch instead: neurons are grouped as they stand, training adds noise to
    the scores, and `balance` keeps experts in use (Shazeer et al., 2017); put `reinit` before it. Speed comes with the
    export, which runs each expert for its rows. Compare with `prune/channels` of the same share, as bench/experts.py does.
    """

    trains = True
    needs = (FEEDS,)
    leaves = (Leaves.FLOATS, Leaves.EXPERTS)

    training: Training = knob(Training(), help="how to train the network with its experts")
    experts: int = knob(16, low=2, help="groups of neurons in a layer; they divide its inner neurons")
    k: int = knob(8, low=1, help="groups that each row computes")
    width: int = knob(64, low=1, help="hidden neurons of a router")
    weighting: str = knob(
        "even", one_of=WEIGHTINGS, help="sum chosen experts, or weight them by the softmax of their scores"
    )
    means: bool = knob(True, help="replace what a dropped expert adds by its mean")
    rows: int = knob(4096, low=2, help="calibration rows for groups and routers")
    steps: int = knob(500, low=0, help="steps in which a router learns energies before the training")
    noisy: bool = knob(False, help="train from scratch: no groups from data, noise on the scores, balanced experts")
    balance: float = knob(0.1, low=0.0, help="weight of the objective balance, with noisy")
    teacher: Any = knob("original", help=f"who teaches, but with noisy: {SEVERAL}", check=check_teacher)
    temperature: float = knob(4.0, low=0.05, help="softmax temperature of both outputs")
    hard: float = knob(0.3, low=0.0, help="weight of the task's own loss beside the teacher")
    soft: float = knob(0.7, low=0.0, help="weight of the teacher's outputs")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.k > self.experts:
            raise BadValue(f"{self.name()}: k must lie in 1..experts, which is {self.experts}, got {self.k}. Lower k.")

    def apply(self, view: View, task: Task) -> None:
        feeds, generator = FEEDS.require(self, view, task), torch.Generator().manual_seed(task.seed)
        given = {feed.path: self.some_rows(view, feed, task, generator) for feed in feeds}
        with torch.random.fork_rng(devices=()), torch.no_grad():
            torch.manual_seed(task.seed)
            if not self.noisy:
                self.regroup(view, feeds, given, generator)
            for feed in feeds:
                self.place(view, feed, given[feed.path], generator)
        learned: list[Any] = [TaskLoss(self.hard), Logits(self.soft, self.temperature)]
        if self.noisy:
            learned = [TaskLoss(), Balance(self.balance)]
        learn(view, task, self.training, learned, self.teacher, self.where, self.name())

    def some_rows(self, view: View, feed: FeedForward, task: Task, generator: torch.Generator) -> Tensor:
        """Return calibration rows that a layer reads, (rows, inputs)."""
        assert task.calibration is not None
        found = rows_into(view.network, feed.layers()[0], task.calibration, self.rows, generator).float()
        return found[torch.randperm(len(found), generator=generator)[: self.rows]]

    def regroup(self, view: View, feeds: list[FeedForward], given: Rows, generator: torch.Generator) -> None:
        """Put the neurons that are active together side by side, in all layers; no output changes."""
        orders = {}
        for feed in feeds:
            group = group_of(view, feed)
            assert group is not None
            block = self.block(view, feed, given[feed.path])
            orders[group] = computed_by(block, given[feed.path]).order(self.experts, generator)
        view.reorder(orders)

    def block(self, view: View, feed: FeedForward, given: Tensor) -> Experts:
        """Return a block for a layer, with the activation that gives its outputs.  Raises BadNetwork if none does."""
        inner = view.network.get_submodule(feed.path)
        how = self.experts, self.k, self.width, self.weighting, self.noisy
        with eval_mode(inner), torch.no_grad():
            wanted, best, least = inner(given), None, torch.inf
            for name in (name for name in ACTIVATIONS if feed.activation in name):
                block = Experts(inner, feed.first, feed.second, name, *how)
                far = float((computed_by(block, given).outputs(block.pair(feed.second).bias) - wanted).abs().max())
                best, least = (block, far) if far < least else (best, least)
        if best is None or least > SAME * float(wanted.abs().max()):
            raise BadNetwork(
                f"{self.name()}: {feed.path or 'the network'} does not compute linear, {feed.activation}, linear as its layers "
                "and operators say. Exclude it with where."
            )
        return best

    def place(self, view: View, feed: FeedForward, given: Tensor, generator: torch.Generator) -> None:
        """Put experts in the place of a layer, and fit their router and means unless they are to be trained from scratch."""
        block = self.block(view, feed, given)
        if self.noisy:
            draw_afresh(block)
        else:
            known = computed_by(block, given)
            energies = known.energies(self.experts)
            chosen = fit_router(block.expert_router, given, energies, self.steps, generator)
            if self.means:
                block.expert_chain.means.copy_(known.means_where_dropped(chosen))
            share = float((energies * chosen).sum() / energies.sum())
            view.notes.append(f"{feed.path or 'the network'}: the chosen experts carry {share:.0%} of the energy")
        view.wrap(feed.path, block)


def computed_by(block: Experts, given: Tensor) -> Computed:
    """Return what the layer inside a block computes for rows."""
    return Computed.of(given, block.pair(block.first), block.pair(block.second), block.activation)
