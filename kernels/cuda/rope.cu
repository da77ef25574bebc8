// Turns adjacent pairs of the first heads of every token by its position, in place.
//
// Shapes: x [m, stride], a row beginning with [n_heads, head_dim]; positions [m]; turns [n_positions,
// rope_dim / 2, 2], cosine and sine.
// Launch: grid (m, ceil(n_heads * rope_dim / 2 / 256)), block (256): a thread a pair.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    rope(float *x, const uint32_t *positions, const float *turns, uint32_t n_heads, uint32_t head_dim, uint32_t rope_dim,
         uint32_t stride) {
    uint32_t n_pairs = rope_dim / 2;
    uint32_t index = blockIdx.y * 256 + threadIdx.x;
    if (index >= n_heads * n_pairs) {
        return;
    }
    uint32_t pair = index % n_pairs;
    const float *turn = turns + ((size_t)positions[blockIdx.x] * n_pairs + pair) * 2;
    float *values = x + (size_t)blockIdx.x * stride + index / n_pairs * head_dim + 2 * pair;
    float a = values[0], b = values[1];
    float cosine = turn[0], sine = turn[1];
    values[0] = __fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine));
    values[1] = __fadd_rn(__fmul_rn(a, sine), __fmul_rn(b, cosine));
}
