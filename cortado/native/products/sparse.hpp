// Products with a weight that is mostly zeros.
//   rows:    starts (rows + 1), then for each entry its place in the row (16 or 32 bits) and its value;
//   blocks:  the same for 16 rows at a time: one place for 16 values, side by side.
// A place is the column of the weight; in a convolution channel x kernel height x kernel width + position.
#pragma once
#include <algorithm>
#include <memory>
#include <mutex>

#include "isa.hpp"

namespace cortado {

constexpr int64_t BLOCK = 16;

template <class Place> struct Entries {
    int64_t rows = 0;
    const int32_t* starts = nullptr;
    const Place* places = nullptr;
    const float *values = nullptr, *bias = nullptr;
    bool relu = false;

    INLINED float finish(int64_t row, float sum) const {
        sum += bias[row];
        return relu && sum < 0.0f ? 0.0f : sum;
    }
};

// ---- one sample: inputs are collected into vectors, as the values lie in vectors already

template <class Place> INLINED F8 collected(const float* x, const Place* at) {
    return F8{x[at[0]], x[at[1]], x[at[2]], x[at[3]], x[at[4]], x[at[5]], x[at[6]], x[at[7]]};
}

template <class Place> INLINED void sum_rows(const Entries<Place>& w, int64_t first, int64_t end, const float* x, float* y) {
    for (int64_t row = first; row < end; row++) {
        F8 even = {}, odd = {};
        float rest = 0;
        int64_t i = w.starts[row];
        const int64_t last = w.starts[row + 1];
        for (; i + 16 <= last; i += 16) {
            __builtin_prefetch(w.values + i + 512);
            __builtin_prefetch(w.places + i + 1024);
            even += load<F8>(w.values + i) * collected(x, w.places + i);
            odd += load<F8>(w.values + i + 8) * collected(x, w.places + i + 8);
        }
        for (; i < last; i++) rest += w.values[i] * x[w.places[i]];
        const F8 sum = even + odd;
        y[row] = w.finish(row, rest + (((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]))));
    }
}

// ---- blocks: 16 rows by one column, for S samples at once

template <class F, int S, class Place>
INLINED void sum_blocks(const Entries<Place>& w, int64_t first, int64_t end, const float* x, int64_t columns, float* y) {
    constexpr int LANES = sizeof(F) / 4, PARTS = BLOCK / LANES, CHAINS = S * PARTS >= 4 ? 2 : 4;
    for (int64_t group = first; group < end; group++) {
        F sums[CHAINS][S][PARTS] = {};
        int64_t i = w.starts[group];
        const int64_t last = w.starts[group + 1];
        for (; i + CHAINS <= last; i += CHAINS) {
            for (int chain = 0; chain < CHAINS; chain++) {
                const float* values = w.values + (i + chain) * BLOCK;
                __builtin_prefetch(values + 512);
                for (int part = 0; part < PARTS; part++) {
                    const F value = load<F>(values + part * LANES);
                    for (int s = 0; s < S; s++) sums[chain][s][part] += value * x[s * columns + w.places[i + chain]];
                }
            }
        }
        for (; i < last; i++)
            for (int part = 0; part < PARTS; part++)
                for (int s = 0; s < S; s++)
                    sums[0][s][part] += load<F>(w.values + i * BLOCK + part * LANES) * x[s * columns + w.places[i]];
        for (int s = 0; s < S; s++) {
            float found[BLOCK];
            for (int part = 0; part < PARTS; part++) {
                F sum = sums[0][s][part];
                for (int chain = 1; chain < CHAINS; chain++) sum += sums[chain][s][part];
                store(found + part * LANES, sum);
            }
            const int64_t row = group * BLOCK, count = std::min(BLOCK, w.rows - row);
            for (int64_t k = 0; k < count; k++) y[s * w.rows + row + k] = w.finish(row + k, found[k]);
        }
    }
}

// ---- strips: y[row, p] = sum of value x input[place x stride + p], for V vectors of positions p side by side.  The last
// vector starts `last` floats after the first one and may overlap its neighbour, so no load leaves the input.

