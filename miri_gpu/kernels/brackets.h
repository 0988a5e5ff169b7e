/* Between which values a rank of each column lies: values are counted below trial limits until few
 * are left between two of them.
 *
 * Columns lie next to one another in rows of working memory, those of a GPU by themselves. NaN is no
 * value.
 */
#ifndef MIRI_GPU_BRACKETS_H
#define MIRI_GPU_BRACKETS_H
#include "columns.h"

#ifdef __CUDACC__
#define MOST_HELD 256     /* values that need not be told apart */
#define FEWEST_SAMPLED 12 /* of the values in a bracket, to say something of it */
#else
#define MOST_HELD 64
#define FEWEST_SAMPLED 1
#endif
#define MOST_SAMPLED 256
#define ROWS_PER_SAMPLED 16
#define SHARE_OF_SPARE 8
#define MOST_ROUNDS 200

/* What a search has at hand: a sample, or else the values that it has come down to, and windows. */
typedef struct {
    floats rows[MOST_SAMPLED];
    float windows[COLUMNS][3][MOST_HELD];
    int n_held[COLUMNS];
} Hand;

#ifdef __CUDACC__
static_assert(sizeof(Hand) == 4100, "ramp_kernels.py asks for so many bytes");
#endif

/* Columns of `n` rows; what counts are their sizes, without the sign, where `is_size`. Where these
 * are a part of the values only, n_below others are smaller, and next_above the smallest of those
 * that are larger. spare: on a GPU for n / SHARE_OF_SPARE values, or null. */
typedef struct {
    const float *values;
    float *spare;
    Hand *hand;
    int n, is_size;
    floats smallest, largest, next_above;
    ints n_valid, n_below;
} Columns;

/* The values from low up to high, of which one has the rank that is sought: there are n_low and
 * n_high below these two. */
typedef struct {
    floats low, high;
    ints n_low, n_high;
} Brackets;

/* Some values of each column, in order; those from place `from` up to `to` are in its bracket. */
typedef struct {
    int n;
    floats *values;
    ints from, to;
} Sample;

typedef union {
    float value;
    int32_t bits;
} Bits;

/* CuPy has a GPU take floats that are smaller than the normal ones for 0: there are none then. */
#ifdef __CUDACC__
#define BITS_OF_0 0x007fffff
#else
#define BITS_OF_0 0
#endif

/* Integers in the order of the floats; neighbouring floats differ by 1, and both zeros are 0. */
DEVICE int64_t key_of(float x)
{
    Bits b;
    b.value = x;
    const int64_t size = (b.bits & 0x7fffffff) > BITS_OF_0 ? (b.bits & 0x7fffffff) - BITS_OF_0 : 0;
    return b.bits < 0 ? -size : size;
}

DEVICE float float_of(int64_t key)
{
    const int64_t size = key < 0 ? -key : key;
    Bits b;
    b.bits = size > 0 ? (int32_t)(size + BITS_OF_0) : 0;
    return key < 0 ? -b.value : b.value;
}

DEVICE float next_float(float x) { return float_of(key_of(x) + 1); }

DEVICE floats row_of(const Columns *c, int i)
{
    const floats x = load_row(c->values + (int64_t)i * ROW);
    return c->is_size ? sizes_of(x) : x;
}

/* The next rows of columns from i on; NaN beyond the last. */
DEVICE void rows_of(const Columns *c, int i, floats *x)
{
    load_rows(c->values + (int64_t)i * ROW, x);
    for (int j = 0; j < AT_ONCE; j++) {
        if (c->is_size) x[j] = sizes_of(x[j]);
        if (AT_ONCE > 1 && i + j >= c->n) x[j] = filled(NAN);
    }
}

/* Find the extremes of the columns, and how many values they have. */
DEVICE void measure(Columns *c)
{
    floats smallest = filled(INFINITY), largest = filled(-INFINITY);
    ints n_valid = (ints)filled(0.0f);
    EACH_ROWS(i, c->n)
    {
        floats x[AT_ONCE];
        rows_of(c, i, x);
        for (int j = 0; j < AT_ONCE; j++) {
            smallest = smaller_of(x[j], smallest);
            largest = larger_of(x[j], largest);
            n_valid -= IS_BELOW(x[j], filled(INFINITY));
        }
    }
    c->smallest = smallest_of_shares(smallest);
    c->largest = largest_of_shares(largest);
    c->n_valid = sum_of_shares(n_valid);
}

