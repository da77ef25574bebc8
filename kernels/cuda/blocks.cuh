// The weights of GGUF files, group by group, in the form every product takes them in.
//
// Source: the layouts are those of ggml's block_q4_0 and its kin, as kernels/src/block reads them.
#pragma once

#include "common.cuh"

// The numbers that kernels/src/cuda/linear.rs gives the types.
enum WeightType : uint32_t { F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K };

// Weight i is scale * sub_scales[i / 16] * (quant i - offset) + bias * sub_mins[i / 16].
struct Group {
    // Four quants a word, the first lowest. Unsigned ones are below 128, so all count as signed bytes.
    uint32_t quants[8];
    float scale, bias;
    int32_t offset;
    int32_t sub_scales[2], sub_mins[2];

    __device__ __forceinline__ Group() : bias(0.0f), offset(0), sub_scales{1, 1}, sub_mins{1, 1} {}

    __device__ __forceinline__ float weight(uint32_t i) const {
        int32_t quant = (int8_t)(quants[i / 4] >> (i % 4 * 8)) - offset;
        return scale * (float)sub_scales[i / 16] * (float)quant + bias * (float)sub_mins[i / 16];
    }
};

// Blocks lie at even addresses only.
static __device__ __forceinline__ uint32_t word_at(const uint8_t *bytes) {
    const uint16_t *halves = (const uint16_t *)bytes;
    return halves[0] | (uint32_t)halves[1] << 16;
}

static __device__ __forceinline__ float half_at(const uint8_t *bytes) { return half_to_float(*(const uint16_t *)bytes); }

// The lowest bit of each of four bits, spread over the bytes of a word.
static __device__ __forceinline__ uint32_t spread_bits(uint32_t bits) {
    return (bits & 1) | (bits & 2) << 7 | (bits & 4) << 14 | (bits & 8) << 21;
}

// Low nibbles are the first 16 quants, high nibbles the last 16.
static __device__ __forceinline__ void take_nibbles(Group &group, const uint8_t *bytes) {
    for (uint32_t i = 0; i < 4; ++i) {
        uint32_t word = word_at(bytes + 4 * i);
        group.quants[i] = word & 0x0f0f0f0fu;
        group.quants[4 + i] = word >> 4 & 0x0f0f0f0fu;
    }
}

static __device__ __forceinline__ void add_fifth_bits(Group &group, uint32_t bits) {
    for (uint32_t i = 0; i < 8; ++i) {
        group.quants[i] |= spread_bits(bits >> (4 * i)) << 4;
    }
}

// What Q4_K and Q5_K begin with: a scale, a minimum, and the six-bit multiples of both for each group of
// 32, in twelve bytes.
static __device__ __forceinline__ void take_scale_and_min(Group &out, const uint8_t *block, uint32_t group) {
    const uint8_t *bytes = block + 4;
    uint32_t scale, min;
    if (group < 4) {
        scale = bytes[group] & 63;
        min = bytes[group + 4] & 63;
    } else {
        uint32_t low = bytes[group + 4];
        scale = (low & 15) | bytes[group - 4] >> 6 << 4;
        min = low >> 4 | bytes[group] >> 6 << 4;
    }
    out.scale = half_at(block) * (float)scale;
    out.bias = -half_at(block + 2) * (float)min;
}

// Quants of BITS bits: each run of 32 bytes holds 8 / BITS groups, the first lowest.
template <uint32_t BITS> static __device__ __forceinline__ uint32_t packed(const uint8_t *bytes, uint32_t group, uint32_t i) {
    constexpr uint32_t GROUPS = 8 / BITS;
    constexpr uint32_t MASK = ((1u << BITS) - 1) * 0x01010101u;
    return word_at(bytes + group / GROUPS * 32 + 4 * i) >> (group % GROUPS * BITS) & MASK;
}

template <WeightType TYPE> struct Blocks;

template <> struct Blocks<Q4_0> {
    static constexpr uint32_t BYTES = 18, GROUPS = 1;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t) {
        Group out;
        out.scale = half_at(block);
        out.offset = 8;
        take_nibbles(out, block + 2);
        return out;
    }
};

template <> struct Blocks<Q4_1> {
    static constexpr uint32_t BYTES = 20, GROUPS = 1;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t) {
        Group out;
        out.scale = half_at(block);
        out.bias = half_at(block + 2);
        take_nibbles(out, block + 4);
        return out;
    }
};

template <> struct Blocks<Q5_0> {
    static constexpr uint32_t BYTES = 22, GROUPS = 1;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t) {
        Group out;
        out.scale = half_at(block);
        out.offset = 16;
        take_nibbles(out, block + 6);
        add_fifth_bits(out, word_at(block + 2));
        return out;
    }
};

