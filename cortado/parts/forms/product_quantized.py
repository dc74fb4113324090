"""ProductQuantized: rows cut into short vectors, each an entry of a codebook that belongs to its position."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from cortado.errors import BadValue
from cortado.parts.forms.form import Form
from cortado.parts.forms.quantized import smallest_integers
from cortado.parts.part import FLOATS, INTEGERS, Arrays

MOST_VALUES = 2**15


class ProductQuantized(Form):
    """Product quantization (Jegou, Douze, Schmid, 2011; of weights: Gong et al., 2014).

    The weight, as rows (axis 0) of inputs (all other axes in row-major order), is cut into positions of `width`
    inputs; part p of row r is the vector `codebooks[p, codes[r, p]]`. The last position may extend past the end; the
    excess is not used. The gradient of a vector is the sum over the rows that use it.
    """

    facts = ("values", "width")
    arrays = {"codebooks": FLOATS, "codes": INTEGERS}
    codes: Tensor

    def __init__(self, codebooks: Tensor, codes: Tensor, shape: torch.Size | tuple[int, ...]) -> None:
        """`codebooks`: (positions, values, width) floats; `codes`: (rows, positions), 0 .. values - 1.  Raises BadValue."""
        super().__init__()
        self.shape = torch.Size(shape)
        wanted = self.sizes(self.shape, {"values": codebooks.shape[1], "width": codebooks.shape[2]})
        if codebooks.numel() != wanted["codebooks"] or codes.numel() != wanted["codes"]:
            raise BadValue(
                f"forms/product_quantized: {tuple(shape)} needs {wanted['codebooks']} floats in its codebooks, "
                f"{wanted['codes']} codes, "
                f"got {codebooks.numel()} and {codes.numel()}."
            )
        if codes.numel() and not 0 <= int(codes.min()) <= int(codes.max()) < codebooks.shape[1]:
            raise BadValue(
                f"forms/product_quantized: codes must lie in 0..{codebooks.shape[1] - 1}, "
                f"got {int(codes.min())}..{int(codes.max())}."
            )
        self.codebooks = nn.Parameter(codebooks.detach().clone())
        self.register_buffer("codes", smallest_integers(codes))

    def dense(self) -> Tensor:
        places = torch.arange(self.codebooks.shape[0], device=self.codebooks.device)
        rows = self.codebooks[places, self.codes.long()].flatten(1)
        return rows[:, : inputs_of(self.shape)].reshape(self.shape)

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return fn(self.dense().detach())

    def narrow(self, axis: int, keep: Tensor) -> Form:
        """Drop unused vectors where rows are cut; narrow the positions as needed where inputs are cut."""
        codebooks, codes = self.codebooks.detach(), self.codes.long()
        shape = torch.Size([len(keep) if number == axis else size for number, size in enumerate(self.shape)])
        if axis == 0:
            return ProductQuantized(*used(codebooks, codes[keep]), shape)
        numbers = torch.arange(inputs_of(self.shape), device=keep.device).view(self.shape[1:])
        columns = numbers.index_select(axis - 1, keep).flatten()
        position, offset = columns // codebooks.shape[2], columns % codebooks.shape[2]
        most = min(codebooks.shape[2], max(1, len(columns)))
        width = next(size for size in range(most, 0, -1) if from_one_position(position, size))
        count = -(-len(columns) // width)
        made = codebooks.new_zeros(codebooks.shape[1], count * width)
        made[:, : len(columns)] = codebooks[position, :, offset].T
        return ProductQuantized(made.view(-1, count, width).transpose(0, 1), codes[:, position[::width]], shape)

    def bits(self) -> float:
        width = max(1, (self.codebooks.shape[1] - 1).bit_length())
        return self.codes.numel() * width + self.codebooks.numel() * self.codebooks.element_size() * 8

    def spec(self) -> dict[str, int]:
        return {"values": self.codebooks.shape[1], "width": self.codebooks.shape[2]}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        values, width, inputs = spec["values"], spec["width"], inputs_of(shape)
        if not 1 <= values <= MOST_VALUES or not 1 <= width <= max(1, inputs):
            raise BadValue(
                f"forms/product_quantized: values must lie in 1..{MOST_VALUES} and width in 1..{inputs}, the inputs of a row; "
                f"got {values} and {width}."
            )
        positions = -(-inputs // width)
        return {"codebooks": positions * values * width, "codes": row_count(shape) * positions}

    def parts(self) -> Arrays:
        return {"codebooks": self.codebooks.detach().flatten(), "codes": self.codes.flatten()}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "ProductQuantized":
        positions = -(-inputs_of(shape) // spec["width"])
        codebooks = parts["codebooks"].reshape(positions, spec["values"], spec["width"])
        return cls(codebooks, parts["codes"].reshape(row_count(shape), positions), shape)


def row_count(shape: torch.Size) -> int:
    """Return the size of axis 0; a scalar is one row."""
    return shape[0] if len(shape) else 1


def inputs_of(shape: torch.Size) -> int:
    """Return the number of entries per row."""
    return shape[1:].numel()


def from_one_position(position: Tensor, width: int) -> bool:
    """Return whether every run of `width` columns came from one position."""
    first = position[::width].repeat_interleave(width)[: len(position)]
    return bool((first == position).all())


def used(codebooks: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return codebooks without unused vectors, as far as all stay equally long, and the new codes."""
    counts = [codes[:, place].unique(return_inverse=True) for place in range(codes.shape[1])]
    longest = max((len(found) for found, _ in counts), default=codebooks.shape[1])
    if longest == codebooks.shape[1]:
        return codebooks, codes
    made = codebooks.new_zeros(len(codebooks), max(1, longest), codebooks.shape[2])
    for place, (found, _) in enumerate(counts):
        made[place, : len(found)] = codebooks[place, found]
    return made, torch.stack([numbers for _, numbers in counts], 1)
