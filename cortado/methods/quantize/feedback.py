"""Feedback: round a matrix input by input on unbounded even grids, weighing errors against the bits of the codes."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cortado.methods.error_feedback import with_error_feedback
from cortado.methods.observed import Problem
from cortado.methods.quantize.floats import round_mantissa

RATE_WEIGHT = 0.1
"""What a bit costs, in squares of the step: more leaves out too many small codes, less keeps codes that hardly matter."""
CLASSES, FILLED, LARGEST = 12, 1000, 255
"""Most classes of expected magnitude with code lengths of their own, of at least so many weights each; and the largest
magnitude that has a length of its own."""
SAMPLED, TOWARDS = 20_000, 0.35
MANTISSA = 3
"""Bits of a row's step after the leading one: eight steps an octave, one byte or less in the file."""


@dataclass(frozen=True)
class RoundedMatrix:
    """Codes (groups, outputs, inputs), int32; the scale of each output (groups, outputs); predicted KL in nats, and bits."""

    codes: Tensor
    scale: Tensor
    loss: float
    bits: float


def row_steps(problem: Problem) -> Tensor:
    """Return each row's step for a step of 1 nat^(1/2), by which an error costs the same on each output (groups, outputs)."""
    # A step for all inputs: theory would vary it by the pivots, which loses twice as much in practice.
    return problem.pivots.log().mean(-1, keepdim=True).exp() / problem.outputs.sqrt()


def rounded(problem: Problem, step: float) -> RoundedMatrix:
    """Round each weight to the nearest code or the next nearer to zero, and let later inputs compensate for the error.

    The error feedback is that of GPTQ (Frantar et al., 2023). Of both codes it takes the one with the least
    outputs x error^2 / upper_cc^2 + RATE_WEIGHT step^2 x bits, as in rate-distortion optimized quantization (Karczewicz et al.,
    2008). `step`: the square root of the nats that an error of one grid step costs, for every weight of the network alike.
    """
    scale = round_mantissa((step * row_steps(problem)).float(), MANTISSA)
    left = problem.weight.float().mT.contiguous()
    lengths = CodeLengths.of(left / scale[:, None])
    free = None if problem.free is None else problem.free.mT
    # Costs are in squares of the step, which may be tiny where a network is sure of all its answers.
    unit = problem.outputs.sqrt() / step
    codes, pivots = torch.empty_like(left), problem.pivots

    def nearest(at: int, now: Tensor) -> Tensor:
        chosen = cheaper(now / scale, (unit * scale / pivots[:, at, None]) ** 2, lengths, at)
        codes[:, at] = chosen if free is None else chosen * free[:, at]
        return codes[:, at] * scale

    loss = with_error_feedback(left, problem, nearest)
    nats = float((problem.outputs * loss).double().sum()) / 2
    return RoundedMatrix(codes.mT.to(torch.int32), scale, nats, CodeLengths.of(codes).bits(codes))


def cheaper(found: Tensor, cost: Tensor, lengths: "CodeLengths", at: int) -> Tensor:
    """Return the cheaper of the two codes of each of `found` (groups, outputs), which are in steps, at input `at`."""
    near = found.round()
    less = near - near.sign()
    gain = cost * ((found - near).square() - (found - less).square()) + RATE_WEIGHT * (
        lengths.of_codes(near, at) - lengths.of_codes(less, at)
    )
    return torch.where(gain > 0, less, near)


def towards_zero(levels: Tensor) -> Tensor:
    """Return the codes of values in steps that are rounded without feedback, as often towards zero as bits make them."""
    return levels.sign() * (levels.abs() + TOWARDS).floor()


@dataclass(frozen=True)
class CodeLengths:
    """The bits of a code by its magnitude and by the expected magnitude of its row and column.

    `classes`: (groups, inputs, outputs), offsets into `lengths`, which is flat: 2 x LARGEST + 1 codes for each class.
    """

    classes: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, levels: Tensor) -> "CodeLengths":
        """Return the code lengths for values (groups, inputs, outputs) in steps, which tend to round towards zero."""
        size = levels.abs()
        expected = (size.mean(2, keepdim=True) + 1e-9).log2() + (size.mean(1, keepdim=True) + 1e-9).log2()
        flat = expected.flatten()
        count = min(CLASSES, 1 + len(flat) // FILLED)
        cuts = flat[:: max(1, len(flat) // SAMPLED)].quantile(torch.linspace(0, 1, count + 1)[1:-1].to(flat))
        wide = 2 * LARGEST + 1
        classes = torch.bucketize(expected, cuts) * wide + LARGEST
        codes = towards_zero(levels).clamp(-LARGEST, LARGEST).long()
        counts = torch.bincount((classes + codes).flatten(), minlength=count * wide).view(count, wide).float()
        # Both signs are equally likely, and no code is impossible.
        counts = (counts + counts.flip(1)) / 2 + 0.01 + counts.sum(1, keepdim=True) * 1e-3 / wide
        return cls(classes, -(counts / counts.sum(1, keepdim=True)).log2().flatten())

    def of_codes(self, codes: Tensor, at: int) -> Tensor:
        """Return the bits of codes (groups, outputs) of input `at`; beyond LARGEST all count as that."""
        return self.lengths[self.classes[:, at] + codes.clamp(-LARGEST, LARGEST).long()]

    def bits(self, codes: Tensor) -> float:
        """Return the bits of all codes (groups, inputs, outputs), with two for each doubling beyond LARGEST."""
        inside = self.lengths[self.classes + codes.clamp(-LARGEST, LARGEST).long()].double().sum()
        beyond = 2 * (codes.abs().clamp(min=LARGEST) / LARGEST).log2().double().sum()
        return float(inside + beyond)
