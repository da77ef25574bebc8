// Where keys and values lie in the paged cache: as kernels/src/attention/cache.rs lays them out.
//
// A block is [n_kv_heads] parts. In a part, keys are [head_dim, 32] and values [32, head_dim]; in eight
// bits it ends with the scales of its positions, [32] in f32. The blocks of keys come first, then those of
// values.
#pragma once

#include "common.cuh"

constexpr uint32_t BLOCK_LEN = 32;

template <bool IS_INT8> static __device__ __forceinline__ size_t part_bytes(uint32_t head_dim) {
    return BLOCK_LEN * (IS_INT8 ? head_dim + 4 : 2 * (size_t)head_dim);
}

// A value of a part, without its scale.
template <bool IS_INT8> static __device__ __forceinline__ float kv_value(const uint8_t *part, uint32_t index) {
    if (IS_INT8) {
        return (float)((const int8_t *)part)[index];
    }
    return half_to_float(((const uint16_t *)part)[index]);
}

// A position's scale.
template <bool IS_INT8> static __device__ __forceinline__ float kv_scale(const uint8_t *part, uint32_t head_dim, uint32_t offset) {
    return IS_INT8 ? ((const float *)(part + BLOCK_LEN * head_dim))[offset] : 1.0f;
}
