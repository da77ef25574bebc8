// Rounds activations to eight bits in groups of 32, with the bits of kernels/src/quantize.
//
// Shapes: x [n_groups, 32], words [n_groups, 11].
// Launch: grid (ceil(n_groups / 8)), block (256): a warp a group, a lane a value.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) quantize(const float *x, uint32_t n_groups, uint32_t *words) {
    uint32_t lane = threadIdx.x % WARP;
    uint32_t group = blockIdx.x * (256 / WARP) + threadIdx.x / WARP;
    // A warp is past the end as a whole: no lane of it takes part in a shuffle.
    if (group >= n_groups) {
        return;
    }
    float value = x[(size_t)group * GROUP_LEN + lane];
    ByteScale bytes(warp_max_bits(__float_as_uint(value) & 0x7fffffffu));
    int32_t quant = bytes.nearest(value);
    // Four lanes make a word: the first gathers it.
    uint32_t word = (uint32_t)quant & 0xffu;
    word |= __shfl_down_sync(ALL_LANES, word, 1) << 8;
    word |= __shfl_down_sync(ALL_LANES, word, 2) << 16;
    int32_t half_sum = quant;
    for (uint32_t distance = 1; distance < 16; distance *= 2) {
        half_sum += __shfl_xor_sync(ALL_LANES, half_sum, distance);
    }
    int32_t other_sum = __shfl_xor_sync(ALL_LANES, half_sum, 16);
    words += (size_t)group * GROUP_WORDS;
    if (lane % 4 == 0) {
        words[lane / 4] = word;
    }
    if (lane == 0) {
        words[8] = __float_as_uint(bytes.scale);
        words[9] = __float_as_uint(__fmul_rn(bytes.scale, (float)(half_sum + other_sum)));
        words[10] = ((uint32_t)half_sum & 0xffffu) | (uint32_t)other_sum << 16;
    }
}
