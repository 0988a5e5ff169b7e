/* Segments of a broken ramp: good samples in a row, and the jump that they may start with.
 *
 * `ramp_segments.py` says what is computed, in array code, and from which source.
 */
#ifndef MIRI_GPU_SEGMENTS_H
#define MIRI_GPU_SEGMENTS_H
#include "pixels.h"

#define PERSISTENCE 32
#define N_WEIGHTINGS 6

/* The groups of a ramp, so many values apart, of which the first n_fitted are fitted. */
typedef struct {
    const float *data;
    const uint8_t *groupdq;
    int64_t data_group, dq_group;
    int n_groups, n_fitted;
    int follows_dropped;    /* so that a jump in the first group is none of this ramp */
    int suppress_one_group; /* give no rate to a ramp with a single good group */
    double first_speed;     /* group time over the time until the middle of the first group */
    int is_suppressed;
    int is_first_only; /* nothing but the first group is good, and it is to be used */
} Ramp;

/* What is known of the noise of a pixel; `ramp_segments.py` says what each is. */
typedef struct {
    double gain, sample_var, poisson, read;
} Noise;

/* The weights that the variances of a line follow from. */
typedef struct {
    double poisson, read, inverse_variance;
} Weights;

DEVICE uint8_t flags_of(const Ramp *r, int g)
{
    uint8_t flags = r->groupdq[g * r->dq_group];
    if (g == 0 && r->follows_dropped) flags &= 0xff ^ JUMP_DET;
    return r->is_suppressed ? flags | DO_NOT_USE : flags;
}

DEVICE int is_good(uint8_t flags) { return (flags & (0xff ^ PERSISTENCE)) == 0; }

/* Find out whether a ramp has a single good group, and whether that is used. */
DEVICE void look_for_single_group(Ramp *r)
{
    int n_good = 0, n_untouched = 0;
    r->is_suppressed = 0;
    for (int g = 0; g < r->n_groups; g++) {
        n_good += is_good(r->groupdq[g * r->dq_group]);
        n_untouched += flags_of(r, g) == 0;
    }
    r->is_first_only = !r->suppress_one_group && n_untouched == 1 && flags_of(r, 0) == 0;
    r->is_suppressed = r->suppress_one_group && n_good == 1;
}

/* The next segment of at least so many groups, from group `g` on: its length, or 0. */
DEVICE int next_segment(const Ramp *r, int g, int shortest, int *start)
{
    while (g < r->n_fitted) {
        const uint8_t flags = flags_of(r, g);
        const int is_jump = (flags & (0xff ^ PERSISTENCE)) == JUMP_DET;
        const int leads = is_jump && g + 1 < r->n_fitted && is_good(flags_of(r, g + 1));
        int stop = g + 1;
        if (is_good(flags) || leads) {
            while (stop < r->n_fitted && is_good(flags_of(r, stop))) stop++;
            if (stop - g >= shortest) {
                *start = g;
                return stop - g;
            }
        }
        g = stop;
    }
    return 0;
}

/* How long a segment must be to count: single groups do where there is nothing longer. */
DEVICE int shortest_segment(const Ramp *r)
{
    int start;
    return next_segment(r, 0, 2, &start) ? 2 : 1;
}

/* Group time over the time in which the signal of a segment was collected. */
DEVICE double speed_of(const Ramp *r, int length)
{
    return length == 1 && r->is_first_only ? 1.0 + (r->first_speed - 1.0) : 1.0;
}

/* The weight of a segment in the mean of the slopes: the inverse of its read-noise variance. */
DEVICE double read_weight(int length, double speed)
{
    const double m = length > 2 ? length : 2.0;
    return (m * m * m - m) / (speed * speed);
}

/* Which weighting suits a ramp, by the signal-to-noise ratio of its rise. */
DEVICE int weighting_of(double rise, double sample_var, double gain)
{
    const double signal = rise * gain, variance = sample_var + signal, square = signal * signal;
    const int is_least = (variance <= 0.0) | (gain == 0.0) | (signal < 0.0);
    const int n_below = (square < 25.0 * variance) + (square < 100.0 * variance) +
                        (square < 400.0 * variance) + (square < 2500.0 * variance) +
                        (square < 10000.0 * variance);
    return is_least ? 0 : N_WEIGHTINGS - 1 - n_below;
}

/* The mean of the slopes of all segments; 0 where there is none. `table` is that of
 * slope_coefficients(). */
DEVICE double mean_slope(const Ramp *r, const Noise *noise, const double *table)
{
    const int shortest = shortest_segment(r), n = r->n_fitted;
    double sum = 0.0, weight = 0.0;
    int start = 0, length;
    for (int g = 0; (length = next_segment(r, g, shortest, &start)) > 0; g = start + length) {
        const float *x = r->data + start * r->data_group;
        const double rise = (double)x[(length - 1) * r->data_group] - (double)x[0];
        const int weighting = weighting_of(rise, noise->sample_var, noise->gain);
        const double *c = table + (weighting * (n + 1) + length) * n;
        const double speed = speed_of(r, length), own = read_weight(length, speed);
        for (int k = 0; k < length; k++) {
            float value = x[k * r->data_group];
            /* the STScI step takes a NaN within a longer segment for 0 */
            if (length > 2 && value != value) value = 0.0f;
            sum += own * c[k] * speed * (double)value;
        }
        weight += own;
        if (length == 1) break; /* of single groups only the first counts */
    }
    return sum / (weight > 0.0 ? weight : 1.0);
}

/* The weights of all segments together; 0 where there is none. */
DEVICE Weights weights_of(const Ramp *r, const Noise *noise)
{
    const int shortest = shortest_segment(r);
    Weights w = {0.0, 0.0, 0.0};
    int start = 0, length;
    for (int g = 0; (length = next_segment(r, g, shortest, &start)) > 0; g = start + length) {
        const double speed = speed_of(r, length), read = read_weight(length, speed);
        const double poisson = ((length > 2 ? length : 2.0) - 1.0) / speed;
        const double variance = noise->poisson / poisson + noise->read / read;
        w.poisson += poisson;
        w.read += read;
        w.inverse_variance += variance == 0.0 ? (double)INFINITY : 1.0 / variance;
        if (length == 1) break;
    }
    return w;
}

#endif
