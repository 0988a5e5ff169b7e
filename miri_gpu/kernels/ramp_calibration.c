/* Reset, linearity and dark of each sample: one pass over the ramps for any of them, and one over
 * raw samples for all that comes before, too. */
#define PIXELS 256
#include "pixels.h"

/* TOGETHER: how many integrations of a sample are done together. What is written several times is
 * worked on where it belongs, in the cache of a CPU, or in registers of a GPU. */
#ifdef __CUDACC__
#define TOGETHER 16
#define WORKED_ON(type, name, place) type name[PIXELS]
#define PUT_BACK(name, place) (place)[0] = name[0]
#else
#define TOGETHER 1
#define WORKED_ON(type, name, place) type *name = (place)
#define PUT_BACK(name, place)
#endif

/* Horner's rule, as the array version computes it; the coefficients of a pixel are n_pixels apart.
 * `n` is a constant wherever this is inlined, so that its loop is unrolled. */
DEVICE void polynomial(int n, const float *restrict coefficients, int64_t n_pixels, int64_t start,
                       int n_here, const uint8_t *restrict dq, float *restrict samples)
{
    const float *c = coefficients + start;
    for (int l = 0; l < n_here; l++) {
        const float x = samples[l];
        float value = c[(n - 1) * n_pixels + l] * x;
        for (int power = n - 2; power > 0; power--) {
            value = value + c[power * n_pixels + l];
            value = value * x;
        }
        value = value + c[l];
        samples[l] = dq[l] & SATURATED ? x : value;
    }
}

/* What happens to each sample by itself; left out where its number of groups, coefficients or
 * integrations is 0. Each integration takes its own of the references', or the last one.
 *
 * reset: (n_reset_ints, n_reset_groups, n_pixels), coefficients: (n_coefficients, n_pixels),
 * dark: (n_dark_ints, n_groups, n_pixels).
 */
typedef struct {
    const float *reset, *coefficients, *dark;
    int64_t n_reset_ints, n_reset_groups, n_coefficients, n_dark_ints, n_groups, n_pixels;
} Correction;

/* Samples - reset, through the polynomial unless saturated, - dark. */
DEVICE void correct(const Correction *c, int64_t integration, int64_t group, int64_t start,
                    int n_here, const uint8_t *restrict dq, float *restrict samples)
{
    const int64_t n_pixels = c->n_pixels;
    if (group < c->n_reset_groups) {
        const int64_t own = integration < c->n_reset_ints ? integration : c->n_reset_ints - 1;
        const float *r = c->reset + (own * c->n_reset_groups + group) * n_pixels + start;
        for (int l = 0; l < n_here; l++) samples[l] = samples[l] - r[l];
    }
#define POLYNOMIAL(n)                                                             \
    case n:                                                                       \
        polynomial(n, c->coefficients, n_pixels, start, n_here, dq, samples);     \
        break;
    switch (c->n_coefficients) {
        case 0:
            break;
        POLYNOMIAL(2) POLYNOMIAL(3) POLYNOMIAL(4) POLYNOMIAL(5) POLYNOMIAL(6)
        POLYNOMIAL(7) POLYNOMIAL(8)
        default:
            polynomial((int)c->n_coefficients, c->coefficients, n_pixels, start, n_here, dq,
                       samples);
    }
    if (c->n_dark_ints) {
        const int64_t own = integration < c->n_dark_ints ? integration : c->n_dark_ints - 1;
        const float *d = c->dark + (own * c->n_groups + group) * n_pixels + start;
        for (int l = 0; l < n_here; l++) samples[l] = samples[l] - d[l];
    }
}

/* Correct samples that are numbers already.
 *
 * data, groupdq: images (n_ints, n_groups), of n_pixels next to one another, whose integrations
 * and groups are `.._int` and `.._group` values apart; result: the same without gaps.
 */
KERNEL void calibrate_ramps(
    int64_t n_items, const float *restrict data, int64_t data_int, int64_t data_group,
    const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    const float *restrict reset, int64_t n_reset_ints, int64_t n_reset_groups,
    const float *restrict coefficients, int64_t n_coefficients,
    const float *restrict dark, int64_t n_dark_ints,
    int64_t n_groups, int64_t n_pixels, float *restrict result)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    const Correction c = {reset, coefficients, dark, n_reset_ints, n_reset_groups, n_coefficients,
                          n_dark_ints, n_groups, n_pixels};
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t plane = item / n_pieces, start = item % n_pieces * PIXELS;
        const int64_t integration = plane / n_groups, group = plane % n_groups;
        const int n_here = pixels_of(start, n_pixels);
        const float *x = data + integration * data_int + group * data_group + start;
        const uint8_t *dq = groupdq + integration * dq_int + group * dq_group + start;
        WORKED_ON(float, y, result + plane * n_pixels + start);
        for (int l = 0; l < n_here; l++) y[l] = x[l];
        correct(&c, integration, group, start, n_here, dq, y);
        PUT_BACK(y, result + plane * n_pixels + start);
    }
}

/* A sample as it lies on disk: big-endian, less 32768. */
#define ZERO_DN 0x0080
DEVICE float decoded(uint16_t raw)
{
    return (float)(uint16_t)((uint16_t)(raw << 8 | raw >> 8) ^ 0x8000);
}

/* A sample less 32768, in the byte order of the machine: as integers of 16 bits, twice as many as
 * floats are compared at once. */
