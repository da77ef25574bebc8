// What both products share: who multiplies what, and where the sums go.
#pragma once

#include "blocks.cuh"

constexpr uint32_t LINEAR_WARPS = 4;
constexpr uint32_t LINEAR_ROWS = 8;

// Where rows of results go: columns of wider rows of `values`.
struct LinearOut {
    float *values;
    uint32_t column, stride, is_added;
};

// A warp's part of a product: a row of weights and some rows of activations.
struct LinearPart {
    uint32_t lane, row, first, n_rows;

    __device__ __forceinline__ explicit LinearPart(uint32_t m)
        : lane(threadIdx.x % WARP), row(blockIdx.x * LINEAR_WARPS + threadIdx.x / WARP), first(blockIdx.y * LINEAR_ROWS),
          n_rows(m - first < LINEAR_ROWS ? m - first : LINEAR_ROWS) {}

    // Adds the lanes' sums, by halves, and puts them where they go.
    __device__ __forceinline__ void put(const float (&sums)[LINEAR_ROWS], const LinearOut &out) const {
#pragma unroll
        for (uint32_t i = 0; i < LINEAR_ROWS; ++i) {
            float sum = warp_sum(sums[i]);
            if (lane == 0 && i < n_rows) {
                float *to = out.values + (size_t)(first + i) * out.stride + out.column + row;
                *to = out.is_added ? *to + sum : sum;
            }
        }
    }
};
