/* Polynomials through windows of columns, without their outliers: `rates/outlier_fits.py`. */
#include "lanes.h"

#define MOST_POINTS 512 /* of a window */
#define N_ARRAYS 5      /* of a window's points, in `curve` */

/* The points of one window of one column, and the polynomial that is being fitted to them. */
typedef struct {
    int n_points, n_elements; /* an element is eight points; the last may be filled up */
    int n_good;
    const double *points;
    lanes *known;      /* values of the good points, 0 elsewhere */
    lanes *weight;     /* 1 = good and no outlier, else 0 */
    lanes *residual;   /* of the values, from the degrees so far */
    lanes *polynomial; /* of this degree, orthogonal to all before */
    lanes *previous;   /* of the degree before */
} curve;

/* What a degree adds to the fit, and what leads to the polynomial of the next. */
typedef struct {
    double share, centre, ratio, norm;
} degree_terms;

/* Take the last degree out of the residual, go on to the next polynomial, measure it. */
DEVICE void next_degree(curve *c, int degree, degree_terms *terms)
{
    const double share = terms->share, centre = terms->centre, ratio = terms->ratio;
    sum_tree norm = {{0}, 0}, projection = {{0}, 0}, middle = {{0}, 0};
    for (int start = 0; start < c->n_points;) {
        int n_completed, n = block_length(c->n_points, start, &n_completed);
        const int first = start / LANES, last = (start + n + LANES - 1) / LANES;
        const int full = (start + n) / LANES;
        lanes norms = {0}, projections = {0}, middles = {0};
        lanes weighted = {0}, square = {0}, overlap = {0}, moment = {0};
        for (int j = first; j < last; j++) {
            const lanes x = load_lanes(c->points + LANES * j);
            lanes p = c->polynomial[AT(j)], r = c->residual[AT(j)];
            if (degree > 0) {
                const lanes following = (x - centre) * p - ratio * c->previous[AT(j)];
                r = r - share * p;
                c->residual[AT(j)] = r;
                c->previous[AT(j)] = p;
                c->polynomial[AT(j)] = p = following;
            }
            weighted = c->weight[AT(j)] * p;
            square = weighted * p;
            overlap = weighted * r;
            moment = square * x;
            if (j < full) {
                norms = norms + square;
                projections = projections + overlap;
                middles = middles + moment;
            }
        }
        add_block(&norm, norms, n, square, n_completed);
        add_block(&projection, projections, n, overlap, n_completed);
        add_block(&middle, middles, n, moment, n_completed);
        start += n;
    }
    terms->ratio = degree > 0 ? norm.waiting[0] / terms->norm : 0.0;
    terms->norm = norm.waiting[0];
    terms->share = projection.waiting[0] / terms->norm;
    terms->centre = middle.waiting[0] / terms->norm;
}

/* Fit the polynomial; return the largest square of a residual if it is an outlier's, else -1.
 * Afterwards `residual` holds the fit, and `previous` the squares of its residuals. */
DEVICE double fit_curve(curve *c, int order, double threshold_square, double rounding_square)
{
    degree_terms terms = {0.0, 0.0, 0.0, 1.0};
    const lanes zero = {0};
    for (int j = 0; j < c->n_elements; j++) {
        c->residual[AT(j)] = c->known[AT(j)];
        c->polynomial[AT(j)] = zero + 1.0;
        c->previous[AT(j)] = zero;
    }
    for (int degree = 0; degree <= order && degree < c->n_good; degree++)
        next_degree(c, degree, &terms);

    const double is_fitted = c->n_good >= 2 ? 1.0 : 0.0;
    sum_tree variance = {{0}, 0}, power = {{0}, 0};
    lanes largest = {0};
    for (int start = 0; start < c->n_points;) {
        int n_completed, n = block_length(c->n_points, start, &n_completed);
        const int first = start / LANES, last = (start + n + LANES - 1) / LANES;
        const int full = (start + n) / LANES;
        lanes variances = {0}, powers = {0}, square = {0}, value_square = {0};
        for (int j = first; j < last; j++) {
            const lanes known = c->known[AT(j)];
            const lanes rest = c->residual[AT(j)] - terms.share * c->polynomial[AT(j)];
            const lanes fit = (known - rest) * is_fitted;
            const lanes deviation = (known - fit) * c->weight[AT(j)];
            c->residual[AT(j)] = fit;
            square = deviation * deviation;
            c->previous[AT(j)] = square;
            value_square = known * known * c->weight[AT(j)];
            largest = larger_lanes(square, largest);
            if (j < full) {
                variances = variances + square;
                powers = powers + value_square;
            }
        }
        add_block(&variance, variances, n, square, n_completed);
        add_block(&power, powers, n, value_square, n_completed);
        start += n;
    }
    const double n = c->n_good > 1 ? c->n_good : 1;
    const double mean_square = variance.waiting[0] / n;
    const double most = largest_of_lanes(largest);
    return mean_square > rounding_square * (power.waiting[0] / n) &&
                   most > threshold_square * mean_square
               ? most
               : -1.0;
}

