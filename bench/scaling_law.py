"""scaling_law: does a power law of small networks tell the loss of a larger one?

Networks of one hidden layer guess the next of Shakespeare's characters from the 16 before it (Bengio et al., 2003), trained
here: six widths on 250,000, 500,000 and 1,000,000 characters, each seen at most once. `cortado cost --fit` gets the six
runs with most characters as size and loss, and says what to expect of a network with twice as many parameters as the
largest, which is then trained too. From all 18 runs it gets the law in parameters and characters (Hoffmann et al., 2022), and
the network to train with as many operations as the largest run had. Loss in nats on the last 50,000 characters.
"""

import csv
import re
import tempfile
from pathlib import Path
from typing import Any

import torch
from click.testing import CliRunner
from torch import Tensor, nn
from torch.nn import functional

from bench.char_lstm import LETTERS, letters
from bench.kept import kept
from bench.result import PIECES, row
from cortado.cli import main
from cortado.cost.power_law import fit_compute_law, fit_power_law
from cortado.task.data import Data
from cortado.task.measure import mean_score
from cortado.task.task import Task
from cortado.training.loop import train
from cortado.training.training import Training

CONTEXT, NUMBERS, BATCH, ASIDE = 16, 8, 256, 50_000
WIDTHS, LARGER = (8, 16, 32, 64, 128, 256), 512
SEEN = (250_000, 500_000, 1_000_000)


class NextLetter(nn.Module):
    """Characters (N, 16) to logits of the next one, (N, 65)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(LETTERS, NUMBERS)
        self.hidden, self.head = nn.Linear(CONTEXT * NUMBERS, width), nn.Linear(width, LETTERS)

    def forward(self, text: Tensor) -> Tensor:
        return self.head(functional.gelu(self.hidden(self.embedding(text).flatten(1))))


def windows(text: Tensor) -> Data:
    """Return all places of a text: what stands before each, and the character."""
    return Data(text[:-1].unfold(0, CONTEXT, 1), text[CONTEXT:])


def trained(width: int, seen: int) -> dict[str, float]:
    """Return the kept run of a network: parameters, characters seen, loss."""

    def make() -> dict[str, float]:
        torch.manual_seed(0)
        network, text = NextLetter(width), letters()
        known, test = windows(text[:-ASIDE]), windows(text[-ASIDE:])
        order = torch.randperm(len(known), generator=torch.Generator().manual_seed(0))
        task = Task(
            known.pick(order[:seen]), test.first(1000), test, loss=functional.cross_entropy, batch=BATCH, trial=True
        )
        train(network, task, Training(epochs=1, lr=3e-3, warmup=0.02, precision="float32"))
        loss = Task(test, test, test, loss=nll, trial=True)
        found = {
            "parameters": sum(one.numel() for one in network.parameters()), "tokens": seen,
            "loss": mean_score(network, test, loss.metric),
        }  # fmt: skip
        print(width, found, flush=True)
        return found

    return kept("scaling_law", [width, seen, BATCH, CONTEXT, NUMBERS], make, PIECES)


def nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each character, (N,)."""
    return functional.cross_entropy(outputs, targets, reduction="none")


def told(runs: list[dict[str, float]], size: float) -> tuple[float, float, float]:
    """Return the loss that the command expects of a size, and the ends of its interval."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.csv"
        with path.open("w", newline="", encoding="utf8") as file:
            table = csv.writer(file)
            table.writerow(["size", "loss"])
            table.writerows([one["parameters"], one["loss"]] for one in runs)
        said = CliRunner().invoke(main, ["cost", "--fit", str(path), "--at", str(size)]).output
    numbers = re.search(r"loss ([\d.]+), ([\d.]+) to ([\d.]+) \(95 %\)$", said.strip())
    assert numbers is not None, said
    loss, low, high = (float(one) for one in numbers.groups())
    return loss, low, high


def run() -> list[dict[str, Any]]:
    """Return the laws, the expected and the measured loss of the larger network, and the network to train."""
    torch.set_num_threads(1)
    runs = [trained(width, seen) for seen in SEEN for width in WIDTHS]
    longest, larger = runs[-len(WIDTHS) :], trained(LARGER, SEEN[-1])
    law = fit_power_law([one["parameters"] for one in longest], [one["loss"] for one in longest])
    expected, low, high = told(longest, larger["parameters"])
    both = fit_compute_law(*([one[what] for one in runs] for what in ("parameters", "tokens", "loss")))
    spent = 6 * longest[-1]["parameters"] * longest[-1]["tokens"]
    parameters, tokens = both.best(spent)
    inside = row(
        "larger network: the measured loss lies in the interval (1: yes)",
        float(low <= larger["loss"] <= high),
        "",
        1,
        "higher",
    )
    return [
        *(row(f"{one['parameters']:,} parameters, {one['tokens']:,} characters", one["loss"], "nats") for one in runs),
        row("exponent of size", law.exponent, "", interval=list(law.exponent_interval)),
        row("floor", law.floor, "nats", interval=list(law.floor_interval)),
        row(f"larger network, {larger['parameters']:,} parameters: expected", expected, "nats", interval=[low, high]),
        row("larger network: measured", larger["loss"], "nats"),
        inside,
        row("exponent of parameters, in the law of both", both.alpha, "", source_value=0.34),
        row("exponent of characters, in the law of both", both.beta, "", source_value=0.28),
        row("relative error of the law of both", 100 * both.error, "%"),
        row(f"to train with {spent:.2g} operations: parameters", parameters, "", loss=both.loss(parameters, tokens)),
        row("to train with them: characters", tokens, ""),
    ]  # fmt: skip
