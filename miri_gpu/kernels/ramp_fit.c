/* Lines through ramps, in three rounds: the slope of each ramp, what the ramps of a pixel have in
 * common, and the rate of each ramp with its variances.
 *
 * `ramp_fit.py` says what is computed, in array code, and from which source. Most ramps have no
 * flag and are fitted a vector of pixels at a time; the broken ones are put right one by one.
 */
#include "columns.h"
#include "segments.h"

#define MOST_GROUPS 1024
#define LARGEST_VARIANCE 1e6 /* [(DN/s)^2] beyond this the STScI step writes 0 */

#ifdef __CUDACC__ /* rows of working memory, of each thread of a GPU one column */
#define WORKING_ROWS(name)                   \
    extern __shared__ double group_memory[]; \
    float *name = (float *)group_memory + threadIdx.x
#define APART ((int)blockDim.x)
#else
#define WORKING_ROWS(name) float name[MOST_GROUPS * COLUMNS]
#define APART COLUMNS
#endif

/* What flags a vector of ramps has, and those of the groups that are fitted. */
typedef struct {
    ints all, fitted;
} Flags;

/* The samples of a vector of ramps, so many values apart. */
typedef struct {
    const float *first;
    int64_t apart;
} Samples;

/* Where the samples are read from: a GPU puts them in rows, to read its memory once. */
DEVICE Samples samples_of(const Ramp *r, float *rows)
{
#ifdef __CUDACC__
    for (int g = 0; g < r->n_fitted; g++)
        store_row(load_row(r->data + g * r->data_group), rows + g * APART);
    const Samples s = {rows, APART};
#else
    const Samples s = {r->data, r->data_group};
    (void)rows;
#endif
    return s;
}

DEVICE Flags flags_of_groups(const Ramp *r)
{
    ints flags = (ints)filled(0.0f);
    for (int g = 0; g < r->n_fitted; g++) flags |= load_flags(r->groupdq + g * r->dq_group);
    Flags f = {flags, flags};
    for (int g = r->n_fitted; g < r->n_groups; g++)
        f.all |= load_flags(r->groupdq + g * r->dq_group);
    return f;
}

/* Put differences of successive groups in rows, where the samples may be until then; where their
 * number is odd, infinity in one more row. Returns where there is NaN. Ramps of pixels farther on are
 * fetched meanwhile. */
DEVICE ints take_differences(const Ramp *r, const Samples *s, float *rows)
{
    floats before = load_row(s->first);
    ints is_nan = (ints)filled(0.0f);
    for (int g = 1; g < r->n_fitted; g++) {
        const floats now = load_row(s->first + g * s->apart), x = now - before;
        is_nan |= IS_NAN(x);
        store_row(x, rows + (g - 1) * APART);
        PREFETCH(r->data + g * r->data_group + 4 * COLUMNS);
        PREFETCH(r->groupdq + g * r->dq_group + 4 * COLUMNS);
        before = now;
    }
    store_row(filled(INFINITY), rows + (r->n_fitted - 1) * APART);
    return is_nan;
}

/* Put infinities of either sign in turn in the place of differences that are not usable, which
 * leaves the middle where it is. Returns how many are usable. */
DEVICE ints leave_out_unusable(const Ramp *r, float *rows)
{
    floats infinity = filled(INFINITY);
    ints n_usable = (ints)filled(0.0f), flags = load_flags(r->groupdq);
    for (int g = 1; g < r->n_fitted; g++) {
        float *row = rows + (g - 1) * APART;
        const floats x = load_row(row);
        const ints flags_before = flags & (DO_NOT_USE | SATURATED);
        flags = load_flags(r->groupdq + g * r->dq_group);
        const ints flags_here = flags & (DO_NOT_USE | SATURATED | JUMP_DET);
        const ints is_left_out = has_any(flags_before | flags_here, 0xff) | IS_NAN(x);
        store_row(chosen(is_left_out, infinity, x), row);
        infinity = chosen(is_left_out, -infinity, infinity);
        n_usable += is_left_out + 1;
    }
    store_row(infinity, rows + (r->n_fitted - 1) * APART);
    return n_usable;
}

