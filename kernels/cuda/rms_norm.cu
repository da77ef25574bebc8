// out = x / sqrt(mean(x²) + eps) * weight, row by row.
//
// Shapes: x and out [m, n], weight [n].
// Launch: grid (m), block (256): a block a row.
// Order: lane t of 256 sums every 256th square, then warps by halves, then the 8 warps in order.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    rms_norm(const float *x, const float *weight, float eps, uint32_t n, float *out) {
    x += (size_t)blockIdx.x * n;
    out += (size_t)blockIdx.x * n;
    float sum = 0.0f;
    for (uint32_t i = threadIdx.x; i < n; i += 256) {
        sum = fmaf(x[i], x[i], sum);
    }
    sum = block_sum<8>(sum);
    float scale = 1.0f / sqrtf(sum / (float)n + eps);
    for (uint32_t i = threadIdx.x; i < n; i += 256) {
        out[i] = x[i] * scale * weight[i];
    }
}
