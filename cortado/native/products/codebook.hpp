// Products with a weight of 4- or 2-bit codes into 16 or 4 free values.
// Codes lie in tiles of 64 bytes for one row and 512 / bits columns; a group is four rows, and its tiles alternate:
// (groups, tiles, 4, 64).  In a tile, 32-bit lane i has in its field j the code of column 16 j + i.
#pragma once
#include <algorithm>
#include <cmath>

#include "isa.hpp"

namespace cortado {

constexpr int64_t TILE = 64, GROUP = 4;

// The code of column `at` of a tile.
inline int code_in(const uint8_t* tile, int64_t at, int bits) {
    uint32_t lane;
    std::memcpy(&lane, tile + at % 16 * 4, 4);
    return int(lane >> (at / 16 * bits)) & ((1 << bits) - 1);
}

// ---- exact: sums (S, 4) of one group of rows for S samples, whose inputs lie `stride` apart

using ExactSums = void (*)(const uint8_t* codes, const float* codebook, const float* x, int64_t stride, int64_t tiles, float* sums);

#if defined(__x86_64__)
// One tile of each row of a group; those of later groups are asked for.
FOR_AVX512 inline void load_tiles(const uint8_t* codes, __m512i (&code)[GROUP]) {
#pragma GCC unroll 4
    for (int row = 0; row < int(GROUP); row++) {
        code[row] = _mm512_loadu_si512(codes + row * TILE);
        __builtin_prefetch(codes + row * TILE + 4096);
    }
}

template <int BITS, int S>
FOR_AVX512 void exact_avx512(const uint8_t* codes, const float* codebook, const float* x, int64_t stride, int64_t tiles, float* sums) {
    constexpr int FIELDS = 32 / BITS, CHAINS = S > 1 ? 1 : 2;
    const __m512 values = _mm512_loadu_ps(codebook);
    __m512 sum[CHAINS][S][GROUP] = {};
    for (int64_t tile = 0; tile < tiles; tile++, codes += GROUP * TILE, x += 16 * FIELDS) {
        __m512i code[GROUP];
        load_tiles(codes, code);
#pragma GCC unroll 16
        for (int field = 0; field < FIELDS; field++) {
            __m512 input[S];
#pragma GCC unroll 4
            for (int s = 0; s < S; s++) input[s] = _mm512_loadu_ps(x + s * stride + 16 * field);
#pragma GCC unroll 4
            for (int row = 0; row < int(GROUP); row++) {
                const __m512 weight = _mm512_permutexvar_ps(_mm512_srli_epi32(code[row], field * BITS), values);
#pragma GCC unroll 4
                for (int s = 0; s < S; s++)
                    sum[field % CHAINS][s][row] = _mm512_fmadd_ps(weight, input[s], sum[field % CHAINS][s][row]);
            }
        }
    }
    for (int s = 0; s < S; s++)
        for (int row = 0; row < int(GROUP); row++)
            sums[s * GROUP + row] = _mm512_reduce_add_ps(CHAINS == 1 ? sum[0][s][row] : _mm512_add_ps(sum[0][s][row], sum[CHAINS - 1][s][row]));
}

FOR_AVX2 INLINED float total(__m256 sum) {
    const __m128 half = _mm_add_ps(_mm256_castps256_ps128(sum), _mm256_extractf128_ps(sum, 1));
    const __m128 pair = _mm_add_ps(half, _mm_movehl_ps(half, half));
    return _mm_cvtss_f32(_mm_add_ss(pair, _mm_shuffle_ps(pair, pair, 1)));
}

template <int BITS, int S>
FOR_AVX2 void exact_avx2(const uint8_t* codes, const float* codebook, const float* x, int64_t stride, int64_t tiles, float* sums) {
    constexpr int FIELDS = 32 / BITS;
    const __m256 low = _mm256_loadu_ps(codebook), high = _mm256_loadu_ps(codebook + 8);
    __m256 sum[S][GROUP] = {};
    for (int64_t tile = 0; tile < tiles; tile++, codes += GROUP * TILE, x += 16 * FIELDS) {
        for (int half = 0; half < 2; half++) {
            __m256i code[GROUP];
#pragma GCC unroll 4
            for (int row = 0; row < int(GROUP); row++)
                code[row] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + row * TILE + half * 32));
#pragma GCC unroll 16
            for (int field = 0; field < FIELDS; field++) {
#pragma GCC unroll 4
                for (int row = 0; row < int(GROUP); row++) {
                    __m256 weight = _mm256_permutevar8x32_ps(low, code[row]);
                    if (BITS == 4)  // bit 3 chooses the upper half
                        weight = _mm256_blendv_ps(weight, _mm256_permutevar8x32_ps(high, code[row]), _mm256_castsi256_ps(_mm256_slli_epi32(code[row], 28)));
                    code[row] = _mm256_srli_epi32(code[row], BITS);
#pragma GCC unroll 2
                    for (int s = 0; s < S; s++)
                        sum[s][row] = _mm256_fmadd_ps(weight, _mm256_loadu_ps(x + s * stride + 16 * field + 8 * half), sum[s][row]);
                }
            }
        }
    }
    for (int s = 0; s < S; s++)
        for (int row = 0; row < int(GROUP); row++) sums[s * GROUP + row] = total(sum[s][row]);
}

