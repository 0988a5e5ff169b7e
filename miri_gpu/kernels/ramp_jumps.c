/* Jumps of ramps: differences of successive groups that are unlike the others of their pixel.
 *
 * `jump_search.py` and `jump_flags.py` say what is computed, in array code, and from which source.
 */
#include "ranks.h"
#define PIXELS COLUMNS
#include "pixels.h"

#ifdef __CUDACC__ /* a column of working memory: of each pixel on a GPU, used again on a CPU */
#define SCRATCH(memory, start) ((memory) + (start))
#define SCRATCH_STRIDE(n_pixels) (n_pixels)
#else
#define SCRATCH(memory, start) (memory)
#define SCRATCH_STRIDE(n_pixels) COLUMNS
#endif
#define BOTTOM 0
#define MIDDLE 1
#define TOP 2

/* Differences of successive groups in electrons, NaN where one of the two is not usable. */
DEVICE void take_differences(const float *restrict data, int64_t data_int, int64_t data_group,
                             const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
                             const float *restrict gain, int64_t n_ints, int64_t n_groups,
                             const int32_t *restrict place, int64_t n_diffs, int n_here,
                             float *restrict values, int64_t stride)
{
    float before[PIXELS], now[PIXELS];
    for (int k = 0; k < PIXELS; k++) now[k] = NAN;
    for (int64_t i = 0; i < n_ints; i++)
        for (int64_t g = 0; g < n_groups; g++) {
            const float *x = data + i * data_int + g * data_group;
            const uint8_t *dq = groupdq + i * dq_int + g * dq_group;
            for (int k = 0; k < PIXELS; k++) before[k] = now[k];
            for (int k = 0; k < n_here; k++) {
                const float electrons = x[k] * gain[k];
                now[k] = dq[k] & (DO_NOT_USE | SATURATED) ? NAN : electrons;
            }
            if (place[g] < 0) continue;
            float *row = values + (i * n_diffs + place[g]) * stride;
            for (int k = 0; k < PIXELS; k++) row[k] = now[k] - before[k];
        }
}

/* Expected standard deviation of a difference; NaN where it is 0, so that nothing is found. */
DEVICE double noise_of(double median, double read_var)
{
    const double sigma = sqrt(fabs(median) + read_var);
    return sigma == 0.0 ? (double)NAN : sigma;
}

/* The smallest float that is not below x, the largest that is not above. */
DEVICE float near_float(double x)
{
    const double most = 3.4028234663852886e38;
    return (float)(x < -most ? -most : x > most ? most : x);
}

DEVICE float rounded_up(double x)
{
    const float near = near_float(x);
    return near < x ? float_of(key_of(near) + 1) : near;
}

DEVICE float rounded_down(double x)
{
    const float near = near_float(x);
    return near > x ? float_of(key_of(near) - 1) : near;
}

/* What a search by removal has left of a column: ranks first .. stop - 1. */
typedef struct {
    int first, stop, n_removed, is_done;
    Window windows[3];
} Search;

/* The window that holds a rank; null where none does. */
DEVICE const Window *window_of(const Search *s, int rank)
{
    for (int w = 0; w < 3; w++)
        if (holds(&s->windows[w], rank)) return &s->windows[w];
    return 0;
}

/* The window that says what the values of two successive ranks are. */
DEVICE const Window *window_of_pair(const Search *s, int lower, int upper)
{
    for (int w = 0; w < 3; w++) {
        const Window *found = &s->windows[w];
        const int has_next = found->next == found->next;
        if (holds(found, lower) && (upper < found->stop || has_next)) return found;
    }
    return 0;
}

/* Remove the sizes farthest from the median while they are far; equal ones go together.
 *
 * Returns whether a window is missing: then around `rank`, to be put in `place`.
 */
