"""Peers: networks that train side by side and learn from stale copies of each other.  Anil et al., 2018 (codistillation)."""

import contextlib
import copy
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.utils.data import Subset

from cortado.errors import BadValue
from cortado.knobs.knob import knob
from cortado.progress import Progress, quiet
from cortado.running.devices import on_device, training_device
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.training.answers import Answers, peer_answers
from cortado.training.distributed import Processes
from cortado.training.loop import Calls, Loop, Trained
from cortado.training.meeting import Meeting, values_of_network
from cortado.training.objectives.logits import Logits
from cortado.training.objectives.objective import TRAIN, Objective, Terms, TrainingStep
from cortado.training.objectives.task import TaskLoss
from cortado.training.training import Training

SEED_STEP = 104_729
"""Between the seeds of two peers, which draw their batches in different orders."""
EXCHANGES = ("weights", "answers")


@dataclass(frozen=True)
class Codistillation:
    """How peers learn from each other; the fields are those of `distill/peers`."""

    peers: int
    burn_in: float
    every: int
    weight: float
    temperature: float
    own_data: bool
    exchange: str
    wait: float

    def due(self, done: int, total: int) -> bool:
        """Return whether the peers exchange after `done` of `total` steps: at every multiple of `every` after the burn-in."""
        return 0 < done < total and done % self.every == 0 and done >= self.burn_in * total

    def share_of(self, data: Data, peer: int) -> Data:
        """Return what a peer learns from: all data, or every so many-th sample; all peers have as many."""
        return strided(data, peer, self.peers) if self.own_data else data


@dataclass(frozen=True)
class FromPeers(Objective):
    """T^2 x KL(mean of the peers at T || network at T), from the first exchange on.  Anil et al., 2018; Zhang et al., 2018."""

    taught: ClassVar[bool] = True

    temperature: float = knob(2.0, low=0.05, help="softmax temperature T of all outputs")

    def terms(self, step: TrainingStep) -> Terms:
        if not step.teachers:
            return {}
        return {"peers": Logits(temperature=self.temperature).terms(step)["logits"]}


def strided(data: Data, first: int, step: int) -> Data:
    """Return every `step`-th sample from `first` on, as many for each `first`; items of a Dataset are read on demand.

    Raises BadValue where there are fewer samples than `step`.
    """
    end = len(data) - len(data) % step
    if not end:
        raise BadValue(f"distill/peers: {len(data)} samples cannot be split among {step} peers. Set own_data: false.")
    if data.items is None:
        return data.pick(slice(first, end, step))
    subset: Subset[Any] = Subset(data.items.dataset, range(first, end, step))
    return Data(replace(data.items, dataset=subset, loader=None), None, data.prepare, data.augment, vary=data.vary)


class Peer:
    """A network in training step by step, with random numbers of its own."""

    def __init__(self, loop: Loop) -> None:
        self.loop, self.steps = loop, loop.steps()
        self.random: tuple[Tensor, list[Tensor]] | None = None

    def step(self) -> None:
        """Make one step; the caller's random state stays."""
        with self.own_random():
            next(self.steps, None)

    def close(self) -> None:
        """End the training where it is, and take off all hooks."""
        with self.own_random():
            self.steps.close()
        self.loop.close()

    @contextlib.contextmanager
    def own_random(self) -> Iterator[None]:
        with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
            if self.random is not None:
                torch.set_rng_state(self.random[0])
                torch.cuda.set_rng_state_all(self.random[1])
            yield
            self.random = torch.get_rng_state(), torch.cuda.get_rng_state_all()


