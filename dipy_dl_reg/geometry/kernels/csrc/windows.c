/* Weighted sums over windows, the local correlation of two images, and Adam. */

#include "kernels.h"

typedef float vector8 __attribute__((vector_size(32), aligned(4), may_alias));

/* ---- weighted sums of rows: Gaussians, boxes ---- */

/* The 2r + 1 rows or planes around the one at i of a stack of n, kept in a ring of
   `depth`; zeros beyond its ends. */
INLINE void around(const float **rows, const float *stack, int64_t step, int64_t i,
                   int64_t r, int64_t n, int64_t depth, const float *zeros)
{
    for (int64_t d = i - r; d <= i + r; d++)
        *rows++ = d < 0 || d >= n ? zeros : stack + (depth < n ? d % depth : d) * step;
}

/* `blocks` vectors of 8 voxels of `weigh`, from x on: sums stay in registers. */
INLINE void weigh_block(float *out, const float *const *rows, const float *taps, int64_t r,
                        float scale, int64_t x, const int blocks)
{
    vector8 sum[4];
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
        sum[b] = taps[0] * *(const vector8 *)(rows[r] + x + 8 * b);
    for (int64_t d = 1; d <= r; d++) {
        const float *before = rows[r - d] + x, *after = rows[r + d] + x, tap = taps[d];
#pragma GCC unroll 4
        for (int b = 0; b < blocks; b++)
            sum[b] += tap * (*(const vector8 *)(before + 8 * b)
                             + *(const vector8 *)(after + 8 * b));
    }
#pragma GCC unroll 4
    for (int b = 0; b < blocks; b++)
        *(vector8 *)(out + x + 8 * b) = sum[b] * scale;
}

/* scale times a symmetric weighted sum of 2r + 1 rows; `out` is none of them. */
INLINE void weigh(float *out, const float *const *rows, const float *taps, int64_t r,
                  float scale, int64_t n)
{
    int64_t x = 0;
    for (; x + 32 <= n; x += 32)
        weigh_block(out, rows, taps, r, scale, x, 4);
    for (; x + 8 <= n; x += 8)
        weigh_block(out, rows, taps, r, scale, x, 1);
    if (x < n && n >= 8) /* the last ones once more rather than one by one */
        weigh_block(out, rows, taps, r, scale, n - 8, 1);
    for (; x < n && n < 8; x++) {
        float sum = taps[0] * rows[r][x];
        for (int64_t d = 1; d <= r; d++)
            sum += taps[d] * (rows[r - d][x] + rows[r + d][x]);
        out[x] = sum * scale;
    }
}

/* The same along a row, padded with r zeros at both ends. */
INLINE void weigh_along(float *out, const float *padded, const float **rows,
                        const float *taps, int64_t r, int64_t n)
{
    for (int64_t d = 0; d <= 2 * r; d++)
        rows[d] = padded + d;
    weigh(out, rows, taps, r, 1, n);
}

/* A symmetric kernel along every axis: its half, centre first, and what the result is
   multiplied with at each position. */
struct stencil {
    int64_t radius[3];
    const float *taps[3], *scale[3];
};

/* One plane, along axes 1 and 2. */
INLINE void weigh_plane(float *out, const float *plane, const struct stencil *s,
                        const int64_t *n, float *padded, const float **rows,
                        const float *zeros)
{
    const int64_t edge = s->radius[2], width = n[2] + 2 * edge;
    for (int64_t j = 0; j <= n[1]; j++) {
        /* Axis 2 is a row behind: what was just stored is slow to load. */
        const float *last = padded + (j + 1) % 2 * width;
        if (j < n[1]) {
            around(rows, plane, n[2], j, s->radius[1], n[1], n[1], zeros);
            weigh(padded + j % 2 * width + edge, rows, s->taps[1], s->radius[1],
                  s->scale[1][j], n[2]);
        }
        if (j == 0)
            continue;
        float *to = out + (j - 1) * n[2];
        weigh_along(to, last, rows, s->taps[2], edge, n[2]);
        for (int64_t k = 0; k < edge; k++)
            to[k] *= s->scale[2][k];
        for (int64_t k = most(edge, n[2] - edge); k < n[2]; k++)
            to[k] *= s->scale[2][k];
    }
}