/* How many values of each column are below two limits. */
DEVICE void count_below(const Columns *c, floats low, floats high, ints *n_low, ints *n_high)
{
    ints a = (ints)filled(0.0f), b = (ints)filled(0.0f);
    EACH_ROWS(i, c->n)
    {
        floats x[AT_ONCE];
        rows_of(c, i, x);
        for (int j = 0; j < AT_ONCE; j++) {
            a -= IS_BELOW(x[j], low);
            b -= IS_BELOW(x[j], high);
        }
    }
    *n_low = sum_of_shares(a) + c->n_below;
    *n_high = sum_of_shares(b) + c->n_below;
}

/* Move both ends of the brackets to the values nearest to them. */
DEVICE void tighten(const Columns *c, Brackets *b)
{
    floats smallest = filled(INFINITY), largest = filled(-INFINITY);
    EACH_ROWS(i, c->n)
    {
        floats x[AT_ONCE];
        rows_of(c, i, x);
        for (int j = 0; j < AT_ONCE; j++) {
            const floats inside = nan_where(IS_BELOW(x[j], b->low) | ~IS_BELOW(x[j], b->high), x[j]);
            smallest = smaller_of(inside, smallest);
            largest = larger_of(inside, largest);
        }
    }
    smallest = smallest_of_shares(smallest);
    largest = largest_of_shares(largest);
    EACH_COLUMN(k) if (PART(b->n_low, k) < PART(b->n_high, k))
    {
        PART(b->low, k) = PART(smallest, k);
        PART(b->high, k) = next_float(PART(largest, k));
    }
}

DEVICE void take_sample(const Columns *c, Sample *s)
{
    s->n = c->n < MOST_SAMPLED * ROWS_PER_SAMPLED ? c->n / ROWS_PER_SAMPLED : MOST_SAMPLED;
    EACH_ROW(i, s->n)
    {
        const floats x = row_of(c, (int)((int64_t)c->n * i / s->n));
        s->values[i] = chosen(IS_BELOW(x, filled(INFINITY)), x, filled(INFINITY));
    }
    sort_common_rows(s->values, s->n);
}

/* Find which values of the sample are in the brackets; none is equal to an end. */
DEVICE void find_in_sample(const Brackets *b, Sample *s)
{
    ints from = (ints)filled(0.0f), to = from;
    EACH_ROW(i, s->n)
    {
        from -= ~IS_BELOW(b->low, s->values[i]);
        to -= IS_BELOW(s->values[i], b->high);
    }
    s->from = sum_of_shares(from);
    s->to = sum_of_shares(to);
}

/* Whether the sample says more of a bracket than its ends do. */
DEVICE int is_sampled(const Sample *s, int k)
{
    return PART(s->to, k) - PART(s->from, k) >= FEWEST_SAMPLED;
}

/* Values of the sample before and after where `share` of those in the bracket are lower. */
DEVICE void sampled_limits(const Sample *s, int k, float share, float *p, float *q)
{
    const int from = PART(s->from, k), to = PART(s->to, k);
    const float n = (float)(to - from), place = (float)from + share * n;
    const float reach = 0.5f * sqrtf(n * share * (1.0f - share));
    int first = (int)(place - reach), last = (int)(place + reach) + 1;
    last = last < to ? last : to - 1;
    first = first < last ? first : last;
    *p = PART(s->values[first > from ? first : from], k);
    *q = PART(s->values[last], k);
}

/* Limits around where `share` of the n values from low up to high would be lower, if they were
 * spread evenly. */
DEVICE void spread_limits(float low, float high, int n, float share, float *p, float *q)
{
    const float reach = (0.7f * sqrtf((float)n) + 6.0f) / (float)n;
    *p = low + (share - reach) * (high - low);
    *q = low + (share + reach) * (high - low);
}

DEVICE float moved_inside(float x, int64_t low, int64_t high)
{
    const float least = float_of(low + 1), most = float_of(high - 1);
    return !(x >= least) ? least : x > most ? most : x;
}

/* Two limits that narrow a bracket: by the sample while it has values inside, then by where values
 * should be, and by halving where that has failed. */