@dataclass
class Peers:
    """All peers, those of this process in training; `networks` has a place for each one's weights."""

    networks: list[nn.Module]
    task: Task
    training: Training
    how: Codistillation
    meeting: Meeting
    label: str
    progress: Progress
    device: torch.device
    here: dict[int, Peer] = field(default_factory=dict)
    exchanges: int = 0

    def train(self) -> dict[int, Trained]:
        """Train all peers to the end, in place; return what this process's gave."""
        with contextlib.ExitStack() as stack:
            for number in self.meeting.here:
                stack.enter_context(on_device(self.networks[number], self.device))
                self.here[number] = Peer(self.loop(number))
                stack.callback(self.here[number].close)
            total = next(iter(self.here.values())).loop.total
            for done in range(total + 1):
                if len(self.networks) > 1 and self.how.due(done, total):
                    self.exchange(done)
                for peer in self.here.values():
                    peer.step()
            return {number: peer.loop.finish() for number, peer in self.here.items()}

    def loop(self, number: int) -> Loop:
        """Return the training of one peer, on its own data and in its own order."""
        task = replace(self.task, train=self.how.share_of(self.task.train, number))
        first, several = number == self.meeting.here[0], self.how.peers > 1
        label = f"{self.label}, peer {number + 1} of {self.how.peers}" if several else self.label
        calls = Calls(self.task.seed + SEED_STEP * number, label, self.progress if first else quiet())
        loop = Loop(self.networks[number], task, self.training, Processes(self.device, alone=True), calls)
        loop.prepare((TaskLoss(), FromPeers(self.how.weight, self.how.temperature)), ())
        if self.how.exchange == "answers":
            loop.batches.sources[TRAIN].cache = Answers(task.train)
        return loop

    def exchange(self, done: int) -> None:
        """Let every peer learn from the others as they are now."""
        self.exchanges += 1
        if self.how.exchange == "answers":
            self.exchange_answers(done)
            return
        for number, network in enumerate(self.networks):
            self.meeting.share(values_of_network(network), number, done)
        for number, peer in self.here.items():
            others = [one for other, one in enumerate(self.networks) if other != number]
            peer.loop.batches.teach(others, (), self.training.precision)

    def exchange_answers(self, done: int) -> None:
        """Answer each other's training samples."""
        places: dict[int, list[Any]] = {number: [] for number in self.here}
        asked = range(self.how.peers) if self.how.own_data else range(1)
        for number, network in enumerate(self.networks):
            for share in asked:
                data = self.how.share_of(self.task.train, share)
                if self.how.own_data and share == number:
                    continue
                found = peer_answers(network, data, self.training.precision, self.device, number in self.here)
                self.meeting.share([found.outputs], number, done)
                for mine in self.here:
                    if mine != number and (mine == share or not self.how.own_data):
                        places[mine].append(found)
        for number, peer in self.here.items():
            cache = peer.loop.batches.sources[TRAIN].cache
            assert isinstance(cache, Answers)
            cache.give(tuple(places[number]))


@dataclass(frozen=True)
class KeptPeer:
    """The best of the peers: its number, what its training gave, and the validation score of each."""

    number: int
    curves: dict[str, list[float]]
    scores: list[float]
    exchanges: int
    sent: int


def train_peers(
    network: nn.Module, task: Task, training: Training, how: Codistillation, *, label: str, progress: Progress | None = None
) -> KeptPeer:  # fmt: skip
    """Train copies of `network` that learn from each other, and give it the values of the best on the validation data.

    In one process all peers take turns; under torchrun each process trains one, and all end with the same values. Raises
    BadValue for another number of processes than peers, and for answers to data that vary; Failed for a process that is
    lost or does not answer in time; and what `train` raises.
    """
    if how.exchange == "answers" and task.train.varies:
        raise BadValue(
            f"{label}: exchange must be weights for augmented data, got answers, which are to the data as they are. "
            "Write exchange: weights."
        )
    device = training_device(network, task.device)
    with Meeting(how.peers, device, how.wait, label) as meeting:
        own = meeting.here[0]
        networks = [network if number == own else copy.deepcopy(network) for number in range(how.peers)]
        peers = Peers(networks, task, training, how, meeting, label, progress or quiet(), device)
        trained = peers.train()
        return keep_best(peers, trained, own)


def keep_best(peers: Peers, trained: dict[int, Trained], own: int) -> KeptPeer:
    """Give the best peer's values to the network of this process."""
    task, meeting, count = peers.task, peers.meeting, peers.how.peers
    scores = torch.zeros(count, 1, dtype=torch.float64)
    curves = [copy.deepcopy(trained.get(number, trained[own]).curves) for number in range(count)]
    for number in range(count):
        if number in trained:
            scores[number] = mean_score(peers.networks[number], task.validation, task.metric)
        values = torch.tensor([one for curve in curves[number].values() for one in curve], dtype=torch.float64)
        meeting.share([scores[number], values], number)
        remaining = iter(values.tolist())
        curves[number] = {name: [next(remaining) for _ in curve] for name, curve in curves[number].items()}
    best = int((scores if task.metric.higher_is_better else -scores).argmax())
    meeting.share(values_of_network(peers.networks[best]), best)
    with torch.no_grad():
        for mine, value in zip(
            values_of_network(peers.networks[own]), values_of_network(peers.networks[best]), strict=True
        ):
            mine.copy_(value)
    return KeptPeer(best, curves[best], scores.flatten().tolist(), peers.exchanges, meeting.sent)
