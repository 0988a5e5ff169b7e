/* Medians of the good values along an axis, by bisection: `numerics/medians.py`.
 *
 * Floats of one sign are ordered as their bits are, so a float becomes a signed integer of the same
 * order. The middle one is found by halving the range of integers and counting how many are below.
 * On a CPU eight medians are found together, each in a lane of a vector; on a GPU eight threads
 * find one together.
 */
#include "lanes.h"

#define MOST_VALUES 1024 /* of which a median is taken */

#ifdef __CUDACC__
#define TOGETHER(type) 1
#define OF(v, k) (v)
#define CHOSEN(which, a, b) ((which) ? (a) : (b))
#define COUNTED(which) ((which) ? 1 : 0)
#define EACH_MEDIANS(item, n, n_together) EACH_GROUP(item, n)
#define ORDINALS_OF(type, name)                                                 \
    typedef type name;                                                            \
    DEVICE type sum_of_##name(type v) { return (type)sum_counted((int)v); }       \
    DEVICE type least_of_##name(type v) { return (type)smallest_found(v); }       \
    DEVICE int any_of_##name(type v) { return v != 0; }
#else
#ifdef __AVX2__
#define VECTOR_BYTES 32
#else
#define VECTOR_BYTES 16
#endif
#define TOGETHER(type) (VECTOR_BYTES / (int)sizeof(type))
#define OF(v, k) ((v)[k])
#define CHOSEN(which, a, b) (((which) & (a)) | (~(which) & (b)))
#define COUNTED(which) (-(which))
#define EACH_MEDIANS(item, n, n_together) \
    for (int64_t item = 0; item < (n); item += (n_together))
#define ORDINALS_OF(type, name)                                                 \
    typedef type name __attribute__((vector_size(VECTOR_BYTES), aligned(8)));     \
    DEVICE name sum_of_##name(name v) { return v; }                               \
    DEVICE name least_of_##name(name v) { return v; }                             \
    DEVICE int any_of_##name(name v)                                              \
    {                                                                             \
        int any = 0;                                                              \
        for (int k = 0; k < TOGETHER(type); k++) any |= v[k] != 0;                \
        return any;                                                               \
    }
#endif

ORDINALS_OF(int32_t, ordinals_float32)
ORDINALS_OF(int64_t, ordinals_float64)

#define REAL float
#define ORDINAL int32_t
#define NAMED(name) name##_float32
#define LARGEST ((int32_t)0x7fffffff)
#define INFINITE ((int32_t)0x7f800000)
#include "median.h"
#undef REAL
#undef ORDINAL
#undef NAMED
#undef LARGEST
#undef INFINITE

#define REAL double
#define ORDINAL int64_t
#define NAMED(name) name##_float64
#define LARGEST ((int64_t)0x7fffffffffffffff)
#define INFINITE ((int64_t)0x7ff0000000000000)
#include "median.h"

/* Items are medians: the values of number (outer, inner) are at (outer, 0 .. n - 1, inner). `good`
 * may be null. A median without good values is NaN. */
KERNEL void median_float32(int64_t n_items, int64_t n, int64_t n_inner,
                           const float *restrict data, const uint8_t *restrict good,
                           float *restrict medians)
{
    GROUP_MEMORY(ordinals_float32, values, MOST_VALUES, n);
    EACH_MEDIANS(item, n_items, TOGETHER(int32_t))
    {
        medians_float32(data, good, item, n_items, (int)n, n_inner, values, medians);
    }
}

KERNEL void median_float64(int64_t n_items, int64_t n, int64_t n_inner,
                           const double *restrict data, const uint8_t *restrict good,
                           double *restrict medians)
{
    GROUP_MEMORY(ordinals_float64, values, MOST_VALUES, n);
    EACH_MEDIANS(item, n_items, TOGETHER(int64_t))
    {
        medians_float64(data, good, item, n_items, (int)n, n_inner, values, medians);
    }
}
