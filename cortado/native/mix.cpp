// Context-mixing coder of integer planes: binary decisions, each predicted by several adaptive contexts whose
// predictions are mixed in the logistic domain.  Integers only, so every machine computes the same file.
// python_mix.py says the same in Python, line by line; change both or neither.
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "contexts.hpp"
#include "range.hpp"

namespace {

struct Tables {
    const uint16_t* squash;  // 6144 entries: from (-3072..3071)/256 nats to 16 bits
    const int16_t* stretch;  // 65536 entries: its inverse
};

// Draws one probability towards `bit`, the less the more it has seen.
inline void update(uint32_t* s, int bit, const uint32_t* rates, int32_t limit) {
    const uint32_t held = *s;
    const int32_t n = int32_t(held & 1023), q = int32_t(held >> 10);
    const int32_t next = q + int32_t((int64_t((bit << 22) - bit - q) * rates[n]) >> 16);
    *s = (uint32_t(next) << 10) | uint32_t(n < limit ? n + 1 : n);
}

struct Model : Contexts {
    Tables tables;
    int classes, bins, few, own, all;      // decisions; the first ones; those that grid 1 has of its own; together
    std::unique_ptr<uint32_t, void (*)(void*)> memory{nullptr, std::free};
    uint32_t* slots;                       // probability in 22 bits, count in 10; all zero (calloc) until met
    std::vector<int64_t> base;             // where each context's slots begin
    std::vector<uint32_t> rates;           // 65536 / (count + first / 2)
    std::vector<int32_t> weights;          // of the mixers, 16 each, 65536 = 1
    std::vector<int32_t> seen;             // decisions each mixer has learned from
    uint32_t* slot[INPUTS];

