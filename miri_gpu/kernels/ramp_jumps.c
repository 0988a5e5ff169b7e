/* Jumps of ramps: differences of successive groups that are unlike the others of their pixel.
 *
 * `jump_search.py` and `jump_flags.py` say what is computed, in array code, and from which source.
 *
 * A piece of neighbouring pixels is worked on at a time, so that whole cache lines are read. Its
 * differences become columns of working memory, a vector of pixels each; the last vector of an image
 * may overlap the one before. On a GPU a vector is a pixel.
 */
#define PIXELS_OF_GPU 8 /* of which floats are one sector of memory */
#if defined(__CUDA_ARCH__) && (__CUDA_ARCH__ == 900 || __CUDA_ARCH__ == 1000)
#define BLOCKS_AT_ONCE 6 /* for which their shared memory is large enough */
#else
#define BLOCKS_AT_ONCE 3
#endif
#include "pixels.h"
#include "removal.h"

#define VECTORS (PIXELS / COLUMNS)
#define FOURS(n) (((n) + 3) / 4 * 4)
#ifdef __CUDACC__ /* working memory: all of it at once on a GPU, used again on a CPU */
#define COLUMNS_FROM(memory, vector, start, n) \
    ((memory) + (start) * (FOURS(n) + FOURS((n) / SHARE_OF_SPARE)))
#define SPARE(differences, n) ((differences) + FOURS(n))
#else
#define COLUMNS_FROM(memory, vector, start, n) ((memory) + (vector) * COLUMNS * (n))
#define SPARE(differences, n) 0
#endif

/* Ramps: images of pixels next to one another, whose integrations and groups are so many values
 * apart; `later` says to which group each difference leads. */
typedef struct {
    const float *data;
    int64_t data_int, data_group;
    const uint8_t *groupdq;
    int64_t dq_int, dq_group;
    int n_groups, n_diffs;
    const int32_t *later;
} Samples;

/* Neighbouring pixels, as vectors: where each starts, and where its differences are. */
typedef struct {
    int64_t start, starts[VECTORS];
    float *differences[VECTORS];
    int n_pixels, n_vectors;
} Piece;

/* What is a usual difference of a pixel: from low up to high. The neighbours of jumps below
 * inner_low or above inner_high are flagged, where they are between outer_low and outer_high. */
typedef struct {
    floats low, high, inner_low, inner_high, outer_low, outer_high;
} Bounds;

DEVICE Piece piece_of(int64_t number, int64_t n_pixels, float *memory, int64_t n_values)
{
    Piece p;
    p.start = number * PIXELS;
    p.n_pixels = pixels_of(p.start, n_pixels);
    p.n_vectors = (p.n_pixels + COLUMNS - 1) / COLUMNS;
    for (int v = 0; v < p.n_vectors; v++) {
        const int64_t start = p.start + v * COLUMNS, last = n_pixels - COLUMNS;
        p.starts[v] = start < last ? start : last;
        p.differences[v] = COLUMNS_FROM(memory, v, p.starts[v], n_values);
    }
    return p;
}

/* A group in electrons, NaN where it is not usable. */
DEVICE floats electrons(const Samples *s, int64_t i, int g, int64_t start, floats gain)
{
    const floats x = load_row(s->data + i * s->data_int + g * s->data_group + start) * gain;
    const ints flags = load_flags(s->groupdq + i * s->dq_int + g * s->dq_group + start);
    return nan_where(has_any(flags, DO_NOT_USE | SATURATED), x);
}

/* A flag as it is, but for a jump of an unusable sample. */
DEVICE uint8_t without_jump_of_unusable(uint8_t dq)
{
    return dq & (DO_NOT_USE | SATURATED) ? dq & ~JUMP_DET : dq;
}

#ifdef __CUDACC__

/* Take the differences of a piece and copy its flags: the threads of a team share out the pixels,
 * which are next to one another, and take a few successive differences each. */
DEVICE void take_piece(const Piece *p, const Samples *s, const float *gain, int n_ints,
                       int64_t n_pixels, uint8_t *flagged)
{
    const int pixel = (int)threadIdx.x % PIXELS, first = (int)threadIdx.x / PIXELS;
    const int step = (int)blockDim.x / PIXELS, n_values = n_ints * s->n_diffs;
    if (pixel >= p->n_pixels) return;
    const int64_t start = p->start + pixel;
    const float pixel_gain = gain[start];
#pragma unroll 2
    for (int row = AT_ONCE * first; row < n_values; row += AT_ONCE * step) {
        int i = row / s->n_diffs, d = row % s->n_diffs, g = -1;
        float now = 0.0f, differences[AT_ONCE];
#pragma unroll
        for (int j = 0; j < AT_ONCE; j++) {
            const int follows = s->later[d] - 1 == g;
            g = s->later[d];
            const float before = follows ? now : electrons(s, i, g - 1, start, pixel_gain);
            now = electrons(s, i, g, start, pixel_gain);
            differences[j] = now - before;
            if (++d < s->n_diffs) continue;
            d = 0;
            g = -1;
            if (i + 1 < n_ints) i++; /* else what comes is beyond the last */
        }
        store_rows(differences, p->differences[pixel] + row);
    }
#pragma unroll 4
    for (int plane = first; plane < n_ints * s->n_groups; plane += step) {
        const int i = plane / s->n_groups, g = plane % s->n_groups;
        flagged[plane * n_pixels + start] =
            without_jump_of_unusable(s->groupdq[i * s->dq_int + g * s->dq_group + start]);
    }
}

