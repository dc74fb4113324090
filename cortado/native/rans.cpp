// Fast coder of integer lists: tokens of four bits under frequency tables chosen by two running means of what was
// already decoded (along the list, and down the column), coded by four interleaved asymmetric numeral systems.
// Signs and low bits of large values travel beside them as they are.  python_rans.py says the same in Python.
#include <cstdint>
#include <cstring>
#include <vector>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace {

constexpr int STREAMS = 4, TOKENS = 16, BITS = 15;
constexpr uint32_t FLOOR = 1u << 16;
constexpr uint32_t ESCAPE = 192;  // magnitudes from here on are spelled out

enum Field { COUNT, LINE, DIRECT, LEAST, SIGNED, ALONG, DOWN, STREAMED };

struct Table {           // of one context: where each token begins, and how wide it is
    uint16_t start[TOKENS];
    uint16_t width[TOKENS];
};

struct Split {           // a value as token, extra bits (low first), and its share in the running means
    uint32_t token, count, act;
    uint64_t extra;
};

inline int bit_length(uint32_t x) { return x ? 32 - __builtin_clz(x) : 0; }

inline Split split_class(int32_t value, bool with_sign) {
    uint32_t size = value < 0 ? 0u - uint32_t(value) : uint32_t(value);
    Split s{size, 0, 0, 0};
    if (size >= ESCAPE) {
        uint32_t over = size - ESCAPE, length = uint32_t(bit_length(over));
        s.token = 15; s.count = 5 + length; s.extra = length | uint64_t(over) << 5;
    } else if (size >= 2) {
        int bit = bit_length(size) - 1;
        s.token = uint32_t(2 * bit) + ((size >> (bit - 1)) & 1);
        s.count = uint32_t(bit - 1);
        s.extra = size & ((1u << (bit - 1)) - 1);
    }
    if (with_sign && size) { s.extra = s.extra << 1 | (value < 0); s.count++; }
    s.act = s.token;
    return s;
}

inline Split split_direct(int32_t value, int32_t least) {
    uint32_t size = value < 0 ? 0u - uint32_t(value) : uint32_t(value);
    return Split{uint32_t(value) - uint32_t(least), 0, size < 15 ? size : 15, 0};
}

struct BitWriter {
    uint8_t* out;
    uint64_t held = 0;
    int filled = 0;
    int64_t at = 0;
    void put(uint64_t bits, uint32_t count) {  // at most 38 bits
        held |= bits << filled;
        filled += int(count);
        while (filled >= 8) { out[at++] = uint8_t(held); held >>= 8; filled -= 8; }
    }
    void close() { if (filled > 0) out[at++] = uint8_t(held); }
};

struct BitReader {
    const uint8_t* body;
    int64_t size, at = 0;  // `at` counts bits
    uint64_t look() const {  // at least 57 bits, zeros after the end
        int64_t byte = at >> 3;
        uint64_t word = 0;
        if (byte + 8 <= size) std::memcpy(&word, body + byte, 8);
        else for (int i = 0; i < 8 && byte + i < size; i++) word |= uint64_t(body[byte + i]) << (8 * i);
        return word >> (at & 7);
    }
};

struct Means {  // the running means of one stream
    uint32_t along = 0;
    int64_t column = 0;
    uint16_t* down = nullptr;
};

