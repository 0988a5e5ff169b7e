/* What lets one source compile for a GPU (CUDA, through NVRTC) and for a CPU (C99).
 *
 * A kernel is a function that works on many items which know nothing of one another:
 *
 *     KERNEL void halve(int64_t n_items, const float *restrict x, float *restrict y)
 *     {
 *         EACH(i, n_items)
 *         {
 *             y[i] = 0.5f * x[i];
 *         }
 *     }
 *
 * EACH runs the items one after the other on a CPU, and one per thread on a GPU. The first
 * parameter is the number of items; arrays are pointers to float, double, (u)int8_t .. (u)int64_t,
 * `const` where they are only read. Helpers are marked DEVICE. Python reads these lines: a
 * kernel's parameters stand between its name and the brace, without comments. A source may say of how
 * many BLOCKS_AT_ONCE a GPU's multiprocessor should have the registers.
 *
 * No contraction into fused multiply-adds, on either side: a result is the same to the bit
 * wherever it is computed (but for exp, log, pow). Suffix float constants with f.
 */
#ifndef MIRI_GPU_KERNEL_H
#define MIRI_GPU_KERNEL_H

#ifdef __CUDACC__

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;
#define restrict __restrict__
#define NAN __int_as_float(0x7fffffff)
#define INFINITY __int_as_float(0x7f800000)
#ifdef BLOCKS_AT_ONCE /* of as many threads as kernels/__init__.py gives a block */
#define KERNEL extern "C" __global__ __launch_bounds__(256, BLOCKS_AT_ONCE)
#else
#define KERNEL extern "C" __global__
#endif
#define DEVICE static __device__ __forceinline__
#define PREFETCH(address)
#define EACH(i, n)                                                          \
    for (int64_t i = blockIdx.x * (int64_t)blockDim.x + threadIdx.x; i < (n); \
         i += gridDim.x * (int64_t)blockDim.x)

#else

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef _WIN32
#define KERNEL __declspec(dllexport)
#else
#define KERNEL __attribute__((visibility("default")))
#endif
#define DEVICE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
#define EACH(i, n) for (int64_t i = 0; i < (n); i++)

#endif
#endif
