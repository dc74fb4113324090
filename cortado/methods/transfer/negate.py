"""transfer/negate: each filter has a negative, which is neither stored nor computed."""

from dataclasses import dataclass

from cortado.methods.transfer.transfer import UNTIED, Transfer, every, make_filters
from cortado.network.view import View
from cortado.parts.forms.transforms import NEGATE
from cortado.task.task import Task


@dataclass(frozen=True)
class TransferNegate(Transfer):
    """Half of the filters are the negatives of the other half (CReLU).  Shang, Sohn, Almeida, Lee, 2016.

    The next nonlinearity lets both parts of a filter's output through. A layer is computed as its base filters, and each
    output then twice.
    """

    needs = (UNTIED,)

    def apply(self, view: View, task: Task) -> None:
        make_filters(self, view, UNTIED.require(self, view, task), NEGATE, 2, task, every(2))