struct Walk {  // the list cut into streams of (nearly) equal length
    int64_t count, line, streams, from[STREAMS + 1];
    int along, down;
    std::vector<uint16_t> columns;
    Means means[STREAMS];
    explicit Walk(const int64_t* plan) {
        count = plan[COUNT]; line = plan[LINE]; streams = plan[STREAMED];
        along = int(plan[ALONG]); down = int(plan[DOWN]);
        columns.assign(size_t(streams * line), 0);
        for (int64_t s = 0; s <= streams; s++) from[s] = s * count / streams;
        for (int64_t s = 0; s < streams; s++) {
            means[s].column = from[s] % line;
            means[s].down = columns.data() + s * line;
        }
    }
    inline void learn(Means& m, uint32_t act) const {
        int32_t target = int32_t(act << 12);
        m.along += uint32_t((target - int32_t(m.along)) >> along);
        uint16_t& cell = m.down[m.column];
        cell = uint16_t(cell + ((target - int32_t(cell)) >> down));
        if (++m.column == line) m.column = 0;
    }
    template <class F> void each(F visit) {  // in the order the decoder takes
        int64_t common = count / streams;
        if (streams == STREAMS)
            for (int64_t i = 0; i < common; i++)
                for (int s = 0; s < STREAMS; s++) visit(from[s] + i, means[s], s);
        else
            for (int64_t i = 0; i < common; i++) visit(from[0] + i, means[0], 0);
        for (int64_t s = 0; s < streams; s++)
            if (from[s] + common < from[s + 1]) visit(from[s] + common, means[s], int(s));
    }
};

inline uint32_t find(const Table& table, uint32_t slot) {  // the last token that begins at or before `slot`
#ifdef __SSE2__  // every x86-64 has it, and it takes 16 starts as fast as AVX2
    const __m128i wanted = _mm_set1_epi16(short(slot)), none = _mm_setzero_si128();
    const __m128i* starts = reinterpret_cast<const __m128i*>(table.start);
    const __m128i low = _mm_cmpeq_epi16(_mm_subs_epu16(_mm_loadu_si128(starts), wanted), none);
    const __m128i high = _mm_cmpeq_epi16(_mm_subs_epu16(_mm_loadu_si128(starts + 1), wanted), none);
    return uint32_t(__builtin_ctz(~uint32_t(_mm_movemask_epi8(_mm_packs_epi16(low, high))))) - 1;
#else
    uint32_t token = 0;
    for (int i = 1; i < TOKENS; i++) token += table.start[i] <= slot;
    return token;
#endif
}

template <bool DIRECT_> int64_t decode(const uint8_t* words, int64_t size, BitReader& raw, const int64_t* plan,
                                       const uint8_t* across, const uint8_t* below, const Table* tables, int32_t* values) {
    Walk walk(plan);
    int64_t at = 0;
    auto next = [&]() -> uint32_t {
        uint16_t word = 0;
        if (at + 2 <= size) std::memcpy(&word, words + at, 2);
        at += 2;
        return word;
    };
    uint32_t state[STREAMS];
    for (int64_t s = 0; s < walk.streams; s++) { uint32_t high = next(); state[s] = high << 16 | next(); }
    int32_t least = int32_t(plan[LEAST]);
    bool with_sign = plan[SIGNED] != 0;
    walk.each([&](int64_t index, Means& m, int s) {
        const Table& table = tables[across[m.along >> 4] + below[m.down[m.column] >> 4]];
        uint32_t x = state[s], slot = x & ((1u << BITS) - 1), token = find(table, slot);
        x = table.width[token] * (x >> BITS) + slot - table.start[token];
        if (x < FLOOR) x = x << 16 | next();
        state[s] = x;
        if (DIRECT_) {
            int32_t value = int32_t(uint32_t(least) + token);
            uint32_t size_ = value < 0 ? 0u - uint32_t(value) : uint32_t(value);
            values[index] = value;
            walk.learn(m, size_ < 15 ? size_ : 15);
            return;
        }
        walk.learn(m, token);
        uint32_t bit = token >> 1, made = token;
        if (token >= 2) {
            uint64_t look = raw.look();
            bool negative = look & with_sign;
            look >>= with_sign;
            raw.at += with_sign;
            if (token < 15) {
                made = (2 | (token & 1)) << (bit - 1) | (uint32_t(look) & ((1u << (bit - 1)) - 1));
                raw.at += bit - 1;
            } else {
                uint32_t length = uint32_t(look & 31);
                made = ESCAPE + uint32_t((look >> 5) & ((1ull << length) - 1));
                raw.at += 5 + length;
            }
            values[index] = int32_t(negative ? 0u - made : made);
        } else if (token == 1) {
            bool negative = raw.look() & with_sign;
            raw.at += with_sign;
            values[index] = negative ? -1 : 1;
        } else values[index] = 0;
    });
    bool whole = true;
    for (int64_t s = 0; s < walk.streams; s++) whole = whole && state[s] == FLOOR;
    return whole && at == size && (raw.at + 7) / 8 == raw.size ? 0 : -1;
}

}  // namespace

