// Context-mixing coder of integer planes: binary decisions, each predicted by several adaptive contexts whose
// predictions are mixed in the logistic domain.  Integers only, so every machine computes the same file.
// twin_mix.py says the same in Python, line by line; change both or neither.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "range.hpp"

namespace {

constexpr int INPUTS = 16;   // predictions that are mixed; the last is a constant
constexpr int LEVELS = 128;  // steps of the logarithmic measure of activity, four to the octave
constexpr int SIGNS = 8;     // contexts of a sign
constexpr int TREE = 7;      // nodes of the first three mantissa bits
constexpr int64_t CEILING = 65535;

enum Field { ROWS, COLS, TAPS, WIDTH, CLASSES, SIGNED, ZERO, STRIDE, LIMIT, FIRST, RATE, DENSITY, WEIGHT, FIELDS };

struct Tables {
    const uint16_t* squash;  // 6144 entries: from (-3072..3071)/256 nats to 16 bits
    const int16_t* stretch;  // 65536 entries: its inverse
};

inline int level_of(uint64_t x) {  // 4 * log2(x), rounded down; 0 for 0
    if (x < 4) return x < 2 ? 0 : (x == 2 ? 4 : 6);
    int bit = 63 - __builtin_clzll(x);
    return 4 * bit + int((x >> (bit - 2)) & 3);
}

struct Sum {  // a weighted sum of magnitudes and of the weights
    uint64_t total = 0, count = 0;
};

struct Model {
    const int64_t* plan;
    const uint8_t* where;
    Tables tables;
    int64_t rows, cols, taps, width, stride, line;
    int classes, bins, few;
    std::unique_ptr<uint32_t, void (*)(void*)> memory{nullptr, std::free};
    uint32_t* slots;                       // probability in 22 bits, count in 10; all zero (calloc) until met
    std::vector<int64_t> base;             // where each context's slots begin
    std::vector<uint32_t> rates;           // 65536 / (count + first)
    std::vector<int32_t> weights;          // two sets of mixers
    std::vector<int32_t> seen;             // bins each mixer has learned from
    std::vector<uint16_t> act;             // magnitudes so far
    std::vector<int8_t> sign;
    std::vector<uint64_t> col_sum, col_count, pos_sum, tap_sum, tap_count;
    std::vector<int32_t> col_sign, tap_sign;
    std::vector<uint32_t> row_mask, col_mask;
    Sum plane, row, kernel;
    int32_t row_sign = 0, kernel_sign = 0;
    uint64_t mean = 0;                     // of the plane so far, 16 fractional bits
    int64_t ctx[INPUTS], sctx[SIGNS];
    int selector = 0, second = 0;
    alignas(64) int32_t input[INPUTS];
    uint32_t* slot[INPUTS];

