// The 256 greatest logits of a row in order, their tokens, and what the whole row adds up to.
//
// Shapes: logits [m, n]; top [m, 256], a key each, greatest first and 0 where a row has fewer; sums [m, 3]:
// the greatest logit, the sum of exp(logit - greatest) over the row, and how many are NaN or +inf.
// A key is the logit's bits, turned so that they order as the numbers do, above the token's complement:
// of equal logits the lowest token comes first, and no two keys are equal.
// Launch: grid (m), block (1024): a block a row.
// Order: thread t of 1024 sums every 1024th, then warps by halves, then the 32 warps in order.
// Registers: no spills on sm_90. Shared memory: 3.2 KiB.
#include "common.cuh"

constexpr uint32_t TOP = 256;
constexpr uint32_t TOP_THREADS = 1024;

static __device__ __forceinline__ uint64_t key_of(float logit, uint32_t token) {
    uint32_t bits = __float_as_uint(logit);
    // Negative numbers order backwards, and below the others.
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~token;
}

// The key of rank `n` in a row, byte by byte from the highest.
static __device__ __forceinline__ uint64_t key_of_rank(const float *row, uint32_t n_vocab, uint32_t n) {
    SHARED(uint32_t, counts, [256]);
    SHARED(uint64_t, prefix);
    SHARED(uint32_t, left);
    if (threadIdx.x == 0) {
        prefix = 0;
        left = n;
    }
    for (uint32_t shift = 64; shift > 0;) {
        shift -= 8;
        if (threadIdx.x < 256) {
            counts[threadIdx.x] = 0;
        }
        __syncthreads();
        for (uint32_t token = threadIdx.x; token < n_vocab; token += TOP_THREADS) {
            uint64_t key = key_of(row[token], token);
            if (shift == 56 || key >> (shift + 8) == prefix) {
                atomicAdd(&counts[key >> shift & 255], 1u);
            }
        }
        __syncthreads();
        if (threadIdx.x == 0) {
            uint32_t byte = 255;
            while (counts[byte] < left) {
                left -= counts[byte];
                --byte;
            }
            prefix = prefix << 8 | byte;
        }
        __syncthreads();
    }
    return prefix;
}

// Sorts the keys that a block shares, the greatest first.
static __device__ __forceinline__ void sort(uint64_t *keys) {
    uint32_t i = threadIdx.x;
    for (uint32_t size = 2; size <= TOP; size *= 2) {
        for (uint32_t distance = size / 2; distance > 0; distance /= 2) {
            uint32_t other = i ^ distance;
            if (i < TOP && other > i) {
                bool is_descending = (i & size) == 0;
                if ((keys[i] < keys[other]) == is_descending) {
                    uint64_t key = keys[i];
                    keys[i] = keys[other];
                    keys[other] = key;
                }
            }
            __syncthreads();
        }
    }
}

extern "C" __global__ void __launch_bounds__(1024)
    top_logits(const float *logits, uint32_t n_vocab, uint64_t *top, float *sums) {
    SHARED(uint64_t, keys, [TOP]);
    SHARED(uint32_t, n_found);
    const float *row = logits + (size_t)blockIdx.x * n_vocab;
    uint32_t n = n_vocab < TOP ? n_vocab : TOP;
    uint64_t least = key_of_rank(row, n_vocab, n);
    if (threadIdx.x < TOP) {
        keys[threadIdx.x] = 0;
    }
    if (threadIdx.x == 0) {
        n_found = 0;
    }
    __syncthreads();
    for (uint32_t token = threadIdx.x; token < n_vocab; token += TOP_THREADS) {
        uint64_t key = key_of(row[token], token);
        if (key >= least) {
            keys[atomicAdd(&n_found, 1u)] = key;
        }
    }
    __syncthreads();
    sort(keys);
    uint32_t bits = (uint32_t)(keys[0] >> 32);
    float greatest = __uint_as_float(bits & 0x80000000u ? bits & 0x7fffffffu : ~bits);
    float sum = 0.0f, n_bad = 0.0f;
    for (uint32_t token = threadIdx.x; token < n_vocab; token += TOP_THREADS) {
        float logit = row[token];
        // Infinity and NaN, but for -inf, which is no token.
        n_bad += logit != logit || logit == INFINITY ? 1.0f : 0.0f;
        sum += expf(logit - greatest);
    }
    sum = block_sum<TOP_THREADS / WARP>(sum);
    n_bad = block_sum<TOP_THREADS / WARP>(n_bad);
    if (threadIdx.x < TOP) {
        top[(size_t)blockIdx.x * TOP + threadIdx.x] = keys[threadIdx.x];
    }
    if (threadIdx.x == 0) {
        sums[blockIdx.x * 3] = greatest;
        sums[blockIdx.x * 3 + 1] = sum;
        sums[blockIdx.x * 3 + 2] = n_bad;
    }
}
