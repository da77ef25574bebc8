// Causal attention of every token to the cached positions of its sequence up to its own.
//
// Shapes: q [m, stride], a row beginning with [n_heads, head_dim]; cache as kv.cuh says; positions [m];
// tables: the block tables of all sequences, one after the other; units [n_units] as attention.cuh says.
// With `partials` null, a unit attends to all of its spans and writes out [m, n_heads, head_dim]; else it
// has one span and writes partials [n_units, n_kv_heads, 8, head_dim] and states [n_units, n_kv_heads, 8],
// which merge_spans merges: the bits are the same either way.
// Launch: grid (n_units, n_kv_heads), block (128). head_dim is 256 at most.
// Order: scores by ascending dimension, a lane a position; values by ascending position, a thread a
// dimension; weights a lane every 32nd, then by halves.
// Registers: no spills on sm_90. Shared memory: 24.2 KiB.
#include "attention.cuh"

struct AttentionArgs {
    const float *q;
    const uint8_t *cache;
    const uint32_t *positions;
    const uint32_t *tables;
    uint64_t half_bytes;
    uint32_t stride, n_kv_heads, group_heads, head_dim, window;
    float scale;
};

struct AttentionMemory {
    float q[UNIT_ROWS][HEAD_DIM_MOST];
    float all[UNIT_ROWS][HEAD_DIM_MOST];
    float weights[UNIT_ROWS][SPAN];
    SpanState all_states[UNIT_ROWS];
    SpanState states[UNIT_ROWS];
    // The positions each row sees, and those any row sees: the first, and one past the last.
    uint32_t begins[UNIT_ROWS], ends[UNIT_ROWS];
    uint32_t begin, end;
};

static __device__ __forceinline__ uint32_t clamp(uint32_t value, uint32_t low, uint32_t high) {
    return value < low ? low : value > high ? high : value;
}

// Takes the unit's queries, scaled, and what its rows see.
static __device__ __forceinline__ void take_queries(const AttentionArgs &args, const AttentionUnit &unit, AttentionMemory &memory) {
    uint32_t kv_head = blockIdx.y;
    for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
        uint32_t index = unit.first_row + row;
        uint32_t token = unit.first_token + index / args.group_heads;
        uint32_t head = kv_head * args.group_heads + index % args.group_heads;
        bool is_there = row < unit.n_rows;
        for (uint32_t dim = threadIdx.x; dim < args.head_dim; dim += ATTENTION_THREADS) {
            size_t from = (size_t)token * args.stride + head * args.head_dim + dim;
            memory.q[row][dim] = is_there ? args.q[from] * args.scale : 0.0f;
            memory.all[row][dim] = 0.0f;
        }
        if (threadIdx.x == row) {
            uint32_t position = is_there ? args.positions[token] : 0;
            memory.begins[row] = is_there ? first_visible(position, args.window) : 0;
            memory.ends[row] = is_there ? position + 1 : 0;
            memory.all_states[row] = SpanState{-INFINITY, 0.0f};
        }
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        memory.begin = memory.begins[0];
        memory.end = memory.ends[0];
        for (uint32_t row = 1; row < unit.n_rows; ++row) {
            memory.begin = memory.begins[row] < memory.begin ? memory.begins[row] : memory.begin;
            memory.end = memory.ends[row] > memory.end ? memory.ends[row] : memory.end;
        }
    }
    __syncthreads();
}

// A head's part of the block that holds a span's positions from 32 * `block` on.
template <bool IS_INT8>
static __device__ __forceinline__ const uint8_t *part_of(const AttentionArgs &args, const AttentionUnit &unit, uint32_t span,
                                                         uint32_t block, bool is_value) {
    size_t id = args.tables[unit.first_block + span * (SPAN / BLOCK_LEN) + block];
    return args.cache + (is_value ? args.half_bytes : 0) + (id * args.n_kv_heads + blockIdx.y) * part_bytes<IS_INT8>(args.head_dim);
}

// Computes the scores of a span; those of positions that a row does not see are -inf.
template <bool IS_INT8>
static __device__ __forceinline__ void score(const AttentionArgs &args, const AttentionUnit &unit, uint32_t span,
                                             AttentionMemory &memory) {
    uint32_t lane = threadIdx.x % WARP;
    for (uint32_t block = threadIdx.x / WARP; block < SPAN / BLOCK_LEN; block += ATTENTION_THREADS / WARP) {
        uint32_t first = span * SPAN + block * BLOCK_LEN;
        float sums[UNIT_ROWS] = {};
        // Nobody's blocks are not in the table.
        if (first < memory.end && first + BLOCK_LEN > memory.begin) {
            const uint8_t *part = part_of<IS_INT8>(args, unit, span, block, false);
#pragma unroll 4
            for (uint32_t dim = 0; dim < args.head_dim; ++dim) {
                float key = kv_value<IS_INT8>(part, dim * BLOCK_LEN + lane);
#pragma unroll
                for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
                    sums[row] = fmaf(memory.q[row][dim], key, sums[row]);
                }
            }
            float scale = kv_scale<IS_INT8>(part, args.head_dim, lane);
#pragma unroll
            for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
                sums[row] *= scale;
            }
        }
        uint32_t position = first + lane;
#pragma unroll
        for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
            bool is_seen = position >= memory.begins[row] && position < memory.ends[row];
            memory.weights[row][block * BLOCK_LEN + lane] = is_seen ? sums[row] : -INFINITY;
        }
    }
}

