"""Python port of mix.cpp, the context-mixing coder, with identical bytes.  Change both or neither."""

from collections.abc import Callable

import numpy as np

from cortado.native.python_contexts import INPUTS, LEVELS, SIGNS, Contexts
from cortado.native.tables import logistic_tables

TREE, USED = 7, 15
CONTEXTS = (1, LEVELS, LEVELS, 4096, LEVELS, LEVELS, 8192, 256, 0, 1, 4096, 4096, 4096, LEVELS, 1, 0)
SIGN_CONTEXTS = (1, 27, 27, 192, 17, 17, 81, 17)
FULL, HALF = (1 << 64) - 1, 1 << 31


class Writer:
    """Binary arithmetic coder: a 64-bit interval that narrows with each bit."""

    def __init__(self) -> None:
        self.low, self.high, self.out = 0, FULL, bytearray()

    def code(self, bit: int, share: int) -> int:
        """Write `bit`, which is 1 with probability share / 65536."""
        middle = self.low + ((self.high - self.low) >> 16) * share
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while (self.low ^ self.high) >> 56 == 0:
            self.out.append(self.high >> 56)
            self.low, self.high = self.low << 8 & FULL, self.high << 8 & FULL | 255
        return bit

    def finish(self) -> bytes:
        """Return the bytes with the shortest ending; the reader sees zeros after the end."""
        for count in range(9):
            mask = FULL >> (8 * count)
            value = (self.low + mask) & ~mask
            if value <= self.high:
                self.out += value.to_bytes(8, "big")[:count]
                break
        return bytes(self.out).rstrip(b"\0")


class Reader:
    """The decoder for `Writer`."""

    def __init__(self, body: bytes) -> None:
        self.low, self.high, self.body, self.at = 0, FULL, body, 8
        self.value = int.from_bytes(body[:8].ljust(8, b"\0"), "big")

    def code(self, _: int, share: int) -> int:
        """Read a bit, which is 1 with probability share / 65536."""
        middle = self.low + ((self.high - self.low) >> 16) * share
        bit = int(self.value <= middle)
        if bit:
            self.high = middle
        else:
            self.low = middle + 1
        while (self.low ^ self.high) >> 56 == 0:
            self.low, self.high = self.low << 8 & FULL, self.high << 8 & FULL | 255
            byte = self.body[self.at] if self.at < len(self.body) else 0
            self.value, self.at = self.value << 8 & FULL | byte, self.at + 1
        return bit