// ---- rounded: inputs in 8 bits and values in 8 bits; sums (4) of one group, whole numbers.  Input byte (field, b) of a tile
// belongs to the code in byte b's field.

using RoundedSums = void (*)(const uint8_t* codes, const int8_t* values, const uint8_t* inputs, int64_t tiles, int32_t* sums);

template <int BITS>
FOR_VNNI void rounded_vnni(const uint8_t* codes, const int8_t* values, const uint8_t* inputs, int64_t tiles, int32_t* sums) {
    const __m512i table = _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    const __m512i mask = _mm512_set1_epi8((1 << BITS) - 1);
    __m512i sum[GROUP] = {};
    for (int64_t tile = 0; tile < tiles; tile++, codes += GROUP * TILE) {
        __m512i code[GROUP];
        load_tiles(codes, code);
#pragma GCC unroll 4
        for (int field = 0; field < 8 / BITS; field++, inputs += TILE) {
            const __m512i input = _mm512_loadu_si512(inputs);
#pragma GCC unroll 4
            for (int row = 0; row < int(GROUP); row++) {
                sum[row] = _mm512_dpbusd_epi32(sum[row], input, _mm512_shuffle_epi8(table, _mm512_and_si512(code[row], mask)));
                code[row] = _mm512_srli_epi16(code[row], BITS);
            }
        }
    }
    for (int row = 0; row < int(GROUP); row++) sums[row] = _mm512_reduce_add_epi32(sum[row]);
}

template <int BITS>
FOR_AVX2 void rounded_avx2(const uint8_t* codes, const int8_t* values, const uint8_t* inputs, int64_t tiles, int32_t* sums) {
    const __m256i table = _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(values)));
    const __m256i mask = _mm256_set1_epi8((1 << BITS) - 1), even = _mm256_set1_epi16(255), ones = _mm256_set1_epi16(1);
    __m256i sum[GROUP] = {};
    for (int64_t tile = 0; tile < tiles; tile++, codes += GROUP * TILE, inputs += TILE * (8 / BITS)) {
        for (int half = 0; half < 2; half++)
#pragma GCC unroll 4
            for (int row = 0; row < int(GROUP); row++) {
                __m256i code = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes + row * TILE + half * 32));
