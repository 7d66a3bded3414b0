/* Sampling at displaced points, derivatives, and fields that are inverse to each other. */

#include "kernels.h"

typedef float vector4 __attribute__((vector_size(16)));
typedef double vector2 __attribute__((vector_size(16)));

/* A field's component along an axis, at a voxel; NULL: 2D has none for axis 1. */
INLINE const float *component(const float *field, const int64_t *n, int64_t dim, int axis,
                              int64_t here)
{
    if (dim == 2 && axis == 1)
        return NULL;
    return field + (dim == 2 ? axis / 2 : axis) * n[0] * n[1] * n[2] + here;
}

/* ---- interpolation ---- */

struct places {
    int32_t corner[PIECE]; /* offset of the voxel below on every axis */
    float above[PIECE];    /* weight of the voxels above along axis 0 */
    vector4 face[PIECE];   /* weights of the four corners along axes 1 and 2 */
};

/* Coordinates of displaced points of a row, from (i, j, k) on; affine may be NULL. */
INLINE void displaced(float place[3][PIECE], const float *const *move,
                      const double *affine, int64_t i, int64_t j, int64_t k, int64_t count)
{
    static const double same[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0};
    const double *row = affine ? affine : same;
    for (int a = 0; a < 3; a++, row += 4) {
        const float first = row[0] * i + row[1] * j + row[2] * k + row[3];
        const float slope = row[2];
        for (int32_t x = 0; x < count; x++)
            place[a][x] = first + slope * (float)x;
        for (int b = 0; b < 3; b++) {
            const float part = row[b];
            if (move[b] && part != 0)
                for (int64_t x = 0; x < count; x++)
                    place[a][x] += part * move[b][x];
        }
    }
}

/* Cells that points fall into, points beyond the image brought to its edge. */
INLINE void locate(struct places *at, float place[3][PIECE], const int64_t *n, int64_t count)
{
    const int32_t stride[3] = {n[1] * n[2], n[2], 1};
    for (int a = 0; a < 3; a++) {
        const float end = n[a] - 1;
        const int32_t last = n[a] > 1 ? n[a] - 2 : 0;
        for (int64_t x = 0; x < count; x++) {
            float p = place[a][x];
            p = p > 0 ? p : 0; /* NaN too: nothing may be read out of bounds */
            p = p < end ? p : end;
            int32_t lower = p;
            lower = lower < last ? lower : last;
            place[a][x] = p - (float)lower;
            at->corner[x] = (a ? at->corner[x] : 0) + lower * stride[a];
        }
    }
    for (int64_t x = 0; x < count; x++) {
        const float b = place[1][x], c = place[2][x], both = b * c;
        at->above[x] = place[0][x];
        at->face[x] = (vector4){1 - b - c + both, c - both, b - both, both};
    }
}

INLINE vector4 two_pairs(const float *p, const float *q)
{
    double first, second;
    memcpy(&first, p, sizeof first);
    memcpy(&second, q, sizeof second);
    const vector2 pairs = {first, second};
    vector4 result;
    memcpy(&result, &pairs, sizeof result);
    return result;
}

/* Trilinear values of an image at located points.  Its last axis has two voxels at
   least: neighbours along it are read in pairs. */
INLINE void interpolate(float *restrict out, const float *image, const int64_t *n,
                        const struct places *at, int64_t count)
{
    const int64_t s0 = n[0] > 1 ? n[1] * n[2] : 0, s1 = n[1] > 1 ? n[2] : 0;
    float part[4 * PIECE] __attribute__((aligned(16)));
    for (int64_t x = 0; x < count; x++) {
        const float *p = image + at->corner[x];
        const vector4 below = two_pairs(p, p + s1), over = two_pairs(p + s0, p + s0 + s1);
        const vector4 sum = (below + at->above[x] * (over - below)) * at->face[x];
        memcpy(part + 4 * x, &sum, sizeof sum);
    }
    for (int64_t x = 0; x < count; x++)
        out[x] = (part[4 * x] + part[4 * x + 1]) + (part[4 * x + 2] + part[4 * x + 3]);
}