/* Correlate images with a stencil, zeros beyond them. */
KERNEL int separable(const float *image, const int64_t *n, int64_t channels,
                     const struct stencil *s, float *out, int64_t begin, int64_t end)
{
    const int64_t plane = n[1] * n[2], r = s->radius[0], depth = 2 * r + 1;
    const int64_t widest = 2 * most(most(r, s->radius[1]), s->radius[2]) + 1;
    const int64_t padded = 2 * (n[2] + 2 * s->radius[2]);
    float *ring = calloc((depth + 1) * plane + padded, sizeof *ring);
    const float **planes = malloc(2 * widest * sizeof *planes), **rows = planes + widest;
    const int ready = ring && planes;
    float *zeros = ring + depth * plane;
    for (int64_t c = 0; c < channels && ready; c++) {
        const int64_t channel = c * n[0] * plane;
        for (int64_t i = begin - r; i < end + r; i++) {
            if (i >= 0 && i < n[0])
                weigh_plane(ring + i % depth * plane, image + channel + i * plane, s, n,
                            zeros + plane, rows, zeros);
            const int64_t done = i - r;
            if (done < begin)
                continue;
            around(planes, ring, plane, done, r, n[0], depth, zeros);
            for (int64_t j = 0; j < n[1]; j++) {
                for (int64_t d = 0; d < depth; d++)
                    rows[d] = planes[d] + j * n[2];
                weigh(out + channel + done * plane + j * n[2], rows, s->taps[0], r,
                      s->scale[0][done], n[2]);
            }
        }
    }
    free(ring);
    free(planes);
    return !ready;
}

/* ---- local correlation ---- */

/* Constants of local correlation: five images, of which mask may be NULL, and sizes.
   ../functions.py fills it in. */
struct window {
    const float *fixed, *mean, *precision, *inverse_count, *mask;
    const float *ones;
    int64_t radius[3];
    float floor, scale;
};

/* The rows that box sums of three channels work on. */
struct boxes {
    float *products, *coefficients; /* rings of planes, three channels each */
    float *plane;                   /* three channels, summed along axis 2 */
    float *padded[3], *sums[3];     /* rows */
    float *zeros, *everywhere;      /* a plane of 0, a row of 1 */
    const float **planes, **rows;
};

/* Box sums within plane i: three padded rows at a time come from `fill`. */
INLINE void sum_row(const struct boxes *m, const struct window *s, const int64_t *n,
                    int64_t j)
{
    for (int c = 0; c < 3; c++)
        weigh_along(m->plane + (c * n[1] + j) * n[2], m->padded[c] - s->radius[2],
                    m->rows, s->ones, s->radius[2], n[2]);
}

/* Then along axis 1, into the ring's place for plane i. */
INLINE void sum_plane(const struct boxes *m, const struct window *s, const int64_t *n,
                      float *ring, int64_t i)
{
    const int64_t plane = n[1] * n[2], depth = 2 * s->radius[0] + 1;
    for (int c = 0; c < 3; c++)
        for (int64_t j = 0; j < n[1]; j++) {
            around(m->rows, m->plane + c * plane, n[2], j, s->radius[1], n[1], n[1],
                   m->zeros);
            weigh(ring + (3 * (i % depth) + c) * plane + j * n[2], m->rows, s->ones,
                  s->radius[1], 1, n[2]);
        }
}

/* And along axis 0, one row of three channels. */
INLINE void sum_across(const struct boxes *m, const struct window *s, const int64_t *n,
                       const float *ring, int64_t i, int64_t j)
{
    const int64_t plane = n[1] * n[2], depth = 2 * s->radius[0] + 1;
    around(m->planes, ring, 3 * plane, i, s->radius[0], n[0], depth, m->zeros);
    for (int c = 0; c < 3; c++) {
        for (int64_t d = 0; d < depth; d++)
            m->rows[d] = m->planes[d] + (m->planes[d] == m->zeros ? 0 : c * plane)
                       + j * n[2];
        weigh(m->sums[c], m->rows, s->ones, s->radius[0], 1, n[2]);
    }
}