#pragma GCC unroll 4
                for (int field = 0; field < 8 / BITS; field++) {
                    const __m256i input = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(inputs + field * TILE + half * 32));
                    const __m256i weight = _mm256_shuffle_epi8(table, _mm256_and_si256(code, mask));
                    // Even and odd bytes on their own: a sum of two products would not fit into 16 bits.
                    const __m256i one = _mm256_maddubs_epi16(input, _mm256_and_si256(weight, even));
                    const __m256i other = _mm256_maddubs_epi16(input, _mm256_andnot_si256(even, weight));
                    sum[row] = _mm256_add_epi32(sum[row], _mm256_add_epi32(_mm256_madd_epi16(one, ones), _mm256_madd_epi16(other, ones)));
                    code = _mm256_srli_epi16(code, BITS);
                }
            }
    }
    for (int row = 0; row < int(GROUP); row++) {
        __m128i half = _mm_add_epi32(_mm256_castsi256_si128(sum[row]), _mm256_extracti128_si256(sum[row], 1));
        half = _mm_add_epi32(half, _mm_shuffle_epi32(half, 0x4e));
        sums[row] = _mm_cvtsi128_si32(_mm_add_epi32(half, _mm_shuffle_epi32(half, 0xb1)));
    }
}
#endif

// ---- what the host calls

// y (samples, rows) = x (samples, columns) times the weight, plus bias.
class CodebookProduct {
    int64_t rows, columns, bits, wide, tiles, groups;
    bool rounds, relu;
    const uint8_t* codes;
    const float* bias;
    float codebook[16];
    int8_t values[16];
    float step = 0;                    // of the rounded values
    std::vector<int32_t> value_sums;   // of each row's rounded values
    std::vector<float> dense;          // without vectors of the processor: the weight, decoded once
    std::vector<int8_t> dense_values;  // the same in rounded values
    ExactSums exact[3] = {};           // for 1, 2 and 4 samples
    RoundedSums rounded = nullptr;

public:
    // Raises Misfit unless the arrays belong together; they have to outlive this.
    CodebookProduct(int64_t rows_, int64_t columns_, const uint8_t* codes_, int64_t bytes, const float* codebook_, int64_t count,
                    const float* bias_, bool rounds_inputs, bool relu_, int level)
        : rows(rows_), columns(columns_), bits(count == 16 ? 4 : 2), wide(512 / bits), tiles((columns + wide - 1) / wide),
          groups((rows + GROUP - 1) / GROUP), rounds(rounds_inputs), relu(relu_), codes(codes_), bias(bias_) {
        if (count != 16 && count != 4) throw Misfit("the codebook must hold 16 or 4 values");
        if (rows < 0 || columns < 0 || bytes != groups * tiles * GROUP * TILE) throw Misfit("codes do not have the size of the weight");
        if (rounds && columns > 65536) throw Misfit("with rounded inputs a weight has at most 65536 columns");
        for (int i = 0; i < 16; i++) codebook[i] = codebook_[i % count];
        if (rounds) round_values();
        choose(level);
        if (level == PLAIN) decode();
    }

    void run(const float* x, int64_t samples, float* y, const Workers& workers) const {
        thread_local Room room;
        thread_local std::vector<float> steps;
        thread_local std::vector<int32_t> zeros;
        const int64_t whole = tiles * wide;
        float* copied = rounds || whole != columns ? room.floats(size_t(samples * whole / (rounds ? 4 : 1))) : nullptr;
        const float* inputs = copied ? copied : x;
        if (rounds) {
            steps.resize(size_t(samples)), zeros.resize(size_t(samples));
            for (int64_t s = 0; s < samples; s++)
                round_input(x + s * columns, reinterpret_cast<uint8_t*>(copied) + s * whole, steps[size_t(s)], zeros[size_t(s)]);
        } else if (copied) {
            for (int64_t s = 0; s < samples; s++) {
                std::memcpy(copied + s * whole, x + s * columns, size_t(columns) * sizeof(float));
                std::fill(copied + s * whole + columns, copied + (s + 1) * whole, 0.0f);
            }
        }
        const float* step_of = steps.data();
        const int32_t* zero_of = zeros.data();
        const int64_t pieces = pieces_for(groups, rows * columns * samples / (rounds ? 4 : 1));
        const auto work = [&](int64_t piece) {
            for (int64_t group = groups * piece / pieces; group < groups * (piece + 1) / pieces; group++) {
                if (rounds) round_group(group, reinterpret_cast<const uint8_t*>(inputs), samples, step_of, zero_of, y);
                else exact_group(group, inputs, samples, y);
            }
        };
        workers.run(pieces, work);
    }

private:
    const uint8_t* tile_of(int64_t row, int64_t tile) const { return codes + ((row / GROUP * tiles + tile) * GROUP + row % GROUP) * TILE; }
    int code_of(int64_t row, int64_t column) const { return code_in(tile_of(row, column / wide), column % wide, int(bits)); }