DEVICE int remove_far(Search *s, double read_var, double limit_2, double limit_3, double limit_4,
                      int *rank, int *place)
{
    while (!s->is_done) {
        const int first = s->first, stop = s->stop, count = stop - first;
        if (count < 2) break; /* a single value has nothing to be compared with */
        const Window *top = window_of(s, stop - 1), *bottom = window_of(s, first);
        if (!top || !bottom) {
            *rank = top ? first : stop - 1;
            *place = top ? BOTTOM : TOP;
            return 1;
        }
        const float largest = value_in(top, stop - 1), smallest = value_in(bottom, first);
        /* a window holds all of the values that are equal to any of its own */
        int run_start = stop - 1, run_stop = first + 1;
        if (top->is_tied) run_start = top->start;
        while (run_start > top->start && value_in(top, run_start - 1) == largest) run_start--;
        if (bottom->is_tied) run_stop = bottom->stop;
        while (run_stop < bottom->stop && value_in(bottom, run_stop) == smallest) run_stop++;
        if (run_start < first) run_start = first;
        if (run_stop > stop) run_stop = stop;

        const int rest = count >= 4 ? run_start : count == 2 ? first + 1 : stop;
        if (rest <= first) break;
        const int lower = (first + rest - 1) / 2, upper = (first + rest) / 2;
        const Window *middle = window_of_pair(s, lower, upper);
        if (!middle) {
            *rank = lower;
            *place = MIDDLE;
            return 1;
        }
        double median = median_in(middle, lower, upper);
        if (s->n_removed > 0) median = (double)(float)median;

        const float above = (float)fabs(largest - median), below = (float)fabs(smallest - median);
        const float farthest = above > below ? above : below;
        const double limit = count == 2 ? limit_2 : count == 3 ? limit_3 : limit_4;
        if (!((double)farthest / noise_of(median, read_var) > limit)) break;
        if (below == farthest) s->first = run_stop;
        if (above == farthest) s->stop = run_start;
        s->n_removed++;
    }
    s->is_done = 1;
    return 0;
}

/* Smallest and largest usual size of each column's differences, by removal one by one. */
DEVICE void range_by_removal(const Columns *c, const double *read_var, double limit_2,
                             double limit_3, double limit_4, floats *low, floats *high)
{
    Search searches[COLUMNS];
    Window *wanted[COLUMNS];
    int rank[COLUMNS], is_first = 1;
    ints n_least, n_below;
    floats second = c->smallest;
    EACH_COLUMN(k) PART(second, k) = float_of(key_of(PART(c->smallest, k)) + 1);
    count_below(c, second, c->largest, &n_least, &n_below);
    EACH_COLUMN(k)
    {
        Search *s = &searches[k];
        const int n = PART(c->n_valid, k);
        s->first = s->n_removed = 0;
        s->stop = n;
        s->is_done = n == 0;
        for (int w = 0; w < 3; w++) {
            s->windows[w].start = s->windows[w].stop = 0;
            s->windows[w].is_tied = 1;
        }
        s->windows[BOTTOM].stop = PART(n_least, k);
        s->windows[BOTTOM].values[0] = PART(c->smallest, k);
        s->windows[TOP].start = PART(n_below, k);
        s->windows[TOP].stop = n;
        s->windows[TOP].values[0] = PART(c->largest, k);
        s->windows[BOTTOM].next = s->windows[TOP].next = NAN; /* unknown */
    }
    for (;;) {
        int n_wanted = 0, place = 0;
        EACH_COLUMN(k)
        {
            wanted[k] = 0;
            if (searches[k].is_done) continue;
            if (!remove_far(&searches[k], read_var[k], limit_2, limit_3, limit_4, &rank[k], &place))
                continue;
            wanted[k] = &searches[k].windows[place];
            n_wanted++;
        }
        if (n_wanted == 0) break;
        find_windows(c, rank, is_first, wanted);
        is_first = 0;
    }
    EACH_COLUMN(k)
    {
        const Search *s = &searches[k];
        const int is_empty = PART(c->n_valid, k) == 0, last = s->stop - 1;
        PART(*low, k) = is_empty ? NAN : value_in(window_of(s, s->first), s->first);
        PART(*high, k) = is_empty ? NAN : value_in(window_of(s, last), last);
    }
}

/* Flag the jumps of all pixels.
 *
 * data, groupdq: images (n_ints, n_groups), of n_pixels next to one another, whose integrations
 * and groups are `.._int` and `.._group` values apart. place: for each group, which difference
 * leads to it, or -1. In one pass where is_single_pass, by what is farther than limit_4 standard
 * deviations from the median; else by removal, with limits for 2, 3, and more values left.
 * least, most: size of jumps that leave their neighbours unflagged, in standard deviations.
 * memory: n_ints * n_diffs rows of n_pixels, at least 16. flagged: new flags, without gaps.
 * sources: (n_ints, n_groups, n_pixels), whether the neighbours are to be flagged, and any_source
 * (n_ints, n_groups), whether a pixel's are; not touched unless has_neighbours.
 */
