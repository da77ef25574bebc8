// What both halves of paged attention share: a unit of work, and how spans become one.
#pragma once

#include "kv.cuh"

// Positions that are reduced together; spans are merged in ascending order.
constexpr uint32_t SPAN = 256;
// Query rows of a unit: tokens by heads that share a KV head.
constexpr uint32_t UNIT_ROWS = 8;
constexpr uint32_t ATTENTION_THREADS = 128;
constexpr uint32_t HEAD_DIM_MOST = 256;

// Some query rows of one sequence, and spans they attend to. Row r of a sequence is its token r /
// group_heads and head r % group_heads of the group.
struct AttentionUnit {
    uint32_t first_token;
    uint32_t first_row;
    uint32_t n_rows;
    // Where the sequence's block table begins among all tables.
    uint32_t first_block;
    uint32_t first_span;
    uint32_t n_spans;
};

// A span's scores against the highest of them, and the sum of their weights; n is 0 where a row sees
// nothing of it.
struct SpanState {
    float highest, sum;
};

// The weights of what came before and of the next span against the higher of both.
struct MergeWeights {
    float before, after;

    __device__ __forceinline__ MergeWeights(SpanState &all, const SpanState &next) {
        float highest = fmaxf(all.highest, next.highest);
        // Both may be -inf where every score is: NaN, as it should be.
        before = expf(all.highest - highest);
        after = expf(next.highest - highest);
        all.sum = fmaf(next.sum, after, __fmul_rn(all.sum, before));
        all.highest = highest;
    }

    __device__ __forceinline__ float merge(float all, float next) const { return fmaf(next, after, __fmul_rn(all, before)); }
};

// The positions that a token sees.
static __device__ __forceinline__ uint32_t first_visible(uint32_t position, uint32_t window) {
    return position + 1 > window ? position + 1 - window : 0;
}
