/* Gaussians with a base, fitted to many curves: `numerics/gaussians.py`.
 *
 * A step of Levenberg and Marquardt needs of the points only sums of products of the residual and
 * the derivatives. They are taken together with the cost of a trial: one look at the points each.
 */
#include "lanes.h"

#define N_PARAMETERS 4 /* amplitude, centre, sigma, base */
#define N_PRODUCTS 10
#define LOG_2 0.6931471805599453
#define LOG_2_HIGH 0.693147180369123816490 /* with few enough bits that n times it is exact */
#define LOG_2_LOW 1.90821492927058770002e-10
#define TO_WHOLE 6755399441055744.0 /* 1.5 x 2^52 */

typedef struct {
    double cost;
    double gradient[N_PARAMETERS];
    double curvature[N_PRODUCTS]; /* lower triangle, row by row */
} fit_sums;

/* exp(v), where v is not above 0, as 2^n exp(r) with |r| < 0.35: the same as `_exponential` of the
 * array version, to the bit, wherever it is computed. */
DEVICE lanes exponential(lanes v)
{
    const double coefficients[] = {1.0, 1.0, 1.0 / 2, 1.0 / 6, 1.0 / 24, 1.0 / 120, 1.0 / 720,
                                   1.0 / 5040, 1.0 / 40320, 1.0 / 362880, 1.0 / 3628800,
                                   1.0 / 39916800, 1.0 / 479001600, 1.0 / 6227020800.0};
    const lanes zero = {0};
    v = larger_lanes(v, zero - 700.0);
    /* so large a number has no digits behind the point, and its last bits are n */
    const lanes shifted = v * (1.0 / LOG_2) + TO_WHOLE, n = shifted - TO_WHOLE;
    const lanes r = (v - n * LOG_2_HIGH) - n * LOG_2_LOW;
    lanes sum = zero + coefficients[13];
    for (int k = 12; k >= 0; k--)
        sum = sum * r + coefficients[k];
    return sum * power_of_2(shifted);
}

/* The sums over the points at these parameters. */
DEVICE void look(const double *fit, int n_elements, const double *curve, const double *points,
                 const double *weights, double smallest_sigma, fit_sums *sums)
{
    const double size = fabs(fit[2]) > smallest_sigma ? fabs(fit[2]) : smallest_sigma;
    const double width = fit[2] < 0.0 ? -size : size;
    lanes cost = {0}, gradient[N_PARAMETERS] = {{0}}, curvature[N_PRODUCTS] = {{0}};
    for (int j = 0; j < n_elements; j++) {
        const lanes weight = load_lanes(weights + LANES * j);
        const lanes distance = (load_lanes(points + LANES * j) - fit[1]) / width;
        const lanes bell = exponential(-0.5 * distance * distance);
        const lanes slope = fit[0] / width * (bell * distance);
        const lanes residual = weight * (load_lanes(curve + LANES * j) - fit[3] - fit[0] * bell);
        const lanes by_centre = weight * slope;
        const lanes slopes[N_PARAMETERS] = {weight * bell, by_centre, by_centre * distance,
                                            weight};
        cost = cost + residual * residual;
        for (int a = 0, product = 0; a < N_PARAMETERS; a++) {
            gradient[a] = gradient[a] + slopes[a] * residual;
            for (int b = 0; b <= a; b++, product++)
                curvature[product] = curvature[product] + slopes[a] * slopes[b];
        }
    }
    sums->cost = sum_of_lanes(cost);
    for (int a = 0; a < N_PARAMETERS; a++)
        sums->gradient[a] = sum_of_lanes(gradient[a]);
    for (int a = 0; a < N_PRODUCTS; a++)
        sums->curvature[a] = sum_of_lanes(curvature[a]);
}

