// Multiplies float activations by float weights: out = x · Wᵀ, or added to what out holds.
//
// Shapes: x [m, k]; weights [n, k] as a GGUF file has them; out [m, stride], of which columns
// `column .. column + n` are written.
// Launch: grid (ceil(n / 4), ceil(m / 8)), block (128): a warp a row of weights and eight rows of
// activations.
// Order: lane l takes products l, l + 32, …; then lanes by halves. A row's result is the same in any batch.
// Registers: no spills on sm_90.
#include "linear.cuh"

template <WeightType TYPE>
static __device__ __forceinline__ void linear_float(const float *x, const uint8_t *weights, uint32_t row_bytes, uint32_t k,
                                                    uint32_t m, uint32_t n, const LinearOut &out) {
    LinearPart part(m);
    // A warp is past the end as a whole.
    if (part.row >= n) {
        return;
    }
    const uint8_t *weight_row = weights + (size_t)part.row * row_bytes;
    const float *act_rows = x + (size_t)part.first * k;
    float sums[LINEAR_ROWS] = {};
    for (uint32_t index = part.lane; index < k; index += WARP) {
        float weight = float_of<TYPE>(weight_row, index);
#pragma unroll
        for (uint32_t i = 0; i < LINEAR_ROWS; ++i) {
            if (i < part.n_rows) {
                sums[i] = fmaf(weight, act_rows[(size_t)i * k + index], sums[i]);
            }
        }
    }
    part.put(sums, out);
}

#define LINEAR_FLOAT(name, TYPE)                                                                                               \
    extern "C" __global__ void __launch_bounds__(128)                                                                          \
        linear_##name(const float *x, const uint8_t *weights, uint32_t row_bytes, uint32_t k, uint32_t m, uint32_t n,          \
                      uint32_t column, uint32_t stride, uint32_t is_added, float *out) {                                       \
        linear_float<TYPE>(x, weights, row_bytes, k, m, n, LinearOut{out, column, stride, is_added});                          \
    }

LINEAR_FLOAT(f32, F32)
LINEAR_FLOAT(f16, F16)
LINEAR_FLOAT(bf16, BF16)
