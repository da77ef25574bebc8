// What every kernel shares: warps, half precision, sums in a fixed order.
//
// Compiled by nvcc, and by a plain C++ compiler against tests/emulator.h, which runs the same source on
// the host so that it can be tested where there is no GPU. So: no dynamic shared memory, no thread that
// leaves before a barrier, and no built-in that the emulator does not know.
#pragma once

#ifndef INGLE_EMULATED
#include <cuda_fp16.h>
#include <stdint.h>

// A variable that a block shares; the emulator has its own.
#define SHARED(type, name, ...) __shared__ type name __VA_ARGS__
#endif

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffffu;
// Weights or activations that share one activation scale.
constexpr uint32_t GROUP_LEN = 32;
// Words of a quantised group of activations: 8 of quants, the scale, the scaled sum, the halves' sums.
constexpr uint32_t GROUP_WORDS = 11;

static __device__ __forceinline__ float half_to_float(uint16_t bits) {
    return __half2float(__ushort_as_half(bits));
}

static __device__ __forceinline__ uint16_t float_to_half(float value) {
    return __half_as_ushort(__float2half_rn(value));
}

static __device__ __forceinline__ float warp_sum(float value) {
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

static __device__ __forceinline__ float warp_max(float value) {
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

static __device__ __forceinline__ uint32_t warp_max_bits(uint32_t value) {
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        uint32_t other = __shfl_xor_sync(ALL_LANES, value, distance);
        value = other > value ? other : value;
    }
    return value;
}

// The sum over a block of N_WARPS warps, for every thread.
template <uint32_t N_WARPS> static __device__ __forceinline__ float block_sum(float value) {
    SHARED(float, sums, [N_WARPS]);
    value = warp_sum(value);
    if (threadIdx.x % WARP == 0) {
        sums[threadIdx.x / WARP] = value;
    }
    __syncthreads();
    float sum = 0.0f;
    for (uint32_t warp = 0; warp < N_WARPS; ++warp) {
        sum += sums[warp];
    }
    // The next sum may not overwrite what another thread still reads.
    __syncthreads();
    return sum;
}

// How signed bytes are made of floats, with the bits of the processor's kernels.
struct ByteScale {
    float scale, inverse;

    // `bits` are those of the largest magnitude; infinity counts as NaN, and NaN is kept in the scale.
    __device__ __forceinline__ explicit ByteScale(uint32_t bits) {
        bool is_finite = bits < 0x7f800000u;
        float magnitude = __uint_as_float(bits);
        // Below it the inverse would not be finite.
        bool is_zero = magnitude < 1e-35f;
        scale = !is_finite ? __uint_as_float(0x7fc00000u) : is_zero ? 0.0f : __fdiv_rn(magnitude, 127.0f);
        inverse = !is_finite || is_zero ? 0.0f : __fdiv_rn(127.0f, magnitude);
    }

    // The nearest byte: adding 1.5 * 2^23 rounds to the nearest integer, ties to even.
    __device__ __forceinline__ int8_t nearest(float value) const {
        return (int8_t)(__float_as_uint(__fadd_rn(__fmul_rn(value, inverse), 12582912.0f)) & 0xffu);
    }
};
