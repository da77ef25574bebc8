// Merges what paged_attention made of single spans, in ascending order, and divides by the weights.
//
// Shapes: units [n_units], of which those of the same rows follow each other; firsts [n_rows_of_units + 1],
// where each such run begins, and the end; partials and states as paged_attention writes them; positions
// [m]; out [m, n_heads, head_dim].
// Launch: grid (runs, n_kv_heads), block (128): a thread a dimension.
// Registers: no spills on sm_90.
#include "attention.cuh"

extern "C" __global__ void __launch_bounds__(128)
    merge_spans(const AttentionUnit *units, const uint32_t *firsts, const float *partials, const SpanState *states,
                const uint32_t *positions, uint32_t n_kv_heads, uint32_t group_heads, uint32_t head_dim, uint32_t window,
                float *out) {
    uint32_t first = firsts[blockIdx.x], end = firsts[blockIdx.x + 1];
    AttentionUnit unit = units[first];
    for (uint32_t row = 0; row < unit.n_rows; ++row) {
        uint32_t index = unit.first_row + row;
        size_t token = unit.first_token + index / group_heads;
        size_t head = blockIdx.y * group_heads + index % group_heads;
        uint32_t position = positions[token];
        for (uint32_t dim = threadIdx.x; dim < head_dim; dim += ATTENTION_THREADS) {
            SpanState all{-INFINITY, 0.0f};
            float value = 0.0f;
            for (uint32_t i = first; i < end; ++i) {
                uint32_t span = units[i].first_span;
                // A row of another token may see nothing of it.
                if (first_visible(position, window) < (span + 1) * SPAN && position + 1 > span * SPAN) {
                    size_t place = ((size_t)i * n_kv_heads + blockIdx.y) * UNIT_ROWS + row;
                    MergeWeights weights(all, states[place]);
                    value = weights.merge(value, partials[place * head_dim + dim]);
                }
            }
            out[(token * n_kv_heads * group_heads + head) * head_dim + dim] = value * __fdiv_rn(1.0f, all.sum);
        }
    }
}
