"""Transferred: filters made from fewer base filters by fixed transforms."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from cortado.errors import BadValue
from cortado.parts.forms.dense import Dense
from cortado.parts.forms.form import Factors, Form
from cortado.parts.forms.lattice import Lattice
from cortado.parts.forms.quantized import smallest_integers
from cortado.parts.forms.transforms import (
    NAMES,
    NEGATE,
    REPEAT,
    base_kernel,
    base_places,
    check_transform,
    orientations,
)
from cortado.parts.part import INTEGERS, PART, Arrays

MOST_ROWS = 2**24


class Transferred(Form):
    """Row o of the weight is copy `codes[o] % slots` of base filter `codes[o] // slots`.

    The transforms: repeat (multi-bias activation: Li, Ouyang, Wang, 2016), negate (CReLU: Shang et al., 2016), rotate by quarter
    turns (cyclic symmetry: Dieleman, De Fauw, Kavukcuoglu, 2016), roll (turn, and take the orientations of the inputs in turn:
    the group convolution p4 of Cohen, Welling, 2016), translate (crops of a larger filter: doubly convolutional networks, Zhai
    et al., 2016). Input c of the weight reads input `inputs[c]` of the base; for roll, orientation `inputs[c] % 4`
    of channel `inputs[c] // 4`. The gradient of a base filter is the sum over its copies.
    """

    facts = ("transform", "slots", "rows", "channels")
    arrays = {"codes": INTEGERS, "inputs": INTEGERS, "base": PART}
    base: Form
    codes: Tensor
    inputs: Tensor
    places: Tensor

    def __init__(
        self, base: Form, transform: int, slots: int, codes: Tensor, inputs: Tensor, kernel: tuple[int, ...] = ()
    ) -> None:
        """`base`: (rows, inputs, ...); `codes`: (outputs,); `inputs`: (inputs of the weight,); `kernel`: that of the weight.

        A vector (rows,) has no inputs. Raises BadValue for codes and inputs that the base does not have.
        """
        super().__init__()
        check_transform(transform, slots, kernel)
        self.transform, self.slots, self.rows = transform, slots, base.shape[0]
        wide = base.shape[1:2].numel()
        self.channels = wide // orientations(transform)
        if tuple(base.shape[2:]) != base_kernel(transform, slots, kernel) or wide % orientations(transform):
            raise BadValue(
                f"forms/transferred: {NAMES[transform]} cannot make kernels of {kernel} from {tuple(base.shape)}."
            )
        for what, given, end in (("codes", codes, self.rows * slots), ("inputs", inputs, wide)):
            if given.numel() and not 0 <= int(given.min()) <= int(given.max()) < end:
                raise BadValue(
                    f"forms/transferred: {what} must lie in 0..{end - 1}, got {int(given.min())}..{int(given.max())}."
                )
        axes = (len(codes),) if len(base.shape) == 1 else (len(codes), len(inputs), *kernel)
        self.shape, self.base = torch.Size(axes), base
        self.register_buffer("codes", smallest_integers(codes))
        self.register_buffer("inputs", smallest_integers(inputs))
        self.register_buffer("places", self.found_places(), persistent=False)
        self.register_load_state_dict_post_hook(follow_inputs)

    def found_places(self) -> Tensor:
        """Return where the entries of each copy stand in the base filter, (slots, entries of a copy)."""
        inputs = self.inputs.long() if len(self.shape) > 1 else self.inputs.new_zeros(1, dtype=torch.int64)
        return base_places(self.transform, self.slots, inputs, tuple(self.shape[2:]))

    def copies(self, base: Tensor) -> Tensor:
        """Return numbers of the base's entries as those of the weight's; signs stay."""
        codes = self.codes.long()
        rows = base.reshape(self.rows, -1).index_select(0, codes // self.slots)
        return rows.gather(1, self.places.index_select(0, codes % self.slots)).view(self.shape)

    def sums(self, values: Tensor) -> Tensor:
        """Return for each entry of the base the sum of `values` (shape of the weight) over its copies."""
        codes = self.codes.long()
        size = self.base.shape.numel() // max(1, self.rows)
        at = (codes // self.slots)[:, None] * size + self.places[codes % self.slots]
        found = torch.zeros(self.base.shape.numel(), dtype=values.dtype, device=values.device)
        return found.index_add(0, at.flatten(), values.flatten()).view(self.base.shape)

    def fit(self, values: Tensor) -> Tensor:
        """Return the base whose copies come closest to `values` (shape of the weight): means; 0 where nothing is read."""
        unsigned = values * self.signs().to(values.dtype)
        return self.sums(unsigned) / self.sums(torch.ones_like(unsigned)).clamp_min(1)

    def refill(self, values: Tensor, fill: Callable[[Tensor, Form], Form]) -> Form:
        return self.of(self.base.refill(self.fit(values), fill))

    def signs(self) -> Tensor:
        """Return 1 or -1 for each row, laid out to multiply the weight."""
        minus = self.codes.long() % self.slots if self.transform == NEGATE else torch.zeros_like(self.codes)
        return (1 - 2 * minus).view(-1, *[1] * (len(self.shape) - 1))

    def dense(self) -> Tensor:
        made = self.copies(self.base.dense())
        return made * self.signs().to(made.dtype) if self.transform == NEGATE else made

    def of(self, base: Form) -> "Transferred":
        """Return the same copies of other base filters."""
        return Transferred(base, self.transform, self.slots, self.codes, self.inputs, tuple(self.shape[2:]))

    def map_values(self, fn: Callable[[Tensor], Form]) -> Form:
        return self.of(self.base.map_values(fn))

    def narrow(self, axis: int, keep: Tensor) -> Form:
        """Cut rows and inputs exactly, and base filters and inputs that nothing needs; return floats where kernels are cut."""
        kernel = tuple(self.shape[2:])
        if axis == 0:
            codes = self.codes.long()[keep]
            rows, own = (codes // self.slots).unique(return_inverse=True)
            base = self.base if len(rows) == self.rows else self.base.narrow(0, rows)
            return Transferred(
                base, self.transform, self.slots, own * self.slots + codes % self.slots, self.inputs, kernel
            )
        if axis > 1:
            return Dense(self.dense().detach().index_select(axis, keep))
        turns = orientations(self.transform)
        read = self.inputs.long()[keep]
        channels, own = (read // turns).unique(return_inverse=True)
        wide = (channels[:, None] * turns + torch.arange(turns, device=keep.device)).flatten()
        base = self.base if len(channels) == self.channels else self.base.narrow(1, wide)
        return Transferred(base, self.transform, self.slots, self.codes, own * turns + read % turns, kernel)

    def tied(self, axis: int) -> Tensor | None:
        """Return for each index along an axis the base filter, or the channel of all orientations, that it belongs to."""
        if axis == 0:
            return self.codes.long() // self.slots
        return self.inputs.long() // orientations(self.transform) if axis == 1 else None

    def pooled(self, importance: Tensor) -> Tensor:
        return self.copies(self.sums(importance))

    def bits(self) -> float:
        wide = self.base.shape[1:2].numel()
        picks = ((self.codes, self.rows * self.slots), (self.inputs, wide))
        return self.base.bits() + sum(len(some) * max(0, (end - 1).bit_length()) for some, end in picks)

    def entries(self) -> int:
        return self.base.entries()

    def nonzeros(self) -> int:
        return self.base.nonzeros()

    def select(self, mask: Tensor) -> Form | None:
        """Return the form with zeros outside `mask`; of a base entry all copies stay, or none."""
        base = self.base.select(self.sums((~mask).float()) == 0)
        return None if base is None else self.of(base)

    def support(self) -> Tensor | None:
        base = self.base.support()
        return None if base is None else self.copies(base)

    def lattice(self) -> Lattice | None:
        base = self.base.lattice()
        if base is None or base.layout == "group" or (self.transform == NEGATE and base.zero is not None):
            return None
        scale, zero, rows = base.scale, base.zero, self.codes.long() // self.slots
        if base.layout == "channel":
            scale, zero = scale[rows], None if zero is None else zero[rows]
        return Lattice(self.copies(base.codes.int()) * self.signs().int(), scale, zero, base.layout)

    def symbols(self) -> tuple[Tensor, int] | None:
        base = self.base.symbols()
        if base is None or (self.transform == NEGATE and self.lattice() is None):
            return None
        return self.copies(base[0].int()) * self.signs().int(), base[1]

    def code_bits(self) -> int | None:
        return self.base.code_bits()

    def factors(self) -> Factors | None:
        """Return the base filters, and what repeats or negates their outputs; None where no filters are computed once."""
        groups = torch.arange(self.rows, device=self.codes.device).repeat_interleave(self.slots)
        whole = len(self.codes) == len(groups) and bool((self.codes.long() // self.slots == groups).all())
        if self.transform not in (REPEAT, NEGATE) or self.slots == 1 or len(self.shape) < 3 or not whole:
            return None
        if not torch.equal(self.inputs.long(), torch.arange(self.channels, device=self.inputs.device)):
            return None
        last = Dense(self.signs().reshape(-1, *[1] * (len(self.shape) - 1)).to(next(self.base.parameters()).dtype))
        last.requires_grad_(False)
        return Factors(self.base, last, 1, 1, self.rows, lambda first, _: self.of(first), fixed=True)

    def spec(self) -> dict[str, int]:
        return {"transform": self.transform, "slots": self.slots, "rows": self.rows, "channels": self.channels}

    def parts(self) -> Arrays:
        # Counted from the natural order, which most weights have: nothing but zeros.
        return {"codes": less_order(self.codes), "inputs": less_order(self.inputs), "base": self.base}

    @classmethod
    def sizes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, int]:
        if not 1 <= spec["rows"] <= MOST_ROWS or not 1 <= spec["channels"] <= MOST_ROWS or not len(shape):
            raise BadValue(f"forms/transferred: {spec} does not fit a weight of {tuple(shape)}.")
        check_transform(spec["transform"], spec["slots"], tuple(shape[2:]))
        return {"codes": shape[0], "inputs": shape[1] if len(shape) > 1 else 0}

    @classmethod
    def inner_shapes(cls, shape: torch.Size, spec: dict[str, int]) -> dict[str, torch.Size]:
        cls.sizes(shape, spec)
        if len(shape) == 1:
            return {"base": torch.Size([spec["rows"]])}
        wide = spec["channels"] * orientations(spec["transform"])
        kernel = base_kernel(spec["transform"], spec["slots"], tuple(shape[2:]))
        return {"base": torch.Size([spec["rows"], wide, *kernel])}

    @classmethod
    def from_parts(cls, shape: torch.Size, spec: dict[str, int], parts: Arrays) -> "Transferred":
        codes, inputs = (less_order(parts[name].flatten(), -1) for name in ("codes", "inputs"))
        return cls(parts["base"], spec["transform"], spec["slots"], codes, inputs, tuple(shape[2:]))

    def finalize(self) -> Form:
        return self.of(self.base.finalize())

    def scale_rows(self, factors: Tensor) -> bool:
        rows = self.codes.long() // self.slots
        own = torch.ones(self.rows, dtype=factors.dtype, device=factors.device)
        own[rows] = factors
        # All copies of a base filter have to grow alike.
        return bool((own[rows] == factors).all()) and self.base.scale_rows(own)


def less_order(numbers: Tensor, sign: int = 1) -> Tensor:
    """Return whole numbers less their places, 0, 1, 2, ..., or with sign -1 plus them."""
    return numbers.to(torch.int32) - sign * torch.arange(len(numbers), dtype=torch.int32, device=numbers.device)


def follow_inputs(form: Any, keys: Any) -> None:
    """Find the places again after codes and inputs were loaded."""
    form.places = form.found_places()
