"""A reader of codecs 3 and 5 written from docs/file.md alone."""

from math import prod
from typing import Any

from tests.docs.stranger import Stream, sums

PRESETS = (
    (1023, 6, 250, 6000), (1023, 6, 400, 6000), (1023, 10, 110, 6000), (255, 6, 250, 9000),
    (1023, 16, 200, 3000), (1023, 3, 600, 10000), (127, 10, 400, 9000), (1023, 3, 250, 12000),
)  # fmt: skip


def attached(value: int, low: int, high: int) -> int:
    return min(max(value, low), high)


def tables() -> tuple[list[int], list[int]]:
    total, term, order = 0, 1 << 128, 0
    while term:
        total, order = total + (term if order % 2 == 0 else -term), order + 1
        term //= 256 * order
    squash, weight = [0] * 6144, 1 << 64
    for step in range(3073):
        share = attached((1 << 80) // ((1 << 64) + weight), 1, 65535)
        squash[3072 - step] = 65536 - share
        if step < 3072:
            squash[3072 + step] = share
        weight = weight * (total >> 64) >> 64
    stretch, index = [], 0
    for share in range(65536):
        while index < 6144 and squash[index] < share:
            index += 1
        stretch.append(attached(index - 3072, -3072, 3071))
    return squash, stretch


SQUASH, STRETCH = tables()


def level_of(x: int) -> int:
    if x < 4:
        return (0, 0, 4, 6)[x]
    k = x.bit_length() - 1
    return 4 * k + (x >> (k - 2) & 3)


class Code:
    """The arithmetic code."""

    def __init__(self, body: bytes) -> None:
        self.low, self.high, self.body = 0, 2**64 - 1, iter(body)
        self.code = 0
        for _ in range(8):
            self.code = self.code << 8 | next(self.body, 0)

    def bit(self, p: int) -> int:
        middle = self.low + ((self.high - self.low) >> 16) * p
        found = int(self.code <= middle)
        self.low, self.high = (self.low, middle) if found else (middle + 1, self.high)
        while self.low >> 56 == self.high >> 56:
            full = 2**64 - 1
            self.low, self.high = self.low << 8 & full, self.high << 8 & full | 255
            self.code = self.code << 8 & full | next(self.body, 0)
        return found


class Mix:
    """Slots, mixers and contexts."""

    def __init__(self, stream: Stream, shape: tuple[int, ...], where: Any, machine: tuple[int, int] | None) -> None:
        self.machine, self.state, self.steps, self.more = machine, 0, 0, 0 if machine is None else 2
        facts, flags = stream.take(2)
        self.classes, self.is_signed, self.has_zero = facts & 63, facts >> 6 & 1, facts >> 7
        self.limit, self.first, self.rate, self.weight = PRESETS[flags & 7]
        density = (flags >> 3 & 7) + 1
        self.stride = stream.number() if flags & 64 else 0
        self.shift = stream.signed() if flags & 128 else 0
        flat = len(shape) < 2
        self.rows, self.cols = (1, prod(shape)) if flat else shape[:2]
        self.taps, self.width = prod(shape[2:]), shape[-1] if len(shape) > 2 else 1
        self.line, self.where = self.cols * self.taps, where
        self.bins = self.classes + 7 * max(self.classes - 1, 0)
        self.slots: dict[tuple, tuple[int, int]] = {}
        if self.has_zero:
            self.slots = {("parent", 0): (2**22 >> density, 0), ("parent", "bins"): (2**22 >> density, 0)}
        self.mixers: dict[int, tuple[list[int], int]] = {}
        self.sum, self.signs = sums(), sums()
        self.found, self.sizes = [0] * (self.rows * self.line), [0] * (self.rows * self.line)
        self.code = Code(stream.rest())

    def learn(self, key: tuple, bit: int) -> None:
        q, n = self.slots[key]
        q += (((bit << 22) - bit - q) * (131072 // (2 * n + self.first))) >> 16
        self.slots[key] = q, min(n + 1, self.limit)

    def decide(self, parent: tuple, keys: list[tuple], mixers: tuple[int, int, int]) -> int:
        q = self.slots.setdefault(parent, (2**21, 0))[0]
        s = STRETCH[q >> 6]
        x = [s]
        for key in keys:
            if self.slots.get(key, (0, 0))[1] == 0:
                self.slots[key] = q, 0
            x.append(STRETCH[self.slots[key][0] >> 6] - s)
        x += [0] * (15 - len(x)) + [256]
        answers = []
        for number in mixers:
            w, _ = self.mixers.setdefault(number, ([65536, *[self.weight] * 14, 0], 0))
            answers.append(attached(sum(a * b >> 8 for a, b in zip(w, x, strict=True)) >> 8, -3072, 3071))
        bit = self.code.bit(SQUASH[(sum(answers) * 341 >> 10) + 3072])
        for number, d in zip(mixers, answers, strict=True):
            w, n = self.mixers[number]
            e, v = (bit << 16) - bit - SQUASH[d + 3072], self.rate + self.rate * 512 // (n + 64)
            moved = [
                attached(a + (((b * e >> 10) * v + 8192) >> 14), -262144, 262144) for a, b in zip(w, x, strict=True)
            ]
            self.mixers[number] = moved, min(n + 1, 65535)
        for key in (parent, *keys):
            self.learn(key, bit)
        return bit

    def level(self, total: int, count: int) -> int:
        whole, number = self.sum["plane",]
        mean = max((whole << 16) // number if number else 0, 1)
        return attached(level_of((total << 16) + 2 * mean) - level_of(count + 2), 0, 127)

    def over(self, places: list[tuple[bool, int, int]], at: int) -> int:
        total = count = 0
        for there, back, weight in places:
            if there and (self.where is None or self.where[at - back]):
                total += weight * min(self.sizes[at - back], 65535)
                count += weight
        return self.level(total, count)

    def cap(self, there: bool, place: int) -> int:
        return min(self.sizes[place], 3) if there else 0

    def look(self, at: int, r: int, c: int, t: int) -> None:
        j, line, taps, width, stride = c * self.taps + t, self.line, self.taps, self.width, self.stride
        of = lambda *key: self.level(*self.sum[key])  # noqa: E731
        R, C, T, K, P = of("row", r), of("col", c), of("tap", t), of("kernel", r, c), of("plane")  # noqa: N806
        short = min(t, 63)
        if taps == 1:
            wide = stride > 1
            N = self.over([  # noqa: N806
                (j >= 1, 1, 2), (j >= 2, 2, 1), (r >= 1, line, 2), (r >= 1 and j >= 1, line + 1, 1),
                (r >= 1 and j + 1 < line, line - 1, 1), (wide and j >= stride, stride, 2),
                (wide and j >= stride, stride - 1, 1), (wide and j > stride, stride + 1, 1)], at)  # fmt: skip
            U = self.over([(r >= back, back * line, 8 >> back) for back in (1, 2, 3)], at)  # noqa: N806
            sides = [s for s in (c - 1, c + 1, c - stride, c + stride) if 0 <= s < self.cols and s != c]
            both = [sum(self.sum["col", s][part] for s in sides) for part in (0, 1)]
            six = 64 * (self.level(*both) >> 1) + (C >> 1)
            caps = [(c >= 1, at - 1), (r >= 1, at - line), (c >= 2, at - 2), (r >= 1 and c + 1 < line, at - line + 1)]
        else:
            N = self.over([(t >= 1, 1, 2), (t >= width, width, 2), (j >= taps, taps, 1), (j >= 2 * taps, 2 * taps, 1),  # noqa: N806
                           (r >= 1, line, 1)], at)  # fmt: skip
            U = self.level(self.sum["place", j][0], r)  # noqa: N806
            six = 128 * short + K
            caps = [(t >= 1, at - 1), (t >= width, at - width), (j >= taps, at - taps), (r >= 1, at - line)]
        seven = sum(factor * self.cap(*one) for factor, one in zip((64, 16, 4, 1), caps, strict=True))
        E = attached(R + C - P, 0, 127)  # noqa: N806
        twelve = 64 * (T >> 1) + (C >> 1)
        if self.where is not None:
            in_row = sum(self.where[r * line : (r + 1) * line])
            in_col = sum(
                sum(self.where[row * line + c * taps : row * line + (c + 1) * taps]) for row in range(self.rows)
            )
            twelve = 64 * (level_of(in_row) & 63) + (level_of(in_col) & 63)
        last = attached((R + C + N + U) // 2 - P, 0, 127)
        self.contexts = [R, C, 64 * (R >> 1) + (C >> 1), N, U, six, seven, c, 0, 64 * (N >> 1) + (E >> 1),
                         64 * short + (R >> 1), twelve, last]  # fmt: skip
        self.selector, self.second = E >> 3, short if taps > 1 else N >> 3

    def magnitude(self, decision: int, kind: int) -> int:
        apart, number = decision > 3, decision
        name: Any = decision
        if self.more and self.state & 1 and decision < 2:
            number, name = self.bins + decision, ("bins", "bins + 1")[decision]
        keys = [(i, value, name) for i, value in enumerate(self.contexts, 1)]
        if apart:
            keys[7] = (8, "none", name)
        end = self.bins + self.more
        second = end + 68 + 64 * kind + self.second
        return self.decide(("parent", name), keys, (number, end + 4 + 16 * kind + self.selector, second))

    def negative(self, size: int, at: int, r: int, c: int, t: int) -> int:
        scale, taps, line, width, j = min(size - 1, 3), self.taps, self.line, self.width, c * self.taps + t
        deep = taps > 1
        S = lambda there, place: (self.found[place] > 0) - (self.found[place] < 0) + 1 if there else 1  # noqa: E731, N806
        B = lambda *key: attached(self.signs[key][0], -8, 8) + 8  # noqa: E731, N806
        above = S(r >= 1, at - line)
        left = S(t >= 1 if deep else j >= 1, at - 1)
        up = S(t >= width, at - width) if deep else above
        before = S(j >= taps, at - taps) if deep else S(j >= 2, at - 2)
        kernel = self.signs["kernel", r, c][0]
        values = [9 * left + 3 * up + S(t >= 2 if deep else j >= 2, at - 2),
                  9 * before + 3 * above + S(r >= 2, at - 2 * line), 3 * min(t, 63) + (kernel > 0) - (kernel < 0) + 1,
                  B("row", r), B("col", c), 27 * left + 9 * up + 3 * before + above, B("tap", t)]  # fmt: skip
        keys = [("sign", i, value, scale) for i, value in enumerate(values, 1)]
        end = self.bins + self.more
        mixers = end + scale, end + 4 + 48 + self.selector, end + 68 + 192 + self.second
        return self.decide(("sign parent", scale), keys, mixers)

    def value(self, at: int, r: int, c: int, t: int) -> int:
        if self.has_zero and not self.magnitude(0, 0):
            return 0
        size = 1
        while size < self.classes and self.magnitude(size, 1):
            size += 1
        made, node = 1, 0
        for place in range(size - 2, -1, -1):
            if size - 2 - place < 3:
                bit = self.magnitude(self.classes + 7 * (size - 2) + node, 2)
                node = 2 * node + 1 + bit
            else:
                key = ("low", size, place)
                bit = self.code.bit(attached(self.slots.setdefault(key, (2**21, 0))[0] >> 6, 32, 65503))
                self.learn(key, bit)
            made = 2 * made + bit
        return -made if self.is_signed and self.negative(size, at, r, c, t) else made

    def move(self, code: int) -> None:
        if self.machine is None:
            return
        states, segment = self.machine
        feedback = {4: 2, 8: 6, 16: 12, 32: 23}[states]
        self.state = (self.state >> 1) ^ (feedback if self.state & 1 else 0) ^ (code & 1)
        self.steps += 1
        if self.steps % segment == 0:
            self.state = 0

    def walk(self) -> list[int]:
        for at in range(len(self.found)):
            r, j = divmod(at, self.line)
            c, t = divmod(j, self.taps)
            if j == 0:
                self.slots = {key: slot for key, slot in self.slots.items() if key[0] != 9}
            if self.where is not None and not self.where[at]:
                continue
            self.look(at, r, c, t)
            value = self.found[at] = self.value(at, r, c, t)
            grid = self.state & 1 if self.more else 0
            size = self.sizes[at] = 2 * abs(value) - grid if self.more and value else abs(value)
            self.move(value)
            for key in (("plane",), ("row", r), ("col", c), ("tap", t), ("kernel", r, c), ("place", j)):
                self.sum[key][0] += min(size, 65535)
                self.sum[key][1] += 1
                self.signs[key][0] += (value > 0) - (value < 0)
        return self.found


def mix(body: bytes, shape: tuple[int, ...], where: list[int] | None) -> list[int]:
    """Codec 3: the plane as a list, 0 where nothing is coded."""
    if not body:
        return [0] * prod(shape)
    return read(Mix(Stream(body), shape, where, None), shape, where)


def states(body: bytes, shape: tuple[int, ...], where: list[int] | None) -> list[int]:
    """Codec 5: the same."""
    if not body:
        return [0] * prod(shape)
    stream = Stream(body)
    machine = stream.number(), stream.number()
    return read(Mix(stream, shape, where, machine), shape, where)


def read(model: Mix, shape: tuple[int, ...], where: list[int] | None) -> list[int]:
    found = model.walk() if model.classes else [0] * prod(shape)
    return [value + model.shift if where is None or where[at] else 0 for at, value in enumerate(found)]