/* out = plus + sign * image(A (x + u(x))); affine (3 x 4) and plus may be NULL. */
KERNEL void warp(const float *image, const int64_t *image_shape, int64_t channels,
                 const float *u, const int64_t *n, int64_t dim, const double *affine,
                 const float *plus, float sign, float *out, int64_t begin, int64_t end)
{
    const int64_t volume = n[0] * n[1] * n[2];
    const int64_t size = image_shape[0] * image_shape[1] * image_shape[2];
    struct places at;
    float place[3][PIECE], value[PIECE];
    for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < n[1]; j++)
    for (int64_t k = 0; k < n[2]; k += PIECE) {
        const int64_t here = (i * n[1] + j) * n[2] + k, count = least(PIECE, n[2] - k);
        const float *move[3];
        for (int a = 0; a < 3; a++)
            move[a] = component(u, n, dim, a, here);
        displaced(place, move, affine, i, j, k, count);
        locate(&at, place, image_shape, count);
        for (int64_t channel = 0; channel < channels; channel++) {
            interpolate(value, image + channel * size, image_shape, &at, count);
            float *restrict to = out + channel * volume + here;
            const float *from = plus ? plus + channel * volume + here : NULL;
            for (int64_t x = 0; x < count; x++)
                to[x] = (from ? from[x] : 0) + sign * value[x];
        }
    }
}

/* ---- derivatives, and the two fields of a map and its inverse ---- */

/* out = sum over channels of d image / d axis * factor, for axes 0, 1, 2, or 0 and 2 in
   2D. */
KERNEL void slopes(const float *image, const float *factor, const int64_t *n,
                   int64_t channels, int64_t dim, float *out, int64_t begin, int64_t end)
{
    const int64_t volume = n[0] * n[1] * n[2];
    float part[PIECE];
    for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < n[1]; j++)
    for (int64_t k = 0; k < n[2]; k += PIECE) {
        const int64_t here = (i * n[1] + j) * n[2] + k, count = least(PIECE, n[2] - k);
        for (int axis = 0; axis < 3; axis++) {
            float *to = (float *)component(out, n, dim, axis, here);
            if (!to)
                continue;
            slope(part, image, n, axis, i, j, k, count);
            for (int64_t x = 0; x < count; x++)
                to[x] = part[x] * factor[here + x];
            for (int64_t channel = 1; channel < channels; channel++) {
                const float *weight = factor + channel * volume + here;
                slope(part, image + channel * volume, n, axis, i, j, k, count);
                for (int64_t x = 0; x < count; x++)
                    to[x] += part[x] * weight[x];
            }
        }
    }
}

/* What a piece of a row needs to know of u and v, along axes a and b. */
struct trip {
    float error[3][PIECE];    /* u_a + v_a(x + u) */
    float slope[3][3][PIECE]; /* d u_b / d a */
    const float *move[3];     /* u_a */
};

INLINE void travel(struct trip *t, const float *u, const float *v, const int64_t *n,
                   int64_t dim, int64_t i, int64_t j, int64_t k, int64_t count)
{
    const int64_t here = (i * n[1] + j) * n[2] + k;
    struct places at;
    float place[3][PIECE];
    for (int a = 0; a < 3; a++)
        t->move[a] = component(u, n, dim, a, here);
    displaced(place, t->move, NULL, i, j, k, count);
    locate(&at, place, n, count);
    for (int b = 0; b < 3; b++) {
        if (!t->move[b])
            continue;
        interpolate(t->error[b], component(v, n, dim, b, 0), n, &at, count);
        for (int64_t x = 0; x < count; x++)
            t->error[b][x] += t->move[b][x];
        for (int a = 0; a < 3; a++)
            if (t->move[a])
                slope(t->slope[a][b], component(u, n, dim, b, 0), n, a, i, j, k, count);
    }
}