/* Where the mask begins, or ones. */
INLINE const float *counted(const struct boxes *m, const struct window *s, int64_t here)
{
    return s->mask ? s->mask + here : m->everywhere;
}

/* A row of w, w w and w s, where w is the warped image and s the fixed one. */
INLINE void products(const struct boxes *m, const struct window *s, const float *warped,
                     int64_t here, int64_t n)
{
    const float *image = warped + here, *fixed = s->fixed + here;
    const float *keep = counted(m, s, here);
    float *w = m->padded[0], *ww = m->padded[1], *ws = m->padded[2];
#pragma GCC ivdep
    for (int64_t x = 0; x < n; x++) {
        const float value = image[x] * keep[x];
        w[x] = value;
        ww[x] = value * value;
        ws[x] = value * fixed[x];
    }
}

/* A row of the coefficients whose box sums make the gradient (see CCMetric's notes),
   and of cc in place of the first sum. */
INLINE void coefficients(const struct boxes *m, const struct window *s, int64_t here,
                         int64_t n)
{
    const float *count = s->inverse_count + here, *other = s->mean + here;
    const float *precision = s->precision + here, *keep = counted(m, s, here);
    const float *squares = m->sums[1], *crosses = m->sums[2], floor = s->floor;
    float *first = m->padded[0], *second = m->padded[1], *third = m->padded[2];
    float *cc = m->sums[0];
#pragma GCC ivdep
    for (int64_t x = 0; x < n; x++) {
        const float mean = cc[x] * count[x];
        const float cross = crosses[x] * count[x] - mean * other[x] + floor;
        float var = squares[x] * count[x] - mean * mean;
        var = (var > 0 ? var : 0) + floor;
        const float a = cross * precision[x] / var * keep[x];
        const float b = cross * a / var * count[x];
        cc[x] = cross * a;
        first[x] = a * count[x];
        second[x] = b;
        third[x] = b * mean - a * count[x] * other[x];
    }
}

INLINE void gradients(const struct boxes *m, const struct window *s, const float *warped,
                      float *gradient, int64_t here, int64_t n)
{
    const float *image = warped + here, *fixed = s->fixed + here;
    const float *a = m->sums[0], *b = m->sums[1], *c = m->sums[2];
    const float *keep = counted(m, s, here), scale = s->scale;
    float *to = gradient + here;
#pragma GCC ivdep
    for (int64_t x = 0; x < n; x++)
        to[x] = (a[x] * fixed[x] - b[x] * (image[x] * keep[x]) + c[x]) * scale * keep[x];
}

INLINE int allot(struct boxes *m, const struct window *s, const int64_t *n)
{
    const int64_t plane = n[1] * n[2], ring = 3 * (2 * s->radius[0] + 1) * plane;
    const int64_t widest = 2 * most(most(s->radius[0], s->radius[1]), s->radius[2]) + 1;
    const int64_t padded = n[2] + 2 * s->radius[2];
    float *memory = calloc(2 * ring + 4 * plane + 3 * padded + 4 * n[2], sizeof *memory);
    m->planes = malloc(2 * widest * sizeof *m->planes);
    m->rows = m->planes + widest;
    m->products = memory;
    m->coefficients = memory + ring;
    m->plane = memory + 2 * ring;
    m->zeros = m->plane + 3 * plane;
    for (int c = 0; c < 3; c++) {
        m->padded[c] = m->zeros + plane + c * padded + s->radius[2];
        m->sums[c] = m->zeros + plane + 3 * padded + c * n[2];
    }
    m->everywhere = m->sums[2] + n[2];
    for (int64_t x = 0; x < n[2] && memory; x++)
        m->everywhere[x] = 1;
    return memory && m->planes;
}

/* Gradient of the mean of squared local correlation times scale, and the sum of the
   correlations of every plane. */
