/* Common part of the kernels, which are the fused inner loops of refinement on a CPU.
   ../functions.py calls them and says what they compute.

   Arrays are float32 and contiguous, of three axes: n[0], n[1], n[2]; a 2D image has
   n[1] = 1.  A field holds one component after another, for axes 0, 1, 2, or 0 and 2
   in 2D.  Every function does the planes begin <= i < end of axis 0 and reads what it
   needs around them, so that threads share the work; each voxel's arithmetic is the
   same however it is shared, and sums come back plane by plane, so that results are
   too.  A function that allocates memory returns 1 if that fails, else 0.

   Build with -fno-math-errno -fno-trapping-math, never -ffast-math: NaN must stay NaN,
   and sums keep their order. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifndef __GNUC__
#error "GCC or Clang is needed, for vectors; without them plain torch does the work"
#endif

#if defined(__x86_64__) && defined(__GLIBC__) && !defined(__clang__) && __GNUC__ >= 12
#define CLONES \
    __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif
#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define KERNEL EXPORT CLONES
#define INLINE static inline __attribute__((always_inline, unused))

/* Rows are worked on in pieces of so many voxels, whose buffers fit the first cache. */
#define PIECE 128
/* Partial sums, for the compiler to keep in one vector. */
#define LANES 8

INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

/* Adds to sums in a fixed order that leaves room for vectors. */
INLINE void add_up(double *sums, const float *values, int64_t n)
{
    for (int64_t x = 0; x + LANES <= n; x += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += values[x + lane];
    for (int64_t x = n - n % LANES; x < n; x++)
        sums[x % LANES] += values[x];
}

INLINE double total(const double *sums)
{
    return ((sums[0] + sums[1]) + (sums[2] + sums[3]))
         + ((sums[4] + sums[5]) + (sums[6] + sums[7]));
}

/* Central differences of a piece of a row along one axis, one-sided at the ends. */
INLINE void slope(float *out, const float *image, const int64_t *n, int axis, int64_t i,
                  int64_t j, int64_t k, int64_t count)
{
    const int64_t step[3] = {n[1] * n[2], n[2], 1}, at[3] = {i, j, k};
    const float *row = image + i * step[0] + j * step[1] + k;
    const int64_t before = at[axis] > 0 ? step[axis] : 0;
    const int64_t after = at[axis] < n[axis] - 1 ? step[axis] : 0;
    if (axis < 2) {
        const float half = before && after ? 0.5f : 1;
        for (int64_t x = 0; x < count; x++)
            out[x] = (row[x + after] - row[x - before]) * half;
        return;
    }
    for (int64_t x = k == 0; x < count - (k + count == n[2]); x++)
        out[x] = (row[x + 1] - row[x - 1]) * 0.5f;
    if (k == 0)
        out[0] = row[after] - row[0];
    if (k + count == n[2] && n[2] > 1)
        out[count - 1] = row[count - 1] - row[count - 2];
}
