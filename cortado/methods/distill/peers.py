"""distill/peers: train several copies that learn from each other, and keep the best."""

from dataclasses import dataclass

from cortado.knobs.nested import flat_knobs
from cortado.methods.method import Method, knob
from cortado.methods.needs import LEARNS, Leaves
from cortado.network.view import View
from cortado.running.devices import place_of_training
from cortado.task.task import Task
from cortado.training.learning import only_learning
from cortado.training.peers import EXCHANGES, Codistillation, train_peers
from cortado.training.traffic import bytes_text
from cortado.training.training import Training


@flat_knobs
@dataclass(frozen=True)
class DistillPeers(Method):
    """loss = task loss + weight x T^2 x KL(mean of stale peers at T || network at T): codistillation.

    Anil et al., 2018; Zhang et al., 2018 (mutual learning: every=1, own_data=false). Without torchrun, one process trains
    all peers in turns; under torchrun each process trains one, and processes exchange so seldom that slow connections
    suffice. All peers begin with the present values; the best on the validation data is kept. Epochs are passes over a peer's
    own data. `exchange: answers` sends answers to the training data in the place of weights, which is less for large
    networks and few data.
    """

    trains = True
    needs = (LEARNS,)
    leaves = (Leaves.FLOATS,)

    training: Training = knob(Training(), help="how to train")
    peers: int = knob(2, low=1, help="number of networks; under torchrun the number of processes")
    burn_in: float = knob(
        0.5, low=0.0, high=1.0, help="share of the training without exchange: early peers teach their mistakes"
    )
    every: int = knob(50, low=1, help="steps between two exchanges")
    weight: float = knob(1.0, low=0.0, help="weight of the peers' outputs in the loss")
    temperature: float = knob(2.0, low=0.05, help="softmax temperature of all outputs")
    own_data: bool = knob(True, help="each peer learns from its own part of the training data; false: all from all")
    exchange: str = knob("weights", one_of=EXCHANGES, help="what peers send: weights, or answers to the training data")
    wait: float = knob(600.0, low=1.0, help="seconds to wait for the process of another peer before giving up")

    def apply(self, view: View, task: Task) -> None:
        how = Codistillation(
            self.peers, self.burn_in, self.every, self.weight, self.temperature, self.own_data, self.exchange, self.wait
        )
        weights = view.weights(self.where)
        with only_learning(view, None if self.where == "*" else weights):
            kept = train_peers(
                view.network, task, self.training, how, label=self.name(), progress=view.progress
            )  # fmt: skip
        view.curves |= kept.curves
        sent = f", {bytes_text(kept.sent)} sent by each" if kept.sent else ""
        scores = ", ".join(f"{one:.4g}" for one in kept.scores)
        view.notes += [
            *place_of_training(view.network, task.device),
            f"peer {kept.number + 1} of {self.peers} is kept ({task.metric.name} on the validation data: {scores}); "
            f"exchanges of {self.exchange}: {kept.exchanges}{sent}",
        ]