    void choose(int level) {
#if defined(__x86_64__)
        const bool four = bits == 4;
        if (level >= AVX512) {
            exact[0] = four ? exact_avx512<4, 1> : exact_avx512<2, 1>;
            exact[1] = four ? exact_avx512<4, 2> : exact_avx512<2, 2>;
            exact[2] = four ? exact_avx512<4, 4> : exact_avx512<2, 4>;
        } else if (level == AVX2) {
            exact[0] = four ? exact_avx2<4, 1> : exact_avx2<2, 1>;
            exact[1] = four ? exact_avx2<4, 2> : exact_avx2<2, 2>;
        }
        if (level >= AVX2) rounded = four ? rounded_avx2<4> : rounded_avx2<2>;
        if (level >= VNNI) rounded = four ? rounded_vnni<4> : rounded_vnni<2>;
#endif
    }

    // Values in steps of the largest one's 127th part.
    void round_values() {
        float largest = 0;
        for (float value : codebook) largest = std::max(largest, std::fabs(value));
        step = largest / 127.0f;
        for (int i = 0; i < 16; i++) values[i] = step > 0 ? int8_t(std::lrintf(codebook[i] / step)) : int8_t(0);
        value_sums.assign(size_t(groups * GROUP), 0);
        for (int64_t row = 0; row < groups * GROUP; row++)
            for (int64_t column = 0; column < columns; column++) value_sums[size_t(row)] += values[code_of(row, column)];
    }

    void decode() {
        rounds ? dense_values.resize(size_t(rows * columns)) : dense.resize(size_t(rows * columns));
        for (int64_t row = 0; row < rows; row++)
            for (int64_t column = 0; column < columns; column++) {
                const size_t at = size_t(row * columns + column);
                if (rounds) dense_values[at] = values[code_of(row, column)];
                else dense[at] = codebook[code_of(row, column)];
            }
    }

    // One sample in 255 steps around 0, or in 255 steps from 0 where nothing is negative; in the order of the codes.
    void round_input(const float* x, uint8_t* to, float& input_step, int32_t& zero) const {
        F8 low = {}, high = {};
        int64_t i = 0;
        for (; i + 8 <= columns; i += 8) {
            const F8 value = load<F8>(x + i);
            low = value < low ? value : low, high = value > high ? value : high;
        }
        float least = 0, most = 0;
        for (int lane = 0; lane < 8; lane++) least = std::min(least, low[lane]), most = std::max(most, high[lane]);
        for (; i < columns; i++) least = std::min(least, x[i]), most = std::max(most, x[i]);
        zero = least < 0 ? 128 : 0;
        input_step = zero ? std::max(-least, most) / 127.0f : most / 255.0f;
        const float scale = input_step > 0 ? 1.0f / input_step : 0.0f;
        // A float of 1.5 x 2 ** 23 and something is rounded to whole numbers, which are its lowest bits.
        const float shift = 12582912.0f;
        const uint32_t middle = uint32_t(zero);
        // Local, as bytes may be written anywhere for all that the compiler knows.
        const int64_t count = columns, all = tiles * wide, each = 8 / bits;
        thread_local std::vector<uint8_t> held;
        held.resize(size_t(all));
        uint8_t* steps = rounded ? held.data() : to;
        for (i = 0; i < count; i++) {
            const float moved = x[i] * scale + shift;
            uint32_t low_bits;
            std::memcpy(&low_bits, &moved, 4);
            steps[i] = uint8_t(low_bits + middle);
        }
        if (!rounded) return;
        // Padding is 0, so that whatever codes stand there add nothing.
        std::fill(steps + count, steps + all, uint8_t(0));
        for (uint8_t* const end = to + all; to < end; to += TILE * each)
            for (int64_t byte = 0; byte < 4; byte++)
                for (int64_t field = 0; field < each; field++, steps += 16)
                    for (int64_t lane = 0; lane < 16; lane++) to[field * TILE + 4 * lane + byte] = steps[lane];
    }

