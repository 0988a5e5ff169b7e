// Plays the part of a GPU for one block of threads, so that CUDA source runs on a CPU in tests:
// each CUDA thread is a thread of the host, and those of a group of eight wait for one another
// whenever they exchange a value.
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

static const int GROUPS = 2, GROUP_SIZE = 8;
static pthread_barrier_t group_waits[GROUPS];
static double slots[GROUPS * GROUP_SIZE];

extern "C" __global__ void start_block()
{
    for (auto &barrier : group_waits)
        pthread_barrier_init(&barrier, nullptr, GROUP_SIZE);
}

extern "C" __global__ void be_thread(unsigned thread)
{
    threadIdx.x = thread;
    blockIdx.x = 0;
    blockDim.x = GROUPS * GROUP_SIZE;
    gridDim.x = 1;
}

template <typename T> static T __shfl_sync(unsigned, T value, unsigned from)
{
    static_assert(sizeof(T) <= sizeof(double), "a slot holds it");
    pthread_barrier_t *wait = &group_waits[threadIdx.x / GROUP_SIZE];
    std::memcpy(&slots[threadIdx.x], &value, sizeof value);
    pthread_barrier_wait(wait);
    std::memcpy(&value, &slots[from], sizeof value);
    pthread_barrier_wait(wait);
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