KERNEL void find_jumps(
    int64_t n_items, const float *restrict data, int64_t data_int, int64_t data_group,
    const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    const float *restrict gain, const double *restrict read_var, const int32_t *restrict place,
    int64_t n_ints, int64_t n_groups, int64_t n_diffs, int64_t is_single_pass,
    double limit_2, double limit_3, double limit_4, int64_t has_neighbours, double least,
    double most, float *restrict memory, uint8_t *restrict flagged, uint8_t *restrict sources,
    uint8_t *restrict any_source)
{
    const int64_t n_pixels = n_items, n_pieces = N_PIECES(n_pixels);
    EACH(piece, n_pieces)
    {
        const int64_t start = piece * PIXELS;
        const int n_here = pixels_of(start, n_pixels);
        const float *samples = data + start;
        const uint8_t *flags = groupdq + start;
        Columns c;
        c.stride = SCRATCH_STRIDE(n_pixels);
        float *differences = SCRATCH(memory, start);
        c.values = differences;
        c.n = n_ints * n_diffs;
        take_differences(samples, data_int, data_group, flags, dq_int, dq_group, gain + start,
                         n_ints, n_groups, place, n_diffs, n_here, differences, c.stride);

        double variance[PIXELS], median[PIXELS];
        float low[PIXELS], high[PIXELS], inner_low[PIXELS], inner_high[PIXELS];
        float outer_low[PIXELS], outer_high[PIXELS];
        for (int k = 0; k < PIXELS; k++)
            variance[k] = k < n_here ? read_var[start + k] : (double)NAN;
        if (is_single_pass || has_neighbours) {
            c.is_size = 0;
            measure(&c);
            medians_of(&c, median);
            for (int k = 0; k < PIXELS; k++) {
                const double sigma = noise_of(median[k], variance[k]);
                low[k] = rounded_up(median[k] - limit_4 * sigma);
                high[k] = rounded_down(median[k] + limit_4 * sigma);
                inner_low[k] = rounded_up(median[k] - least * sigma);
                inner_high[k] = rounded_down(median[k] + least * sigma);
                outer_low[k] = rounded_down(median[k] - most * sigma);
                outer_high[k] = rounded_up(median[k] + most * sigma);
            }
        }
        if (!is_single_pass) {
            floats bottom = filled(0.0f), top = bottom;
            c.is_size = 1;
            measure(&c);
            range_by_removal(&c, variance, limit_2, limit_3, limit_4, &bottom, &top);
            EACH_COLUMN(k)
            {
                low[k] = PART(bottom, k);
                high[k] = PART(top, k);
            }
        }
        for (int64_t plane = 0; plane < n_ints * n_groups; plane++) {
            const int64_t i = plane / n_groups, g = plane % n_groups;
            const uint8_t *dq = flags + i * dq_int + g * dq_group;
            uint8_t *out = flagged + plane * n_pixels + start;
            const float *row = differences + (i * n_diffs + (place[g] < 0 ? 0 : place[g])) * c.stride;
            uint8_t new_flags[PIXELS];
            for (int k = 0; k < n_here; k++) {
                const float x = is_single_pass ? row[k] : fabsf(row[k]);
                const int is_jump = (place[g] >= 0) & ((x < low[k]) | (x > high[k]));
                new_flags[k] = dq[k] | (is_jump ? JUMP_DET : 0);
                out[k] = dq[k] & (DO_NOT_USE | SATURATED) ? dq[k] & ~JUMP_DET : new_flags[k];
            }
            if (!has_neighbours || place[g] < 0) continue;
            uint8_t any = 0;
            uint8_t *grows = sources + plane * n_pixels + start;
            for (int k = 0; k < n_here; k++) {
                const float x = row[k];
                const int is_source = ((x < inner_low[k]) | (x > inner_high[k])) &
                                      (x > outer_low[k]) & (x < outer_high[k]);
                grows[k] = is_source & ((new_flags[k] & JUMP_DET) != 0);
                any |= grows[k];
            }
            if (any) any_source[plane] = 1;
        }
    }
}

/* Flag the four neighbours of jumps that find_jumps chose; unusable samples keep their flags. */
KERNEL void flag_jump_neighbours(
    int64_t n_items, const uint8_t *restrict sources, const uint8_t *restrict any_source,
    int64_t n_rows, int64_t n_cols, uint8_t *restrict flagged)
{
    EACH(item, n_items)
    {
        /* an item is a row, of a plane in which there is something to do */
        const int64_t plane = item / n_rows, row = item % n_rows;
        if (!any_source[plane]) continue;
        const uint8_t *here = sources + item * n_cols;
        uint8_t *out = flagged + item * n_cols;
        for (int64_t col = 0; col < n_cols; col++) {
            uint8_t near = 0;
            if (row > 0) near |= here[col - n_cols];
            if (row + 1 < n_rows) near |= here[col + n_cols];
            if (col > 0) near |= here[col - 1];
            if (col + 1 < n_cols) near |= here[col + 1];
            if (near && !(out[col] & (DO_NOT_USE | SATURATED))) out[col] |= JUMP_DET;
        }
    }
}