/* The two in the middle of an even number of values: each half is sorted by comparing pairs of
 * rows, then both halves are compared. */
DEVICE void middle_of(float *rows, int n, const int32_t *pairs, int n_pairs, floats *lower,
                      floats *upper)
{
    floats low = filled(-INFINITY), high = filled(INFINITY);
    for (int p = 0; p < n_pairs; p++) {
        float *first = rows + pairs[2 * p] * APART, *second = rows + pairs[2 * p + 1] * APART;
        const floats a = load_row(first), b = load_row(second);
        store_row(smaller_of(a, b), first);
        store_row(larger_of(a, b), second);
    }
    for (int i = 0; i < n / 2; i++) {
        const floats a = load_row(rows + i * APART), b = load_row(rows + (n - 1 - i) * APART);
        low = larger_of(smaller_of(a, b), low);
        high = smaller_of(larger_of(a, b), high);
    }
    *lower = low;
    *upper = high;
}

/* Which weightings suit ramps of pixels next to one another. */
DEVICE ints weightings_of(const Ramp *r, const double *sample_var, const double *gain)
{
    const float *first = r->data, *last = first + (r->n_fitted - 1) * r->data_group;
    int32_t weightings[COLUMNS];
    EACH_COLUMN(k)
        weightings[k] = weighting_of((double)last[k] - (double)first[k], sample_var[k], gain[k]);
    return load_ints(weightings);
}

/* Slopes of ramps without a flag; `table` has the coefficients of a group by their weighting.
 * Samples at the same distance from the middle are taken together. */
DEVICE floats slopes_of(const Samples *s, int n_fitted, const float *table, ints weightings)
{
    floats slopes = filled(0.0f);
    for (int g = 0; g < n_fitted / 2; g++) {
        const int mirror = n_fitted - 1 - g;
        const floats early = load_row(s->first + g * s->apart);
        const floats late = load_row(s->first + mirror * s->apart);
        slopes = slopes + one_of_eight(table + mirror * 8, weightings) * (late - early);
    }
    return slopes;
}

/* The flags of a broken ramp that count, DO_NOT_USE where it has no rate. */
DEVICE uint8_t flags_of_ramp(const Ramp *r)
{
    uint8_t any = 0, all = DO_NOT_USE | SATURATED;
    for (int g = 0; g < r->n_groups; g++) {
        const uint8_t flags = flags_of(r, g);
        any |= flags;
        if (!(flags & (DO_NOT_USE | SATURATED))) all = 0;
    }
    const int has_no_rate = all || (flags_of(r, 0) & SATURATED);
    return (any & (JUMP_DET | PERSISTENCE | SATURATED)) | (has_no_rate ? DO_NOT_USE : 0);
}

/* Median difference of a broken ramp, from that of the usable ones; the first sample itself where
 * there is none, 0 where that is not usable either. */
DEVICE double median_of_broken(const Ramp *r, int n_usable, double median)
{
    if (r->is_suppressed) return 0.0;
    if (n_usable == 0) {
        const int is_usable = !(flags_of(r, 0) & (DO_NOT_USE | SATURATED));
        median = is_usable ? (double)r->data[0] : 0.0;
    }
    if (r->is_first_only) median = (double)(r->data[0] * (float)r->first_speed);
    return median == median ? median : 0.0;
}

/* Put right what a vector of ramps gave for one of them. */
DEVICE void fit_broken(Ramp *r, const Noise *noise, const double *table, double group_time,
                       int n_usable, double *median, float *rate, uint32_t *dq, uint32_t pixeldq)
{
    look_for_single_group(r);
    *median = median_of_broken(r, n_usable, *median);
    *rate = (float)(mean_slope(r, noise, table) / group_time);
    *dq = pixeldq | flags_of_ramp(r);
}

