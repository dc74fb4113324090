"""Gate times: what gates cost and save in a runtime, and from what share of skipped blocks on they pay."""

import copy
import math
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from cortado.lowering.lower import lowered
from cortado.network.profile.execution import rows_run
from cortado.parts.blocks.block import blocks_in, take_off
from cortado.parts.blocks.gate import Gate
from cortado.quantities import time_text
from cortado.running.call import call
from cortado.runtimes.runtime import Running, Runtime
from cortado.runtimes.stream import streamed


@dataclass(frozen=True)
class GateTimes:
    """Milliseconds of processor time for a call without gates, with all gates open, with all shut, and as they decide.

    `skipped`: the share of the samples that a gate keeps from its block, 0..1, the mean over gates.
    """

    without_ms: float
    open_ms: float
    shut_ms: float
    deciding_ms: float
    skipped: float

    @property
    def break_even(self) -> float:
        """Return the share of skipped blocks from which on gates pay."""
        return break_even(self.without_ms, self.open_ms, self.shut_ms)

    def text(self) -> str:
        """Return for people whether the gates pay."""
        point = self.break_even
        times = f"{time_text(self.deciding_ms)} with gates, {time_text(self.without_ms)} without"
        skipped = f"gates skip {self.skipped:.0%} of their blocks"
        if point > 1:
            return f"{skipped}, and cannot pay: {times}. Take them off, or put them around larger blocks"
        if self.skipped <= point:
            return f"{skipped}, below the break-even of {point:.0%}: {times}. Lower target, or choose larger blocks"
        return f"{skipped}, above the break-even of {point:.0%}: {times}"


def break_even(without_ms: float, open_ms: float, shut_ms: float) -> float:
    """Return the share of skipped blocks at which a network with gates takes as long as without them, from measured times.

    Time falls in a straight line from all gates open to all shut, which holds for blocks of one size. 0: gates cost nothing;
    above 1: they cannot pay; infinite: skipping saves nothing.
    """
    if open_ms <= without_ms:
        return 0.0
    return (open_ms - without_ms) / (open_ms - shut_ms) if open_ms > shut_ms else math.inf


def gates_of(network: nn.Module) -> list[Gate]:
    """Return the gates of a network."""
    return [block for _, block in blocks_in(network) if isinstance(block, Gate)]


def gate_times(
    runtime: Runtime, network: nn.Module, example: Any, inputs: Sequence[Any], seconds: float = 2.0
) -> GateTimes | None:
    """Time a network in eval mode with its gates, without them, all open and all shut; None if it has no gates.

    `inputs` are several batches of one size, which all run in turns.
    """
    if not gates_of(network):
        return None
    variants = [ungated(network), forced(network, True), forced(network, False), network]
    with tempfile.TemporaryDirectory() as scratch:
        calls = []
        for number, variant in enumerate(variants):
            folder = Path(scratch) / str(number)
            folder.mkdir()
            file = runtime.lower(lowered(variant, example), example, folder)
            calls.append([partial(call, Running(runtime.load(file, 1)), given) for given in inputs])
        taken = streamed(calls, seconds, time.process_time).mean((0, 2))
    without, opened, shut, deciding = taken.tolist()
    return GateTimes(without, opened, shut, deciding, skipped_share(network, inputs))


def skipped_share(network: nn.Module, inputs: Sequence[Any]) -> float:
    """Return the share of the samples that a gate keeps from its block, the mean over gates that ran."""
    ran = rows_run(network, inputs)
    shares = [float(ran[id(gate.gate_rows)].mean()) for gate in gates_of(network) if id(gate.gate_rows) in ran]
    return 1 - sum(shares) / len(shares) if shares else 0.0


def ungated(network: nn.Module) -> nn.Module:
    """Return a copy of a network without its gates."""
    made = copy.deepcopy(network)
    for gate in gates_of(made):
        made = take_off(made, gate)
    return made


def forced(network: nn.Module, opened: bool) -> nn.Module:
    """Return a copy of a network whose gates do their work, and are all open or all shut."""
    made = copy.deepcopy(network)
    for gate in gates_of(made):
        last = nn.Linear(gate.hidden, 1).to(next(gate.gate_opens.read.parameters()))
        nn.init.zeros_(last.weight)
        nn.init.constant_(last.bias, 1.0 if opened else -1.0)
        gate.gate_opens.decide = last
    return made.eval()
