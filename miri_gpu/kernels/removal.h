/* The search for jumps by removal: the value farthest from the median goes, while it is far.
 *
 * Only the ends of the sorted values and their middle are looked at, through windows.
 */
#ifndef MIRI_GPU_REMOVAL_H
#define MIRI_GPU_REMOVAL_H
#include "ranks.h"

#define BOTTOM 0
#define MIDDLE 1
#define TOP 2

/* When a difference is a jump, in standard deviations: in one pass by `limit_4`, or else by removal
 * with limits for 2, 3, and more values left; how large the jumps are that flag their neighbours. */
typedef struct {
    int is_single_pass, has_neighbours;
    double limit_2, limit_3, limit_4, least, most;
} Limits;

/* Expected standard deviation of a difference; NaN where it is 0, so that nothing is found. */
DEVICE double noise_of(double median, double read_var)
{
    const double sigma = sqrt(fabs(median) + read_var);
    return sigma == 0.0 ? (double)NAN : sigma;
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
DEVICE int remove_far(Search *s, double read_var, const Limits *limits, int *rank, int *place)
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
        const double limit = count == 2   ? limits->limit_2
                             : count == 3 ? limits->limit_3
                                          : limits->limit_4;
        if (!((double)farthest / noise_of(median, read_var) > limit)) break;
        if (below == farthest) s->first = run_stop;
        if (above == farthest) s->stop = run_start;
        s->n_removed++;
    }
    s->is_done = 1;
    return 0;
}

/* Smallest and largest usual size of each column's differences, by removal one by one. */
DEVICE void range_by_removal(const Columns *c, const double *read_var, const Limits *limits,
                             floats *low, floats *high)
{
    Search searches[COLUMNS];
    Window *wanted[COLUMNS];
    int rank[COLUMNS], is_first = 1;
    ints n_least, n_below;
    floats second = c->smallest;
    EACH_COLUMN(k) PART(second, k) = next_float(PART(c->smallest, k));
    count_below(c, second, c->largest, &n_least, &n_below);
    EACH_COLUMN(k)
    {
        Search *s = &searches[k];
        const int n = PART(c->n_valid, k);
        s->first = s->n_removed = 0;
        s->stop = n;
        s->is_done = n == 0;
        for (int w = 0; w < 3; w++) {
            s->windows[w].values = c->hand->windows[k][w];
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
    wait_for_shares();
    for (;;) {
        int n_wanted = 0, place = 0;
        EACH_COLUMN(k)
        {
            wanted[k] = 0;
            if (searches[k].is_done) continue;
            if (!remove_far(&searches[k], read_var[k], limits, &rank[k], &place)) continue;
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

#endif