extern "C" {

// How often each (along >> 4) and (down >> 4) occurs: 4096 + 4096 counts.
void rans_survey(const int32_t* values, const int64_t* plan, int64_t* counts) {
    Walk walk(plan);
    int32_t least = int32_t(plan[LEAST]);
    bool direct = plan[DIRECT] != 0;
    walk.each([&](int64_t index, Means& m, int) {
        counts[m.along >> 4]++;
        counts[4096 + (m.down[m.column] >> 4)]++;
        walk.learn(m, direct ? split_direct(values[index], least).act : split_class(values[index], false).act);
    });
}

// Tokens and contexts of all values in coding order, the counts of each pair, and the extra bits (their bytes).
int64_t rans_tokens(const int32_t* values, const int64_t* plan, const uint8_t* across, const uint8_t* below,
                    uint8_t* contexts, uint8_t* tokens, int64_t* counts, uint8_t* raw) {
    Walk walk(plan);
    BitWriter writer{raw};
    int32_t least = int32_t(plan[LEAST]);
    bool direct = plan[DIRECT] != 0, with_sign = plan[SIGNED] != 0;
    int64_t k = 0;
    walk.each([&](int64_t index, Means& m, int s) {
        Split part = direct ? split_direct(values[index], least) : split_class(values[index], with_sign);
        uint8_t context = uint8_t(across[m.along >> 4] + below[m.down[m.column] >> 4]);
        contexts[k] = context;
        tokens[k++] = uint8_t(part.token);
        counts[(s * 64 + context) * TOKENS + part.token]++;
        if (part.count) writer.put(part.extra, part.count);
        walk.learn(m, part.act);
    });
    writer.close();
    return writer.at;
}

// Codes tokens backwards into the end of `out` (room: 2 bytes a token and 16); how many bytes that took.
int64_t rans_encode(const uint8_t* contexts, const uint8_t* tokens, int64_t count, int64_t streams, const uint8_t* renumber,
                    const uint16_t* tables, uint8_t* out, int64_t room) {
    uint32_t state[STREAMS] = {FLOOR, FLOOR, FLOOR, FLOOR};
    const Table* table = reinterpret_cast<const Table*>(tables);
    int64_t at = room, tail = count % streams;
    auto put = [&](uint32_t word) { uint16_t half = uint16_t(word); at -= 2; std::memcpy(out + at, &half, 2); };
    // The last `tail` values are the extra ones of the longer streams, in order of stream.
    std::vector<int> owner;
    for (int64_t s = 0; s < streams; s++)
        if ((s + 1) * count / streams - s * count / streams > count / streams) owner.push_back(int(s));
    for (int64_t k = count - 1; k >= 0; k--) {
        int s = k >= count - tail ? owner[size_t(k - (count - tail))] : int(k % streams);
        const Table& t = table[renumber[contexts[k]]];
        uint32_t width = t.width[tokens[k]], x = state[s];
        if (uint64_t(x) >= uint64_t(width) << (32 - BITS)) { put(x & 65535); x >>= 16; }
        state[s] = ((x / width) << BITS) + x % width + t.start[tokens[k]];
    }
    for (int64_t s = streams - 1; s >= 0; s--) { put(state[s] & 65535); put(state[s] >> 16); }
    return room - at;
}

// 0, or -1 when the streams do not end as the encoder ended them.
int64_t rans_decode(const uint8_t* words, int64_t size, const uint8_t* raw, int64_t raw_size, const int64_t* plan,
                    const uint8_t* across, const uint8_t* below, const uint16_t* tables, int32_t* values) {
    BitReader reader{raw, raw_size};
    const Table* table = reinterpret_cast<const Table*>(tables);
    return plan[DIRECT] ? decode<true>(words, size, reader, plan, across, below, table, values)
                        : decode<false>(words, size, reader, plan, across, below, table, values);
}

}
