"""Twin of mix.cpp: the context-mixing coder in Python, with the same bytes.  Change both or neither."""

from collections.abc import Callable

import numpy as np

from cortado.native.tables import logistic_tables

INPUTS, LEVELS, SIGNS, TREE, USED, CEILING = 16, 128, 8, 7, 15, 65535
FIELDS = (
    "rows", "cols", "taps", "width", "classes", "signed", "zero", "stride", "limit", "first", "rate", "density",
    "weight",
)  # fmt: skip
CONTEXTS = (1, LEVELS, LEVELS, 4096, LEVELS, LEVELS, 8192, 256, 0, 1, 4096, 4096, 4096, LEVELS, 1, 0)
SIGN_CONTEXTS = (1, 27, 27, 192, 17, 17, 81, 17)
FULL, HALF = (1 << 64) - 1, 1 << 31


def level_of(number: int) -> int:
    """4 * log2 of `number`, rounded down; 0 for 0."""
    if number < 4:
        return (0, 0, 4, 6)[number]
    bit = number.bit_length() - 1
    return 4 * bit + ((number >> (bit - 2)) & 3)


class Writer:
    """Binary arithmetic coder: an interval of 64 bits that narrows with each bit."""

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
        """The bytes with the shortest ending; the reader sees zeros after the end."""
        for count in range(9):
            mask = FULL >> (8 * count)
            value = (self.low + mask) & ~mask
            if value <= self.high:
                self.out += value.to_bytes(8, "big")[:count]
                break
        return bytes(self.out).rstrip(b"\0")


class Reader:
    """The reading side of `Writer`."""

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


