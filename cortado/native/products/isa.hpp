// What the processor can do, asked while running: one library serves every machine of its architecture.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__x86_64__)
#include <immintrin.h>
#define FOR_AVX2 __attribute__((target("avx2,fma")))
#define FOR_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")))
#define FOR_VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni,avx2,fma")))
#endif
#define INLINED inline __attribute__((always_inline))
// Vectors pass only between functions that are inlined, so no calling convention is at stake.
#pragma GCC diagnostic ignored "-Wpsabi"

namespace cortado {

enum Isa { PLAIN, AVX2, AVX512, VNNI };

// CORTADO_ISA=0..3 lowers it, for tests.
inline int isa() {
    int found = PLAIN;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) found = AVX2;
    if (found == AVX2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        found = AVX512;
    if (found == AVX512 && __builtin_cpu_supports("avx512vnni")) found = VNNI;
#endif
    const char* wanted = std::getenv("CORTADO_ISA");
    const int most = wanted && *wanted ? std::atoi(wanted) : found;
    return most < found ? most : found;
}

// A sentence for the user: the arrays or the input do not fit.
struct Misfit : std::invalid_argument { using std::invalid_argument::invalid_argument; };

// Who does `tasks` pieces of work: the calling thread, or the host's threads.
struct Workers {
    typedef void (*Task)(void* work, size_t number);
    void (*share)(void* host, Task task, size_t tasks, void* work) = nullptr;
    void* host = nullptr;

    template <class Work> void run(int64_t tasks, const Work& work) const {
        const Task task = [](void* what, size_t number) { (*static_cast<const Work*>(what))(int64_t(number)); };
        if (share && tasks > 1) return share(host, task, size_t(tasks), const_cast<Work*>(&work));
        for (int64_t number = 0; number < tasks; number++) work(number);
    }
};

// Pieces of `units` for so many multiply-adds: each worth waking a thread, and at most 16.
inline int64_t pieces_for(int64_t units, int64_t multiply_adds) {
    const int64_t worth = multiply_adds / 60000;
    return std::max<int64_t>(1, std::min<int64_t>({16, units, worth}));
}

// Vectors of 4, 8 and 16 floats; the compiler knows what each processor makes of them.
typedef float F4 __attribute__((vector_size(16)));
typedef float F8 __attribute__((vector_size(32)));
typedef float F16 __attribute__((vector_size(64)));

template <class F> INLINED F load(const float* from) {
    F value;
    std::memcpy(&value, from, sizeof value);
    return value;
}
template <class F> INLINED void store(float* to, F value) { std::memcpy(to, &value, sizeof value); }
template <class F> INLINED F positive(F value) { return value < 0.0f ? F{} : value; }

// Memory that starts at a multiple of 64 bytes: vectors do not straddle lines of the cache.
class Room {
    std::vector<float> held;

public:
    float* floats(size_t count) {
        if (held.size() < count + 32) held.resize(count + 32);
        return reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(held.data()) + 63) & ~uintptr_t(63));
    }
};

// A copy of a constant, from a multiple of 64 bytes on. A large one asks for pages of 2 MB: with small ones the processor
// spends half of the time of a product that reads each weight once on looking up where pages are.
class Copy {
    static constexpr size_t LARGE = size_t(2) << 20;
    std::unique_ptr<void, void (*)(void*)> held{nullptr, std::free};

public:
    static bool pays(const void* from, size_t bytes) { return bytes >= LARGE || reinterpret_cast<uintptr_t>(from) % 64; }

    Copy(const void* from, size_t bytes) {
        const size_t step = bytes >= LARGE ? LARGE : 64;
        held.reset(std::aligned_alloc(step, (bytes + step - 1) / step * step));
        if (!held) throw std::bad_alloc();
#if defined(__linux__)
        if (step == LARGE) madvise(held.get(), (bytes + step - 1) / step * step, MADV_HUGEPAGE);
#endif
        std::memcpy(held.get(), from, bytes);
    }
    const void* data() const { return held.get(); }
};

}  // namespace cortado