    Model(const int64_t* plan_, const uint8_t* where_, Tables tables_);
    int level(uint64_t total, uint64_t count) const {
        int x = level_of((total << 16) + 2 * mean) - level_of(count + 2);
        return x < 0 ? 0 : (x >= LEVELS ? LEVELS - 1 : x);
    }
    void add(Sum& sum, int64_t index, int weight) const {
        if (where && !where[index]) return;
        sum.total += uint64_t(weight) * act[index];
        sum.count += uint64_t(weight);
    }
    int near(int64_t at, int64_t j, int64_t r, int64_t t) const;
    void look(int64_t at, int64_t r, int64_t c, int64_t t);
    void look_signs(int64_t at, int64_t r, int64_t c, int64_t t);
    void learn(int64_t at, int64_t c, int64_t t, int32_t value);
    int capped(int64_t at, bool there, int cap) const { return there ? (act[at] < cap ? act[at] : cap) : 0; }
    int signum(int64_t at, bool there) const { return there ? sign[at] + 1 : 1; }
    template <class C> int bin(C& coder, int bit, int kind, int mixer, int count, uint32_t* parent);
    template <class C> int magnitude_bin(C& coder, int bit, int index, int kind);
    template <class C> int sign_bin(C& coder, int bit, int size_class);
    template <class C> int32_t symbol(C& coder, int32_t value);
};

const int64_t CONTEXTS[INPUTS] = {1, LEVELS, LEVELS, 4096, LEVELS, LEVELS, 8192, 256, 0, 1, 4096, 4096, 4096, LEVELS, 1, 0};
const int64_t SIGN_CONTEXTS[SIGNS] = {1, 27, 27, 192, 17, 17, 81, 17};
constexpr int USED = 15;  // magnitude contexts in use

Model::Model(const int64_t* plan_, const uint8_t* where_, Tables tables_) : plan(plan_), where(where_), tables(tables_) {
    rows = plan[ROWS]; cols = plan[COLS]; taps = plan[TAPS]; width = plan[WIDTH]; stride = plan[STRIDE];
    line = cols * taps;
    classes = int(plan[CLASSES]);
    bins = classes + TREE * (classes > 1 ? classes - 1 : 0);
    few = bins < 4 ? bins : 4;
    int64_t size = 0;
    for (int i = 0; i < INPUTS; i++) {
        base.push_back(size);
        size += (i == 8 ? cols * few : CONTEXTS[i] * bins);
    }
    for (int i = 0; i < SIGNS; i++) { base.push_back(size); size += SIGN_CONTEXTS[i] * 4; }
    base.push_back(size);                       // low mantissa bits: class by place
    size += 33 * 32;
    memory.reset(static_cast<uint32_t*>(std::calloc(size_t(size), sizeof(uint32_t))));
    slots = memory.get();
    if (!slots) throw std::bad_alloc();
    for (int b = 0; b < bins; b++) slots[b] = 1u << 31;
    if (plan[ZERO]) slots[0] = uint32_t((1u << 22) >> plan[DENSITY]) << 10;
    for (int64_t i = base[INPUTS]; i < base[INPUTS] + 4; i++) slots[i] = 1u << 31;
    for (int64_t i = base[INPUTS + SIGNS]; i < size; i++) slots[i] = 1u << 31;
    for (int n = 0; n < 1024; n++) rates.push_back(uint32_t(65536 * 2 / (2 * n + plan[FIRST])));
    int mixers = bins + 4 + 4 * 16 + 4 * 64;
    weights.assign(mixers * INPUTS, int32_t(plan[WEIGHT]));
    for (int m = 0; m < mixers; m++) { weights[m * INPUTS] = 65536; weights[m * INPUTS + INPUTS - 1] = 0; }
    seen.assign(mixers, 0);
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

int Model::near(int64_t at, int64_t j, int64_t r, int64_t t) const {
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

void Model::look(int64_t at, int64_t r, int64_t c, int64_t t) {
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

void Model::look_signs(int64_t at, int64_t r, int64_t c, int64_t t) {
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

void Model::learn(int64_t at, int64_t c, int64_t t, int32_t value) {
    int64_t size = value < 0 ? -int64_t(value) : value;
    if (size > CEILING) size = CEILING;
    int step = (value > 0) - (value < 0);
    act[at] = uint16_t(size);
    sign[at] = int8_t(step);
    for (Sum* sum : {&plane, &row, &kernel}) { sum->total += size; sum->count++; }
    col_sum[c] += size; col_count[c]++;
    tap_sum[t] += size; tap_count[t]++;
    pos_sum[c * taps + t] += size;
    row_sign += step; kernel_sign += step; col_sign[c] += step; tap_sign[t] += step;
}

template <class C> int Model::bin(C& coder, int bit, int kind, int mixer, int count, uint32_t* parent) {
    int32_t start = tables.stretch[*parent >> 16];
    input[0] = start;
    for (int i = 1; i < count; i++) {
        if ((*slot[i] & 1023) == 0) *slot[i] = *parent & ~1023u;
        input[i] = tables.stretch[*slot[i] >> 16] - start;
    }
    for (int i = count; i < INPUTS - 1; i++) input[i] = 0;
    input[INPUTS - 1] = 256;
    int chosen[3] = {mixer, bins + 4 + kind * 16 + selector, bins + 68 + kind * 64 + second};
    int32_t dot[3] = {0, 0, 0};
    for (int s = 0; s < 3; s++) {
        const int32_t* w = &weights[chosen[s] * INPUTS];
        for (int i = 0; i < INPUTS; i++) dot[s] += (w[i] * input[i]) >> 8;
        dot[s] = dot[s] >> 8;
        dot[s] = dot[s] < -3072 ? -3072 : (dot[s] > 3071 ? 3071 : dot[s]);
    }
    uint32_t p = tables.squash[(((dot[0] + dot[1] + dot[2]) * 341) >> 10) + 3072];
    bit = coder.code(bit, p);
    for (int s = 0; s < 3; s++) {
        int32_t* w = &weights[chosen[s] * INPUTS];
        int32_t& n = seen[chosen[s]];
        int32_t error = (bit << 16) - bit - tables.squash[dot[s] + 3072];
        int32_t speed = int32_t(plan[RATE]) + int32_t(plan[RATE]) * 512 / (n + 64);
        if (n < 65535) n++;
        for (int i = 0; i < INPUTS; i++) {
            int32_t next = w[i] + ((((input[i] * error) >> 10) * speed + 8192) >> 14);
            w[i] = next < -262144 ? -262144 : (next > 262144 ? 262144 : next);
        }
    }
    for (int i = 0; i < count; i++) {
        uint32_t* s = i ? slot[i] : parent;
        int32_t n = *s & 1023, q = int32_t(*s >> 10);
        q += int32_t((int64_t((bit << 22) - bit - q) * rates[n]) >> 16);
        *s = (uint32_t(q) << 10) | uint32_t(n < plan[LIMIT] ? n + 1 : n);
    }
    return bit;
}

template <class C> int Model::magnitude_bin(C& coder, int bit, int index, int kind) {
    for (int i = 1; i < USED; i++) slot[i] = &slots[base[i] + ctx[i] * bins + index];
    slot[8] = index < few ? &slots[base[8] + ctx[8] * few + index] : &slots[base[14] + index];
    return bin(coder, bit, kind, index, USED - 1, &slots[index]);
}

template <class C> int Model::sign_bin(C& coder, int bit, int size_class) {
    int scale = size_class < 4 ? size_class - 1 : 3;
    for (int i = 1; i < SIGNS; i++) slot[i] = &slots[base[INPUTS + i] + sctx[i] * 4 + scale];
    return bin(coder, bit, 3, bins + scale, SIGNS, &slots[base[INPUTS] + scale]);
}

template <class C> int32_t Model::symbol(C& coder, int32_t value) {
    uint64_t size = value < 0 ? uint64_t(-int64_t(value)) : uint64_t(value);
    int wanted = size ? 64 - __builtin_clzll(size) : 0, size_class = 1;
    if (plan[ZERO] && !magnitude_bin(coder, wanted > 0, 0, 0)) return 0;
    while (size_class < classes && magnitude_bin(coder, wanted > size_class, size_class, 1)) size_class++;
    uint64_t made = 1;
    int node = 0;
    for (int place = size_class - 2; place >= 0; place--) {
        int bit = int((size >> place) & 1), depth = size_class - 2 - place;
        if (depth < 3) {
            bit = magnitude_bin(coder, bit, classes + TREE * (size_class - 2) + node, 2);
            node = 2 * node + 1 + bit;
        } else {
            uint32_t* s = &slots[base[INPUTS + SIGNS] + size_class * 32 + place];
            uint32_t p = *s >> 16;
            bit = coder.code(bit, p < 32 ? 32 : (p > 65503 ? 65503 : p));
            int32_t n = *s & 1023, q = int32_t(*s >> 10);
            q += int32_t((int64_t((bit << 22) - bit - q) * rates[n]) >> 16);
            *s = (uint32_t(q) << 10) | uint32_t(n < plan[LIMIT] ? n + 1 : n);
        }
        made = 2 * made + uint64_t(bit);
    }
    if (!plan[SIGNED]) return made > 2147483647 ? 2147483647 : int32_t(made);
    bool negative = sign_bin(coder, value < 0, size_class);
    if (!negative) return made > 2147483647 ? 2147483647 : int32_t(made);
    return made > 2147483648ull ? INT32_MIN : int32_t(-int64_t(made));
}

template <class C> void walk(Model& model, C& coder, int32_t* values, bool write) {
    int64_t at = 0;
    for (int64_t r = 0; r < model.rows; r++) {
        model.row = Sum();
        model.row_sign = 0;
        for (int b = 0; b < model.bins; b++) model.slots[model.base[9] + b] = 0;
        for (int64_t c = 0; c < model.cols; c++) {
            model.kernel = Sum();
            model.kernel_sign = 0;
            for (int64_t t = 0; t < model.taps; t++, at++) {
                if (model.where && !model.where[at]) continue;
                model.look(at, r, c, t);
                if (model.plan[SIGNED]) model.look_signs(at, r, c, t);
                int32_t value = model.symbol(coder, write ? 0 : values[at]);
                if (write) values[at] = value;
                model.learn(at, c, t, value);
            }
        }
    }
}

}  // namespace

extern "C" {

// Bytes written, or -1 when `room` is too small.
int64_t mix_encode(const int32_t* values, const uint8_t* where, const int64_t* plan, const uint16_t* squash,
                   const int16_t* stretch, uint8_t* out, int64_t room) {
    Model model(plan, where, Tables{squash, stretch});
    Writer writer(out, room);
    walk(model, writer, const_cast<int32_t*>(values), false);
    return writer.finish();
}

// Bytes looked at, which may be up to eight more than the body had.
int64_t mix_decode(const uint8_t* body, int64_t size, const uint8_t* where, const int64_t* plan, const uint16_t* squash,
                   const int16_t* stretch, int32_t* values) {
    Model model(plan, where, Tables{squash, stretch});
    Reader reader(body, size);
    walk(model, reader, values, true);
    return reader.at;
}

}