DEVICE int16_t stored(uint16_t raw) { return (int16_t)(uint16_t)(raw << 8 | raw >> 8); }

/* The smallest such sample that is not below a limit, and whether there is one. */
DEVICE int16_t stored_limit(float limit, int16_t *is_there)
{
    const float least = limit > 0.0f ? ceilf(limit) : 0.0f; /* the numbers of samples are whole */
    *is_there = limit <= 65535.0f;
    return (int16_t)((*is_there ? (int32_t)least : 0) - 32768);
}

/* Decode samples.
 *
 * raw: images as of calibrate_ramps; samples: the same without gaps.
 */
KERNEL void decode_samples(int64_t n_items, const uint16_t *restrict raw, int64_t raw_int,
                           int64_t raw_group, int64_t n_groups, int64_t n_pixels,
                           float *restrict samples)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t plane = item / n_pieces, start = item % n_pieces * PIXELS;
        const int n_here = pixels_of(start, n_pixels);
        const uint16_t *x = raw + plane / n_groups * raw_int + plane % n_groups * raw_group + start;
        for (int l = 0; l < n_here; l++) samples[plane * n_pixels + start + l] = decoded(x[l]);
    }
}

/* The first group of each ramp that is at the limit (n_pixels), or n_groups: (n_ints, n_pixels). */
KERNEL void find_full(int64_t n_items, const uint16_t *restrict raw, int64_t raw_int,
                      int64_t raw_group, const float *restrict limit, int64_t n_groups,
                      int64_t n_pixels, int16_t *restrict full)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t integration = item / n_pieces, start = item % n_pieces * PIXELS;
        const int n_here = pixels_of(start, n_pixels);
        int16_t first[PIXELS], top[PIXELS], may_fill[PIXELS];
        for (int l = 0; l < n_here; l++) {
            first[l] = (int16_t)n_groups;
            top[l] = stored_limit(limit[start + l], &may_fill[l]);
        }
        /* backwards, so that the last one written is the first */
        for (int64_t g = n_groups - 1; g >= 0; g--) {
            const uint16_t *x = raw + integration * raw_int + g * raw_group + start;
            for (int l = 0; l < n_here; l++) {
                const int16_t is_full = (int16_t)(stored(x[l]) >= top[l]) & may_fill[l];
                first[l] = is_full ? (int16_t)g : first[l];
            }
        }
        for (int l = 0; l < n_here; l++) full[integration * n_pixels + start + l] = first[l];
    }
}

/* Decode, flag and correct raw samples.
 *
 * raw: images as of calibrate_ramps, of integrations from `first` of those of the flags and
 * corrections. group_flags: (.., n_groups) of whole groups, pixel_flags: (n_pixels) of all samples
 * of a pixel; full: (n_ints, n_pixels) the group from which on a ramp is SATURATED, and null where
 * neither that nor the converter's floor is looked for. data, groupdq: (n_ints, n_groups, n_pixels).
 */
KERNEL void calibrate_raw(
    int64_t n_items, const uint16_t *restrict raw, int64_t raw_int, int64_t raw_group,
    int64_t first, const uint8_t *restrict group_flags, const uint8_t *restrict pixel_flags,
    const int16_t *restrict full,
    const float *restrict reset, int64_t n_reset_ints, int64_t n_reset_groups,
    const float *restrict coefficients, int64_t n_coefficients,
    const float *restrict dark, int64_t n_dark_ints,
    int64_t n_groups, int64_t n_pixels, float *restrict data, uint8_t *restrict groupdq)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    const Correction c = {reset, coefficients, dark, n_reset_ints, n_reset_groups, n_coefficients,
                          n_dark_ints, n_groups, n_pixels};
    const int64_t n_ints = n_items / n_pixels / n_groups;
    EACH(item, (n_ints + TOGETHER - 1) / TOGETHER * n_groups * n_pieces)
    {
        const int64_t start = item % n_pieces * PIXELS, group = item / n_pieces % n_groups;
        const int64_t first_here = item / n_pieces / n_groups * TOGETHER;
        const int64_t stop = first_here + TOGETHER < n_ints ? first_here + TOGETHER : n_ints;
        const int n_here = pixels_of(start, n_pixels);
        for (int64_t integration = first_here; integration < stop; integration++) {
            const int64_t plane = integration * n_groups + group;
            const uint16_t *x = raw + integration * raw_int + group * raw_group + start;
            const uint8_t flags = group_flags[first * n_groups + plane];
            WORKED_ON(float, y, data + plane * n_pixels + start);
            WORKED_ON(uint8_t, dq, groupdq + plane * n_pixels + start);
            for (int l = 0; l < n_here; l++) y[l] = decoded(x[l]);
            for (int l = 0; l < n_here; l++) dq[l] = pixel_flags[start + l] | flags;
            if (full) {
                const int16_t *f = full + integration * n_pixels + start, g = (int16_t)group;
                for (int l = 0; l < n_here; l++) {
                    const uint8_t floor = x[l] == ZERO_DN ? AD_FLOOR | DO_NOT_USE : 0;
                    dq[l] |= floor | (f[l] <= g ? SATURATED : 0);
                }
            }
            correct(&c, first + integration, group, start, n_here, dq, y);
            PUT_BACK(y, data + plane * n_pixels + start);
            PUT_BACK(dq, groupdq + plane * n_pixels + start);
        }
    }
}