template <class F, int V, class Place>
INLINED void sum_strip(const Entries<Place>& w, int64_t first, int64_t end, int64_t stride, const float* x, int64_t last,
                       float* y, int64_t y_stride) {
    constexpr int LANES = sizeof(F) / 4, CHAINS = V >= 6 ? 1 : V >= 3 ? 2 : 4;
    for (int64_t row = first; row < end; row++) {
        F sums[CHAINS][V] = {};
        int64_t i = w.starts[row];
        const int64_t stop = w.starts[row + 1];
        for (; i + CHAINS <= stop; i += CHAINS)
#pragma GCC unroll 4
            for (int chain = 0; chain < CHAINS; chain++) {
                const float* from = x + int64_t(w.places[i + chain]) * stride;
                const float value = w.values[i + chain];
#pragma GCC unroll 16
                for (int v = 0; v < V; v++) sums[chain][v] += value * load<F>(from + (v == V - 1 ? last : v * LANES));
            }
        for (; i < stop; i++) {
            const float* from = x + int64_t(w.places[i]) * stride;
#pragma GCC unroll 16
            for (int v = 0; v < V; v++) sums[0][v] += w.values[i] * load<F>(from + (v == V - 1 ? last : v * LANES));
        }
        float* to = y + row * y_stride;
#pragma GCC unroll 16
        for (int v = 0; v < V; v++) {
            F sum = sums[0][v] + w.bias[row];
            for (int chain = 1; chain < CHAINS; chain++) sum += sums[chain][v];
            store(to + (v == V - 1 ? last : v * LANES), w.relu ? positive(sum) : sum);
        }
    }
}

// ---- the same for each processor

template <class Place> using Strip = void (*)(const Entries<Place>&, int64_t, int64_t, int64_t, const float*, int64_t, float*, int64_t);

template <class Place> struct Kernels {
    void (*rows)(const Entries<Place>&, int64_t, int64_t, const float*, float*);
    void (*block)(const Entries<Place>&, int64_t, int64_t, const float*, int64_t, float*);
    void (*blocks)(const Entries<Place>&, int64_t, int64_t, const float*, int64_t, float*);
    int64_t samples, lanes;
    std::vector<Strip<Place>> strips;
};

