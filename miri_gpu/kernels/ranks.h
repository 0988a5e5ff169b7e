/* Order statistics without sorting: values are counted below trial limits until few are left.
 *
 * COLUMNS columns lie next to one another and are worked on together: a vector of them on a CPU,
 * one in each thread of a GPU. Rows lie `stride` values apart. NaN is no value.
 */
#ifndef MIRI_GPU_RANKS_H
#define MIRI_GPU_RANKS_H
#include "kernel.h"

#define MOST_HELD 32 /* values that a window holds */
#define MANY_ROWS 128 /* from here on a sample says where the middle is */
#define MOST_ROUNDS 200

#ifdef __CUDACC__
#define COLUMNS 1
typedef float floats;
typedef int32_t ints;
#define PART(v, k) (v)
#define IS_BELOW(a, b) (-(int32_t)((a) < (b)))
DEVICE floats filled(float x) { return x; }
DEVICE floats load_row(const float *from) { return *from; }
DEVICE floats sizes_of(floats x) { return fabsf(x); }
DEVICE floats chosen(ints which, floats a, floats b) { return which ? a : b; }
DEVICE int any_of(ints which) { return which; }
#else
#if defined(__AVX512F__)
#define COLUMNS 16
#elif defined(__AVX2__)
#define COLUMNS 8
#else
#define COLUMNS 4
#endif
typedef float floats __attribute__((vector_size(4 * COLUMNS), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * COLUMNS), aligned(4)));
typedef int64_t wide_ints __attribute__((vector_size(4 * COLUMNS), aligned(4)));
#define PART(v, k) ((v)[k])
#define IS_BELOW(a, b) ((ints)((a) < (b)))
DEVICE floats filled(float x)
{
    const floats zeros = {0.0f};
    return zeros + x;
}
DEVICE floats load_row(const float *from) { return *(const floats *)from; }
DEVICE floats sizes_of(floats x) { return (floats)((ints)x & 0x7fffffff); }
DEVICE floats chosen(ints which, floats a, floats b)
{
    return (floats)(((ints)a & which) | ((ints)b & ~which));
}
DEVICE int any_of(ints which)
{
    const wide_ints w = (wide_ints)which;
    int64_t any = 0;
    for (int k = 0; k < COLUMNS / 2; k++) any |= w[k];
    return any != 0;
}
#endif
#define EACH_COLUMN(k) for (int k = 0; k < COLUMNS; k++)

/* Columns of `n` rows; what counts are their sizes, without the sign, where `is_size`. */
typedef struct {
    const float *values;
    int64_t n, stride;
    int is_size;
    floats smallest, largest;
    ints n_valid;
} Columns;

/* The values of ranks start .. stop - 1 of a column: all equal to values[0], or in order. */
typedef struct {
    int start, stop, is_tied;
    float next; /* the value of rank `stop` */
    float values[MOST_HELD];
} Window;

typedef union {
    float value;
    int32_t bits;
} Bits;

/* Integers in the order of the floats; neighbouring floats differ by 1, and both zeros are 0. */
DEVICE int64_t key_of(float x)
{
    Bits b;
    b.value = x;
    return b.bits < 0 ? -(int64_t)(b.bits & 0x7fffffff) : b.bits;
}

DEVICE float float_of(int64_t key)
{
    Bits b;
    b.bits = (int32_t)(key < 0 ? -key : key);
    return key < 0 ? -b.value : b.value;
}

DEVICE floats row_of(const Columns *c, int64_t i)
{
    const floats x = load_row(c->values + i * c->stride);
    return c->is_size ? sizes_of(x) : x;
}

/* Find the extremes of the columns, and how many values they have. */
DEVICE void measure(Columns *c)
{
    floats smallest = filled(INFINITY), largest = filled(-INFINITY);
    ints n_valid = (ints)filled(0.0f);
    for (int64_t i = 0; i < c->n; i++) {
        const floats x = row_of(c, i);
        smallest = chosen(IS_BELOW(x, smallest), x, smallest);
        largest = chosen(IS_BELOW(largest, x), x, largest);
        n_valid -= IS_BELOW(x, filled(INFINITY));
    }
    c->smallest = smallest;
    c->largest = largest;
    c->n_valid = n_valid;
}

/* How many values of each column are below two limits. */
DEVICE void count_below(const Columns *c, floats low, floats high, ints *n_low, ints *n_high)
{
    ints a = (ints)filled(0.0f), b = (ints)filled(0.0f);
    for (int64_t i = 0; i < c->n; i++) {
        const floats x = row_of(c, i);
        a -= IS_BELOW(x, low);
        b -= IS_BELOW(x, high);
    }
    *n_low = a;
    *n_high = b;
}

/* Sort the columns of a few rows (Batcher's odd-even merge sort). */
DEVICE void sort_rows(floats *rows, int n)
{
    for (int p = 1; p < n; p *= 2)
        for (int k = p; k >= 1; k /= 2)
            for (int j = k % p; j + k < n; j += 2 * k)
                for (int i = j; i < j + k && i + k < n; i++)
                    if (i / (2 * p) == (i + k) / (2 * p)) {
                        const floats a = rows[i], b = rows[i + k];
                        const ints in_order = IS_BELOW(a, b);
                        rows[i] = chosen(in_order, a, b);
                        rows[i + k] = chosen(in_order, b, a);
                    }
}