    Model(const int64_t* plan_, const uint8_t* where_, Tables tables_);
    template <class C> int bin(C& coder, int bit, int kind, int mixer, int count, uint32_t* parent);
    template <class C> int magnitude_bin(C& coder, int bit, int index, int kind);
    template <class C> int sign_bin(C& coder, int bit, int size_class);
    template <class C> int low_bit(C& coder, int bit, uint32_t* s);
    template <class C> int32_t symbol(C& coder, int32_t value);
};

const int64_t CONTEXTS[INPUTS] = {1, LEVELS, LEVELS, 4096, LEVELS, LEVELS, 8192, 256, 0, 1, 4096, 4096, 4096, LEVELS, 1, 0};
const int64_t SIGN_CONTEXTS[SIGNS] = {1, 27, 27, 192, 17, 17, 81, 17};
constexpr int USED = 15;  // magnitude contexts in use

Model::Model(const int64_t* plan_, const uint8_t* where_, Tables tables_) : Contexts(plan_, where_), tables(tables_) {
    classes = int(plan[CLASSES]);
    bins = classes + TREE * (classes > 1 ? classes - 1 : 0);
    few = bins < 4 ? bins : 4;
    own = plan[SEGMENT] ? 2 : 0;
    all = bins + own;
    int64_t size = 0;
    for (int i = 0; i < INPUTS; i++) {
        base.push_back(size);
        size += (i == 8 ? cols * (few + own) : CONTEXTS[i] * all);
    }
    for (int i = 0; i < SIGNS; i++) { base.push_back(size); size += SIGN_CONTEXTS[i] * 4; }
    base.push_back(size);                       // low mantissa bits: class by place
    size += 33 * 32;
    memory.reset(static_cast<uint32_t*>(std::calloc(size_t(size), sizeof(uint32_t))));
    slots = memory.get();
    if (!slots) throw std::bad_alloc();
    for (int b = 0; b < all; b++) slots[b] = 1u << 31;
    for (int b : {0, bins})
        if (plan[ZERO] && b < all) slots[b] = uint32_t((1u << 22) >> plan[DENSITY]) << 10;
    for (int64_t i = base[INPUTS]; i < base[INPUTS] + 4; i++) slots[i] = 1u << 31;
    for (int64_t i = base[INPUTS + SIGNS]; i < size; i++) slots[i] = 1u << 31;
    for (int n = 0; n < 1024; n++) rates.push_back(uint32_t(65536 * 2 / (2 * n + plan[FIRST])));
    int mixers = all + 4 + 4 * 16 + 4 * 64;
    weights.assign(mixers * INPUTS, int32_t(plan[WEIGHT]));
    for (int m = 0; m < mixers; m++) { weights[m * INPUTS] = 65536; weights[m * INPUTS + INPUTS - 1] = 0; }
    seen.assign(mixers, 0);
}

template <class C> int Model::bin(C& coder, int bit, int kind, int mixer, int count, uint32_t* parent) {
    alignas(64) int32_t input[INPUTS] = {};
    const int32_t start = tables.stretch[*parent >> 16];
    input[0] = start;
    for (int i = 1; i < count; i++) {
        if ((*slot[i] & 1023) == 0) *slot[i] = *parent & ~1023u;  // new: starts from the plane's own estimate
        input[i] = tables.stretch[*slot[i] >> 16] - start;
    }
    input[INPUTS - 1] = 256;
    const int chosen[3] = {mixer, all + 4 + kind * 16 + selector, all + 68 + kind * 64 + second};
    int32_t dot[3];
    for (int s = 0; s < 3; s++) {
        const int32_t* w = &weights[size_t(chosen[s]) * INPUTS];
        int32_t sum = 0;
        for (int i = 0; i < INPUTS; i++) sum += (w[i] * input[i]) >> 8;
        sum >>= 8;
        dot[s] = sum < -3072 ? -3072 : (sum > 3071 ? 3071 : sum);
    }
    bit = coder.code(bit, tables.squash[(((dot[0] + dot[1] + dot[2]) * 341) >> 10) + 3072]);
    const int32_t rate = int32_t(plan[RATE]);
    for (int s = 0; s < 3; s++) {
        int32_t* w = &weights[size_t(chosen[s]) * INPUTS];
        int32_t& n = seen[chosen[s]];
        const int32_t error = (bit << 16) - bit - tables.squash[dot[s] + 3072], speed = rate + rate * 512 / (n + 64);
        if (n < 65535) n++;
        for (int i = 0; i < INPUTS; i++) {
            int32_t next = w[i] + ((((input[i] * error) >> 10) * speed + 8192) >> 14);
            w[i] = next < -262144 ? -262144 : (next > 262144 ? 262144 : next);
        }
    }
    const uint32_t* const r = rates.data();
    const int32_t limit = int32_t(plan[LIMIT]);
    update(parent, bit, r, limit);
    for (int i = 1; i < count; i++) update(slot[i], bit, r, limit);
    return bit;
}

template <class C> int Model::magnitude_bin(C& coder, int bit, int index, int kind) {
    if (index < own && grid()) index += bins;
    const int early = index < few ? index : (index >= bins ? index - bins + few : -1);
    for (int i = 1; i < USED; i++) slot[i] = &slots[base[i] + ctx[i] * all + index];
    slot[8] = early >= 0 ? &slots[base[8] + ctx[8] * (few + own) + early] : &slots[base[14] + index];
    return bin(coder, bit, kind, index, USED - 1, &slots[index]);
}

template <class C> int Model::sign_bin(C& coder, int bit, int size_class) {
    int scale = size_class < 4 ? size_class - 1 : 3;
    for (int i = 1; i < SIGNS; i++) slot[i] = &slots[base[INPUTS + i] + sctx[i] * 4 + scale];
    return bin(coder, bit, 3, all + scale, SIGNS, &slots[base[INPUTS] + scale]);
}

// A mantissa bit too low to be worth contexts.
template <class C> int Model::low_bit(C& coder, int bit, uint32_t* s) {
    uint32_t p = *s >> 16;
    bit = coder.code(bit, p < 32 ? 32 : (p > 65503 ? 65503 : p));
    update(s, bit, rates.data(), int32_t(plan[LIMIT]));
    return bit;
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
            bit = low_bit(coder, bit, &slots[base[INPUTS + SIGNS] + size_class * 32 + place]);
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
        model.begin_row();
        for (int b = 0; b < model.all; b++) model.slots[model.base[9] + b] = 0;
        for (int64_t c = 0; c < model.cols; c++) {
            model.begin_kernel();
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

// Bytes written, -1 when `room` is too small, -2 when memory is.
int64_t mix_encode(const int32_t* values, const uint8_t* where, const int64_t* plan, const uint16_t* squash,
                   const int16_t* stretch, uint8_t* out, int64_t room) {
    try {
        Model model(plan, where, Tables{squash, stretch});
        Writer writer(out, room);
        walk(model, writer, const_cast<int32_t*>(values), false);
        return writer.finish();
    } catch (const std::bad_alloc&) {
        return -2;
    }
}

// Bytes looked at, which may be up to eight more than the body had; -2 when memory is too small.
int64_t mix_decode(const uint8_t* body, int64_t size, const uint8_t* where, const int64_t* plan, const uint16_t* squash,
                   const int16_t* stretch, int32_t* values) {
    try {
        Model model(plan, where, Tables{squash, stretch});
        Reader reader(body, size);
        walk(model, reader, values, true);
        return reader.at;
    } catch (const std::bad_alloc&) {
        return -2;
    }
}

}
