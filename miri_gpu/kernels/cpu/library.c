/* What Python asks the compiled library before it calls a kernel. */
#include "../kernel.h"

#ifndef SOURCES
#error "build.py says which sources these are"
#endif

/* The digest of the sources that this was compiled from. */
KERNEL const char *kernel_sources(void) { return SOURCES; }

/* The highest x86-64 level (1, 3 or 4) of the processor, 1 on any other. */
KERNEL int processor_level(void)
{
#if defined(__x86_64__) && defined(__GNUC__)
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("bmi2") ||
        !__builtin_cpu_supports("fma"))
        return 1;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 4;
    return 3;
#else
    return 1;
#endif
}

/* Some linkers insist on the entry point of a Python module; this is none. */
KERNEL void *PyInit__cpu(void) { return 0; }
KERNEL void *PyInit__cpu_v3(void) { return 0; }
KERNEL void *PyInit__cpu_v4(void) { return 0; }