#else

/* Differences of successive groups of an integration, NaN where one of the two is not usable; the
 * next integration is fetched meanwhile. */
DEVICE void take_differences(const Piece *p, const Samples *s, const float *gain, int64_t i)
{
    floats now[VECTORS];
    for (int d = 0; d < s->n_diffs; d++) {
        const int g = s->later[d], follows = d > 0 && s->later[d - 1] == g - 1;
        const int64_t row = (i * s->n_diffs + d) * ROW;
        for (int v = 0; v < p->n_vectors; v++) {
            const int64_t start = p->starts[v];
            const floats pixel_gain = load_row(gain + start);
            const floats before = follows ? now[v] : electrons(s, i, g - 1, start, pixel_gain);
            now[v] = electrons(s, i, g, start, pixel_gain);
            store_row(now[v] - before, p->differences[v] + row);
            PREFETCH(s->data + (i + 1) * s->data_int + g * s->data_group + start);
        }
        PREFETCH(s->groupdq + (i + 1) * s->dq_int + g * s->dq_group + p->start);
    }
}

DEVICE void copy_flags(const uint8_t *dq, int n, uint8_t *flagged)
{
    for (int k = 0; k < n; k++) flagged[k] = without_jump_of_unusable(dq[k]);
}

/* Take the differences of a piece and copy its flags, integration by integration. */
DEVICE void take_piece(const Piece *p, const Samples *s, const float *gain, int n_ints,
                       int64_t n_pixels, uint8_t *flagged)
{
    for (int64_t i = 0; i < n_ints; i++) {
        for (int g = 0; g < s->n_groups; g++) {
            const uint8_t *dq = s->groupdq + i * s->dq_int + g * s->dq_group + p->start;
            uint8_t *out = flagged + (i * s->n_groups + g) * n_pixels + p->start;
            if (p->n_pixels == PIXELS)
                copy_flags(dq, PIXELS, out);
            else
                copy_flags(dq, p->n_pixels, out);
        }
        take_differences(p, s, gain, i);
    }
}

#endif

/* The smallest float that is not below x, the largest that is not above. */
DEVICE float near_float(double x)
{
    const double most = 3.4028234663852886e38;
    return (float)(x < -most ? -most : x > most ? most : x);
}

DEVICE float rounded_up(double x)
{
    const float near = near_float(x);
    return near < x ? next_float(near) : near;
}

DEVICE float rounded_down(double x)
{
    const float near = near_float(x);
    return near > x ? float_of(key_of(near) - 1) : near;
}

/* What is usual among the differences of some pixels. */
DEVICE void find_bounds(Columns *c, const double *read_var, const Limits *limits, Bounds *b)
{
    double median[COLUMNS];
    if (limits->is_single_pass || limits->has_neighbours) {
        c->is_size = 0;
        measure(c);
        medians_of(c, median);
        EACH_COLUMN(k)
        {
            const double sigma = noise_of(median[k], read_var[k]);
            PART(b->low, k) = rounded_up(median[k] - limits->limit_4 * sigma);
            PART(b->high, k) = rounded_down(median[k] + limits->limit_4 * sigma);
            PART(b->inner_low, k) = rounded_up(median[k] - limits->least * sigma);
            PART(b->inner_high, k) = rounded_down(median[k] + limits->least * sigma);
            PART(b->outer_low, k) = rounded_down(median[k] - limits->most * sigma);
            PART(b->outer_high, k) = rounded_up(median[k] + limits->most * sigma);
        }
    }
    if (!limits->is_single_pass) {
        c->is_size = 1;
        measure(c);
        range_by_removal(c, read_var, limits, &b->low, &b->high);
    }
}

/* Choose the jumps of a size that flags their neighbours; returns whether there is one. */
DEVICE int choose_sources(ints is_of_size, const uint8_t *flagged, uint8_t *sources)
{
    int any = 0;
    EACH_MARKED(k, is_of_size)
    {
        sources[k] = (flagged[k] & JUMP_DET) != 0;
        any |= sources[k];
    }
    return any;
}

