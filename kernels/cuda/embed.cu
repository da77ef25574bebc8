// Decodes the rows of a table that tokens name.
//
// Shapes: table [n_vocab, row_bytes] as a GGUF file has it; token_ids [m]; out [m, n].
// Launch: grid (m, ceil(n / 256)), block (256): a thread a weight.
// Registers: no spills on sm_90.
#include "blocks.cuh"

template <WeightType TYPE>
static __device__ __forceinline__ void embed(const uint8_t *table, uint32_t row_bytes, const uint32_t *token_ids, uint32_t n,
                                             float *out) {
    uint32_t i = blockIdx.y * 256 + threadIdx.x;
    if (i >= n) {
        return;
    }
    const uint8_t *row = table + (size_t)token_ids[blockIdx.x] * row_bytes;
    float value;
    if constexpr (TYPE <= BF16) {
        value = float_of<TYPE>(row, i);
    } else {
        value = group_of<TYPE>(row, i / GROUP_LEN).weight(i % GROUP_LEN);
    }
    out[(size_t)blockIdx.x * n + i] = value;
}

#define EMBED(name, TYPE)                                                                                                      \
    extern "C" __global__ void __launch_bounds__(256)                                                                          \
        embed_##name(const uint8_t *table, uint32_t row_bytes, const uint32_t *token_ids, uint32_t n, float *out) {            \
        embed<TYPE>(table, row_bytes, token_ids, n, out);                                                                      \
    }

EMBED(f32, F32)
EMBED(f16, F16)
EMBED(bf16, BF16)
EMBED(q4_0, Q4_0)
EMBED(q4_1, Q4_1)
EMBED(q5_0, Q5_0)
EMBED(q5_1, Q5_1)
EMBED(q8_0, Q8_0)
EMBED(q2_k, Q2_K)
EMBED(q3_k, Q3_K)
EMBED(q4_k, Q4_K)
EMBED(q5_k, Q5_K)
EMBED(q6_k, Q6_K)
