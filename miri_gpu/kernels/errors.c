/* Errors of pixels whose own error is unknown, from the rows next to theirs: `rates/errors.py`. */
#include "kernel.h"

DEVICE int is_known(float err) { return isfinite(err) && err > 0.0f; }

/* Items are pixels of frames (n_rows, n_cols). */
KERNEL void fill_errors(int64_t n_items, int64_t n_rows, int64_t n_cols, int64_t reach,
                        const float *restrict err, float *restrict filled)
{
    EACH(i, n_items)
    {
        filled[i] = err[i];
        if (is_known(err[i]))
            continue;
        const int64_t row = i / n_cols % n_rows;
        float total = 0.0f, count = 0.0f;
        for (int64_t shift = 1; shift <= reach; shift++) {
            const int64_t below = i + shift * n_cols, above = i - shift * n_cols;
            if (row + shift < n_rows && is_known(err[below])) {
                total += err[below] * err[below];
                count += 1.0f;
            }
            if (row >= shift && is_known(err[above])) {
                total += err[above] * err[above];
                count += 1.0f;
            }
        }
        filled[i] = count > 0.0f ? sqrtf(total / count) : (float)NAN;
    }
}
