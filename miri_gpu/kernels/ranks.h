/* Order statistics without sorting: windows of the sorted values of a column. */
#ifndef MIRI_GPU_RANKS_H
#define MIRI_GPU_RANKS_H
#include "brackets.h"

/* The values of ranks start .. stop - 1 of a column: all equal to values[0], or in order. */
typedef struct {
    int start, stop, is_tied;
    float next; /* the value of rank `stop` */
    float *values;
} Window;

/* Fill windows with the values in the brackets; of a tie nothing is gathered. */
DEVICE void gather(const Columns *c, const Brackets *b, Window *const *windows)
{
    floats *held = c->hand->rows, next = c->next_above, low = b->high;
    int *n_held = c->hand->n_held, most = 0;
    wait_for_shares();
    EACH_COLUMN(k)
    {
        n_held[k] = 0;
        if (windows[k] == 0 || windows[k]->is_tied) continue;
        const int n = windows[k]->stop - windows[k]->start;
        most = n > most ? n : most;
        PART(low, k) = PART(b->low, k);
    }
    EACH_ROW(i, most) held[i] = filled(INFINITY);
    wait_for_shares();
    EACH_ROWS(i, c->n)
    {
        floats x[AT_ONCE];
        rows_of(c, i, x);
        for (int j = 0; j < AT_ONCE; j++) {
            const ints is_below = IS_BELOW(x[j], b->high);
            next = smaller_of(nan_where(is_below, x[j]), next);
            EACH_MARKED(k, is_below & ~IS_BELOW(x[j], low))
                PART(held[NEXT(n_held[k])], k) = PART(x[j], k);
        }
    }
    next = smallest_of_shares(next);
    sort_common_rows(held, most);
    EACH_COLUMN(k) if (windows[k])
    {
        windows[k]->next = PART(next, k);
        EACH_ROW(i, n_held[k]) windows[k]->values[i] = PART(held[i], k);
    }
    wait_for_shares();
}

/* Fill windows around a rank of each column, where there is a window to be filled. */
DEVICE void find_windows(const Columns *all, const int *rank, int is_middle,
                         Window *const *windows)
{
    Columns here = *all, *c = &here;
    Brackets b;
    int is_wanted[COLUMNS];
    b.low = b.high = c->smallest;
    b.n_low = (ints)filled(0.0f);
    b.n_high = c->n_valid;
    EACH_COLUMN(k)
    {
        PART(b.high, k) = next_float(PART(c->largest, k));
        is_wanted[k] = windows[k] != 0;
    }
    narrow(c, rank, is_wanted, is_middle, &b);
    EACH_COLUMN(k) if (windows[k])
    {
        windows[k]->start = PART(b.n_low, k);
        windows[k]->stop = PART(b.n_high, k);
        windows[k]->is_tied = PART(b.n_high, k) - PART(b.n_low, k) > MOST_HELD;
        windows[k]->values[0] = PART(b.low, k); /* of a tie */
    }
    gather(c, &b, windows);
}

DEVICE int holds(const Window *w, int rank) { return w->start <= rank && rank < w->stop; }

DEVICE float value_in(const Window *w, int rank)
{
    return w->values[w->is_tied ? 0 : rank - w->start];
}

/* Mean of the values of rank `lower`, in the window, and `upper`, the same or the next. */
DEVICE double median_in(const Window *w, int lower, int upper)
{
    const float above = upper < w->stop ? value_in(w, upper) : w->next;
    return ((double)value_in(w, lower) + (double)above) / 2.0;
}

/* Median of each column; NaN where there is no value. */
DEVICE void medians_of(const Columns *c, double *medians)
{
    Window windows[COLUMNS], *which[COLUMNS];
    int rank[COLUMNS];
    EACH_COLUMN(k)
    {
        windows[k].values = c->hand->windows[k][0];
        which[k] = PART(c->n_valid, k) > 0 ? &windows[k] : 0;
        rank[k] = (PART(c->n_valid, k) - 1) / 2;
    }
    find_windows(c, rank, 1, which);
    EACH_COLUMN(k)
        medians[k] = which[k] ? median_in(which[k], rank[k], PART(c->n_valid, k) / 2) : (double)NAN;
}

#endif
