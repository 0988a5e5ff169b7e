/* Samples as they lie on disk, to numbers: `raw_samples.py`. */
#include "kernel.h"

KERNEL void decode_samples(int64_t n_items, const uint16_t *restrict raw, float *restrict samples)
{
    EACH(i, n_items)
    {
        const uint16_t native = (uint16_t)(raw[i] << 8 | raw[i] >> 8);
        samples[i] = (float)(uint16_t)(native ^ 0x8000);
    }
}