    void finish(int64_t group, const float* sums, float* y) const {
        for (int64_t row = group * GROUP; row < std::min(rows, (group + 1) * GROUP); row++) {
            const float sum = sums[row % GROUP] + bias[row];
            y[row] = relu && sum < 0.0f ? 0.0f : sum;
        }
    }

    void exact_group(int64_t group, const float* x, int64_t samples, float* y) const {
        const int64_t whole = tiles * wide;
        float sums[4 * GROUP];
        for (int64_t s = 0, count; s < samples; s += count) {
            const int size = exact[2] && s + 4 <= samples ? 2 : exact[1] && s + 2 <= samples ? 1 : 0;
            count = 1 << size;
            if (exact[size]) exact[size](tile_of(group * GROUP, 0), codebook, x + s * whole, whole, tiles, sums);
            else plain_sums(group, x + s * whole, sums);
            for (int64_t k = 0; k < count; k++) finish(group, sums + k * GROUP, y + (s + k) * rows);
        }
    }

    void plain_sums(int64_t group, const float* x, float* sums) const {
        for (int64_t row = group * GROUP; row < std::min(rows, (group + 1) * GROUP); row++) {
            const float* weight = dense.data() + row * columns;
            F4 sum[4] = {};
            int64_t i = 0;
            for (; i + 16 <= columns; i += 16)
                for (int part = 0; part < 4; part++) sum[part] += load<F4>(weight + i + 4 * part) * load<F4>(x + i + 4 * part);
            const F4 all = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            float found = (all[0] + all[1]) + (all[2] + all[3]);
            for (; i < columns; i++) found += weight[i] * x[i];
            sums[row % GROUP] = found;
        }
    }

    void round_group(int64_t group, const uint8_t* inputs, int64_t samples, const float* steps, const int32_t* zeros, float* y) const {
        for (int64_t s = 0; s < samples; s++) {
            int32_t whole[GROUP] = {};
            float sums[GROUP];
            if (rounded) rounded(tile_of(group * GROUP, 0), values, inputs + s * tiles * wide, tiles, whole);
            else plain_whole_sums(group, inputs + s * tiles * wide, whole);
            for (int64_t row = 0; row < GROUP; row++)
                sums[row] = float(whole[row] - zeros[s] * value_sums[size_t(group * GROUP + row)]) * (steps[s] * step);
            finish(group, sums, y + s * rows);
        }
    }

    void plain_whole_sums(int64_t group, const uint8_t* inputs, int32_t* sums) const {
        for (int64_t row = group * GROUP; row < std::min(rows, (group + 1) * GROUP); row++) {
            const int8_t* weight = dense_values.data() + row * columns;
            int32_t sum = 0;
            for (int64_t i = 0; i < columns; i++) sum += int32_t(weight[i]) * inputs[i];
            sums[row % GROUP] = sum;
        }
    }
};

}  // namespace cortado