DEVICE void choose_limits(const Brackets *b, const Sample *s, int k, int rank, int n_failed,
                          float *p, float *q)
{
    const int n_low = PART(b->n_low, k), n = PART(b->n_high, k) - n_low;
    const int64_t low = key_of(PART(b->low, k)), high = key_of(PART(b->high, k));
    const float share = ((float)(rank - n_low) + 0.5f) / (float)n;
    if (is_sampled(s, k))
        sampled_limits(s, k, share, p, q);
    else if (n_failed < 2)
        spread_limits(PART(b->low, k), PART(b->high, k), n, share, p, q);
    else
        *p = *q = float_of((low + high) >> 1);
    *p = moved_inside(*p, low, high);
    *q = moved_inside(*q, low, high);
}

/* Move an end of a bracket to a limit below which there are n values. */
DEVICE void move_end(Brackets *b, int k, int rank, float limit, int n)
{
    if (n <= rank && limit > PART(b->low, k)) {
        PART(b->low, k) = limit;
        PART(b->n_low, k) = n;
    }
    if (n > rank && limit < PART(b->high, k)) {
        PART(b->high, k) = limit;
        PART(b->n_high, k) = n;
    }
}

/* Whether a bracket has many values that may differ. */
DEVICE int is_open(const Brackets *b, int k)
{
    return PART(b->n_high, k) - PART(b->n_low, k) > MOST_HELD &&
           key_of(PART(b->high, k)) - key_of(PART(b->low, k)) > 1;
}

/* From now on look at the values in a bracket only, where these are few of many: a GPU puts them
 * next to one another. */
DEVICE void look_inside(Columns *c, const Brackets *b)
{
#ifdef __CUDACC__
    const int n = b->n_high - b->n_low;
    if (c->spare == 0 || n > c->n / SHARE_OF_SPARE) return;
    int *n_inside = c->hand->n_held;
    floats next = c->next_above;
    n_inside[0] = 0;
    wait_for_shares();
    EACH_ROWS(i, c->n)
    {
        floats x[AT_ONCE];
        rows_of(c, i, x);
        for (int j = 0; j < AT_ONCE; j++) {
            if (x[j] >= b->high && x[j] < next) next = x[j];
            if (x[j] >= b->low && x[j] < b->high) c->spare[NEXT(n_inside[0])] = x[j];
        }
    }
    wait_for_shares();
    c->next_above = smallest_of_shares(next);
    c->n_below = b->n_low;
    c->values = c->spare;
    c->spare = 0;
    c->n = n;
    c->is_size = 0;
#else
    (void)c, (void)b;
#endif
}

/* Narrow the brackets around the ranks of the columns where they are wanted. */
DEVICE void narrow(Columns *c, const int *rank, const int *is_wanted, int is_middle,
                   Brackets *b)
{
    Sample sample;
    int n_failed[COLUMNS], is_tight = 1;
    sample.n = 0;
    sample.values = c->hand->rows;
    if (is_middle) take_sample(c, &sample);
    EACH_COLUMN(k) n_failed[k] = 0;
    for (int round = 0; round < MOST_ROUNDS; round++) {
        floats p = b->low, q = b->low;
        ints n_p, n_q;
        int n_open = 0, n_loose = 0;
        find_in_sample(b, &sample);
        EACH_COLUMN(k) if (is_wanted[k] && is_open(b, k))
        {
            float x = 0.0f, y = 0.0f;
            choose_limits(b, &sample, k, rank[k], n_failed[k], &x, &y);
            PART(p, k) = x;
            PART(q, k) = y;
            n_open++;
            n_loose += n_failed[k] == 1;
        }
        if (n_open == 0) break;
        look_inside(c, b);
        if (n_loose && !is_tight) { /* most of the values may be in a small part of a bracket */
            tighten(c, b);
            is_tight = 1;
            continue;
        }
        is_tight = 0;
        count_below(c, p, q, &n_p, &n_q);
        EACH_COLUMN(k) if (is_wanted[k])
        {
            const int n = PART(b->n_high, k) - PART(b->n_low, k);
            const int was_sampled = is_sampled(&sample, k);
            move_end(b, k, rank[k], PART(p, k), PART(n_p, k));
            move_end(b, k, rank[k], PART(q, k), PART(n_q, k));
            const int is_halved = PART(b->n_high, k) - PART(b->n_low, k) <= n / 2;
            n_failed[k] = is_halved || was_sampled ? 0 : n_failed[k] + 1;
        }
    }
}

#endif
