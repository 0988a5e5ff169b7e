/* Polynomials through windows of columns, without their outliers: `rates/outlier_fits.py`.
 *
 * The polynomials of a window are orthonormal on all of its rows. On the good rows of a column
 * they are not quite, since the products on its bad rows are missing: each column has a small
 * symmetric system of equations, near to the unit matrix.
 */
#define PIXELS 8 /* columns */
#include "pixels.h"

#define OUTLIER 16
#define MOST_TERMS 8 /* of a polynomial */
#define N_PRODUCTS (MOST_TERMS * (MOST_TERMS + 1) / 2)

/* Neighbouring columns of one window: pixels are `stride` apart from row to row. */
typedef struct {
    int n_rows, n_here;
    int64_t stride;
    const double *basis; /* (n_rows, n_terms) */
    const float *data;
    uint32_t *bad; /* OUTLIER where a pixel is bad, else 0 */
    float *cleaned;
    double *model; /* of some of the columns */
    int first_modelled, end_modelled;
    int64_t model_stride;
} window;

/* What the good pixels of each column say. */
typedef struct {
    double n_good[PIXELS];
    double missing[N_PRODUCTS][PIXELS]; /* sums over bad rows, lower triangle row by row */
    double terms[MOST_TERMS][PIXELS];
    double largest[PIXELS]; /* square of a residual that is an outlier's, or -1 */
} columns;

/* What defines an outlier, in squares; and which pivots are rounding. */
typedef struct {
    double threshold, rounding, least_pivot;
} limits;

DEVICE void leave_out(const double *q, int n_terms, int l, columns *c)
{
    c->n_good[l] -= 1.0;
    for (int a = 0, i = 0; a < n_terms; a++)
        for (int b = 0; b <= a; b++, i++)
            c->missing[i][l] += q[a] * q[b];
}

DEVICE void find_bad(const window *w, const uint32_t *dq, uint32_t masked, int n_terms, columns *c)
{
    for (int l = 0; l < w->n_here; l++) c->n_good[l] = w->n_rows;
    for (int i = 0; i < n_terms * (n_terms + 1) / 2; i++)
        for (int l = 0; l < w->n_here; l++) c->missing[i][l] = 0.0;
    for (int row = 0; row < w->n_rows; row++) {
        uint32_t any = 0, *bad = w->bad + row * w->stride;
        const float *data = w->data + row * w->stride;
        for (int l = 0; l < w->n_here; l++) {
            const uint32_t is_masked = dq[row * w->stride + l] & masked;
            bad[l] = is_masked | !isfinite(data[l]) ? OUTLIER : 0;
            any |= bad[l];
        }
        if (any)
            for (int l = 0; l < w->n_here; l++)
                if (bad[l])
                    leave_out(w->basis + row * n_terms, n_terms, l, c);
    }
}

/* Least squares: L D L^T, without the terms that the good rows do not determine. */
DEVICE void solve(int n_here, int n_terms, double least_pivot, columns *c)
{
    double lower[N_PRODUCTS][PIXELS], inverse[MOST_TERMS][PIXELS];
    for (int a = 0, row_a = 0; a < n_terms; row_a += ++a) {
        for (int b = 0, row_b = 0; b <= a; row_b += ++b)
            for (int l = 0; l < n_here; l++) {
                double product = (a == b) - c->missing[row_a + b][l];
                for (int k = 0; k < b; k++)
                    product -= lower[row_a + k][l] * lower[row_b + k][l] * inverse[k][l];
                lower[row_a + b][l] = product;
            }
        for (int l = 0; l < n_here; l++) {
            const double pivot = lower[row_a + a][l];
            inverse[a][l] = pivot > least_pivot && c->n_good[l] >= 2.0 ? 1.0 / pivot : 0.0;
            double term = c->terms[a][l];
            for (int k = 0; k < a; k++) term -= lower[row_a + k][l] * c->terms[k][l];
            c->terms[a][l] = term * inverse[a][l];
        }
    }
    for (int a = n_terms - 1; a >= 0; a--)
        for (int k = a + 1; k < n_terms; k++)
            for (int l = 0; l < n_here; l++)
                c->terms[a][l] -= lower[k * (k + 1) / 2 + a][l] * inverse[a][l] * c->terms[k][l];
}

DEVICE void fit(const window *w, int n_terms, double least_pivot, columns *c)
{
    for (int a = 0; a < n_terms; a++)
        for (int l = 0; l < w->n_here; l++) c->terms[a][l] = 0.0;
    for (int row = 0; row < w->n_rows; row++) {
        const float *data = w->data + row * w->stride;
        const uint32_t *bad = w->bad + row * w->stride;
        const double *q = w->basis + row * n_terms;
        for (int l = 0; l < w->n_here; l++) {
            const double value = bad[l] ? 0.0 : (double)data[l];
            for (int a = 0; a < n_terms; a++) c->terms[a][l] += value * q[a];
        }
    }
    solve(w->n_here, n_terms, least_pivot, c);
}

