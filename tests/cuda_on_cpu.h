// Plays the part of a GPU for one block of a warp, so that CUDA source runs on a CPU in tests: each
// CUDA thread is a thread of the host, and those that exchange a value wait for one another.
#define __CUDACC__
#define __global__ __attribute__((visibility("default")))
#define __device__
#define __forceinline__ inline
#define __shared__
#include <algorithm>
#include <cmath>
#include <cstring>
#include <pthread.h>
using std::isfinite;
using std::isnan;
using std::min;

struct place { unsigned x; };
static thread_local place threadIdx, blockIdx, blockDim, gridDim;
alignas(64) double group_memory[1 << 16];

// a warp; threads that exchange values are named by a mask, and wait at a barrier of their own
static const unsigned WARP = 32;
static pthread_barrier_t barriers[WARP][WARP + 1];
static double slots[WARP];

static pthread_barrier_t *barrier_of(unsigned mask)
{
    return &barriers[__builtin_ctz(mask)][__builtin_popcount(mask)];
}

extern "C" __global__ void start_block()
{
    for (auto &of_first : barriers)
        for (unsigned n = 1; n <= WARP; n++) pthread_barrier_init(&of_first[n], nullptr, n);
}

extern "C" __global__ void be_thread(unsigned thread)
{
    threadIdx.x = thread;
    blockIdx.x = 0;
    blockDim.x = WARP;
    gridDim.x = 1;
}

static inline void __syncwarp(unsigned mask) { pthread_barrier_wait(barrier_of(mask)); }

template <typename T> static T __shfl_sync(unsigned mask, T value, unsigned from)
{
    static_assert(sizeof(T) <= sizeof(double), "a slot holds it");
    std::memcpy(&slots[threadIdx.x], &value, sizeof value);
    __syncwarp(mask);
    std::memcpy(&value, &slots[from], sizeof value);
    __syncwarp(mask);
    return value;
}

template <typename T> static T __shfl_xor_sync(unsigned mask, T value, unsigned step)
{
    return __shfl_sync(mask, value, threadIdx.x ^ step);
}

static inline double __longlong_as_double(long long bits)
{
    double value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

static inline long long __double_as_longlong(double value)
{
    long long bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline float __int_as_float(int bits)
{
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}