class Model:
    """The contexts, their adaptive probabilities and the mixers."""

    def __init__(self, plan: list[int], where: list[int] | None, code: Callable[[int, int], int]) -> None:
        self.plan = dict(zip(FIELDS, plan, strict=True))
        self.code, self.where = code, where
        squash, stretch = logistic_tables()
        self.squash, self.stretch = squash.tolist(), stretch.tolist()
        self.rows, self.cols, self.taps, self.width = plan[:4]
        self.line, self.stride, self.classes = self.cols * self.taps, self.plan["stride"], self.plan["classes"]
        self.bins = self.classes + TREE * max(self.classes - 1, 0)
        self.few = min(self.bins, 4)
        self.start_slots()
        mixers = self.bins + 4 + 4 * 16 + 4 * 64
        self.weights = [[65536] + [self.plan["weight"]] * (INPUTS - 2) + [0] for _ in range(mixers)]
        self.seen = [0] * mixers
        self.act, self.sign = [0] * (self.rows * self.line), [0] * (self.rows * self.line)
        self.col_sum, self.col_count, self.col_sign = [0] * self.cols, [0] * self.cols, [0] * self.cols
        self.tap_sum, self.tap_count, self.tap_sign = [0] * self.taps, [0] * self.taps, [0] * self.taps
        self.pos_sum = [0] * self.line
        self.plane, self.row, self.kernel = [0, 0], [0, 0], [0, 0]
        self.row_sign = self.kernel_sign = self.selector = self.second = 0
        self.mean = 1
        self.ctx, self.sctx = [0] * INPUTS, [0] * SIGNS
        self.slot = [0] * INPUTS
        if where is not None:
            mask = np.array(where, dtype=np.int64).reshape(self.rows, self.cols, self.taps)
            self.row_mask, self.col_mask = mask.sum((1, 2)).tolist(), mask.sum((0, 2)).tolist()

    def start_slots(self) -> None:
        """Where each context's slots begin; all are empty but those of the plane's own estimate."""
        self.base, size = [], 0
        for i in range(INPUTS):
            self.base.append(size)
            size += self.cols * self.few if i == 8 else CONTEXTS[i] * self.bins
        for i in range(SIGNS):
            self.base.append(size)
            size += SIGN_CONTEXTS[i] * 4
        self.base.append(size)
        size += 33 * 32
        self.slots: dict[int, int] = {}
        for i in (*range(self.bins), *range(self.base[INPUTS], self.base[INPUTS] + 4), *range(self.base[-1], size)):
            self.slots[i] = HALF
        if self.plan["zero"]:
            self.slots[0] = ((1 << 22) >> self.plan["density"]) << 10
        self.rates = [131072 // (2 * n + self.plan["first"]) for n in range(1024)]

    def level(self, total: int, count: int) -> int:
        """The mean magnitude total / count, drawn to the plane's mean, on the logarithmic scale."""
        return min(max(level_of((total << 16) + 2 * self.mean) - level_of(count + 2), 0), LEVELS - 1)

    def near(self, at: int, j: int, r: int, t: int) -> int:
        """The level of the neighbours already coded."""
        line, taps, width, stride = self.line, self.taps, self.width, self.stride
        if taps == 1:
            parts = (
                (j >= 1, 1, 2), (j >= 2, 2, 1), (r >= 1, line, 2), (r >= 1 and j >= 1, line + 1, 1),
                (r >= 1 and j + 1 < line, line - 1, 1), (j >= stride > 1, stride, 2), (j >= stride > 1, stride - 1, 1),
                (j > stride > 1, stride + 1, 1),
            )  # fmt: skip
        else:
            parts = (
                (t >= 1, 1, 2), (t >= width, width, 2), (j >= taps, taps, 1), (j >= 2 * taps, 2 * taps, 1),
                (r >= 1, line, 1),
            )  # fmt: skip
        total = count = 0
        for there, back, weight in parts:
            if there and (self.where is None or self.where[at - back]):
                total += weight * self.act[at - back]
                count += weight
        return self.level(total, count)

    def capped(self, at: int, there: bool) -> int:
        """A magnitude, at most 3."""
        return min(self.act[at], 3) if there else 0

    def look(self, at: int, r: int, c: int, t: int) -> None:
        """The contexts of the value at `at`: row r, column c, tap t."""
        j, line, taps, level = c * self.taps + t, self.line, self.taps, self.level
        self.mean = max((self.plane[0] << 16) // self.plane[1] if self.plane[1] else 0, 1)
        in_row, in_col = level(*self.row), level(self.col_sum[c], self.col_count[c])
        close, tap = self.near(at, j, r, t), min(t, 63)
        ctx, capped = self.ctx, self.capped
        ctx[1], ctx[2], ctx[3], ctx[4], ctx[8] = in_row, in_col, (in_row >> 1) * 64 + (in_col >> 1), close, c
        if taps == 1:
            self.look_flat(at, r, c, in_col)
        else:
            ctx[5] = level(self.pos_sum[j], r)
            ctx[6] = tap * LEVELS + level(*self.kernel)
            ctx[7] = (
                capped(at - 1, t >= 1) * 64 + capped(at - self.width, t >= self.width) * 16
                + capped(at - taps, j >= taps) * 4 + capped(at - line, r >= 1)
            )  # fmt: skip
        both = min(max(in_row + in_col - level(*self.plane), 0), LEVELS - 1)
        ctx[10] = (close >> 1) * 64 + (both >> 1)
        ctx[11] = tap * 64 + (in_row >> 1)
        if self.where is not None:
            ctx[12] = (level_of(self.row_mask[r]) & 63) * 64 + (level_of(self.col_mask[c]) & 63)
        else:
            ctx[12] = (level(self.tap_sum[t], self.tap_count[t]) >> 1) * 64 + (in_col >> 1)
        ctx[13] = min(max((in_row + in_col + close + ctx[5]) // 2 - level(*self.plane), 0), LEVELS - 1)
        self.selector, self.second = both >> 3, tap if taps > 1 else close >> 3

    def look_flat(self, at: int, r: int, c: int, in_col: int) -> None:
        """The contexts that only a plane without taps has."""
        line, capped = self.line, self.capped
        total = count = 0
        for back in range(1, min(3, r) + 1):
            if self.where is None or self.where[at - back * line]:
                total += (8 >> back) * self.act[at - back * line]
                count += 8 >> back
        self.ctx[5] = self.level(total, count)
        sides = [s for s in (c - 1, c + 1, c - self.stride, c + self.stride) if 0 <= s < self.cols and s != c]
        beside = self.level(sum(self.col_sum[s] for s in sides), sum(self.col_count[s] for s in sides))
        self.ctx[6] = (beside >> 1) * 64 + (in_col >> 1)
        self.ctx[7] = (
            capped(at - 1, c >= 1) * 64 + capped(at - line, r >= 1) * 16 + capped(at - 2, c >= 2) * 4
            + capped(at - line + 1, r >= 1 and c + 1 < line)
        )  # fmt: skip

    def signum(self, at: int, there: bool) -> int:
        """0, 1 or 2 for a negative, zero or positive value."""
        return self.sign[at] + 1 if there else 1

    def look_signs(self, at: int, r: int, c: int, t: int) -> None:
        """The contexts of the sign."""
        taps, line, width, signum = self.taps, self.line, self.width, self.signum
        j, deep = c * taps + t, taps > 1
        left, above = signum(at - 1, t >= 1 if deep else j >= 1), signum(at - line, r >= 1)
        up = signum(at - width, t >= width) if deep else above
        before = signum(at - taps, j >= taps) if deep else signum(at - 2, j >= 2)
        balances = [min(max(x, -8), 8) + 8 for x in (self.row_sign, self.col_sign[c], self.tap_sign[t])]
        self.sctx[1] = left * 9 + up * 3 + signum(at - 2, t >= 2 if deep else j >= 2)
        self.sctx[2] = before * 9 + above * 3 + signum(at - 2 * line, r >= 2)
        self.sctx[3] = min(t, 63) * 3 + (self.kernel_sign > 0) - (self.kernel_sign < 0) + 1
        self.sctx[4], self.sctx[5], self.sctx[7] = balances
        self.sctx[6] = left * 27 + up * 9 + before * 3 + above

    def learn(self, at: int, c: int, t: int, value: int) -> None:
        """Remember a coded value."""
        size, step = min(abs(value), CEILING), (value > 0) - (value < 0)
        self.act[at], self.sign[at] = size, step
        for both in (self.plane, self.row, self.kernel):
            both[0] += size
            both[1] += 1
        self.col_sum[c] += size
        self.col_count[c] += 1
        self.tap_sum[t] += size
        self.tap_count[t] += 1
        self.pos_sum[c * self.taps + t] += size
        self.row_sign += step
        self.kernel_sign += step
        self.col_sign[c] += step
        self.tap_sign[t] += step

    def update(self, index: int, bit: int) -> None:
        """Draw one probability (22 bits above a count of 10) towards `bit`."""
        slot = self.slots[index]
        count, share = slot & 1023, slot >> 10
        share += (((bit << 22) - bit - share) * self.rates[count]) >> 16
        self.slots[index] = share << 10 | (count + 1 if count < self.plan["limit"] else count)

    def gather(self, count: int, parent: int) -> list[int]:
        """What the contexts in `slot` predict, as distances from the parent's prediction; new ones copy the parent."""
        slots, stretch = self.slots, self.stretch
        given = slots[parent]
        start = stretch[given >> 16]
        inputs = [start] + [0] * (INPUTS - 2) + [256]
        for i in range(1, count):
            held = slots.get(self.slot[i], 0)
            if held & 1023 == 0:
                held = slots[self.slot[i]] = given & ~1023
            inputs[i] = stretch[held >> 16] - start
        return inputs

    def bin(self, bit: int, kind: int, mixer: int, count: int, parent: int) -> int:
        """Code one decision: mix the predictions, code, learn."""
        inputs = self.gather(count, parent)
        first = self.bins + 4
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
        """A decision about the magnitude, number `index` of a value."""
        for i in range(1, USED):
            self.slot[i] = self.base[i] + self.ctx[i] * self.bins + index
        few = index < self.few
        self.slot[8] = self.base[8] + self.ctx[8] * self.few + index if few else self.base[14] + index
        return self.bin(bit, kind, index, USED - 1, index)

    def sign_bin(self, bit: int, size_class: int) -> int:
        """The sign of a value whose magnitude has `size_class` bits."""
        scale = min(size_class - 1, 3)
        for i in range(1, SIGNS):
            self.slot[i] = self.base[INPUTS + i] + self.sctx[i] * 4 + scale
        return self.bin(bit, 3, self.bins + scale, SIGNS, self.base[INPUTS] + scale)

    def low_bit(self, bit: int, index: int) -> int:
        """A mantissa bit too low to be worth contexts."""
        bit = self.code(bit, min(max(self.slots[index] >> 16, 32), 65503))
        self.update(index, bit)
        return bit

    def symbol(self, value: int) -> int:
        """Code one value: is it zero, how many bits, which, and its sign."""
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
            for b in range(self.bins):
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
    """What the compiled `mix_encode` gives."""
    writer = Writer()
    Model(plan, None if where is None else where.ravel().tolist(), writer.code).walk(values.ravel().tolist())
    return writer.finish()


def decode(body: bytes, where: np.ndarray | None, plan: list[int], values: np.ndarray) -> int:
    """What the compiled `mix_decode` does: fill `values`; how many bytes were looked at."""
    reader, found = Reader(body), [0] * values.size
    Model(plan, None if where is None else where.ravel().tolist(), reader.code).walk(found)
    values.ravel()[:] = np.array(found, dtype=np.int64)
    return reader.at
