// What a value's neighbourhood says about it: activity of row, column, taps, kernel and neighbours so far, on a
// logarithmic scale, as numbers of contexts.  python_contexts.py says the same in Python; change both or neither.
#pragma once
#include <cstdint>
#include <vector>

namespace {

constexpr int INPUTS = 16;   // predictions that are mixed; the last is a constant
constexpr int LEVELS = 128;  // steps of the logarithmic measure of activity, four to the octave
constexpr int SIGNS = 8;     // contexts of a sign
constexpr int TREE = 7;      // nodes of the first three mantissa bits
constexpr int64_t CEILING = 65535;

enum Field {
    ROWS, COLS, TAPS, WIDTH, CLASSES, SIGNED, ZERO, STRIDE, LIMIT, FIRST, RATE, DENSITY, WEIGHT, FEEDBACK, SEGMENT,
    FIELDS
};

inline int level_of(uint64_t x) {  // 4 * log2(x), rounded down; 0 for 0
    if (x < 4) return x < 2 ? 0 : (x == 2 ? 4 : 6);
    int bit = 63 - __builtin_clzll(x);
    return 4 * bit + int((x >> (bit - 2)) & 3);
}

struct Sum {  // a weighted sum of magnitudes and of the weights
    uint64_t total = 0, count = 0;
};

struct Contexts {
    const int64_t* plan;
    const uint8_t* where;
    int64_t rows, cols, taps, width, stride, line;
    std::vector<uint16_t> act;             // magnitudes so far
    std::vector<int8_t> sign;
    std::vector<uint64_t> col_sum, col_count, pos_sum, tap_sum, tap_count;
    std::vector<int32_t> col_sign, tap_sign;
    std::vector<uint32_t> row_mask, col_mask;
    Sum plane, row, kernel;
    int32_t row_sign = 0, kernel_sign = 0;
    int64_t state = 0, steps = 0;          // of the machine that chooses grids, and codes since its start
    uint64_t mean = 1;                     // of the plane so far, 16 fractional bits
    int64_t ctx[INPUTS], sctx[SIGNS];      // the contexts of magnitude and sign
    int selector = 0, second = 0;          // which mixers to use