/* Drop the first point whose residual has this square. */
DEVICE void drop_worst(curve *c, double square)
{
    int worst = MOST_POINTS;
    for (int j = c->n_elements - 1; j >= 0; j--)
        EACH_LANE(k)
        {
            if (PART(c->previous[AT(j)], k) == square) {
                const int i = LANES * j + k;
                worst = i < worst ? i : worst;
            }
        }
    worst = (int)smallest_found(worst);
    EACH_LANE(k)
    {
        if (k == worst % LANES) {
            PART(c->weight[AT(worst / LANES)], k) = 0.0;
            PART(c->known[AT(worst / LANES)], k) = 0.0;
        }
    }
    c->n_good -= 1;
}

DEVICE void clean_window(curve *c, int order, double threshold_square, double rounding_square)
{
    for (int i = 0; i < c->n_points; i++) {
        const double square = fit_curve(c, order, threshold_square, rounding_square);
        if (square < 0.0)
            break;
        drop_worst(c, square);
    }
}

/* Items are (frame, window, column). `edges` (n_windows + 1) cut the rows into windows; `points`
 * (n_rows + 8) say where in its window a row is, from -1 to 1. Frames are (n_rows, n_cols), and
 * their values either float32 or float64: the other is null. */
KERNEL void clean_windows(int64_t n_items, int64_t n_windows, int64_t n_rows, int64_t n_cols,
                          int64_t most_points, const int32_t *restrict edges,
                          const double *restrict points, int64_t order, double threshold_square,
                          double rounding_square, const float *restrict single_values,
                          const double *restrict double_values, const uint8_t *restrict good,
                          double *restrict fitted, uint8_t *restrict inliers)
{
    GROUP_MEMORY(lanes, memory, N_ARRAYS * (MOST_POINTS / LANES), N_ARRAYS * most_points);
    const int64_t size = AT(most_points / LANES) - AT(0);
    EACH_GROUP(item, n_items)
    {
        const int64_t window = item / n_cols % n_windows, frame = item / n_cols / n_windows;
        const int64_t start = edges[window];
        const int64_t corner = (frame * n_rows + start) * n_cols + item % n_cols;
        curve c;
        c.n_points = (int)(edges[window + 1] - start);
        c.n_elements = (c.n_points + LANES - 1) / LANES;
        c.points = points + start;
        c.known = memory;
        c.weight = c.known + size;
        c.residual = c.weight + size;
        c.polynomial = c.residual + size;
        c.previous = c.polynomial + size;
        double n_good = 0.0;
        for (int j = 0; j < c.n_elements; j++) {
            lanes weight = {0}, known = {0};
            EACH_LANE(k)
            {
                const int64_t i = LANES * j + k, at = corner + i * n_cols;
                if (i < c.n_points && good[at]) {
                    PART(weight, k) = 1.0;
                    PART(known, k) = single_values ? (double)single_values[at] : double_values[at];
                }
            }
            c.weight[AT(j)] = weight;
            c.known[AT(j)] = known;
            n_good += sum_of_lanes(weight);
        }
        c.n_good = (int)n_good;
        clean_window(&c, (int)order, threshold_square, rounding_square);
        for (int j = 0; j < c.n_elements; j++)
            EACH_LANE(k)
            {
                const int64_t i = LANES * j + k, at = corner + i * n_cols;
                if (i < c.n_points) {
                    fitted[at] = PART(c.residual[AT(j)], k);
                    inliers[at] = PART(c.weight[AT(j)], k) > 0.0;
                }
            }
    }
}