#define KERNELS(NAME, TARGET, F, S)                                                                                          \
    template <class Place> TARGET void rows_##NAME(const Entries<Place>& w, int64_t a, int64_t b, const float* x, float* y) { \
        sum_rows(w, a, b, x, y);                                                                                             \
    }                                                                                                                        \
    template <int N, class Place>                                                                                            \
    TARGET void blocks_##NAME(const Entries<Place>& w, int64_t a, int64_t b, const float* x, int64_t columns, float* y) {    \
        sum_blocks<F, N>(w, a, b, x, columns, y);                                                                            \
    }                                                                                                                        \
    template <int V, class Place>                                                                                            \
    TARGET void strip_##NAME(const Entries<Place>& w, int64_t a, int64_t b, int64_t stride, const float* x, int64_t last,    \
                             float* y, int64_t y_stride) {                                                                   \
        sum_strip<F, V>(w, a, b, stride, x, last, y, y_stride);                                                              \
    }                                                                                                                        \
    template <class Place, int... V> Kernels<Place> kernels_##NAME(std::integer_sequence<int, V...>) {                       \
        return {rows_##NAME<Place>, blocks_##NAME<1, Place>, blocks_##NAME<S, Place>, S, sizeof(F) / 4,                      \
                {strip_##NAME<V + 1, Place>...}};                                                                            \
    }

KERNELS(plain, , F4, 2)
#if defined(__x86_64__)
KERNELS(avx2, FOR_AVX2, F8, 4)
KERNELS(avx512, FOR_AVX512, F16, 4)
#endif

template <class Place> Kernels<Place> kernels_for(int level) {
#if defined(__x86_64__)
    if (level >= AVX512) return kernels_avx512<Place>(std::make_integer_sequence<int, 14>());
    if (level == AVX2) return kernels_avx2<Place>(std::make_integer_sequence<int, 6>());
#endif
    return kernels_plain<Place>(std::make_integer_sequence<int, 4>());
}

// y[row, p] for `count` positions, at least as many as a vector has lanes: as few strips as possible, evenly wide.
template <class Place>
void sum_positions(const Kernels<Place>& kernels, const Entries<Place>& w, int64_t first, int64_t end, int64_t stride,
                   const float* x, int64_t count, float* y, int64_t y_stride) {
    const int64_t lanes = kernels.lanes, vectors = (count + lanes - 1) / lanes, most = int64_t(kernels.strips.size());
    const int64_t strips = (vectors + most - 1) / most;
    for (int64_t strip = 0; strip < strips; strip++) {
        const int64_t from = vectors * strip / strips, width = vectors * (strip + 1) / strips - from;
        const int64_t start = std::min(from * lanes, count - lanes);
        const int64_t last = std::min((from + width - 1) * lanes, count - lanes) - start;
        kernels.strips[width - 1](w, first, end, stride, x + start, last, y + start, y_stride);
    }
}

// ---- what the host calls: a weight, its checks, and the two products

template <class Place> class Sparse {
protected:
    Entries<Place> w;
    int64_t columns, block, entries;
    Kernels<Place> kernels;

public:
    // Raises Misfit unless the arrays belong together; they have to outlive this.
    Sparse(Entries<Place> entries_, int64_t columns_, int64_t block_, int64_t starts, int64_t places, int64_t values, int level)
        : w(entries_), columns(columns_), block(block_), entries(places * block_), kernels(kernels_for<Place>(level)) {
        if (block != 1 && block != BLOCK) throw Misfit("block must be 1 or 16");
        if (w.rows < 0 || columns < 0 || starts != (w.rows + block - 1) / block + 1 || values != places * block)
            throw Misfit("starts, places and values do not belong together");
        if (w.starts[0] != 0 || w.starts[starts - 1] != places) throw Misfit("starts must lead from 0 to the number of places");
        for (int64_t i = 1; i < starts; i++)
            if (w.starts[i] < w.starts[i - 1]) throw Misfit("starts must not fall");
        for (int64_t i = 0; i < places; i++)
            if (int64_t(w.places[i]) < 0 || int64_t(w.places[i]) >= columns) throw Misfit("a place is outside the weight");
    }
};

// y (samples, rows) = x (samples, columns) times the weight, plus bias.
template <class Place> class SparseProduct : public Sparse<Place> {
    using Sparse<Place>::w;
    // Fewer samples are faster one by one; more are taken in parts, so that the inputs stay in the cache.
    static constexpr int64_t FEW = 4, MANY = 32;

public:
    using Sparse<Place>::Sparse;

    void run(const float* x, int64_t samples, float* y, const Workers& workers) const {
        if (this->block == 1 && samples >= FEW) {
            for (int64_t s = 0; s < samples; s += MANY)
                across(x + s * this->columns, std::min(MANY, samples - s), y + s * w.rows, workers);
            return;
        }
        const int64_t units = (w.rows + this->block - 1) / this->block, pieces = pieces_for(units, this->entries * samples);
        const auto work = [&](int64_t piece) {
            const int64_t first = units * piece / pieces, end = units * (piece + 1) / pieces;
            int64_t s = 0;
            for (; this->block > 1 && s + this->kernels.samples <= samples; s += this->kernels.samples)
                this->kernels.blocks(w, first, end, x + s * this->columns, this->columns, y + s * w.rows);
            for (; this->block > 1 && s < samples; s++)
                this->kernels.block(w, first, end, x + s * this->columns, this->columns, y + s * w.rows);
            for (; s < samples; s++) this->kernels.rows(w, first, end, x + s * this->columns, y + s * w.rows);
        };
        workers.run(pieces, work);
    }

private:
    // Samples side by side: each entry of the weight is read once for all of them.
    void across(const float* x, int64_t samples, float* y, const Workers& workers) const {
        thread_local Room inputs, outputs;
        const int64_t width = (samples + 15) / 16 * 16, pieces = pieces_for(w.rows, this->entries * width);
        float *turned = inputs.floats(this->columns * width), *found = outputs.floats(w.rows * width);
        for (int64_t from = 0; from < this->columns; from += 16)
            for (int64_t s = 0; s < width; s++)
                for (int64_t c = from; c < std::min(from + 16, this->columns); c++)
                    turned[c * width + s] = s < samples ? x[s * this->columns + c] : 0.0f;
        const auto work = [&](int64_t piece) {
            const int64_t first = w.rows * piece / pieces, end = w.rows * (piece + 1) / pieces;
            sum_positions(this->kernels, w, first, end, width, turned, width, found, width);
            for (int64_t s = 0; s < samples; s++)
                for (int64_t row = first; row < end; row++) y[s * w.rows + row] = found[row * width + s];
        };
        workers.run(pieces, work);
    }
};

}  // namespace cortado
