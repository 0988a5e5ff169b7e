/* Neighbouring pixels together: many on a CPU, where the compiler turns the loops over them into
 * vector instructions, and on a GPU one for each thread, or a few for each block.
 *
 * A stack of images is walked in pieces of PIXELS pixels (the last of an image has fewer). A source
 * that wants others than these says so before: PIXELS for a CPU, PIXELS_OF_GPU.
 */
#ifndef MIRI_GPU_PIXELS_H
#define MIRI_GPU_PIXELS_H
#include "kernel.h"

#ifndef PIXELS_OF_GPU
#define PIXELS_OF_GPU 1
#endif
#ifdef __CUDACC__
#undef PIXELS
#define PIXELS PIXELS_OF_GPU
#elif !defined(PIXELS)
#define PIXELS 64
#endif
#define N_PIECES(n_pixels) (((n_pixels) + PIXELS - 1) / PIXELS)

#define DO_NOT_USE 1
#define SATURATED 2
#define JUMP_DET 4
#define AD_FLOOR 64

/* Pixels of the piece that starts at `start`. */
DEVICE int pixels_of(int64_t start, int64_t n_pixels)
{
    if (PIXELS == 1) return 1;
    return n_pixels - start < PIXELS ? (int)(n_pixels - start) : PIXELS;
}

#endif
