"""Products: rows cut into short vectors, each one of a few that are shared - for every position a book of its own."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.forms.form import FLOATS, INTEGERS, Arrays, Form
from cortado.forms.quantized import smallest_integers

MOST_VALUES = 2**15


class Products(Form):
    """Product quantization (Jegou, Douze, Schmid, 2011; of weights: Gong et al., 2014).

    The weight as rows (axis 0) of inputs (all other axes in row-major order) is cut into positions of `width` inputs;
    part p of row r is the vector `books[p, codes[r, p]]`. The last position may reach over the end: what lies there is
    not used. The gradient of a vector is the sum over the rows that use it.
    """

    facts = ("values", "width")
    arrays = {"books": FLOATS, "codes": INTEGERS}
    codes: Tensor

    def __init__(self, books: Tensor, codes: Tensor, shape: torch.Size | tuple[int, ...]) -> None:
        """`books`: (positions, values, width) floats; `codes`: (rows, positions), 0 .. values - 1.  Raises BadValue."""
        super().__init__()
        self.shape = torch.Size(shape)
        wanted = self.sizes(self.shape, {"values": books.shape[1], "width": books.shape[2]})
        if books.numel() != wanted["books"] or codes.numel() != wanted["codes"]:
            raise BadValue(
                f"forms/products: {tuple(shape)} needs {wanted['books']} floats in its books and {wanted['codes']} codes, "
                f"got {books.numel()} and {codes.numel()}."
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < books.shape[1]:
            raise BadValue(
                f"forms/products: codes must lie in 0..{books.shape[1] - 1}, got {int(codes.min())}..{int(codes.max())}."
            )
        self.books = nn.Parameter(books.detach().clone())
        self.register_buffer("codes", smallest_integers(codes))

    def dense(self) -> Tensor:
        places = torch.arange(self.books.shape[0], device=self.books.device)
        rows = self.books[places, self.codes.long()].flatten(1)
        return rows[:, : inputs_of(self.shape)].reshape(self.shape)

    def recode(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        """Of fewer rows the vectors that nothing uses go; of fewer inputs the positions become as narrow as needed."""
        books, codes = self.books.detach(), self.codes.long()
        shape = torch.Size([len(keep) if number == axis else size for number, size in enumerate(self.shape)])
        if axis == 0:
            return Products(*used(books, codes[keep]), shape)
        numbers = torch.arange(inputs_of(self.shape), device=keep.device).view(self.shape[1:])
        columns = numbers.index_select(axis - 1, keep).flatten()
        position, offset = columns // books.shape[2], columns % books.shape[2]
        width = next(size for size in range(books.shape[2], 0, -1) if together(position, size))
        count = -(-len(columns) // width)
        made = books.new_zeros(books.shape[1], count * width)
        made[:, : len(columns)] = books[position, :, offset].T
        return Products(made.view(-1, count, width).transpose(0, 1), codes[:, position[::width]], shape)

    def bits(self) -> float:
        width = max(1, (self.books.shape[1] - 1).bit_length())
        return self.codes.numel() * width + self.books.numel() * self.books.element_size() * 8

    def spec(self) -> dict[str, int]:
        return {"values": self.books.shape[1], "width": self.books.shape[2]}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        values, width, inputs = spec["values"], spec["width"], inputs_of(shape)
        if not 1 <= values <= MOST_VALUES or not 1 <= width <= max(1, inputs):
            raise BadValue(
                f"forms/products: values must lie in 1..{MOST_VALUES} and width in 1..{inputs}, the inputs of a row; "
                f"got {values} and {width}."
            )
        positions = -(-inputs // width)
        return {"books": positions * values * width, "codes": rows_of(shape) * positions}

    def parts(self) -> Arrays:
        return {"books": self.books.detach().flatten(), "codes": self.codes.flatten()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Products":
        positions = -(-inputs_of(shape) // spec["width"])
        books = parts["books"].reshape(positions, spec["values"], spec["width"])
        return cls(books, parts["codes"].reshape(rows_of(shape), positions), shape)


def rows_of(shape: torch.Size) -> int:
    """The size of axis 0; a single number is one row."""
    return shape[0] if len(shape) else 1


def inputs_of(shape: torch.Size) -> int:
    """How many entries a row has."""
    return shape[1:].numel()


def together(position: Tensor, width: int) -> bool:
    """Whether every run of `width` columns came from one position."""
    first = position[::width].repeat_interleave(width)[: len(position)]
    return bool((first == position).all())


def used(books: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Books without the vectors that no code names, as far as all books can be equally long, and the new codes."""
    counts = [codes[:, place].unique(return_inverse=True) for place in range(codes.shape[1])]
    longest = max((len(found) for found, _ in counts), default=books.shape[1])
    if longest == books.shape[1]:
        return books, codes
    made = books.new_zeros(len(books), max(1, longest), books.shape[2])
    for place, (found, _) in enumerate(counts):
        made[place, : len(found)] = books[place, found]
    return made, torch.stack([numbers for _, numbers in counts], 1)
