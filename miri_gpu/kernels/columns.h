/* Neighbouring columns of numbers, worked on together: a vector of them on a CPU, one in each
 * thread, or in each warp, of a GPU.
 *
 * A `floats` holds a number of each of COLUMNS columns. Arithmetic and comparisons are written the
 * same for both; a comparison gives `ints` of 0 or -1. In working memory the rows of columns are
 * ROW numbers apart.
 *
 * Where values of columns are looked through, the threads of a warp share a column: they look at
 * AT_ONCE rows each in turn, so that together they read whole cache lines, and functions named
 * `.._of_shares` put together what they have found. The warps of a block, a team, share a piece of
 * neighbouring columns. On a CPU one share has all rows, and one vector after the other is done.
 */
#ifndef MIRI_GPU_COLUMNS_H
#define MIRI_GPU_COLUMNS_H
#include "kernel.h"

#ifdef __CUDACC__

#define COLUMNS 1
#define ROW 1
#define SHARES 32
#define SHARE ((int)threadIdx.x % SHARES)
#define ALL_SHARES 0xffffffffu
#define EACH_PIECE(i, n) for (int64_t i = blockIdx.x; i < (n); i += gridDim.x)
#define EACH_VECTOR(v, n) \
    for (int v = (int)threadIdx.x / SHARES; v < (n); v += (int)blockDim.x / SHARES)
#define EACH_ROW(i, n) for (int i = SHARE; i < (n); i += SHARES)
#define AT_ONCE 4 /* rows, that a thread reads together */
#define EACH_ROWS(i, n) \
    _Pragma("unroll 1") for (int i = AT_ONCE * SHARE; i < (n); i += AT_ONCE * SHARES)
#define PART(v, k) (v)
#define IS_BELOW(a, b) (-(int32_t)((a) < (b)))
#define IS_NAN(a) (-(int32_t)((a) != (a)))
#define EACH_MARKED(k, which) for (int k = 0; k < -(which); k++)
typedef float floats;
typedef int32_t ints;

DEVICE floats filled(float x) { return x; }
DEVICE floats load_row(const float *from) { return *from; }
DEVICE void store_row(floats x, float *to) { *to = x; }
DEVICE void load_rows(const float *from, floats *x)
{
    const float4 four = *(const float4 *)from;
    x[0] = four.x, x[1] = four.y, x[2] = four.z, x[3] = four.w;
}
DEVICE void store_rows(const floats *x, float *to)
{
    *(float4 *)to = make_float4(x[0], x[1], x[2], x[3]);
}
DEVICE ints load_ints(const int32_t *from) { return *from; }
DEVICE void store_ints(ints x, int32_t *to) { *to = x; }
DEVICE ints load_flags(const uint8_t *from) { return *from; }
DEVICE floats one_of_eight(const float *from, ints which) { return from[which]; }
DEVICE ints has_any(ints flags, int bits) { return -((flags & bits) != 0); }
DEVICE floats sizes_of(floats x) { return fabsf(x); }
DEVICE floats nan_where(ints which, floats x) { return which ? NAN : x; }
DEVICE floats chosen(ints which, floats a, floats b) { return which ? a : b; }
DEVICE floats smaller_of(floats a, floats b) { return a < b ? a : b; }
DEVICE floats larger_of(floats a, floats b) { return a > b ? a : b; }
DEVICE int any_of(ints which) { return which; }

DEVICE void wait_for_team(void) { __syncthreads(); }

DEVICE void wait_for_shares(void) { __syncwarp(ALL_SHARES); }

/* Memory that the threads of a column have in common, and a place in it that nobody else takes. */
#define COMMON(type, name)                   \
    extern __shared__ double group_memory[]; \
    type *name = (type *)group_memory + threadIdx.x / SHARES
#define NEXT(n_taken) atomicAdd(&(n_taken), 1)

/* Sort rows in common, which all threads have written by now: as on a CPU, but that those
 * pairs which do not touch one another are compared at the same time. */
DEVICE void sort_common_rows(floats *rows, int n)
{
    wait_for_shares();
    for (int half = 1; half < n; half *= 2)
        for (int step = half; step >= 1; step /= 2) {
            const int first = step % half;
            for (int i = first + SHARE; i + step < n; i += SHARES) {
                const int is_lower = ((i - first) & (2 * step - 1)) < step;
                if (!is_lower || i / (2 * half) != (i + step) / (2 * half)) continue;
                const floats a = rows[i], b = rows[i + step];
                rows[i] = smaller_of(a, b);
                rows[i + step] = larger_of(a, b);
            }
            wait_for_shares();
        }
}

DEVICE ints sum_of_shares(ints n)
{
    for (int step = 1; step < SHARES; step *= 2) n += __shfl_xor_sync(ALL_SHARES, n, step);
    return n;
}

DEVICE floats smallest_of_shares(floats x)
{
    for (int step = 1; step < SHARES; step *= 2)
        x = smaller_of(x, __shfl_xor_sync(ALL_SHARES, x, step));
    return x;
}

DEVICE floats largest_of_shares(floats x)
{
    for (int step = 1; step < SHARES; step *= 2)
        x = larger_of(x, __shfl_xor_sync(ALL_SHARES, x, step));
    return x;
}

#else

