// Writes the keys and values of new tokens into their slots of a layer's cache.
//
// Shapes: rows [m, stride], of which the keys [n_kv_heads, head_dim] begin at `first_key` and the values
// follow; slots [m], block * 32 + offset; cache as kv.cuh says, its values `half_bytes` after its keys.
// Launch: grid (m, 2 * n_kv_heads), block (128): a block a head's keys or values of a token.
// Registers: no spills on sm_90.
#include "kv.cuh"

template <bool IS_INT8>
static __device__ __forceinline__ void write_kv(const float *rows, const uint32_t *slots, uint32_t stride, uint32_t first_key,
                                                uint32_t n_kv_heads, uint32_t head_dim, uint64_t half_bytes, uint8_t *cache) {
    SHARED(uint32_t, largest, [4]);
    bool is_value = blockIdx.y >= n_kv_heads;
    uint32_t kv_head = blockIdx.y % n_kv_heads;
    const float *from = rows + (size_t)blockIdx.x * stride + first_key + (size_t)blockIdx.y * head_dim;
    uint32_t slot = slots[blockIdx.x];
    uint32_t offset = slot % BLOCK_LEN;
    uint8_t *part = cache + (is_value ? half_bytes : 0) +
                    ((size_t)(slot / BLOCK_LEN) * n_kv_heads + kv_head) * part_bytes<IS_INT8>(head_dim);
    uint32_t bits = 0;
    if (IS_INT8) {
        for (uint32_t dim = threadIdx.x; dim < head_dim; dim += 128) {
            uint32_t magnitude = __float_as_uint(from[dim]) & 0x7fffffffu;
            bits = magnitude > bits ? magnitude : bits;
        }
        bits = warp_max_bits(bits);
        if (threadIdx.x % WARP == 0) {
            largest[threadIdx.x / WARP] = bits;
        }
        __syncthreads();
        for (uint32_t warp = 0; warp < 4; ++warp) {
            bits = largest[warp] > bits ? largest[warp] : bits;
        }
    }
    ByteScale bytes(bits);
    for (uint32_t dim = threadIdx.x; dim < head_dim; dim += 128) {
        uint32_t place = is_value ? offset * head_dim + dim : dim * BLOCK_LEN + offset;
        if (IS_INT8) {
            ((int8_t *)part)[place] = bytes.nearest(from[dim]);
        } else {
            ((uint16_t *)part)[place] = float_to_half(from[dim]);
        }
    }
    if (IS_INT8 && threadIdx.x == 0) {
        ((float *)(part + BLOCK_LEN * head_dim))[offset] = bytes.scale;
    }
}

extern "C" __global__ void __launch_bounds__(128)
    write_kv_f16(const float *rows, const uint32_t *slots, uint32_t stride, uint32_t first_key, uint32_t n_kv_heads,
                 uint32_t head_dim, uint64_t half_bytes, uint8_t *cache) {
    write_kv<false>(rows, slots, stride, first_key, n_kv_heads, head_dim, half_bytes, cache);
}

extern "C" __global__ void __launch_bounds__(128)
    write_kv_int8(const float *rows, const uint32_t *slots, uint32_t stride, uint32_t first_key, uint32_t n_kv_heads,
                  uint32_t head_dim, uint64_t half_bytes, uint8_t *cache) {
    write_kv<true>(rows, slots, stride, first_key, n_kv_heads, head_dim, half_bytes, cache);
}
