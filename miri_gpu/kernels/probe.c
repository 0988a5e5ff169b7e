/* The smallest kernel: shows that kernels run. */
#include "kernel.h"

KERNEL void probe(int64_t n_items, const float *restrict x, double factor, float *restrict y)
{
    EACH(i, n_items)
    {
        y[i] = (float)(factor * x[i]);
    }
}