KERNEL int local_correlation(const float *warped, const struct window *s, const int64_t *n,
                             float *gradient, double *values, int64_t begin, int64_t end)
{
    const int64_t plane = n[1] * n[2], r = s->radius[0];
    struct boxes m;
    const int ready = allot(&m, s, n);
    for (int64_t i = begin - 2 * r; i < end + 2 * r && ready; i++) {
        if (i >= 0 && i < n[0]) {
            for (int64_t j = 0; j < n[1]; j++) {
                products(&m, s, warped, i * plane + j * n[2], n[2]);
                sum_row(&m, s, n, j);
            }
            sum_plane(&m, s, n, m.products, i);
        }
        const int64_t middle = i - r, last = i - 2 * r;
        if (middle >= most(begin - r, 0) && middle < least(end + r, n[0])) {
            double sums[LANES] = {0};
            for (int64_t j = 0; j < n[1]; j++) {
                sum_across(&m, s, n, m.products, middle, j);
                coefficients(&m, s, middle * plane + j * n[2], n[2]);
                add_up(sums, m.sums[0], n[2]);
                sum_row(&m, s, n, j);
            }
            sum_plane(&m, s, n, m.coefficients, middle);
            if (middle >= begin && middle < end)
                values[middle] = total(sums);
        }
        for (int64_t j = 0; j < n[1] && last >= begin; j++) {
            sum_across(&m, s, n, m.coefficients, last, j);
            gradients(&m, s, warped, gradient, last * plane + j * n[2], n[2]);
        }
    }
    free(m.products);
    free(m.planes);
    return !ready;
}

/* ---- Adam ---- */

/* Update both moments of `channels` components with gradient g; the largest second
   moment of every plane goes to `largest`, NaN if there is one. */
KERNEL void moments(const float *g, float *first, float *second, const int64_t *n,
                    int64_t channels, float beta1, float beta2, float *largest,
                    int64_t begin, int64_t end)
{
    const int64_t plane = n[1] * n[2], volume = n[0] * plane;
    const float rest1 = 1 - beta1, rest2 = 1 - beta2;
    for (int64_t i = begin; i < end; i++) {
        int32_t top = 0; /* not below 0: their bits are ordered as they are, NaN last */
        for (int64_t x = i * plane; x < (i + 1) * plane; x += PIECE) {
            const int64_t count = least(PIECE, (i + 1) * plane - x);
            float square[PIECE] = {0};
            for (int64_t c = 0; c < channels; c++) {
                const float *from = g + c * volume + x;
                float *to = first + c * volume + x;
#pragma GCC ivdep
                for (int64_t k = 0; k < count; k++) {
                    to[k] = beta1 * to[k] + rest1 * from[k];
                    square[k] += from[k] * from[k];
                }
            }
            float *to = second + x;
#pragma GCC ivdep
            for (int64_t k = 0; k < count; k++)
                to[k] = square[k] = beta2 * to[k] + rest2 * square[k];
            int32_t bits[PIECE];
            memcpy(bits, square, sizeof bits);
            for (int64_t k = 0; k < count; k++) {
                const int32_t value = bits[k] & 0x7fffffff;
                top = top > value ? top : value;
            }
        }
        memcpy(largest + i, &top, sizeof top);
    }
}

/* out = rate * first / (sqrt(second * unbias) + floor). */
KERNEL void direction(const float *first, const float *second, const int64_t *n,
                      int64_t channels, float unbias, float floor, float rate, float *out,
                      int64_t begin, int64_t end)
{
    const int64_t plane = n[1] * n[2], volume = n[0] * plane;
    for (int64_t x = begin * plane; x < end * plane; x += PIECE) {
        const int64_t count = least(PIECE, end * plane - x);
        float factor[PIECE];
        for (int64_t k = 0; k < count; k++)
            factor[k] = rate / (sqrtf(second[x + k] * unbias) + floor);
        for (int64_t c = 0; c < channels; c++) {
            const float *from = first + c * volume + x;
            float *to = out + c * volume + x;
#pragma GCC ivdep
            for (int64_t k = 0; k < count; k++)
                to[k] = from[k] * factor[k];
        }
    }
}
