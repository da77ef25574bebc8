// Every kernel in one translation unit, as the driver loads them and as the emulator runs them.
#include "embed.cu"
#include "gather.cu"
#include "linear.cu"
#include "linear_float.cu"
#include "merge_spans.cu"
#include "paged_attention.cu"
#include "place.cu"
#include "quantize.cu"
#include "rms_norm.cu"
#include "rope.cu"
#include "silu_mul.cu"
#include "top_logits.cu"
#include "write_kv.cu"

#define KERNELS_OF_TYPES(DO, name)                                                                                             \
    DO(name##_f32)                                                                                                             \
    DO(name##_f16)                                                                                                             \
    DO(name##_bf16)                                                                                                            \
    DO(name##_q4_0)                                                                                                            \
    DO(name##_q4_1)                                                                                                            \
    DO(name##_q5_0)                                                                                                            \
    DO(name##_q5_1)                                                                                                            \
    DO(name##_q8_0)                                                                                                            \
    DO(name##_q2_k)                                                                                                            \
    DO(name##_q3_k)                                                                                                            \
    DO(name##_q4_k)                                                                                                            \
    DO(name##_q5_k)                                                                                                            \
    DO(name##_q6_k)

// Names for the emulator, which cannot ask a driver for them.
#define KERNELS(DO)                                                                                                            \
    KERNELS_OF_TYPES(DO, embed)                                                                                                \
    DO(gather)                                                                                                                 \
    KERNELS_OF_TYPES(DO, linear)                                                                                               \
    DO(merge_spans)                                                                                                            \
    DO(paged_attention_f16)                                                                                                    \
    DO(paged_attention_int8)                                                                                                   \
    DO(place)                                                                                                                  \
    DO(quantize)                                                                                                               \
    DO(rms_norm)                                                                                                               \
    DO(rope)                                                                                                                   \
    DO(silu_mul)                                                                                                               \
    DO(top_logits)                                                                                                             \
    DO(write_kv_f16)                                                                                                           \
    DO(write_kv_int8)