#if defined(__AVX512F__)
#define COLUMNS 16
#include <immintrin.h>
#elif defined(__AVX2__)
#define COLUMNS 8
#include <immintrin.h>
#else
#define COLUMNS 4
#endif
#define ROW COLUMNS
#define EACH_PIECE(i, n) EACH(i, n)
#define EACH_VECTOR(v, n) for (int v = 0; v < (n); v++)
#define EACH_ROW(i, n) for (int i = 0; i < (n); i++)
#define AT_ONCE 1
#define EACH_ROWS(i, n) EACH_ROW(i, n)
#define PART(v, k) ((v)[k])
#define IS_BELOW(a, b) ((ints)((a) < (b)))
#define IS_NAN(a) ((ints)((a) != (a)))
typedef float floats __attribute__((vector_size(4 * COLUMNS), aligned(4)));
typedef int32_t ints __attribute__((vector_size(4 * COLUMNS), aligned(4)));

DEVICE floats filled(float x)
{
    const floats zeros = {0.0f};
    return zeros + x;
}

DEVICE floats load_row(const float *from) { return *(const floats *)from; }

DEVICE void store_row(floats x, float *to) { *(floats *)to = x; }

DEVICE void load_rows(const float *from, floats *x) { *x = load_row(from); }

DEVICE ints load_ints(const int32_t *from) { return *(const ints *)from; }

DEVICE void store_ints(ints x, int32_t *to) { *(ints *)to = x; }

DEVICE ints load_flags(const uint8_t *from)
{
#if defined(__AVX512F__)
    return (ints)_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)from));
#elif defined(__AVX2__)
    return (ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)from));
#else
    const ints flags = {from[0], from[1], from[2], from[3]};
    return flags;
#endif
}

/* For each column the number of eight that it says. */
DEVICE floats one_of_eight(const float *from, ints which)
{
#if defined(__AVX512F__)
    const __m512 eight = _mm512_castps256_ps512(_mm256_loadu_ps(from));
    return (floats)_mm512_permutexvar_ps((__m512i)which, eight);
#elif defined(__AVX2__)
    return (floats)_mm256_permutevar8x32_ps(_mm256_loadu_ps(from), (__m256i)which);
#else
    const floats chosen = {from[which[0]], from[which[1]], from[which[2]], from[which[3]]};
    return chosen;
#endif
}

DEVICE ints has_any(ints flags, int bits) { return (ints)((flags & bits) != 0); }

DEVICE floats sizes_of(floats x) { return (floats)((ints)x & 0x7fffffff); }

DEVICE floats nan_where(ints which, floats x) { return (floats)((ints)x | which); }

DEVICE floats chosen(ints which, floats a, floats b)
{
    return (floats)(((ints)a & which) | ((ints)b & ~which));
}

/* The smaller number of each pair; b where one is NaN. */
DEVICE floats smaller_of(floats a, floats b)
{
#if defined(__AVX512F__)
    return (floats)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (floats)_mm256_min_ps((__m256)a, (__m256)b);
#else
    return chosen(IS_BELOW(a, b), a, b);
#endif
}

/* The larger number of each pair; b where one is NaN. */
DEVICE floats larger_of(floats a, floats b)
{
#if defined(__AVX512F__)
    return (floats)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    return (floats)_mm256_max_ps((__m256)a, (__m256)b);
#else
    return chosen(IS_BELOW(b, a), a, b);
#endif
}

/* A bit for each column that is marked. */
DEVICE uint32_t bits_of(ints which)
{
#if defined(__AVX512F__)
    return _mm512_test_epi32_mask((__m512i)which, (__m512i)which);
#elif defined(__AVX2__)
    return (uint32_t)_mm256_movemask_ps((__m256)which);
#else
    uint32_t bits = 0;
    for (int k = 0; k < COLUMNS; k++) bits |= (which[k] & 1u) << k;
    return bits;
#endif
}

DEVICE int any_of(ints which) { return bits_of(which) != 0; }

#define EACH_MARKED(k, which)                                                                \
    for (uint32_t left = bits_of(which), k; left && (k = (uint32_t)__builtin_ctz(left), 1); \
         left &= left - 1)

#define COMMON(type, name) \
    type memory_of_##name; \
    type *name = &memory_of_##name
#define NEXT(n_taken) ((n_taken)++)
DEVICE void wait_for_team(void) {}
DEVICE void wait_for_shares(void) {}
DEVICE ints sum_of_shares(ints n) { return n; }
DEVICE floats smallest_of_shares(floats x) { return x; }
DEVICE floats largest_of_shares(floats x) { return x; }

/* Sort the columns of a few rows (Batcher's odd-even merge sort). */
DEVICE void sort_common_rows(floats *rows, int n)
{
    for (int half = 1; half < n; half *= 2)
        for (int step = half; step >= 1; step /= 2)
            for (int block = 0; block < n; block += 2 * half)
                for (int j = step % half; j + step < 2 * half; j += 2 * step)
                    for (int i = block + j; i < block + j + step && i + step < n; i++) {
                        const floats a = rows[i], b = rows[i + step];
                        rows[i] = smaller_of(a, b);
                        rows[i + step] = larger_of(a, b);
                    }
}

#endif

#define EACH_COLUMN(k) for (int k = 0; k < COLUMNS; k++)

/* Store the means of two numbers of each column. */
DEVICE void store_means(floats x, floats y, double *to)
{
    float a[COLUMNS], b[COLUMNS];
    store_row(x, a);
    store_row(y, b);
    EACH_COLUMN(k) to[k] = ((double)a[k] + (double)b[k]) / 2.0;
}

#endif
