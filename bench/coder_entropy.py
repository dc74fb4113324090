"""Distance of the coders from entropy.

rans: its bytes against the empirical entropy of its tokens given the contexts it chose, plus the bits it sends plain.
mix: its bytes against the smallest empirical conditional entropy that any single one of its contexts gives (magnitudes
and signs each take their best), and against the sum of -log2 of the probabilities it coded with.
Empirical entropies know all counts in advance; a coder must learn or send them: hence the bars of 1 % and 64 bytes. A
context of thousands of cells has a low empirical entropy on a small plane and yet predicts badly; so a second bar gives
each single context the code length of learning as it goes (Krichevsky and Trofimov, 1981), which a coder can reach.
"""

from collections import defaultdict
from collections.abc import Callable

import numpy as np
from scipy.special import gammaln

from bench.coder_planes import planes
from bench.coder_speed import speed_planes
from bench.result import row
from cortado.file import mix, rans
from cortado.native.coders import rans_tokens
from cortado.native.python_mix import SIGNS, USED, Model, Writer

LIMIT = 40000  # values a plane: the recording model is Python
SIGN_KIND = 3


class Recorder(Model):
    """The mixed coder, counting what each context sees on its own."""

    def begin(self) -> None:
        """Start counting."""
        self.counts: dict[tuple[bool, int], dict[int, list[int]]] = defaultdict(lambda: defaultdict(lambda: [0, 0]))
        self.low: dict[int, list[int]] = defaultdict(lambda: [0, 0])

    def bin(self, bit: int, kind: int, mixer: int, count: int, parent: int) -> int:
        """Code one decision, and count it under each of its contexts."""
        for number in range(count):
            self.counts[kind == SIGN_KIND, number][self.slot[number] if number else parent][bit] += 1
        return super().bin(bit, kind, mixer, count, parent)

    def low_bit(self, bit: int, index: int) -> int:
        """Code one low bit, and count it."""
        self.low[index][bit] += 1
        return super().low_bit(bit, index)


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy of symbols (last axis) given contexts (first axis), in bits."""
    totals = counts.sum(-1, keepdims=True)
    return float(-(counts * np.log2(np.where(counts > 0, counts / np.maximum(totals, 1), 1.0))).sum())


def learned_bits(counts: np.ndarray) -> float:
    """Bits of binary decisions (contexts, 2) by the estimator (count + 1/2) / (all + 1), which learns as it goes."""
    zeros, ones = counts[:, 0].astype(np.float64), counts[:, 1].astype(np.float64)
    log = gammaln(zeros + 0.5) + gammaln(ones + 0.5) - gammaln(zeros + ones + 1) - 2 * gammaln(0.5)
    return float(-log.sum() / np.log(2))


def best_single(recorder: Recorder, bits: Callable[[np.ndarray], float]) -> float:
    """The bytes of the best single context for magnitudes, that for signs, and of the low bits."""
    total = bits(np.array(list(recorder.low.values()))) if recorder.low else 0.0
    for sign in (False, True):
        seen = [counts for (is_sign, _), counts in recorder.counts.items() if is_sign == sign]
        total += min((bits(np.array(list(counts.values()))) for counts in seen), default=0.0)
    return total / 8


def mix_rows(name: str, plane: np.ndarray) -> list[dict]:
    """The mixed coder on one plane."""
    body, ideal, writer = mix.encode(plane, None), [0.0], Writer()
    density = (body[1] >> 3 & 7) + 1
    facts = (body[0] & 63, body[0] >> 6 & 1, body[0] >> 7)
    stride = body[2] if body[1] & 64 else 0
    plan = mix.make_plan(plane.shape, facts, stride, body[1] & 7, density)

    def code(bit: int, share: int) -> int:
        ideal[0] -= np.log2((share if bit else 65536 - share) / 65536)
        return writer.code(bit, share)

    recorder = Recorder(plan, None, code)
    recorder.begin()
    recorder.walk(plane.ravel().tolist())
    single, learned = best_single(recorder, entropy_bits), best_single(recorder, learned_bits)
    return [
        row(f"mix, {name}: bytes (bar: best single context + 1 % + 64)", len(body), "B", 1.01 * single + 64),
        row(f"mix, {name}: bytes (bar: best single context, learned)", len(body), "B", learned),
        row(f"mix, {name}: best single context of {USED - 1 + SIGNS}", single, "B"),
        row(f"mix, {name}: bytes above its own ideal code length", len(body) - ideal[0] / 8, "B"),
    ]


def rans_row(name: str, plane: np.ndarray) -> dict:
    """The fast coder on one plane."""
    listed, line = np.ascontiguousarray(plane.ravel()), max(int(np.prod(plane.shape[1:])), 1)
    body, plan = rans.encode(listed, line), rans.plan_of(listed, line)
    numbers = plan.numbers()
    survey = rans.rans_survey(listed, numbers)
    cuts = [rans.thresholds(part, 8) for part in (survey[: rans.STEPS], survey[rans.STEPS :])]
    _, _, counts, raw = rans_tokens(listed, numbers, rans.lookup_table(cuts[0], 8), rans.lookup_table(cuts[1], 1))
    chosen = rans.group(counts.reshape(8, 8, rans.TOKENS), body[0] >> 2 & 3, body[0] >> 4 & 3)
    bound = entropy_bits(chosen) / 8 + len(raw)
    what = f"rans, {name}: bytes (bar: tokens given {len(chosen)} contexts + 1 % + 64)"
    return row(what, len(body), "B", 1.01 * bound + 64)


def run() -> list[dict]:
    """The fast coder on large planes, the mixed one on planes of networks."""
    rows = [rans_row(name, plane) for name, plane in speed_planes().items()]
    for name, group in planes().items():
        plane = max((part for part in group if part.size <= LIMIT), key=lambda part: part.size)
        rows.append(rans_row(f"{name}, {plane.size} values", plane))
        rows += mix_rows(f"{name}, {plane.size} values", plane)
    return rows
