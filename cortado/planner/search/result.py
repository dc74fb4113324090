"""Result of a search: the best network, its report, and a table of all trials."""

from dataclasses import dataclass

from torch import nn

from cortado.engine.compress import Compressed
from cortado.engine.job import built_on, restarts_in
from cortado.planner.search.trials import Trial
from cortado.quantities import size_text, time_text
from cortado.report.report import Report
from cortado.table import aligned


@dataclass(frozen=True)
class SearchResult:
    """The best network, its report on test data, all trials, and the Pareto front.

    `made` is the output of the best run, ready for a bundle; `advice` names the binding limit if one was missed; `notes` say
    what could not be tried.
    """

    made: Compressed
    trials: tuple[Trial, ...]
    front: tuple[Trial, ...]
    best: Trial
    advice: str = ""
    notes: tuple[str, ...] = ()

    @property
    def network(self) -> nn.Module:
        return self.made.network

    @property
    def report(self) -> Report:
        return self.made.report

    def architecture(self, original: nn.Module) -> nn.Module:
        """Return the network that the best one's file is written against: the original, or a cascade around it."""
        return built_on(original, restarts_in(self.best.recipe))

    def text(self) -> str:
        """Return a table of all trials, smallest first, with a star for each on the front, and the advice."""
        done = sorted((one for one in self.trials if one.done), key=lambda one: one.size_bytes)
        timed = any(one.latency_ms is not None for one in done)
        head = ["trial", "what", "file", *["one sample"] * timed, "score on validation data", "limits"]
        rows = [head, *(self.row(one, timed) for one in done)]
        refused = [f"{one.number:03} refused: {one.failed} ({one.text()})" for one in self.trials if one.failed]
        return "\n".join(
            [
                aligned(rows, "<<" + ">" * (len(rows[0]) - 3) + "<"),
                *refused,
                *([f"\n{self.advice}"] if self.advice else []),
                *self.notes,
            ]
        )

    def row(self, trial: Trial, timed: bool) -> list[str]:
        """Return the cells of one trial."""
        taken = ["–" if trial.latency_ms is None else time_text(trial.latency_ms)] * timed
        score = f"{trial.score:.2f} {self.report.metric_unit}".rstrip()
        name = f"{trial.number:03}{'*' if trial in self.front else ''}"
        kept = trial.kept_text() + ("  <- taken" if trial is self.best else "")
        return [name, trial.text(), size_text(trial.size_bytes), *taken, score, kept]
