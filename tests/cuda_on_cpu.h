// Plays the part of a GPU for one block of a warp, so that CUDA source runs on a CPU in tests: the
// CUDA threads take turns, and one that waits for others lets them go on.
#define __CUDACC__
#define __global__ __attribute__((visibility("default")))
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(threads, blocks)
#define __shared__
#include <algorithm>
#include <cmath>
#include <cstring>
#include <functional>
#include <ucontext.h>
#include <vector>
using std::isfinite;
using std::isnan;
using std::min;

struct alignas(16) float4 { float x, y, z, w; };
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

struct place { unsigned x; };
static const unsigned WARP = 32, STACK_BYTES = 1 << 18;
static place threadIdx, blockIdx, blockDim, gridDim;
alignas(64) double group_memory[1 << 16];

struct turns {
    ucontext_t scheduler, threads[WARP];
    bool is_done[WARP];
    std::vector<char> stacks[WARP];
    std::function<void()> kernel;
};
static turns block;

static void be_thread()
{
    block.kernel();
    block.is_done[threadIdx.x] = true;
}

static void run_block(std::function<void()> kernel)
{
    block.kernel = kernel;
    blockIdx.x = 0;
    blockDim.x = WARP;
    gridDim.x = 1;
    for (unsigned t = 0; t < WARP; t++) {
        block.stacks[t].resize(STACK_BYTES);
        getcontext(&block.threads[t]);
        block.threads[t].uc_stack.ss_sp = block.stacks[t].data();
        block.threads[t].uc_stack.ss_size = STACK_BYTES;
        block.threads[t].uc_link = &block.scheduler;
        makecontext(&block.threads[t], be_thread, 0);
        block.is_done[t] = false;
    }
    for (bool any = true; any;) {
        any = false;
        for (unsigned t = 0; t < WARP; t++) {
            if (block.is_done[t]) continue;
            any = true;
            threadIdx.x = t;
            swapcontext(&block.scheduler, &block.threads[t]);
        }
    }
}

// threads that exchange values are named by a mask, and wait until all of them have come
struct meeting { unsigned n_there, n_held; };
static meeting meetings[WARP][WARP + 1];
static double slots[WARP];

static void __syncwarp(unsigned mask)
{
    const unsigned n = __builtin_popcount(mask);
    meeting &here = meetings[__builtin_ctz(mask)][n];
    const unsigned held_before = here.n_held;
    if (++here.n_there == n) {
        here.n_there = 0;
        here.n_held++;
        return;
    }
    while (here.n_held == held_before) {
        const unsigned own = threadIdx.x;
        swapcontext(&block.threads[own], &block.scheduler);
    }
}

static inline void __syncthreads() { __syncwarp(0xffffffffu); }

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

template <typename T> static T atomicAdd(T *sum, T value)
{
    const T before = *sum;
    *sum += value;
    return before;
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
