/* Reset, linearity and dark of each sample: one pass over the ramps for any of them. */
#define PIXELS 256
#include "pixels.h"

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

/* data - reset, through the polynomial unless saturated, - dark; each is left out where its number
 * of groups, coefficients or integrations is 0.
 *
 * data, groupdq: images (n_ints, n_groups), of n_pixels next to one another, whose integrations
 * and groups are `.._int` and `.._group` values apart; result: the same without gaps.
 * reset: (n_reset_ints, n_reset_groups, n_pixels), dark: (n_dark_ints, n_groups, n_pixels); each
 * integration takes its own, or the last one.
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
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t plane = item / n_pieces, start = item % n_pieces * PIXELS;
        const int64_t integration = plane / n_groups, group = plane % n_groups;
        const int n_here = pixels_of(start, n_pixels);
        const float *x = data + integration * data_int + group * data_group + start;
        float *y = result + plane * n_pixels + start;
        if (group < n_reset_groups) {
            const int64_t own = integration < n_reset_ints ? integration : n_reset_ints - 1;
            const float *r = reset + (own * n_reset_groups + group) * n_pixels + start;
            for (int l = 0; l < n_here; l++) y[l] = x[l] - r[l];
        } else {
            for (int l = 0; l < n_here; l++) y[l] = x[l];
        }
        if (n_coefficients) {
            const uint8_t *dq = groupdq + integration * dq_int + group * dq_group + start;
#define POLYNOMIAL(n)                                                            \
    case n:                                                                      \
        polynomial(n, coefficients, n_pixels, start, n_here, dq, y);            \
        break;
            switch (n_coefficients) {
                POLYNOMIAL(2) POLYNOMIAL(3) POLYNOMIAL(4) POLYNOMIAL(5) POLYNOMIAL(6)
                POLYNOMIAL(7) POLYNOMIAL(8)
                default:
                    polynomial((int)n_coefficients, coefficients, n_pixels, start, n_here, dq, y);
            }
        }
        if (n_dark_ints) {
            const int64_t own = integration < n_dark_ints ? integration : n_dark_ints - 1;
            const float *d = dark + (own * n_groups + group) * n_pixels + start;
            for (int l = 0; l < n_here; l++) y[l] = y[l] - d[l];
        }
    }
}