/* Find the slope of every ramp, and all that can be said of it without the others of its pixel.
 *
 * data, groupdq: images (n_ints, n_groups), of n_pixels next to one another, whose integrations
 * and groups are `.._int` and `.._group` values apart; the first n_fitted groups are fitted, and
 * dropped ones were before them where follows_dropped. first_speed: group time over the time from
 * the reset to the middle of the first group. whole: (n_fitted, 8) coefficients of the samples of a
 * ramp without a flag, by weighting; parts: (6, n_fitted + 1, n_fitted) of segments of any length.
 * pairs: (n_pairs, 2) rows whose values are put in order one after the other, which sorts each half
 * of an even number of differences. gain, sample_var: of each pixel, as PixelNoise has them.
 *
 * median: median difference; rate: slope over group_time; dq: flags; is_broken: whether it is one
 * segment; each (n_ints, n_pixels).
 */
KERNEL void fit_slopes(
    int64_t n_items, const float *restrict data, int64_t data_int, int64_t data_group,
    const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group, int64_t n_groups,
    int64_t n_fitted, int64_t follows_dropped, int64_t suppress_one_group, double first_speed,
    double group_time, const float *restrict whole, const double *restrict parts,
    const int32_t *restrict pairs, int64_t n_pairs,
    const double *restrict gain, const double *restrict sample_var,
    const uint32_t *restrict pixeldq, int64_t n_pixels, double *restrict median,
    float *restrict rate, uint32_t *restrict dq, int32_t *restrict is_broken)
{
    const int64_t n_vectors = (n_pixels + COLUMNS - 1) / COLUMNS;
    EACH(item, n_items / n_pixels * n_vectors)
    {
        WORKING_ROWS(rows);
        const int64_t integration = item / n_vectors, last = n_pixels - COLUMNS;
        int64_t start = item % n_vectors * COLUMNS; /* the last vector may overlap another */
        start = start < last ? start : last;
        const int64_t out = integration * n_pixels + start;
        const Ramp r = {data + integration * data_int + start,
                        groupdq + integration * dq_int + start,
                        data_group,
                        dq_group,
                        (int)n_groups,
                        (int)n_fitted,
                        (int)follows_dropped,
                        (int)suppress_one_group,
                        first_speed,
                        0,
                        0};
        const Flags flags = flags_of_groups(&r);
        const Samples samples = samples_of(&r, rows);
        const ints weightings = weightings_of(&r, sample_var + start, gain + start);
        const floats slopes = slopes_of(&samples, (int)n_fitted, whole, weightings);
        const ints is_nan = take_differences(&r, &samples, rows);
        const ints broken = has_any(flags.fitted, 0xff) | is_nan; /* not one segment */
        ints n_usable = (ints)filled(0.0f) + (int)(n_fitted - 1);
        if (any_of(broken)) n_usable = leave_out_unusable(&r, rows);
        floats lower, upper;
        middle_of(rows, (int)n_fitted / 2 * 2, pairs, (int)n_pairs, &lower, &upper);
        upper = chosen(has_any(n_usable, 1), lower, upper);
        store_row(slopes / (float)group_time, rate + out);
        store_means(lower, upper, median + out);
        const ints kept = flags.all & (JUMP_DET | PERSISTENCE | SATURATED);
        store_ints(load_ints((const int32_t *)pixeldq + start) | kept, (int32_t *)dq + out);
        store_ints(broken, is_broken + out);
        EACH_MARKED(k, broken)
        {
            const Noise noise = {gain[start + k], sample_var[start + k], 0.0, 0.0};
            Ramp own = r;
            own.data += k;
            own.groupdq += k;
            fit_broken(&own, &noise, parts, group_time, PART(n_usable, k), median + out + k,
                       rate + out + k, dq + out + k, pixeldq[start + k]);
        }
    }
}

/* Sums over integrations of numbers (n_ints, n_items), in the order of the integrations. */
KERNEL void sum_integrations(int64_t n_items, const double *restrict numbers, int64_t n_ints,
                             double *restrict sums)
{
    EACH(piece, N_PIECES(n_items))
    {
        const int64_t start = piece * PIXELS;
        const int n_here = pixels_of(start, n_items);
        double sum[PIXELS];
        for (int k = 0; k < n_here; k++) sum[k] = numbers[start + k];
        for (int64_t i = 1; i < n_ints; i++)
            for (int k = 0; k < n_here; k++) sum[k] += numbers[i * n_items + start + k];
        for (int k = 0; k < n_here; k++) sums[start + k] = sum[k];
    }
}

