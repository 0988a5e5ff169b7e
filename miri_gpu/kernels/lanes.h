/* Eight lanes that share an item: sums along a curve, eight points at a time.
 *
 * A `lanes` holds one number for each of eight neighbouring points: a vector on a CPU, the number
 * of its own lane in each of eight threads on a GPU. Arithmetic is written the same for both.
 * An array of curves' points is an array of lanes, point i in lane i % 8 of element i / 8, so that
 * no lane ever looks at another's points, but through the functions below.
 *
 * Sums are added in the order of NumPy's pairwise sum: eight running sums in blocks of at most
 * 128 points, what remains after the last eight one by one, blocks as a binary tree.
 */
#ifndef MIRI_GPU_LANES_H
#define MIRI_GPU_LANES_H
#include "kernel.h"

#define LANES 8
#define BLOCK_POINTS 128
#define TREE_DEPTH 6 /* sums that wait for one another, for up to 2048 points */

#ifdef __CUDACC__

typedef double lanes;
#define LANE ((int)threadIdx.x % LANES)
#define GROUP_THREADS (0xffu << (threadIdx.x & 24u))
#define EACH_GROUP(i, n)                                                              \
    for (int64_t i = (blockIdx.x * (int64_t)blockDim.x + threadIdx.x) / LANES; i < (n); \
         i += gridDim.x * (int64_t)blockDim.x / LANES)
/* AT(j) is the index of this lane in element j; points of single lanes are shared out one by one.
 * GROUP_MEMORY is shared by the lanes of an item. */
#define AT(j) ((j) * LANES + LANE)
#define GROUP_MEMORY(type, name, n_host, n_points) \
    extern __shared__ double group_memory[];       \
    type *name = (type *)group_memory + threadIdx.x / LANES * (int64_t)(n_points)
#define EACH_POINT(i, n) for (int i = LANE; i < (n); i += LANES)
#define EACH_LANE(k) for (int k = LANE; k <= LANE; k++)
#define PART(v, k) (v)

DEVICE lanes load_lanes(const double *from) { return from[LANE]; }

DEVICE double lane_of(lanes v, int k)
{
    return __shfl_sync(GROUP_THREADS, v, (threadIdx.x & 24u) + k);
}

DEVICE double sum_of_lanes(lanes v)
{
    v += __shfl_xor_sync(GROUP_THREADS, v, 1);
    v += __shfl_xor_sync(GROUP_THREADS, v, 2);
    return v + __shfl_xor_sync(GROUP_THREADS, v, 4);
}

DEVICE lanes larger_lanes(lanes a, lanes b) { return a > b ? a : b; }

/* 2 to the power that the last bits of a number are. */
DEVICE lanes power_of_2(lanes v)
{
    return __longlong_as_double((__double_as_longlong(v) + 1023) << 52);
}

DEVICE double largest_of_lanes(lanes v)
{
    v = larger_lanes(v, __shfl_xor_sync(GROUP_THREADS, v, 1));
    v = larger_lanes(v, __shfl_xor_sync(GROUP_THREADS, v, 2));
    return larger_lanes(v, __shfl_xor_sync(GROUP_THREADS, v, 4));
}

/* The sum of what the lanes have counted. */
DEVICE int sum_counted(int counted)
{
    counted += __shfl_xor_sync(GROUP_THREADS, counted, 1);
    counted += __shfl_xor_sync(GROUP_THREADS, counted, 2);
    return counted + __shfl_xor_sync(GROUP_THREADS, counted, 4);
}

/* The smallest of the numbers that the lanes have found. */
DEVICE int64_t smallest_found(int64_t found)
{
    for (int step = 1; step < LANES; step *= 2) {
        const int64_t other = __shfl_xor_sync(GROUP_THREADS, found, step);
        found = other < found ? other : found;
    }
    return found;
}

#else

typedef double lanes __attribute__((vector_size(64), aligned(8)));
typedef int64_t lane_bits __attribute__((vector_size(64), aligned(8)));
#define EACH_GROUP(i, n) EACH(i, n)
#define AT(j) (j)
#define GROUP_MEMORY(type, name, n_host, n_points) type name[n_host]
#define EACH_POINT(i, n) for (int i = 0; i < (n); i++)
#define EACH_LANE(k) for (int k = 0; k < LANES; k++)
#define PART(v, k) ((v)[k])

DEVICE lanes load_lanes(const double *from) { return *(const lanes *)from; }

DEVICE double lane_of(lanes v, int k) { return v[k]; }

DEVICE double sum_of_lanes(lanes v)
{
    return ((v[0] + v[1]) + (v[2] + v[3])) + ((v[4] + v[5]) + (v[6] + v[7]));
}

DEVICE lanes larger_lanes(lanes a, lanes b)
{
    lane_bits first = (lane_bits)(a > b);
    return (lanes)(((lane_bits)a & first) | ((lane_bits)b & ~first));
}

DEVICE lanes power_of_2(lanes v) { return (lanes)(((lane_bits)v + 1023) << 52); }

DEVICE double largest_of_lanes(lanes v)
{
    double largest = v[0];
    for (int k = 1; k < LANES; k++)
        largest = v[k] > largest ? v[k] : largest;
    return largest;
}

DEVICE int sum_counted(int counted) { return counted; }

DEVICE int64_t smallest_found(int64_t found) { return found; }

#endif

/* Length of the block of a pairwise sum that starts here, and how many halves it completes. */
DEVICE int block_length(int n, int start, int *n_completed)
{
    int first = 0;
    *n_completed = 0;
    while (n > BLOCK_POINTS) {
        int half = n / 2 - n / 2 % LANES;
        if (start < first + half) {
            n = half;
            *n_completed = 0;
        } else {
            first += half;
            n -= half;
            *n_completed += 1;
        }
    }
    return n;
}

/* The sums of the blocks so far that still wait for their other half. */
typedef struct {
    double waiting[TREE_DEPTH];
    int n_waiting;
} sum_tree;

/* Add the sum of the next block: its lanes, then the terms of the points that fill no eight. */
DEVICE void add_block(sum_tree *tree, lanes sums, int n_points, lanes terms, int n_completed)
{
    double total = n_points >= LANES ? sum_of_lanes(sums) : 0.0;
    for (int k = 0; k < n_points % LANES; k++)
        total += lane_of(terms, k);
    tree->waiting[tree->n_waiting++] = total;
    for (; n_completed > 0; n_completed--) {
        tree->n_waiting -= 1;
        tree->waiting[tree->n_waiting - 1] += tree->waiting[tree->n_waiting];
    }
}

#endif