// Turns a row's scores into weights against the highest of them: a warp a row.
static __device__ __forceinline__ void soften(uint32_t span, AttentionMemory &memory) {
    uint32_t lane = threadIdx.x % WARP;
    for (uint32_t row = threadIdx.x / WARP; row < UNIT_ROWS; row += ATTENTION_THREADS / WARP) {
        float *weights = memory.weights[row];
        uint32_t begin = clamp(memory.begins[row], span * SPAN, (span + 1) * SPAN) - span * SPAN;
        uint32_t end = clamp(memory.ends[row], span * SPAN, (span + 1) * SPAN) - span * SPAN;
        float highest = -INFINITY;
        for (uint32_t i = lane; i < SPAN; i += WARP) {
            highest = fmaxf(highest, weights[i]);
        }
        highest = warp_max(highest);
        float sum = 0.0f;
        for (uint32_t i = lane; i < SPAN; i += WARP) {
            // What is not seen weighs nothing, whatever the highest is.
            weights[i] = i >= begin && i < end ? expf(weights[i] - highest) : 0.0f;
            sum += weights[i];
        }
        sum = warp_sum(sum);
        if (lane == 0) {
            memory.states[row] = SpanState{highest, sum};
        }
    }
}

// Sums the values of a span by their weights, for one dimension.
template <bool IS_INT8>
static __device__ __forceinline__ void weigh(const AttentionArgs &args, const AttentionUnit &unit, uint32_t span, uint32_t dim,
                                             const AttentionMemory &memory, float *sums) {
    uint32_t begin = clamp(memory.begin, span * SPAN, (span + 1) * SPAN) - span * SPAN;
    uint32_t end = clamp(memory.end, span * SPAN, (span + 1) * SPAN) - span * SPAN;
    for (uint32_t block = begin / BLOCK_LEN; block * BLOCK_LEN < end; ++block) {
        const uint8_t *part = part_of<IS_INT8>(args, unit, span, block, true);
        // What lies outside is nobody's: a weight of 0 would not hide a NaN there.
        uint32_t from = block * BLOCK_LEN < begin ? begin : block * BLOCK_LEN;
        uint32_t to = (block + 1) * BLOCK_LEN < end ? (block + 1) * BLOCK_LEN : end;
        for (uint32_t i = from; i < to; ++i) {
            float value = kv_value<IS_INT8>(part, i % BLOCK_LEN * args.head_dim + dim);
            float scale = kv_scale<IS_INT8>(part, args.head_dim, i % BLOCK_LEN);
#pragma unroll
            for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
                float weight = IS_INT8 ? memory.weights[row][i] * scale : memory.weights[row][i];
                sums[row] = fmaf(weight, value, sums[row]);
            }
        }
    }
}

template <bool IS_INT8>
static __device__ __forceinline__ void paged_attention(const AttentionArgs &args, const AttentionUnit *units, float *out,
                                                       float *partials, SpanState *states) {
    SHARED(AttentionMemory, memory);
    AttentionUnit unit = units[blockIdx.x];
    take_queries(args, unit, memory);
    for (uint32_t span = unit.first_span; span < unit.first_span + unit.n_spans; ++span) {
        score<IS_INT8>(args, unit, span, memory);
        __syncthreads();
        soften(span, memory);
        __syncthreads();
        for (uint32_t dim = threadIdx.x; dim < args.head_dim; dim += ATTENTION_THREADS) {
            float sums[UNIT_ROWS] = {};
            weigh<IS_INT8>(args, unit, span, dim, memory, sums);
#pragma unroll
            for (uint32_t row = 0; row < UNIT_ROWS; ++row) {
                if (memory.begins[row] < (span + 1) * SPAN && memory.ends[row] > span * SPAN) {
                    SpanState all = memory.all_states[row];
                    MergeWeights weights(all, memory.states[row]);
                    memory.all[row][dim] = partials ? sums[row] : weights.merge(memory.all[row][dim], sums[row]);
                }
            }
        }
        __syncthreads();
        uint32_t row = threadIdx.x;
        if (row < UNIT_ROWS && memory.begins[row] < (span + 1) * SPAN && memory.ends[row] > span * SPAN) {
            MergeWeights weights(memory.all_states[row], memory.states[row]);
        }
        __syncthreads();
    }
    for (uint32_t row = 0; row < unit.n_rows; ++row) {
        uint32_t index = unit.first_row + row;
        size_t token = unit.first_token + index / args.group_heads;
        size_t head = blockIdx.y * args.group_heads + index % args.group_heads;
        size_t place = ((size_t)blockIdx.x * args.n_kv_heads + blockIdx.y) * UNIT_ROWS + row;
        float factor = __fdiv_rn(1.0f, memory.all_states[row].sum);
        for (uint32_t dim = threadIdx.x; dim < args.head_dim; dim += ATTENTION_THREADS) {
            float value = memory.all[row][dim];
            if (partials) {
                partials[place * args.head_dim + dim] = value;
            } else {
                out[(token * args.n_kv_heads * args.group_heads + head) * args.head_dim + dim] = value * factor;
            }
        }
        if (partials && threadIdx.x == 0) {
            states[place] = memory.all_states[row];
        }
    }
}

#define PAGED_ATTENTION(name, IS_INT8)                                                                                         \
    extern "C" __global__ void __launch_bounds__(128, 7)                                                                       \
        paged_attention_##name(const float *q, const uint8_t *cache, const uint32_t *positions, const uint32_t *tables,        \
                               const AttentionUnit *units, uint64_t half_bytes, uint32_t stride, uint32_t n_kv_heads,          \
                               uint32_t group_heads, uint32_t head_dim, uint32_t window, float scale, float *out,              \
                               float *partials, SpanState *states) {                                                           \
        AttentionArgs args{q, cache, positions, tables, half_bytes, stride, n_kv_heads, group_heads, head_dim, window, scale}; \
        paged_attention<IS_INT8>(args, units, out, partials, states);                                                          \
    }

PAGED_ATTENTION(f16, false)
PAGED_ATTENTION(int8, true)
