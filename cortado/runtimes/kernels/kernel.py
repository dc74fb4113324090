"""Kernel: the base class of what makes a product fast.  Each is one file of this folder; a runtime lists those it has."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from cortado.lowering.products import Product

NOT_CONCERNED = ""
"""What `fits` returns where there is nothing to explain: the weight has nothing that the kernel makes use of."""


class Kernel(ABC):
    """Multiplies by weights that are not plain floats, faster or in fewer bytes than a float product.

    `name` stands in the table of placements. `lost` completes it where a file does not have the kernel for a layer that
    fits: the reason, in words.
    """

    name: ClassVar[str]
    lost: ClassVar[str] = "the runtime did not take it"

    @abstractmethod
    def fits(self, product: Product) -> str | None:
        """Return None if the kernel runs this product, else why not, in words that a user understands.

        NOT_CONCERNED ("") means that the product has nothing this kernel could make use of, which needs no explanation.
        """

    @abstractmethod
    def emit(self, model: Any, products: Sequence[Product]) -> None:
        """Replace these products in the runtime's model, in place, where it has an operator for the layer alone."""


Chosen = dict[Kernel, list[Product]]


def kernels_for(kernels: Sequence[Kernel], products: Sequence[Product]) -> Chosen:
    """Return the products that each kernel runs: the first one that fits, in order of preference."""
    chosen: Chosen = {kernel: [] for kernel in kernels}
    for product in products:
        first = next((kernel for kernel in kernels if kernel.fits(product) is None), None)
        if first is not None:
            chosen[first].append(product)
    return chosen


def reasons_against(kernels: Sequence[Kernel], product: Product, ran: str) -> str:
    """Return why no kernel that is preferred to the one that ran (its name) runs this product; "" if none is concerned."""
    found = []
    for kernel in kernels:
        if kernel.name == ran:
            break
        why = kernel.fits(product)
        if why != NOT_CONCERNED:
            found.append(f"{kernel.name}: {kernel.lost if why is None else why}")
    return "; ".join(found)