template <> struct Blocks<Q5_1> {
    static constexpr uint32_t BYTES = 24, GROUPS = 1;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t) {
        Group out;
        out.scale = half_at(block);
        out.bias = half_at(block + 2);
        take_nibbles(out, block + 8);
        add_fifth_bits(out, word_at(block + 4));
        return out;
    }
};

template <> struct Blocks<Q8_0> {
    static constexpr uint32_t BYTES = 34, GROUPS = 1;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t) {
        Group out;
        out.scale = half_at(block);
        for (uint32_t i = 0; i < 8; ++i) {
            out.quants[i] = word_at(block + 2 + 4 * i);
        }
        return out;
    }
};

// 16 bytes of four-bit scales and minima, quants of 2 bits, scale, minimum.
template <> struct Blocks<Q2_K> {
    static constexpr uint32_t BYTES = 84, GROUPS = 8;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t group) {
        Group out;
        out.scale = half_at(block + 80);
        out.bias = -half_at(block + 82);
        for (uint32_t half = 0; half < 2; ++half) {
            uint32_t sub = block[2 * group + half];
            out.sub_scales[half] = (int32_t)(sub & 15);
            out.sub_mins[half] = (int32_t)(sub >> 4);
        }
        for (uint32_t i = 0; i < 8; ++i) {
            out.quants[i] = packed<2>(block + 16, group, i);
        }
        return out;
    }
};

// Third bits, quants of 2 bits, 12 bytes of six-bit scales offset by 32, scale.
template <> struct Blocks<Q3_K> {
    static constexpr uint32_t BYTES = 110, GROUPS = 8;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t group) {
        Group out;
        out.scale = half_at(block + 108);
        out.offset = 4;
        const uint8_t *scales = block + 96;
        for (uint32_t half = 0; half < 2; ++half) {
            uint32_t sub = 2 * group + half;
            uint32_t low = scales[sub % 8] >> (sub / 8 * 4) & 15;
            uint32_t high = scales[8 + sub % 4] >> (sub / 4 * 2) & 3;
            out.sub_scales[half] = (int32_t)(low | high << 4) - 32;
        }
        for (uint32_t i = 0; i < 8; ++i) {
            out.quants[i] = packed<2>(block + 32, group, i) | packed<1>(block, group, i) << 2;
        }
        return out;
    }
};

// Scale, minimum, 12 bytes of six-bit scales and minima, quants of 4 bits.
template <> struct Blocks<Q4_K> {
    static constexpr uint32_t BYTES = 144, GROUPS = 8;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t group) {
        Group out;
        take_scale_and_min(out, block, group);
        for (uint32_t i = 0; i < 8; ++i) {
            out.quants[i] = packed<4>(block + 16, group, i);
        }
        return out;
    }
};

// Scale, minimum, 12 bytes of six-bit scales and minima, fifth bits, quants of 4 bits.
template <> struct Blocks<Q5_K> {
    static constexpr uint32_t BYTES = 176, GROUPS = 8;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t group) {
        Group out;
        take_scale_and_min(out, block, group);
        for (uint32_t i = 0; i < 8; ++i) {
            out.quants[i] = packed<4>(block + 48, group, i) | packed<1>(block + 16, group, i) << 4;
        }
        return out;
    }
};

// Low 4 bits, high 2 bits, 16 signed scales, scale.
template <> struct Blocks<Q6_K> {
    static constexpr uint32_t BYTES = 210, GROUPS = 8;
    static __device__ __forceinline__ Group group(const uint8_t *block, uint32_t group) {
        Group out;
        out.scale = half_at(block + 208);
        out.offset = 32;
        uint32_t quarter = group % 4;
        const uint8_t *low = block + 64 * (group / 4) + 32 * (quarter % 2);
        for (uint32_t half = 0; half < 2; ++half) {
            out.sub_scales[half] = (int8_t)block[192 + 2 * group + half];
        }
        for (uint32_t i = 0; i < 8; ++i) {
            uint32_t nibbles = word_at(low + 4 * i) >> (quarter / 2 * 4) & 0x0f0f0f0fu;
            out.quants[i] = nibbles | packed<2>(block + 128, group, i) << 4;
        }
        return out;
    }
};

// Group `index` of a row.
template <WeightType TYPE> static __device__ __forceinline__ Group group_of(const uint8_t *row, uint32_t index) {
    using Kind = Blocks<TYPE>;
    return Kind::group(row + (size_t)(index / Kind::GROUPS) * Kind::BYTES, index % Kind::GROUPS);
}

// Weight `index` of a row of floats.
template <WeightType TYPE> static __device__ __forceinline__ float float_of(const uint8_t *row, uint32_t index) {
    if (TYPE == F32) {
        return ((const float *)row)[index];
    }
    uint16_t bits = ((const uint16_t *)row)[index];
    return TYPE == F16 ? half_to_float(bits) : __uint_as_float((uint32_t)bits << 16);
}
