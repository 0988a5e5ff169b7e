/* Saturation: when each ramp fills up, then the flags of it and its neighbours. */
#define PIXELS 256
#include "pixels.h"

/* Flag A/D floor sample by sample, and find the first sample at the saturation limit.
 *
 * data, groupdq: images (n_ints, n_groups), laid out as calibrate_ramps says; limit: (n_pixels).
 * flagged: new flags, without gaps; full: (n_ints, n_pixels) the first group at the limit, or
 * n_groups; had: (n_ints, n_pixels) whether groupdq has SATURATED in any group.
 */
KERNEL void find_saturation(
    int64_t n_items, const float *restrict data, int64_t data_int, int64_t data_group,
    const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    const float *restrict limit, int64_t n_groups, int64_t n_pixels,
    uint8_t *restrict flagged, int32_t *restrict full, uint8_t *restrict had)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t integration = item / n_pieces, start = item % n_pieces * PIXELS;
        const int n_here = pixels_of(start, n_pixels);
        int32_t first[PIXELS];
        float top[PIXELS];
        uint8_t any[PIXELS];
        for (int l = 0; l < n_here; l++) {
            first[l] = (int32_t)n_groups;
            top[l] = limit[start + l];
            any[l] = 0;
        }
        /* backwards, so that the last one written is the first */
        for (int64_t g = n_groups - 1; g >= 0; g--) {
            const float *x = data + integration * data_int + g * data_group + start;
            const uint8_t *dq = groupdq + integration * dq_int + g * dq_group + start;
            uint8_t *out = flagged + (integration * n_groups + g) * n_pixels + start;
            for (int l = 0; l < n_here; l++) first[l] = x[l] >= top[l] ? (int32_t)g : first[l];
            for (int l = 0; l < n_here; l++) {
                const uint8_t floor = x[l] <= 0.0f ? AD_FLOOR | DO_NOT_USE : 0;
                out[l] = dq[l] | floor;
                any[l] |= dq[l];
            }
        }
        for (int l = 0; l < n_here; l++) {
            full[integration * n_pixels + start + l] = first[l];
            had[integration * n_pixels + start + l] = any[l] & SATURATED;
        }
    }
}

/* Flag SATURATED where a pixel or one within `reach` of it is full or has the flag already.
 *
 * groupdq as find_saturation got it, flagged as it gave it: that is changed.
 */
KERNEL void grow_saturation(
    int64_t n_items, const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    const int32_t *restrict full, const uint8_t *restrict had, int64_t reach,
    int64_t n_groups, int64_t n_rows, int64_t n_cols, uint8_t *restrict flagged)
{
    const int64_t n_pixels = n_rows * n_cols, n_pieces = N_PIECES(n_cols);
    EACH(item, n_items / n_cols * n_pieces)
    {
        const int64_t line = item / n_pieces, start = item % n_pieces * PIXELS;
        const int64_t integration = line / n_rows, row = line % n_rows;
        const int64_t end = start + pixels_of(start, n_cols), image = integration * n_pixels;
        const int64_t top = row > reach ? row - reach : 0;
        const int64_t bottom = row + reach < n_rows ? row + reach : n_rows - 1;
        int32_t earliest = (int32_t)n_groups;
        uint8_t any = 0;
        {
            const int64_t left = start > reach ? start - reach : 0;
            const int64_t right = end + reach < n_cols ? end + reach : n_cols;
            for (int64_t r = top; r <= bottom; r++)
                for (int64_t c = left; c < right; c++) {
                    const int32_t own = full[image + r * n_cols + c];
                    earliest = own < earliest ? own : earliest;
                    any |= had[image + r * n_cols + c];
                }
        }
        if (earliest == n_groups && !any) continue; /* most lines are far from saturation */
        for (int64_t col = start; col < end; col++) {
            const int64_t left = col > reach ? col - reach : 0;
            const int64_t right = col + reach < n_cols ? col + reach : n_cols - 1;
            int32_t first = (int32_t)n_groups;
            for (int64_t r = top; r <= bottom; r++)
                for (int64_t c = left; c <= right; c++) {
                    const int32_t own = full[image + r * n_cols + c];
                    first = own < first ? own : first;
                }
            uint8_t *out = flagged + integration * n_groups * n_pixels + row * n_cols + col;
            for (int64_t g = 0; any && g < first; g++) {
                const uint8_t *dq = groupdq + integration * dq_int + g * dq_group;
                uint8_t near = 0;
                for (int64_t r = top; r <= bottom; r++)
                    for (int64_t c = left; c <= right; c++) near |= dq[r * n_cols + c];
                out[g * n_pixels] |= near & SATURATED;
            }
            for (int64_t g = first; g < n_groups; g++) out[g * n_pixels] |= SATURATED;
        }
    }
}
