// Puts a product's rows into columns of wider rows, or adds them.
//
// Shapes: product [m, n]; out [m, stride], of which columns `column ..` are written.
// Launch: grid (m, ceil(n / 256)), block (256): a thread a value.
// Registers: no spills on sm_90.
#include "common.cuh"

extern "C" __global__ void __launch_bounds__(256)
    place(const float *product, uint32_t n, uint32_t column, uint32_t stride, uint32_t is_added, float *out) {
    uint32_t i = blockIdx.y * 256 + threadIdx.x;
    if (i >= n) {
        return;
    }
    float value = product[(size_t)blockIdx.x * n + i];
    float *to = out + (size_t)blockIdx.x * stride + column + i;
    *to = is_added ? *to + value : value;
}
