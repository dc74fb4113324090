"""Python port of contexts.hpp: the contexts of a value from its neighbourhood.  Change both or neither."""

import numpy as np

INPUTS, LEVELS, SIGNS, CEILING = 16, 128, 8, 65535
FIELDS = (
    "rows", "cols", "taps", "width", "classes", "signed", "zero", "stride", "limit", "first", "rate", "density",
    "weight", "feedback", "segment",
)  # fmt: skip


def level_of(number: int) -> int:
    """Return 4 * log2 of `number`, rounded down; 0 for 0."""
    if number < 4:
        return (0, 0, 4, 6)[number]
    bit = number.bit_length() - 1
    return 4 * bit + ((number >> (bit - 2)) & 3)


class Contexts:
    """Activity so far of row, column, taps, kernel and neighbours, as context numbers."""

    def __init__(self, plan: list[int], where: list[int] | None) -> None:
        self.plan, self.where = dict(zip(FIELDS, plan, strict=True)), where
        self.rows, self.cols, self.taps, self.width = plan[:4]
        self.line, self.stride = self.cols * self.taps, self.plan["stride"]
        self.act, self.sign = [0] * (self.rows * self.line), [0] * (self.rows * self.line)
        self.col_sum, self.col_count, self.col_sign = [0] * self.cols, [0] * self.cols, [0] * self.cols
        self.tap_sum, self.tap_count, self.tap_sign = [0] * self.taps, [0] * self.taps, [0] * self.taps
        self.pos_sum = [0] * self.line
        self.plane, self.row, self.kernel = [0, 0], [0, 0], [0, 0]
        self.row_sign = self.kernel_sign = self.selector = self.second = 0
        self.mean = 1
        self.state = self.steps = 0
        self.ctx, self.sctx = [0] * INPUTS, [0] * SIGNS
        if where is not None:
            mask = np.array(where, dtype=np.int64).reshape(self.rows, self.cols, self.taps)
            self.row_mask, self.col_mask = mask.sum((1, 2)).tolist(), mask.sum((0, 2)).tolist()

    def level(self, total: int, count: int) -> int:
        """Return the mean magnitude total / count, shrunk towards the plane's mean, on the logarithmic scale."""
        return min(max(level_of((total << 16) + 2 * self.mean) - level_of(count + 2), 0), LEVELS - 1)

    def near(self, at: int, j: int, r: int, t: int) -> int:
        """Return the level of the neighbours already coded."""
        line, taps, width, stride = self.line, self.taps, self.width, self.stride
        parts: tuple[tuple[bool, int, int], ...]
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
        """Return a magnitude, at most 3."""
        return min(self.act[at], 3) if there else 0

    def look(self, at: int, r: int, c: int, t: int) -> None:
        """Compute the contexts of the value at `at`: row r, column c, tap t."""
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
        """Compute the contexts that only a plane without taps has."""
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
        """Return 0, 1 or 2 for a negative, zero or positive value."""
        return self.sign[at] + 1 if there else 1

    def look_signs(self, at: int, r: int, c: int, t: int) -> None:
        """Compute the contexts of the sign."""
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
        """Update the statistics with a coded value."""
        size, step = abs(value), (value > 0) - (value < 0)
        if self.plan["segment"] and size:
            size = 2 * size - (self.state & 1)
        size = min(size, CEILING)
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
        if self.plan["segment"]:
            self.move(value)

    def move(self, value: int) -> None:
        """Move the machine that chooses grids by the parity of a coded value."""
        plan, state = self.plan, self.state
        self.state = (state >> 1) ^ (plan["feedback"] * (state & 1)) ^ (value & 1)
        self.steps += 1
        if self.steps == plan["segment"]:
            self.state = self.steps = 0