    Contexts(const int64_t* plan_, const uint8_t* where_);
    int level(uint64_t total, uint64_t count) const {
        int x = level_of((total << 16) + 2 * mean) - level_of(count + 2);
        return x < 0 ? 0 : (x >= LEVELS ? LEVELS - 1 : x);
    }
    void add(Sum& sum, int64_t index, int weight) const {
        if (where && !where[index]) return;
        sum.total += uint64_t(weight) * act[index];
        sum.count += uint64_t(weight);
    }
    int capped(int64_t at, bool there, int cap) const { return there ? (act[at] < cap ? act[at] : cap) : 0; }
    int signum(int64_t at, bool there) const { return there ? sign[at] + 1 : 1; }
    int near(int64_t at, int64_t j, int64_t r, int64_t t) const;
    void look(int64_t at, int64_t r, int64_t c, int64_t t);
    void look_signs(int64_t at, int64_t r, int64_t c, int64_t t);
    void learn(int64_t at, int64_t c, int64_t t, int32_t value);
    int grid() const { return int(state & 1); }
    void move(int32_t value);
    void begin_row() { row = Sum(); row_sign = 0; }
    void begin_kernel() { kernel = Sum(); kernel_sign = 0; }
};

inline Contexts::Contexts(const int64_t* plan_, const uint8_t* where_) : plan(plan_), where(where_) {
    rows = plan[ROWS]; cols = plan[COLS]; taps = plan[TAPS]; width = plan[WIDTH]; stride = plan[STRIDE];
    line = cols * taps;
    act.assign(rows * line, 0);
    sign.assign(rows * line, 0);
    col_sum.assign(cols, 0); col_count.assign(cols, 0); pos_sum.assign(line, 0);
    tap_sum.assign(taps, 0); tap_count.assign(taps, 0);
    col_sign.assign(cols, 0); tap_sign.assign(taps, 0);
    if (!where) return;
    row_mask.assign(rows, 0); col_mask.assign(cols, 0);
    for (int64_t at = 0; at < rows * line; at++)
        if (where[at]) { row_mask[at / line]++; col_mask[at % line / taps]++; }
}

inline int Contexts::near(int64_t at, int64_t j, int64_t r, int64_t t) const {
    Sum sum;
    if (taps == 1) {
        if (j >= 1) add(sum, at - 1, 2);
        if (j >= 2) add(sum, at - 2, 1);
        if (r >= 1) add(sum, at - line, 2);
        if (r >= 1 && j >= 1) add(sum, at - line - 1, 1);
        if (r >= 1 && j + 1 < line) add(sum, at - line + 1, 1);
        if (stride > 1 && j >= stride) add(sum, at - stride, 2);
        if (stride > 1 && j >= stride) add(sum, at - stride + 1, 1);
        if (stride > 1 && j > stride) add(sum, at - stride - 1, 1);
    } else {
        if (t >= 1) add(sum, at - 1, 2);
        if (t >= width) add(sum, at - width, 2);
        if (j >= taps) add(sum, at - taps, 1);
        if (j >= 2 * taps) add(sum, at - 2 * taps, 1);
        if (r >= 1) add(sum, at - line, 1);
    }
    return level(sum.total, sum.count);
}

inline void Contexts::look(int64_t at, int64_t r, int64_t c, int64_t t) {
    int64_t j = c * taps + t;
    mean = plane.count ? (plane.total << 16) / plane.count : 0;
    if (mean == 0) mean = 1;
    int in_row = level(row.total, row.count), in_col = level(col_sum[c], col_count[c]), close = near(at, j, r, t);
    ctx[0] = ctx[9] = ctx[14] = 0;
    ctx[1] = in_row;
    ctx[2] = in_col;
    ctx[3] = (in_row >> 1) * 64 + (in_col >> 1);
    ctx[4] = close;
    ctx[8] = c;
    Sum past;
    if (taps == 1) {
        for (int back = 1; back <= 3 && back <= r; back++) add(past, at - back * line, 8 >> back);
        ctx[5] = level(past.total, past.count);
        Sum sides;
        for (int64_t side : {c - 1, c + 1, c - stride, c + stride})
            if (side >= 0 && side < cols && side != c) { sides.total += col_sum[side]; sides.count += col_count[side]; }
        ctx[6] = (level(sides.total, sides.count) >> 1) * 64 + (in_col >> 1);
        ctx[7] = capped(at - 1, j >= 1, 3) * 64 + capped(at - line, r >= 1, 3) * 16 + capped(at - 2, j >= 2, 3) * 4 +
                 capped(at - line + 1, r >= 1 && j + 1 < line, 3);
    } else {
        ctx[5] = level(pos_sum[j], r);
        ctx[6] = (t < 63 ? t : 63) * LEVELS + level(kernel.total, kernel.count);
        ctx[7] = capped(at - 1, t >= 1, 3) * 64 + capped(at - width, t >= width, 3) * 16 +
                 capped(at - taps, j >= taps, 3) * 4 + capped(at - line, r >= 1, 3);
    }
    int both = in_row + in_col - level(plane.total, plane.count);
    both = both < 0 ? 0 : (both >= LEVELS ? LEVELS - 1 : both);
    ctx[10] = (close >> 1) * 64 + (both >> 1);
    ctx[11] = (t < 63 ? t : 63) * 64 + (in_row >> 1);
    ctx[12] = where ? (level_of(row_mask[r]) & 63) * 64 + (level_of(col_mask[c]) & 63)
                    : (level(tap_sum[t], tap_count[t]) >> 1) * 64 + (in_col >> 1);
    int all = (in_row + in_col + close + int(ctx[5])) / 2 - level(plane.total, plane.count);
    ctx[13] = all < 0 ? 0 : (all >= LEVELS ? LEVELS - 1 : all);
    selector = both >> 3;
    second = taps > 1 ? (t < 63 ? t : 63) : close >> 3;
}

inline void Contexts::look_signs(int64_t at, int64_t r, int64_t c, int64_t t) {
    int64_t j = c * taps + t;
    bool deep = taps > 1;
    int left = signum(at - 1, deep ? t >= 1 : j >= 1), up = deep ? signum(at - width, t >= width) : signum(at - line, r >= 1);
    int before = deep ? signum(at - taps, j >= taps) : signum(at - 2, j >= 2), above = signum(at - line, r >= 1);
    auto balance = [](int32_t x) { return int64_t(x < -8 ? 0 : (x > 8 ? 16 : x + 8)); };
    sctx[0] = 0;
    sctx[1] = left * 9 + up * 3 + signum(at - 2, deep ? t >= 2 : j >= 2);
    sctx[2] = before * 9 + above * 3 + signum(at - 2 * line, r >= 2);
    sctx[3] = (t < 63 ? t : 63) * 3 + (kernel_sign > 0 ? 2 : (kernel_sign < 0 ? 0 : 1));
    sctx[4] = balance(row_sign);
    sctx[5] = balance(col_sign[c]);
    sctx[6] = left * 27 + up * 9 + before * 3 + above;
    sctx[7] = balance(tap_sign[t]);
}

inline void Contexts::learn(int64_t at, int64_t c, int64_t t, int32_t value) {
    int64_t size = value < 0 ? -int64_t(value) : value;
    if (plan[SEGMENT] && size) size = 2 * size - grid();  // the level, which compares codes of both grids
    if (size > CEILING) size = CEILING;
    int step = (value > 0) - (value < 0);
    act[at] = uint16_t(size);
    sign[at] = int8_t(step);
    for (Sum* sum : {&plane, &row, &kernel}) { sum->total += size; sum->count++; }
    col_sum[c] += size; col_count[c]++;
    tap_sum[t] += size; tap_count[t]++;
    pos_sum[c * taps + t] += size;
    row_sign += step; kernel_sign += step; col_sign[c] += step; tap_sign[t] += step;
    if (plan[SEGMENT]) move(value);
}

inline void Contexts::move(int32_t value) {
    state = (state >> 1) ^ (state & 1 ? plan[FEEDBACK] : 0) ^ (value & 1);
    if (++steps == plan[SEGMENT]) state = steps = 0;
}

}  // namespace
