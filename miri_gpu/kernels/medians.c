/* Medians of the good values along an axis, by bisection: `numerics/medians.py`.
 *
 * Floats of one sign are ordered as their bits are, so a float becomes a signed integer of the same
 * order. The middle one is found by halving the range of integers and counting how many are below.
 */
#include "lanes.h"

#define MOST_VALUES 1024 /* of which a median is taken */

#define REAL float
#define ORDINAL int32_t
#define NAMED(name) name##_float32
#define LARGEST ((int32_t)0x7fffffff)
#include "median.h"
#undef REAL
#undef ORDINAL
#undef NAMED
#undef LARGEST

#define REAL double
#define ORDINAL int64_t
#define NAMED(name) name##_float64
#define LARGEST ((int64_t)0x7fffffffffffffff)
#include "median.h"

/* Items are medians: the values of number (outer, inner) are at (outer, 0 .. n - 1, inner). `good`
 * may be null. A median without good values is NaN. */
KERNEL void median_float32(int64_t n_items, int64_t n, int64_t n_inner,
                           const float *restrict data, const uint8_t *restrict good,
                           float *restrict medians)
{
    GROUP_MEMORY(int32_t, values, MOST_VALUES, n);
    EACH_GROUP(item, n_items)
    {
        const int64_t first = item / n_inner * n * n_inner + item % n_inner;
        medians[item] = median_of_float32(data + first, good ? good + first : 0, (int)n, n_inner,
                                          values);
    }
}

KERNEL void median_float64(int64_t n_items, int64_t n, int64_t n_inner,
                           const double *restrict data, const uint8_t *restrict good,
                           double *restrict medians)
{
    GROUP_MEMORY(int64_t, values, MOST_VALUES, n);
    EACH_GROUP(item, n_items)
    {
        const int64_t first = item / n_inner * n * n_inner + item % n_inner;
        medians[item] = median_of_float64(data + first, good ? good + first : 0, (int)n, n_inner,
                                          values);
    }
}
