// out = silu(gate) * up.
//
// Shapes: gate_up [m, 2, n], a row's gate before its up; out [m, n].
// Launch: grid (m, ceil(n / 256)), block (256): a thread a value.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256) silu_mul(const float *gate_up, uint32_t n, float *out) {
    uint32_t i = blockIdx.y * 256 + threadIdx.x;
    if (i >= n) {
        return;
    }
    const float *row = gate_up + (size_t)blockIdx.x * 2 * n;
    float gate = row[i];
    out[(size_t)blockIdx.x * n + i] = gate / (1.0f + expf(-gate)) * row[n + i];
}