/* Rate and variances of a broken ramp, as rates_of() has them; `rate` is its slope over time. */
DEVICE void finish_broken(const Ramp *r, const Noise *noise, int is_invalid, float *rate,
                          float *err, float *var_poisson, float *var_rnoise)
{
    const Weights w = weights_of(r, noise);
    const int is_none = w.poisson == 0.0, is_nothing = is_none || is_invalid;
    const double by_photons = noise->poisson / (is_none ? 1.0 : w.poisson);
    const double by_reading = noise->read / (is_none ? 1.0 : w.read);
    const double total = 1.0 / (is_none ? 1.0 : w.inverse_variance);
    /* the STScI step weights with the read noise alone, so without it there is no rate */
    if (is_invalid || !(is_none || by_reading > 0.0))
        *rate = NAN;
    else if (!is_none && by_reading >= LARGEST_VARIANCE)
        *rate = 0.0f;
    *var_poisson = is_nothing || by_photons >= LARGEST_VARIANCE ? 0.0f : (float)by_photons;
    *var_rnoise = is_nothing || by_reading >= LARGEST_VARIANCE ? 0.0f : (float)by_reading;
    *err = is_nothing || total >= LARGEST_VARIANCE ? 0.0f : (float)sqrt(total);
}

/* Rates and variances of all ramps, once the noise of the pixels is known.
 *
 * Arguments as of fit_slopes. poisson, read: of each pixel, as PixelNoise has them. unit, unit_..:
 * rate, error and variances of a ramp of the pixel without flags whose slope is 1, which say what
 * becomes of others. rate: is changed where there is none.
 */
KERNEL void finish_rates(
    int64_t n_items, const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    int64_t n_groups, int64_t n_fitted, int64_t follows_dropped, int64_t suppress_one_group,
    double first_speed, const double *restrict poisson, const double *restrict read,
    const float *restrict unit, const float *restrict unit_err,
    const float *restrict unit_poisson, const float *restrict unit_rnoise,
    const uint32_t *restrict pixeldq, int64_t n_pixels, const uint32_t *restrict dq,
    const int32_t *restrict is_broken, float *restrict rate, float *restrict err,
    float *restrict var_poisson, float *restrict var_rnoise)
{
    const int64_t n_pieces = N_PIECES(n_pixels);
    EACH(item, n_items / n_pixels * n_pieces)
    {
        const int64_t integration = item / n_pieces, start = item % n_pieces * PIXELS;
        const int64_t image = integration * n_pixels;
        const int n_here = pixels_of(start, n_pixels);
        int32_t any = 0;
        for (int k = 0; k < n_here; k++) {
            const int64_t pixel = start + k, ramp = image + pixel;
            rate[ramp] = is_broken[ramp] || unit[pixel] == 1.0f ? rate[ramp] : unit[pixel];
            err[ramp] = unit_err[pixel];
            var_poisson[ramp] = unit_poisson[pixel];
            var_rnoise[ramp] = unit_rnoise[pixel];
            any |= is_broken[ramp];
        }
        for (int k = 0; any && k < n_here; k++) {
            const int64_t pixel = start + k, ramp = image + pixel;
            if (!is_broken[ramp]) continue;
            Ramp r = {0,
                      groupdq + integration * dq_int + pixel,
                      0,
                      dq_group,
                      (int)n_groups,
                      (int)n_fitted,
                      (int)follows_dropped,
                      (int)suppress_one_group,
                      first_speed,
                      0,
                      0};
            const Noise noise = {0.0, 0.0, poisson[pixel], read[pixel]};
            const int is_invalid =
                (dq[ramp] & DO_NOT_USE) || (pixeldq[pixel] & (DO_NOT_USE | SATURATED));
            look_for_single_group(&r);
            finish_broken(&r, &noise, is_invalid, rate + ramp, err + ramp, var_poisson + ramp,
                          var_rnoise + ramp);
        }
    }
}