/* The damped step; false where the curvature does not determine it. */
DEVICE int find_step(const fit_sums *sums, double damping, double *step)
{
    double lower[N_PARAMETERS][N_PARAMETERS], pivot[N_PARAMETERS], scale[N_PARAMETERS];
    for (int j = 0, product = 0; j < N_PARAMETERS; j++) {
        product += j;
        scale[j] = sqrt(sums->curvature[product + j]);
        if (!(scale[j] > 0.0 && isfinite(scale[j])))
            return 0;
        for (int k = 0; k <= j; k++)
            lower[j][k] = sums->curvature[product + k] / (scale[j] * scale[k]);
        lower[j][j] += damping;
        step[j] = sums->gradient[j] / scale[j];
    }
    for (int j = 0; j < N_PARAMETERS; j++) { /* L D L^T, in the place of the matrix */
        pivot[j] = lower[j][j];
        for (int k = 0; k < j; k++)
            pivot[j] -= lower[j][k] * lower[j][k] * pivot[k];
        if (!(pivot[j] > 1e-14 * fabs(lower[j][j])))
            return 0;
        for (int i = j + 1; i < N_PARAMETERS; i++) {
            for (int k = 0; k < j; k++)
                lower[i][j] -= lower[i][k] * lower[j][k] * pivot[k];
            lower[i][j] /= pivot[j];
        }
    }
    for (int i = 0; i < N_PARAMETERS; i++)
        for (int k = 0; k < i; k++)
            step[i] -= lower[i][k] * step[k];
    for (int i = 0; i < N_PARAMETERS; i++)
        step[i] /= pivot[i];
    for (int i = N_PARAMETERS - 1; i >= 0; i--)
        for (int k = i + 1; k < N_PARAMETERS; k++)
            step[i] -= lower[k][i] * step[k];
    for (int i = 0; i < N_PARAMETERS; i++) {
        step[i] /= scale[i];
        if (isnan(step[i]))
            return 0;
    }
    return 1;
}

/* Items are curves of 8 x n_elements points, of which those of weight 0 are none. `fits` holds the
 * first guesses, and then the parameters, NaN where no minimum was found. */
KERNEL void fit_gaussians(int64_t n_items, int64_t n_elements, int64_t max_iterations,
                          double tolerance, double largest, double smallest_sigma,
                          const double *restrict curves, const double *restrict points,
                          const double *restrict weights, double *restrict fits)
{
    EACH_GROUP(item, n_items)
    {
        const double *curve = curves + item * n_elements * LANES;
        const double *weight = weights + item * n_elements * LANES;
        double fit[N_PARAMETERS], trial[N_PARAMETERS], step[N_PARAMETERS], damping = 1e-3;
        fit_sums sums, trial_sums;
        for (int k = 0; k < N_PARAMETERS; k++)
            fit[k] = fits[item * N_PARAMETERS + k];
        look(fit, (int)n_elements, curve, points, weight, smallest_sigma, &sums);
        lanes weight_sums = {0};
        for (int j = 0; j < n_elements; j++)
            weight_sums = weight_sums + load_lanes(weight + LANES * j);
        int running = sum_of_lanes(weight_sums) >= N_PARAMETERS, converged = 0;

        for (int64_t iteration = 0; running && iteration < max_iterations; iteration++) {
            if (!find_step(&sums, damping, step))
                break;
            converged = 1;
            for (int k = 0; k < N_PARAMETERS; k++) {
                const double to = fit[k] + step[k];
                trial[k] = to > largest ? largest : to < -largest ? -largest : to;
                converged &= fabs(step[k]) <= tolerance * (fabs(fit[k]) + tolerance * fabs(fit[0]));
            }
            look(trial, (int)n_elements, curve, points, weight, smallest_sigma, &trial_sums);
            const int better = trial_sums.cost < sums.cost;
            if (better) {
                for (int k = 0; k < N_PARAMETERS; k++)
                    fit[k] = trial[k];
                sums = trial_sums;
            }
            damping *= better ? 0.1 : 10.0;
            damping = damping < 1e-15 ? 1e-15 : damping > 1e15 ? 1e15 : damping;
            running = !converged;
        }
        fit[2] = fabs(fit[2]);
        for (int k = 0; k < N_PARAMETERS; k++)
            fits[item * N_PARAMETERS + k] = converged ? fit[k] : NAN;
    }
}
