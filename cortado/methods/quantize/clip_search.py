"""Bayesian optimisation of the share of zeros and the bits of each layer, by loss and size."""

from collections.abc import Iterable
from functools import partial
from types import ModuleType

import torch
from torch import Tensor

from cortado.errors import MissingPackage
from cortado.network.graph.trace import device_of
from cortado.network.view import View
from cortado.network.weight import Weight
from cortado.parts.forms.clipped import Clipped
from cortado.running.call import call
from cortado.running.eval_mode import eval_mode
from cortado.running.trees import sample_count, to_device
from cortado.task.task import Task

Pair = tuple[float, int]
"""Share of zeros, bits."""
FLOAT_BITS = 32


class Search:
    """The cost of a pair in a network: loss on calibration data, and bits.  Tung and Mori, 2018."""

    def __init__(self, view: View, task: Task, images: int, batch: int, strength: float, method: str) -> None:
        """`strength`: the loss that all of the network's float bits are worth.  Raises MissingPackage."""
        self.view, self.task, self.strength, self.method = view, task, strength, method
        assert task.calibration is not None
        self.data, self.batch = task.calibration.first(images), batch
        self.optuna = optuna_module(method)
        self.entries = sum(weight.shape.numel() for weight in view.all_weights)

    def best(self, weights: Iterable[Weight], trials: int, first: Pair) -> list[tuple[Weight, Pair]]:
        """Return the best pair for each weight of two or more axes, with all other weights unchanged."""
        chosen = [weight for weight in weights if len(weight.shape) > 1]
        loud = self.optuna.logging.get_verbosity()
        self.optuna.logging.set_verbosity(self.optuna.logging.WARNING)
        try:
            with self.view.progress.bar(self.method, trials * len(chosen)) as bar:
                return [
                    (weight, self.pair(weight, trials, first, number, bar.advance))
                    for number, weight in enumerate(chosen)
                ]
        finally:
            self.optuna.logging.set_verbosity(loud)

    def pair(self, weight: Weight, trials: int, first: Pair, number: int, tried: object) -> Pair:
        """Return the best pair for one weight, and restore the weight."""
        before = weight.form
        sampler = self.optuna.samplers.TPESampler(seed=self.task.seed + number, n_startup_trials=max(2, trials // 3))
        study = self.optuna.create_study(sampler=sampler)
        study.enqueue_trial({"zeros": first[0], "bits": first[1]})

        def cost(trial: object) -> float:
            zeros, bits = trial.suggest_float("zeros", 0.0, 0.99), trial.suggest_int("bits", 2, 8)  # type: ignore[attr-defined]
            weight.set_form(before.map_values(partial(Clipped, bits=bits, zeros=zeros)))
            found = self.loss() + self.strength * coded_bits(weight.dense()) / (FLOAT_BITS * self.entries)
            tried()  # type: ignore[operator]
            return found

        try:
            study.optimize(cost, n_trials=trials)
        finally:
            weight.set_form(before)
        return float(study.best_params["zeros"]), int(study.best_params["bits"])

    def loss(self) -> float:
        """Return the task's mean loss on the calibration data, in eval mode."""
        total, device = 0.0, device_of(self.view.network) or torch.device("cpu")
        with eval_mode(self.view.network):
            for inputs, targets in self.data.batches(self.batch):
                outputs = call(self.view.network, to_device(inputs, device))
                total += float(self.task.loss(outputs, to_device(targets, device))) * sample_count(targets)
        return total / len(self.data)


def coded_bits(values: Tensor) -> float:
    """Return the bits of an ideal coder for values with many duplicates: their entropy, plus one float per distinct value."""
    _, counts = values.unique(return_counts=True)
    share = counts.double() / counts.sum()
    return float(-(share * share.log2()).sum()) * values.numel() + FLOAT_BITS * len(counts)


def optuna_module(method: str) -> ModuleType:
    """Return the optuna module.  Raises MissingPackage."""
    try:
        import optuna
    except ImportError as error:
        raise MissingPackage(
            f"{method}: trials needs optuna, which is not installed. Run pip install -e '.[search]' in Cortado's folder, "
            "or use trials=0, which takes bits and zeros as given."
        ) from error
    return optuna
