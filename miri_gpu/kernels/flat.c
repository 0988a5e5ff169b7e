/* Rates divided by the flat field, with their errors, in one pass: `rates/flat.py`. */
#define PIXELS 256
#include "pixels.h"

/* Items are pixels of images (n_items / n_pixels, n_pixels). `divisor`, `flat_err` and `flat_dq`
 * (n_pixels) are those of the array version, where a pixel without a flat has DO_NOT_USE. */
KERNEL void divide_by_flat(
    int64_t n_items, int64_t n_pixels, const float *restrict divisor,
    const float *restrict flat_err, const uint32_t *restrict flat_dq, const float *restrict data,
    const float *restrict var_poisson, const float *restrict var_rnoise,
    const uint32_t *restrict dq, float *restrict out_data, float *restrict out_err,
    float *restrict out_var_poisson, float *restrict out_var_rnoise,
    float *restrict out_var_flat, uint32_t *restrict out_dq)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t start = item % n_pieces * PIXELS, image = item / n_pieces * n_pixels;
        const int n_here = pixels_of(start, n_pixels);
        for (int l = 0; l < n_here; l++) {
            const int64_t pixel = start + l, i = image + pixel;
            const float flat = divisor[pixel], square = flat * flat, error = flat_err[pixel];
            const float rate = data[i] / flat;
            const float poisson = var_poisson[i] / square, rnoise = var_rnoise[i] / square;
            const float of_flat = rate * rate / square * (error * error);
            const float err = sqrtf(poisson + rnoise + of_flat);
            const uint32_t flags = dq[i] | flat_dq[pixel];
            /* err is NaN wherever one of the variances is */
            const uint32_t is_nan = (uint32_t)(rate != rate) | (uint32_t)(err != err);
            const uint32_t invalid = is_nan * DO_NOT_USE | (flags & DO_NOT_USE);
            const float nan = (float)NAN;
            out_data[i] = invalid ? nan : rate;
            out_err[i] = invalid ? nan : err;
            out_var_poisson[i] = invalid ? nan : poisson;
            out_var_rnoise[i] = invalid ? nan : rnoise;
            out_var_flat[i] = invalid ? nan : of_flat;
            out_dq[i] = flags | invalid;
        }
    }
}
