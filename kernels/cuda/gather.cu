// Copies chosen rows: out[i] = x[rows[i]].
//
// Shapes: x [_, n], rows [m], out [m, n].
// Launch: grid (m, ceil(n / 256)), block (256): a thread a value.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) gather(const float *x, const uint32_t *rows, uint32_t n, float *out) {
    uint32_t i = blockIdx.y * 256 + threadIdx.x;
    if (i < n) {
        out[(size_t)blockIdx.x * n + i] = x[(size_t)rows[blockIdx.x] * n + i];
    }
}
