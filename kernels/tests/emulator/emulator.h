// Enough of CUDA C++ to run the kernels of kernels/cuda on the host, exactly: the threads of a block are
// fibers that take turns, barriers and shuffles make them wait for each other, and what would hang or be
// undefined on a device ends the launch with a sentence.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>

#define INGLE_EMULATED
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
// Blocks run one after the other, so what they share is static; each finds it poisoned.
#define SHARED(type, name, ...)                                                                                                \
    static type name __VA_ARGS__;                                                                                              \
    emulator::share(&name, sizeof(name))

struct Index {
    uint32_t x, y, z;
};
extern Index threadIdx, blockIdx, blockDim, gridDim;

namespace emulator {
// Poisons a variable when the first thread of a block comes to it.
void share(void *variable, size_t n_bytes);
// Waits for all threads of the block.
void wait_for_block();
// Puts a word where the warp's other lanes see it and waits for them; then takes lane `from`'s.
uint64_t exchange(uint32_t mask, uint64_t word, uint32_t from);
uint32_t lane();

template <typename T> T shuffle(uint32_t mask, T value, uint32_t from) {
    static_assert(sizeof(T) <= sizeof(uint64_t), "a shuffle moves a word");
    uint64_t word = 0;
    memcpy(&word, &value, sizeof(T));
    word = exchange(mask, word, from);
    memcpy(&value, &word, sizeof(T));
    return value;
}

template <typename To, typename From> To bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "bits stay");
    To to;
    memcpy(&to, &from, sizeof(To));
    return to;
}
} // namespace emulator

inline void __syncthreads() { emulator::wait_for_block(); }

template <typename T> T __shfl_sync(uint32_t mask, T value, uint32_t from) {
    return emulator::shuffle(mask, value, from % 32);
}
template <typename T> T __shfl_xor_sync(uint32_t mask, T value, uint32_t distance) {
    return emulator::shuffle(mask, value, emulator::lane() ^ distance);
}
// Lanes from whose place on there is none keep their own.
template <typename T> T __shfl_down_sync(uint32_t mask, T value, uint32_t distance) {
    uint32_t from = emulator::lane() + distance;
    return emulator::shuffle(mask, value, from < 32 ? from : emulator::lane());
}
template <typename T> T __shfl_up_sync(uint32_t mask, T value, uint32_t distance) {
    uint32_t lane = emulator::lane();
    return emulator::shuffle(mask, value, lane >= distance ? lane - distance : lane);
}

using __half = _Float16;
inline __half __ushort_as_half(uint16_t value) { return emulator::bits<__half>(value); }
inline uint16_t __half_as_ushort(__half value) { return emulator::bits<uint16_t>(value); }
inline float __half2float(__half value) { return (float)value; }
inline __half __float2half_rn(float value) { return (__half)value; }
inline float __uint_as_float(uint32_t value) { return emulator::bits<float>(value); }
inline uint32_t __float_as_uint(float value) { return emulator::bits<uint32_t>(value); }

// Compiled without contraction, so that these are rounded once each.
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fsub_rn(float a, float b) { return a - b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline float __fdiv_rn(float a, float b) { return a / b; }

inline int32_t __dp4a(int32_t a, int32_t b, int32_t sum) {
    for (int i = 0; i < 4; ++i) {
        sum += (int32_t)(int8_t)((uint32_t)a >> (8 * i)) * (int32_t)(int8_t)((uint32_t)b >> (8 * i));
    }
    return sum;
}

// Fibers take turns only where they wait, so nothing comes between.
template <typename T> T atomicAdd(T *place, T value) {
    T before = *place;
    *place += value;
    return before;
}