/* Flag a difference where it is a jump, and choose it where it flags its neighbours. */
DEVICE void flag_difference(int row, ints is_jump, ints is_of_size, const Samples *s, int64_t start,
                            int64_t n_pixels, uint8_t *flagged, uint8_t *sources,
                            uint8_t *any_source)
{
    if (!any_of(is_jump | is_of_size)) return;
    const int64_t plane = (int64_t)(row / s->n_diffs) * s->n_groups + s->later[row % s->n_diffs];
    const int64_t here = plane * n_pixels + start;
    EACH_MARKED(k, is_jump) flagged[here + k] |= JUMP_DET;
    if (choose_sources(is_of_size, flagged + here, sources + here)) any_source[plane] = 1;
}

/* Flag the differences of a vector of pixels that are not usual, and choose those that flag their
 * neighbours. Differences of unusable samples are NaN, and neither. */
DEVICE void flag_differences(const Columns *c, const Bounds *b, const Limits *limits,
                             const Samples *s, int64_t start, int64_t n_pixels, uint8_t *flagged,
                             uint8_t *sources, uint8_t *any_source)
{
    EACH_ROWS(i, c->n)
    {
        floats rows[AT_ONCE];
        ints is_jump[AT_ONCE], is_of_size[AT_ONCE], any = (ints)filled(0.0f);
        rows_of(c, i, rows);
        for (int j = 0; j < AT_ONCE; j++) {
            const floats x = rows[j], size = limits->is_single_pass ? x : sizes_of(x);
            is_jump[j] = IS_BELOW(size, b->low) | IS_BELOW(b->high, size);
            is_of_size[j] = (ints)filled(0.0f);
            if (limits->has_neighbours)
                is_of_size[j] = (IS_BELOW(x, b->inner_low) | IS_BELOW(b->inner_high, x)) &
                                IS_BELOW(b->outer_low, x) & IS_BELOW(x, b->outer_high);
            any |= is_jump[j] | is_of_size[j];
        }
        if (any_of(any))
            for (int j = 0; j < AT_ONCE; j++)
                flag_difference(i + j, is_jump[j], is_of_size[j], s, start, n_pixels, flagged,
                                sources, any_source);
    }
}

/* Flag the jumps of all pixels.
 *
 * data, groupdq: images (n_ints, n_groups), of n_pixels next to one another, whose integrations
 * and groups are `.._int` and `.._group` values apart. later: the group that each difference leads
 * to. The others as Limits has them. memory: for 9/8 of the n_ints * n_diffs differences of as many
 * pixels as are worked on at once. flagged: new flags, without gaps. sources: (n_ints, n_groups,
 * n_pixels), whether the neighbours are to be flagged, and any_source (n_ints, n_groups), whether a
 * pixel's are; both zero, and not touched unless has_neighbours.
 */
KERNEL void find_jumps(
    int64_t n_items, const float *restrict data, int64_t data_int, int64_t data_group,
    const uint8_t *restrict groupdq, int64_t dq_int, int64_t dq_group,
    const float *restrict gain, const double *restrict read_var, const int32_t *restrict later,
    int64_t n_ints, int64_t n_groups, int64_t n_diffs, int64_t is_single_pass,
    double limit_2, double limit_3, double limit_4, int64_t has_neighbours, double least,
    double most, float *restrict memory, uint8_t *restrict flagged, uint8_t *restrict sources,
    uint8_t *restrict any_source)
{
    const int64_t n_pixels = n_items, n_values = n_ints * n_diffs;
    const Samples s = {data,     data_int,      data_group,   groupdq, dq_int,
                       dq_group, (int)n_groups, (int)n_diffs, later};
    const Limits limits = {(int)is_single_pass, (int)has_neighbours, limit_2, limit_3, limit_4,
                           least, most};
    COMMON(Hand, hand);
    EACH_PIECE(number, N_PIECES(n_pixels))
    {
        const Piece p = piece_of(number, n_pixels, memory, n_values);
        take_piece(&p, &s, gain, (int)n_ints, n_pixels, flagged);
        wait_for_team();
        EACH_VECTOR(v, p.n_vectors)
        {
            Columns c;
            Bounds bounds;
            c.values = p.differences[v];
            c.spare = SPARE(p.differences[v], n_values);
            c.hand = hand;
            c.n = (int)n_values;
            c.n_below = (ints)filled(0.0f);
            c.next_above = filled(INFINITY);
            find_bounds(&c, read_var + p.starts[v], &limits, &bounds);
            c.is_size = 0;
            flag_differences(&c, &bounds, &limits, &s, p.starts[v], n_pixels, flagged, sources,
                             any_source);
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
