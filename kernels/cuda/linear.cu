// Multiplies quantised activations by quantised weights: out = x · Wᵀ, or added to what out holds.
//
// Shapes: words [m, n_groups, 11] as `quantize` makes them; weights [n, row_bytes] as a GGUF file has them;
// out [m, stride], of which columns `column .. column + n` are written.
// Launch: grid (ceil(n / 4), ceil(m / 8)), block (128): a warp a row of weights and eight rows of
// activations.
// Order: lane l takes groups l, l + 32, … of every row, each an exact sum of bytes and then one
// multiply-add; then lanes by halves. So a row's result is the same in any batch.
// Registers: no spills on sm_90.
#include "linear.cuh"

// What a group of activations adds to a row's sum.
static __device__ __forceinline__ float add_group(float sum, const Group &group, const uint32_t *words) {
    int32_t dots[2] = {0, 0};
    for (uint32_t i = 0; i < 8; ++i) {
        dots[i / 4] = __dp4a((int32_t)group.quants[i], (int32_t)words[i], dots[i / 4]);
    }
    float scale = __uint_as_float(words[8]);
    int32_t half_sums[2] = {(int16_t)(words[10] & 0xffffu), (int16_t)(words[10] >> 16)};
    int32_t scaled = 0, mins = 0;
    for (uint32_t half = 0; half < 2; ++half) {
        scaled += group.sub_scales[half] * (dots[half] - group.offset * half_sums[half]);
        mins += group.sub_mins[half] * half_sums[half];
    }
    sum = fmaf(group.scale * scale, (float)scaled, sum);
    return fmaf(group.bias * scale, (float)mins, sum);
}

template <WeightType TYPE>
static __device__ __forceinline__ void linear(const uint32_t *words, const uint8_t *weights, uint32_t row_bytes,
                                              uint32_t n_groups, uint32_t m, uint32_t n, const LinearOut &out) {
    LinearPart part(m);
    // A warp is past the end as a whole.
    if (part.row >= n) {
        return;
    }
    const uint8_t *weight_row = weights + (size_t)part.row * row_bytes;
    const uint32_t *act_rows = words + (size_t)part.first * n_groups * GROUP_WORDS;
    float sums[LINEAR_ROWS] = {};
    for (uint32_t index = part.lane; index < n_groups; index += WARP) {
        Group group = group_of<TYPE>(weight_row, index);
#pragma unroll
        for (uint32_t i = 0; i < LINEAR_ROWS; ++i) {
            if (i < part.n_rows) {
                sums[i] = add_group(sums[i], group, act_rows + ((size_t)i * n_groups + index) * GROUP_WORDS);
            }
        }
    }
    part.put(sums, out);
}

#define LINEAR(name, TYPE)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(128)                                                                          \
        linear_##name(const uint32_t *words, const uint8_t *weights, uint32_t row_bytes, uint32_t n_groups, uint32_t m,        \
                      uint32_t n, uint32_t column, uint32_t stride, uint32_t is_added, float *out) {                           \
        linear<TYPE>(words, weights, row_bytes, n_groups, m, n, LinearOut{out, column, stride, is_added});                     \
    }

LINEAR(q4_0, Q4_0)
LINEAR(q4_1, Q4_1)
LINEAR(q5_0, Q5_0)
LINEAR(q5_1, Q5_1)
LINEAR(q8_0, Q8_0)
LINEAR(q2_k, Q2_K)
LINEAR(q3_k, Q3_K)
LINEAR(q4_k, Q4_K)
LINEAR(q5_k, Q5_K)
LINEAR(q6_k, Q6_K)
