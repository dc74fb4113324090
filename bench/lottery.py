"""Lottery tickets (Frankle, Carbin, 2019): LeNet-300-100 on MNIST, tickets against the same masks with fresh weights.

Rounds of training, pruning by magnitude and rewinding to the start. At some shares of weights the same mask is trained
once more from new random weights for as long: the control. Errors are on the 10,000 test images, means over seeds
with the sample deviation; nothing was chosen by them. All trainings take the same number of epochs.
"""

from torch import nn

from bench.networks import error, mnist, untrained
from bench.result import spread
from cortado.methods.finetune import Finetune
from cortado.methods.prune.weights import PruneWeights
from cortado.methods.rewind import Rewind
from cortado.network.view import View, working_copy
from cortado.task.task import Task

SEEDS = [0, 1, 2]
KEPT = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02)
CONTROLLED = (0.2, 0.1, 0.05, 0.02)
EPOCHS = 5
LR = 1.2e-3

Errors = dict[tuple[str, float], list[float]]
"""("ticket" or "control", share kept) -> errors in %, one a seed."""


def learned(network: nn.Module, start: nn.Module, task: Task) -> float:
    """Train; gives the test error."""
    Finetune(epochs=EPOCHS, lr=LR).apply(View(network, start, task.example), task)
    return error(network, task, task.test)


def prune(network: nn.Module, start: nn.Module, task: Task, keep: float) -> None:
    """By magnitude in each layer; the output layer at half the rate of the others, as in the paper."""
    PruneWeights(where="not fc3", keep=keep).apply(View(network, start, task.example), task)
    PruneWeights(where="fc3", keep=keep**0.5).apply(View(network, start, task.example), task)


def rounds(seed: int, found: Errors) -> None:
    """One chain of rounds; the ticket of a share is what the next round begins with."""
    task, start = mnist(seed), untrained("LeNet-300-100", seed)
    network = working_copy(start)
    for keep in KEPT:
        if keep < 1:
            prune(network, start, task, keep)
            Rewind().apply(View(network, start, task.example), task)
        if keep in CONTROLLED:
            control = working_copy(network)
            Rewind(to="random").apply(View(control, start, task.example), task)
            found.setdefault(("control", keep), []).append(learned(control, start, task))
        found.setdefault(("ticket", keep), []).append(learned(network, start, task))


def run(seeds: list[int]) -> list[dict]:
    """Mean and spread of the errors at each share, and of their differences."""
    found: Errors = {}
    for seed in seeds:
        rounds(seed, found)
    rows = []
    for (what, keep), errors in sorted(found.items(), key=lambda item: (-item[0][1], item[0][0])):
        says = "the whole network" if keep == 1 else f"{100 * keep:g} % of the hidden layers' weights, {what}"
        rows.append(spread(f"{says}: test error", errors))
    for keep in CONTROLLED:
        pairs = zip(found["control", keep], found["ticket", keep], strict=True)
        rows.append(spread(f"{100 * keep:g} %: control's error less the ticket's", [a - b for a, b in pairs]))
    return rows
