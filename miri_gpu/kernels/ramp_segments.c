/* The lines through the segments of broken ramps, and the mean of their slopes.
 *
 * `ramp_segments.py` says what is computed, in array code, and from which source.
 */
#include "kernel.h"

#define JUMP_DET 4
#define NOT_PERSISTENCE 0xdf
#define N_WEIGHTINGS 6

DEVICE int is_good(uint8_t flags) { return (flags & NOT_PERSISTENCE) == 0; }

/* The next segment of a ramp from group `g` on: good samples, and the jump they may start with.
 * Returns its length, 0 where there is none. */
DEVICE int next_segment(const uint8_t *groupdq, int64_t stride, int n_groups, int g, int *start)
{
    for (; g < n_groups; g++) {
        const uint8_t flags = groupdq[g * stride];
        const int is_jump = (flags & NOT_PERSISTENCE) == JUMP_DET;
        if (!is_good(flags) && !(is_jump && g + 1 < n_groups && is_good(groupdq[(g + 1) * stride])))
            continue;
        int stop = g + 1;
        while (stop < n_groups && is_good(groupdq[stop * stride])) stop++;
        *start = g;
        return stop - g;
    }
    return 0;
}

/* Which weighting suits a ramp, by the signal-to-noise ratio of its rise. */
DEVICE int weighting_of(double rise, double sample_var, double gain)
{
    const double signal = rise * gain, variance = sample_var + signal;
    const int no_noise = variance <= 0.0 || gain == 0.0;
    const double snr = no_noise ? 0.0 : signal / sqrt(variance);
    const int n_below = (snr < 5.0) + (snr < 10.0) + (snr < 20.0) + (snr < 50.0) + (snr < 100.0);
    return N_WEIGHTINGS - 1 - n_below;
}

/* Fit all segments of the ramps in the columns of data, groupdq (n_groups, n_items).
 *
 * table: (6, n_groups + 1, n_groups) coefficients of the samples of a segment; single_speed: of a
 * segment of one group; the others as PixelNoise and LineFits have them, of each ramp.
 */
KERNEL void fit_segments(
    int64_t n_items, const float *restrict data, const uint8_t *restrict groupdq,
    int64_t n_groups, const double *restrict table, const double *restrict gain,
    const double *restrict sample_var, const double *restrict poisson,
    const double *restrict read, const double *restrict single_speed, double *restrict slope,
    double *restrict poisson_weight, double *restrict read_weight,
    double *restrict inverse_variance)
{
    EACH(ramp, n_items)
    {
        const int n = (int)n_groups;
        const float *x = data + ramp;
        const uint8_t *dq = groupdq + ramp;
        double slopes = 0.0, by_photons = 0.0, by_reading = 0.0, inverse = 0.0;
        int start = 0, length, has_longer = 0;
        for (int g = 0; (length = next_segment(dq, n_items, n, g, &start)) > 0; g = start + length)
            has_longer |= length > 1;
        for (int g = 0; (length = next_segment(dq, n_items, n, g, &start)) > 0; g = start + length) {
            if (length == 1 && has_longer) continue;
            const float *first = x + start * n_items;
            const double rise = (double)first[(length - 1) * n_items] - (double)first[0];
            const int weighting = weighting_of(rise, sample_var[ramp], gain[ramp]);
            const double *c = table + (weighting * (n_groups + 1) + length) * n_groups;
            const double speed = length == 1 ? single_speed[ramp] : 1.0;
            const double m = length > 2 ? length : 2.0;
            const double photons = (m - 1.0) / speed, reading = (m * m * m - m) / (speed * speed);
            for (int k = 0; k < length; k++) {
                float value = first[k * n_items];
                /* the STScI step takes a NaN within a longer segment for 0 */
                if (length > 2 && value != value) value = 0.0f;
                slopes += reading * c[k] * speed * (double)value;
            }
            by_photons += photons;
            by_reading += reading;
            const double variance = poisson[ramp] / photons + read[ramp] / reading;
            inverse += variance == 0.0 ? (double)INFINITY : 1.0 / variance;
            if (length == 1) break; /* of single groups only the first counts */
        }
        slope[ramp] = slopes / (by_reading > 0.0 ? by_reading : 1.0);
        poisson_weight[ramp] = by_photons;
        read_weight[ramp] = by_reading;
        inverse_variance[ramp] = inverse;
    }
}