/* 1 where x + u(x) is on the grid, else 0. */
INLINE void stays(float *on, const float *const *move, const int64_t *n, int64_t i,
                  int64_t j, int64_t k, int64_t count)
{
    const int64_t at[3] = {i, j, k};
    for (int64_t x = 0; x < count; x++)
        on[x] = 1;
    for (int a = 0; a < 3; a++)
        for (int32_t x = 0; x < count && move[a]; x++) {
            const float p = move[a][x] + (float)(at[a] + (a == 2 ? x : 0));
            on[x] = p >= 0 && p <= (float)(n[a] - 1) ? on[x] : 0;
        }
}

/* out = u less half a Newton step towards the inverse of v, `longest` at most; u where
   x + u(x) is not on the grid. */
KERNEL void corrected(const float *u, const float *v, const int64_t *n, int64_t dim,
                      float longest, float *out, int64_t begin, int64_t end)
{
    struct trip t;
    memset(&t, 0, sizeof t);
    for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < n[1]; j++)
    for (int64_t k = 0; k < n[2]; k += PIECE) {
        const int64_t here = (i * n[1] + j) * n[2] + k, count = least(PIECE, n[2] - k);
        float step[3][PIECE], factor[PIECE], on[PIECE];
        travel(&t, u, v, n, dim, i, j, k, count);
        stays(on, t.move, n, i, j, k, count);
        for (int b = 0; b < 3; b++)
            for (int64_t x = 0; x < count; x++)
                step[b][x] = t.error[b][x] + t.slope[0][b][x] * t.error[0][x]
                           + t.slope[1][b][x] * t.error[1][x]
                           + t.slope[2][b][x] * t.error[2][x];
        for (int64_t x = 0; x < count; x++) {
            const float length = sqrtf(step[0][x] * step[0][x] + step[1][x] * step[1][x]
                                       + step[2][x] * step[2][x]);
            factor[x] = longest / (length <= 2 * longest ? 2 * longest : length);
        }
        for (int b = 0; b < 3; b++) {
            float *to = (float *)component(out, n, dim, b, here);
            for (int64_t x = 0; x < count && to; x++)
                to[x] = t.move[b][x] - (on[x] != 0 ? step[b][x] * factor[x] : 0);
        }
    }
}

/* Determinant of the Jacobian of x + u(x); distance |u(x) + v(x + u(x))| where that
   point is on the grid, else 0; and every plane's sum of distances and count inside. */
KERNEL void checked(const float *u, const float *v, const int64_t *n, int64_t dim,
                    float *determinant, float *distance, double *sums, int64_t begin,
                    int64_t end)
{
    struct trip t;
    memset(&t, 0, sizeof t);
    for (int64_t i = begin; i < end; i++) {
        double far[LANES] = {0}, inside[LANES] = {0};
        for (int64_t j = 0; j < n[1]; j++)
        for (int64_t k = 0; k < n[2]; k += PIECE) {
            const int64_t here = (i * n[1] + j) * n[2] + k;
            const int64_t count = least(PIECE, n[2] - k);
            float on[PIECE], *det = determinant + here, *to = distance + here;
            travel(&t, u, v, n, dim, i, j, k, count);
            stays(on, t.move, n, i, j, k, count);
#pragma GCC ivdep
            for (int64_t x = 0; x < count; x++) {
                const float *e = &t.error[0][x], *d = &t.slope[0][0][x];
                const float a = 1 + d[0], b = d[PIECE], c = d[2 * PIECE];
                const float f = d[3 * PIECE], g = 1 + d[4 * PIECE], h = d[5 * PIECE];
                const float p = d[6 * PIECE], q = d[7 * PIECE], r = 1 + d[8 * PIECE];
                const float away = sqrtf(e[0] * e[0] + e[PIECE] * e[PIECE]
                                         + e[2 * PIECE] * e[2 * PIECE]);
                det[x] = a * (g * r - h * q) - b * (f * r - h * p) + c * (f * q - g * p);
                to[x] = on[x] != 0 ? away : 0;
            }
            add_up(far, to, count);
            add_up(inside, on, count);
        }
        sums[2 * i] = total(far);
        sums[2 * i + 1] = total(inside);
    }
}