class Model(Contexts):
    """The adaptive probabilities of the contexts, and the mixers."""

    def __init__(self, plan: list[int], where: list[int] | None, code: Callable[[int, int], int]) -> None:
        super().__init__(plan, where)
        self.code = code
        squash, stretch = logistic_tables()
        self.squash, self.stretch = squash.tolist(), stretch.tolist()
        self.classes = self.plan["classes"]
        self.bins = self.classes + TREE * max(self.classes - 1, 0)
        self.few, self.own = min(self.bins, 4), 2 if self.plan["segment"] else 0
        self.all = self.bins + self.own
        self.slot = [0] * INPUTS
        self.start_slots()
        mixers = self.all + 4 + 4 * 16 + 4 * 64
        self.weights = [[65536] + [self.plan["weight"]] * (INPUTS - 2) + [0] for _ in range(mixers)]
        self.seen = [0] * mixers

    def start_slots(self) -> None:
        """Set the first slot of each context; all slots are empty but those of the plane's own estimate."""
        self.base, size = [], 0
        for i in range(INPUTS):
            self.base.append(size)
            size += self.cols * (self.few + self.own) if i == 8 else CONTEXTS[i] * self.all
        for i in range(SIGNS):
            self.base.append(size)
            size += SIGN_CONTEXTS[i] * 4
        self.base.append(size)
        size += 33 * 32
        self.slots: dict[int, int] = {}
        for i in (*range(self.all), *range(self.base[INPUTS], self.base[INPUTS] + 4), *range(self.base[-1], size)):
            self.slots[i] = HALF
        for i in (0, self.bins) if self.plan["zero"] else ():
            if i < self.all:
                self.slots[i] = ((1 << 22) >> self.plan["density"]) << 10
        self.rates = [131072 // (2 * n + self.plan["first"]) for n in range(1024)]

    def update(self, index: int, bit: int) -> None:
        """Move one probability (22 bits above a 10-bit count) towards `bit`."""
        slot = self.slots[index]
        count, share = slot & 1023, slot >> 10
        share += (((bit << 22) - bit - share) * self.rates[count]) >> 16
        self.slots[index] = share << 10 | (count + 1 if count < self.plan["limit"] else count)

    def gather(self, count: int, parent: int) -> list[int]:
        """Return the predictions of the contexts in `slot` minus the parent's; new contexts copy the parent."""
        slots, stretch = self.slots, self.stretch
        given = slots[parent]
        start = stretch[given >> 16]
        inputs = [start] + [0] * (INPUTS - 2) + [256]
        for i in range(1, count):
            attached = slots.get(self.slot[i], 0)
            if attached & 1023 == 0:
                attached = slots[self.slot[i]] = given & ~1023
            inputs[i] = stretch[attached >> 16] - start
        return inputs

    def bin(self, bit: int, kind: int, mixer: int, count: int, parent: int) -> int:
        """Code one decision: mix the predictions, code, learn."""
        inputs = self.gather(count, parent)
        first = self.all + 4
        chosen = (mixer, first + kind * 16 + self.selector, first + 64 + kind * 64 + self.second)
        dots = []
        for s in chosen:
            dot = sum((w * x) >> 8 for w, x in zip(self.weights[s], inputs, strict=True)) >> 8
            dots.append(min(max(dot, -3072), 3071))
        bit = self.code(bit, self.squash[(sum(dots) * 341 >> 10) + 3072])
        rate = self.plan["rate"]
        for s, dot in zip(chosen, dots, strict=True):
            error = (bit << 16) - bit - self.squash[dot + 3072]
            speed = rate + rate * 512 // (self.seen[s] + 64)
            self.seen[s] = min(self.seen[s] + 1, 65535)
            self.weights[s] = [
                min(max(w + ((((x * error) >> 10) * speed + 8192) >> 14), -262144), 262144)
                for w, x in zip(self.weights[s], inputs, strict=True)
            ]
        for i in range(count):
            self.update(self.slot[i] if i else parent, bit)
        return bit

    def magnitude_bin(self, bit: int, index: int, kind: int) -> int:
        """Code magnitude decision number `index` of a value."""
        if index < self.own and self.state & 1:
            index += self.bins
        early = index if index < self.few else index - self.bins + self.few if index >= self.bins else -1
        for i in range(1, USED):
            self.slot[i] = self.base[i] + self.ctx[i] * self.all + index
        apart = self.base[8] + self.ctx[8] * (self.few + self.own) + early
        self.slot[8] = apart if early >= 0 else self.base[14] + index
        return self.bin(bit, kind, index, USED - 1, index)

    def sign_bin(self, bit: int, size_class: int) -> int:
        """Code the sign of a value whose magnitude has `size_class` bits."""
        scale = min(size_class - 1, 3)
        for i in range(1, SIGNS):
            self.slot[i] = self.base[INPUTS + i] + self.sctx[i] * 4 + scale
        return self.bin(bit, 3, self.all + scale, SIGNS, self.base[INPUTS] + scale)

    def low_bit(self, bit: int, index: int) -> int:
        """Code a mantissa bit too low to need contexts."""
        bit = self.code(bit, min(max(self.slots[index] >> 16, 32), 65503))
        self.update(index, bit)
        return bit

    def symbol(self, value: int) -> int:
        """Code one value: whether it is zero, its number of bits, the bits, and the sign."""
        size = abs(value)
        wanted, size_class = size.bit_length(), 1
        if self.plan["zero"] and not self.magnitude_bin(int(wanted > 0), 0, 0):
            return 0
        while size_class < self.classes and self.magnitude_bin(int(wanted > size_class), size_class, 1):
            size_class += 1
        made, node = 1, 0
        for place in range(size_class - 2, -1, -1):
            bit = (size >> place) & 1
            if size_class - 2 - place < 3:
                bit = self.magnitude_bin(bit, self.classes + TREE * (size_class - 2) + node, 2)
                node = 2 * node + 1 + bit
            else:
                bit = self.low_bit(bit, self.base[INPUTS + SIGNS] + size_class * 32 + place)
            made = 2 * made + bit
        if self.plan["signed"] and self.sign_bin(int(value < 0), size_class):
            return -min(made, 2**31)
        return min(made, 2**31 - 1)

    def walk(self, values: list[int]) -> None:
        """Code the plane row by row; when reading, fill `values`."""
        at = -1
        for r in range(self.rows):
            self.row, self.row_sign = [0, 0], 0
            for b in range(self.all):
                self.slots.pop(self.base[9] + b, None)
            for c in range(self.cols):
                self.kernel, self.kernel_sign = [0, 0], 0
                for t in range(self.taps):
                    at += 1
                    if self.where is not None and not self.where[at]:
                        continue
                    self.look(at, r, c, t)
                    if self.plan["signed"]:
                        self.look_signs(at, r, c, t)
                    values[at] = self.symbol(values[at])
                    self.learn(at, c, t, values[at])


def encode(values: np.ndarray, where: np.ndarray | None, plan: list[int]) -> bytes:
    """Return the same bytes as the compiled `mix_encode`."""
    writer = Writer()
    Model(plan, None if where is None else where.ravel().tolist(), writer.code).walk(values.ravel().tolist())
    return writer.finish()


def decode(body: bytes, where: np.ndarray | None, plan: list[int], values: np.ndarray) -> int:
    """Fill `values` like the compiled `mix_decode`; return the number of bytes read."""
    reader, found = Reader(body), [0] * values.size
    Model(plan, None if where is None else where.ravel().tolist(), reader.code).walk(found)
    values.ravel()[:] = np.array(found, dtype=np.int64)
    return reader.at