/* Put the polynomials in the place of what is bad, and find the worst of what is good. */
DEVICE void compare(const window *w, int n_terms, const limits *most, columns *c)
{
    double variance[PIXELS], power[PIXELS];
    for (int l = 0; l < w->n_here; l++) variance[l] = power[l] = c->largest[l] = 0.0;
    for (int row = 0; row < w->n_rows; row++) {
        const float *data = w->data + row * w->stride;
        const uint32_t *bad = w->bad + row * w->stride;
        const double *q = w->basis + row * n_terms;
        float *cleaned = w->cleaned + row * w->stride;
        double fitted[PIXELS];
        for (int l = 0; l < w->n_here; l++) {
            double sum = c->terms[0][l] * q[0];
            for (int a = 1; a < n_terms; a++) sum += c->terms[a][l] * q[a];
            fitted[l] = sum;
            cleaned[l] = bad[l] ? (float)sum : data[l];
            const double value = bad[l] ? 0.0 : (double)data[l];
            const double residual = bad[l] ? 0.0 : value - sum;
            const double square = residual * residual;
            variance[l] += square;
            power[l] += value * value;
            c->largest[l] = square > c->largest[l] ? square : c->largest[l];
        }
        double *model = w->model + row * w->model_stride;
        for (int l = w->first_modelled; l < w->end_modelled; l++) model[l] = fitted[l];
    }
    for (int l = 0; l < w->n_here; l++) {
        const double n = c->n_good[l] > 1.0 ? c->n_good[l] : 1.0, mean_square = variance[l] / n;
        if (!(mean_square > most->rounding * (power[l] / n)
              && c->largest[l] > most->threshold * mean_square))
            c->largest[l] = -1.0;
    }
}

/* The one column whose number is `l`, on its own. */
DEVICE window column_of(const window *w, int l)
{
    window own = *w;
    own.n_here = 1;
    own.data += l;
    own.bad += l;
    own.cleaned += l;
    own.model += l;
    own.first_modelled = 0;
    own.end_modelled = l >= w->first_modelled && l < w->end_modelled;
    return own;
}

/* The first good pixel of a column whose residual has the largest square. */
DEVICE int find_worst(const window *w, int n_terms, const columns *c)
{
    for (int row = 0; row < w->n_rows; row++) {
        const double *q = w->basis + row * n_terms;
        double sum = c->terms[0][0] * q[0];
        for (int a = 1; a < n_terms; a++) sum += c->terms[a][0] * q[a];
        const double residual = (double)w->data[row * w->stride] - sum;
        if (!w->bad[row * w->stride] && residual * residual == c->largest[0])
            return row;
    }
    return 0; /* never */
}

DEVICE void clean_columns(const window *w, const uint32_t *dq, uint32_t masked, int n_terms,
                          const limits *most)
{
    columns all;
    find_bad(w, dq, masked, n_terms, &all);
    fit(w, n_terms, most->least_pivot, &all);
    compare(w, n_terms, most, &all);
    for (int l = 0; l < w->n_here; l++) {
        if (all.largest[l] < 0.0)
            continue;
        const window own = column_of(w, l);
        columns one;
        one.n_good[0] = all.n_good[l];
        one.largest[0] = all.largest[l];
        for (int i = 0; i < n_terms * (n_terms + 1) / 2; i++)
            one.missing[i][0] = all.missing[i][l];
        for (int a = 0; a < n_terms; a++)
            one.terms[a][0] = all.terms[a][l];
        while (one.largest[0] >= 0.0) {
            const int worst = find_worst(&own, n_terms, &one);
            own.bad[worst * own.stride] = OUTLIER;
            leave_out(own.basis + worst * n_terms, n_terms, 0, &one);
            fit(&own, n_terms, most->least_pivot, &one);
            compare(&own, n_terms, most, &one);
        }
    }
    for (int row = 0; row < w->n_rows; row++)
        for (int l = 0; l < w->n_here; l++)
            w->bad[row * w->stride + l] |= dq[row * w->stride + l];
}

/* Items are (frame, window, column). `edges` (n_windows + 1) cut the rows into windows; `basis`
 * (n_rows, n_terms) holds the polynomials of each. Frames are (n_rows, n_cols); `model` has those
 * of the columns that begin at `first_modelled`, (n_frames, n_rows, n_modelled). */
KERNEL void clean_windows(int64_t n_items, int64_t n_windows, int64_t n_rows, int64_t n_cols,
                          const int32_t *restrict edges, const double *restrict basis,
                          int64_t n_terms, double threshold_square, double rounding_square,
                          double least_pivot, const float *restrict data,
                          const uint32_t *restrict dq, int64_t masked, int64_t first_modelled,
                          int64_t n_modelled, float *restrict cleaned, uint32_t *restrict flagged,
                          double *restrict model)
{
    const int64_t n_pieces = N_PIECES(n_cols);
    const limits most = {threshold_square, rounding_square, least_pivot};
    EACH(item, n_items / n_cols * n_pieces)
    {
        const int64_t start = item % n_pieces * PIXELS, strip = item / n_pieces;
        const int64_t row = edges[strip % n_windows], frame = strip / n_windows;
        const int64_t corner = (frame * n_rows + row) * n_cols + start;
        const int64_t modelled = first_modelled - start;
        window w;
        w.n_rows = (int)(edges[strip % n_windows + 1] - row);
        w.n_here = pixels_of(start, n_cols);
        w.stride = n_cols;
        w.basis = basis + row * n_terms;
        w.data = data + corner;
        w.bad = flagged + corner;
        w.cleaned = cleaned + corner;
        w.model = model + (frame * n_rows + row) * n_modelled - modelled;
        w.model_stride = n_modelled;
        w.first_modelled = modelled > 0 ? (int)modelled : 0;
        w.end_modelled = modelled + n_modelled < w.n_here ? (int)(modelled + n_modelled) : w.n_here;
        if (n_terms == 5 && w.n_here == PIXELS) { /* constants, by which loops are unrolled */
            w.n_here = PIXELS;
            clean_columns(&w, dq + corner, (uint32_t)masked, 5, &most);
        } else
            clean_columns(&w, dq + corner, (uint32_t)masked, (int)n_terms, &most);
    }
}
