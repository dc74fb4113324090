"""Numbers: outputs are numbers without a softmax: regression, embeddings, depth."""

from dataclasses import dataclass
from typing import Any

from cortado.task.outputs.gaussian import Gaussian
from cortado.task.outputs.outputs import Rows, as_rows, first_floats_of


@dataclass(frozen=True)
class Numbers(Gaussian):
    """Numbers: (N, numbers), (N, places, numbers), maps (N, numbers, H, W ...), or one per sample (N,).

    >>> fitted = cortado.Numbers().fitted(torch.rand(8, 1, 3))

    They stand for Gaussians around them, all with the same `variance`: that of the original network's outputs on the data,
    about each number's mean, unless given. Their divergence is half the squared error divided by it, averaged over the
    numbers: half the share of variance that a change loses, independent of units, width and numbers that carry no
    information. It agrees with squared-error losses and with cosines of centered embeddings. Of several outputs the first
    float tensor counts.
    """

    def rows(self, outputs: Any) -> Rows:
        return as_rows(first_floats_of(outputs))