/* Two limits that probably enclose the middle of each column, from a sample of it. */
DEVICE void guess_middle(const Columns *c, floats *low, floats *high)
{
    floats sample[MOST_HELD];
    ints n_valid = (ints)filled(0.0f);
    for (int i = 0; i < MOST_HELD; i++) {
        const floats x = row_of(c, c->n * i / MOST_HELD);
        const ints is_valid = IS_BELOW(x, filled(INFINITY));
        sample[i] = chosen(is_valid, x, filled(INFINITY));
        n_valid -= is_valid;
    }
    sort_rows(sample, MOST_HELD);
    EACH_COLUMN(k)
    {
        const int m = PART(n_valid, k), reach = m / 8 + 1;
        PART(*low, k) = m > 7 ? PART(sample[(m - 1) / 2 - reach], k) : -INFINITY;
        PART(*high, k) = m > 7 ? PART(sample[m / 2 + reach], k) : INFINITY;
    }
}

/* Fill windows with the values from low up to high of each column; of a tie nothing is gathered. */
DEVICE void gather(const Columns *c, floats low, floats high, Window *const *windows)
{
    floats held[MOST_HELD], next = filled(INFINITY);
    int n_held[COLUMNS];
    EACH_COLUMN(k)
    {
        n_held[k] = 0;
        if (windows[k] == 0 || windows[k]->is_tied) PART(low, k) = PART(high, k);
    }
    for (int i = 0; i < MOST_HELD; i++) held[i] = filled(INFINITY);
    for (int64_t i = 0; i < c->n; i++) {
        const floats x = row_of(c, i);
        const ints is_below = IS_BELOW(x, high), is_inside = is_below & ~IS_BELOW(x, low);
        const floats beyond = chosen(is_below, filled(INFINITY), x);
        next = chosen(IS_BELOW(beyond, next), beyond, next);
        if (any_of(is_inside))
            EACH_COLUMN(k) if (PART(is_inside, k)) PART(held[n_held[k]++], k) = PART(x, k);
    }
    sort_rows(held, MOST_HELD);
    EACH_COLUMN(k) if (windows[k])
    {
        windows[k]->next = PART(next, k);
        if (!windows[k]->is_tied)
            for (int i = 0; i < n_held[k]; i++) windows[k]->values[i] = PART(held[i], k);
    }
}

/* Trial limits around where a rank would be if the values between low and high were spread evenly;
 * the middle between them where that did not halve their number. */
DEVICE void trial_limits(float low, float high, int n_low, int n_high, int rank, int is_even,
                         float *p, float *q)
{
    const float share = (high - low) / (float)(n_high - n_low);
    const float place = ((float)(rank - n_low) + 0.5f) * share;
    const float reach = (0.7f * sqrtf((float)(n_high - n_low)) + 0.2f * MOST_HELD) * share;
    *p = low + (place - reach);
    *q = low + (place + reach);
    if (!is_even) *p = *q = float_of((key_of(low) + key_of(high)) >> 1);
}

/* Fill windows around a rank of each column, where there is a window to be filled. */
DEVICE void find_windows(const Columns *c, const int *rank, int is_middle, Window *const *windows)
{
    floats low = c->smallest, high = c->largest, p = low, q = low;
    ints n_low = (ints)filled(0.0f), n_high = c->n_valid, n_p = n_low, n_q = n_low;
    int last[COLUMNS];
    const int is_sampled = is_middle && c->n > MANY_ROWS;
    EACH_COLUMN(k)
    {
        PART(high, k) = float_of(key_of(PART(high, k)) + 1);
        last[k] = 0x7fffffff;
    }
    for (int round = 0; round < MOST_ROUNDS; round++) {
        int n_open = 0;
        if (round == 0 && is_sampled) guess_middle(c, &p, &q);
        EACH_COLUMN(k)
        {
            const int n = PART(n_high, k) - PART(n_low, k);
            const int64_t from = key_of(PART(low, k)), to = key_of(PART(high, k));
            if (windows[k] == 0 || n <= MOST_HELD || to - from <= 1) {
                PART(p, k) = PART(q, k) = PART(low, k);
                continue;
            }
            float a = PART(p, k), b = PART(q, k);
            n_open++;
            if (round > 0 || !is_sampled)
                trial_limits(PART(low, k), PART(high, k), PART(n_low, k), PART(n_high, k), rank[k],
                             n <= last[k] / 2, &a, &b);
            last[k] = n;
            const float least = float_of(from + 1), most = float_of(to - 1);
            PART(p, k) = !(a >= least) ? least : a > most ? most : a;
            PART(q, k) = !(b >= least) ? least : b > most ? most : b;
        }
        if (n_open == 0) break;
        count_below(c, p, q, &n_p, &n_q);
        EACH_COLUMN(k) for (int second = 0; second < 2; second++)
        {
            const float limit = second ? PART(q, k) : PART(p, k);
            const int n = second ? PART(n_q, k) : PART(n_p, k);
            if (n <= rank[k] && limit > PART(low, k)) {
                PART(low, k) = limit;
                PART(n_low, k) = n;
            }
            if (n > rank[k] && limit < PART(high, k)) {
                PART(high, k) = limit;
                PART(n_high, k) = n;
            }
        }
    }
    EACH_COLUMN(k) if (windows[k])
    {
        windows[k]->start = PART(n_low, k);
        windows[k]->stop = PART(n_high, k);
        windows[k]->is_tied = PART(n_high, k) - PART(n_low, k) > MOST_HELD;
        windows[k]->values[0] = PART(low, k);
    }
    gather(c, low, high, windows);
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
        which[k] = PART(c->n_valid, k) > 0 ? &windows[k] : 0;
        rank[k] = (PART(c->n_valid, k) - 1) / 2;
    }
    find_windows(c, rank, 1, which);
    EACH_COLUMN(k)
        medians[k] = which[k] ? median_in(which[k], rank[k], PART(c->n_valid, k) / 2) : (double)NAN;
}

#endif
