/* Samples from a file to a GPU, by threads that need no Python on the way. */
#ifndef _WIN32
#define _XOPEN_SOURCE 700 /* that pread is declared */
#define _FILE_OFFSET_BITS 64
#include "../kernel.h"
#include <errno.h>
#include <sys/types.h>
#include <unistd.h>

#define TRUNCATED (-1000000) /* beyond all of errno's */

/* As the CUDA driver declares them; all are 0 if all is well. */
typedef int Copy(uint64_t target, const void *source, size_t n_bytes, void *stream);
typedef int Record(void *event, void *stream);
typedef int Wait(void *event);

static int read_all(int file, char *into, size_t n_bytes, int64_t place)
{
    while (n_bytes) {
        ssize_t n_read = pread(file, into, n_bytes, (off_t)place);
        if (n_read < 0 && errno == EINTR)
            continue;
        if (n_read <= 0)
            return n_read ? -errno : TRUNCATED;
        into += n_read;
        n_bytes -= (size_t)n_read;
        place += n_read;
    }
    return 0;
}

/* Read frames of `bytes_per_frame` at their places in a file, and copy them to a GPU, one behind
 * the other. The frames are taken `n_at_once` together; this thread takes the pieces `first`,
 * `first + step` and so on. One of the two halves is filled while the GPU copies from the other
 * one; both may still be copied from when this returns.
 *
 * Returns 0, an error of the driver (above 0), the negative of errno, or TRUNCATED. */
KERNEL int32_t upload_frames(
    int32_t file, int64_t n_frames, const int64_t *places, int64_t bytes_per_frame,
    int64_t n_at_once, int64_t first, int64_t step, uint64_t target, char *const *halves,
    void *const *copied, void *stream, Copy *copy, Record *record, Wait *wait)
{
    int side = 0;
    for (int64_t start = first * n_at_once; start < n_frames; start += step * n_at_once) {
        int64_t stop = start + n_at_once < n_frames ? start + n_at_once : n_frames;
        size_t n_bytes = (size_t)((stop - start) * bytes_per_frame);
        char *into = halves[side];
        int32_t error = wait(copied[side]);
        if (error)
            return error;
        for (int64_t i = start, next; i < stop; i = next) { /* what lies together goes together */
            for (next = i + 1; next < stop; next++)
                if (places[next] != places[next - 1] + bytes_per_frame)
                    break;
            size_t n_here = (size_t)((next - i) * bytes_per_frame);
            error = read_all(file, into, n_here, places[i]);
            if (error)
                return error;
            into += n_here;
        }
        error = copy(target + (uint64_t)(start * bytes_per_frame), halves[side], n_bytes, stream);
        if (error)
            return error;
        error = record(copied[side], stream);
        if (error)
            return error;
        side = !side;
    }
    return 0;
}
#endif
