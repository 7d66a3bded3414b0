/* Tensors and spherical harmonics turned by the rotation of a map at each voxel. */

#include "kernels.h"

/* Newton iterations towards an orthogonal matrix, and its limits: ../../reorientation.py
   says why. */
#define ITERATIONS 4
#define NOT_ORTHOGONAL 0.1f
#define LEAST_DETERMINANT 1e-6f
/* Monomials of degree 4 in three variables. */
#define MONOMIALS 15

struct matrices {
    float at[3][3][PIECE];
};

/* Jacobian matrices of a piece of a row: P + L (du/dx) M, of the nine numbers each of P,
   L and M one after another. */
INLINE void jacobians(struct matrices *out, const float *u, const int64_t *n,
                      const float *linear, int64_t i, int64_t j, int64_t k, int64_t count)
{
    const float *constant = linear, *left = linear + 9, *right = linear + 18;
    const int64_t volume = n[0] * n[1] * n[2];
    struct matrices slopes, part;
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            slope(slopes.at[a][b], u + a * volume, n, b, i, j, k, count);
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            for (int64_t x = 0; x < count; x++)
                part.at[a][b][x] = slopes.at[a][0][x] * right[b]
                                 + slopes.at[a][1][x] * right[3 + b]
                                 + slopes.at[a][2][x] * right[6 + b];
    for (int a = 0; a < 3; a++)
        for (int b = 0; b < 3; b++)
            for (int64_t x = 0; x < count; x++)
                out->at[a][b][x] = constant[3 * a + b]
                                 + left[3 * a] * part.at[0][b][x]
                                 + left[3 * a + 1] * part.at[1][b][x]
                                 + left[3 * a + 2] * part.at[2][b][x];
}

/* Matrices replaced by their orthogonal polar factors, or by the identity where they are
   nearly singular. */
INLINE void make_orthogonal(struct matrices *m, int64_t count)
{
    for (int64_t x = 0; x < count; x++) {
        float r[9], c[9];
        float norm = 0;
#pragma GCC unroll 9
        for (int e = 0; e < 9; e++) {
            r[e] = m->at[e / 3][e % 3][x];
            norm += r[e] * r[e];
        }
        const float scale = sqrtf(3 / (norm > 1e-12f ? norm : 1e-12f));
#pragma GCC unroll 9
        for (int e = 0; e < 9; e++)
            r[e] *= scale;
#pragma GCC unroll 4
        for (int round = 0; round < ITERATIONS; round++) {
            c[0] = r[4] * r[8] - r[5] * r[7];
            c[1] = r[5] * r[6] - r[3] * r[8];
            c[2] = r[3] * r[7] - r[4] * r[6];
            c[3] = r[7] * r[2] - r[8] * r[1];
            c[4] = r[8] * r[0] - r[6] * r[2];
            c[5] = r[6] * r[1] - r[7] * r[0];
            c[6] = r[1] * r[5] - r[2] * r[4];
            c[7] = r[2] * r[3] - r[0] * r[5];
            c[8] = r[0] * r[4] - r[1] * r[3];
            float det = c[0] * r[0] + c[1] * r[1] + c[2] * r[2];
            det = fabsf(det) < LEAST_DETERMINANT ? LEAST_DETERMINANT : det;
            const float inverse = 1 / det;
#pragma GCC unroll 9
            for (int e = 0; e < 9; e++)
                r[e] = 0.5f * (r[e] + c[e] * inverse);
        }
        float error = 0;
#pragma GCC unroll 3
        for (int a = 0; a < 9; a += 3) {
            const float off = r[a] * r[a] + r[a + 1] * r[a + 1] + r[a + 2] * r[a + 2] - 1;
            error += off * off;
        }
#pragma GCC unroll 9
        for (int e = 0; e < 9; e++)
            m->at[e / 3][e % 3][x] = error <= NOT_ORTHOGONAL ? r[e] : (float)(e % 4 == 0);
    }
}

/* Whether channels of a piece of a row, `volume` apart, hold anything but 0. */
INLINE int holds_values(const float *channels, int64_t volume, int64_t number, int64_t count)
{
    float largest = 0;
    for (int64_t c = 0; c < number; c++)
        for (int64_t x = 0; x < count; x++)
            largest += fabsf(channels[c * volume + x]);
    return !(largest == 0); /* NaN too */
}

/* Tensors D become R D R', with R the transpose of the polar factor of the Jacobian. */
KERNEL void turn_tensors(float *channels, const float *u, const int64_t *n,
                         const float *linear, int64_t begin, int64_t end)
{
    static const int whole[3][3] = {{0, 1, 3}, {1, 2, 4}, {3, 4, 5}};
    const int64_t volume = n[0] * n[1] * n[2];
    struct matrices m;
    for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < n[1]; j++)
    for (int64_t k = 0; k < n[2]; k += PIECE) {
        const int64_t here = (i * n[1] + j) * n[2] + k, count = least(PIECE, n[2] - k);
        float *to[6];
        for (int c = 0; c < 6; c++)
            to[c] = channels + c * volume + here;
        if (!holds_values(to[0], volume, 6, count))
            continue;
        jacobians(&m, u, n, linear, i, j, k, count);
        make_orthogonal(&m, count);
        for (int64_t x = 0; x < count; x++) {
            float d[6], part[3][3], r[3][3];
#pragma GCC unroll 6
            for (int c = 0; c < 6; c++)
                d[c] = to[c][x];
#pragma GCC unroll 3
            for (int a = 0; a < 3; a++)
#pragma GCC unroll 3
                for (int b = 0; b < 3; b++)
                    r[a][b] = m.at[a][b][x];
#pragma GCC unroll 3
            for (int a = 0; a < 3; a++)
#pragma GCC unroll 3
                for (int b = 0; b < 3; b++)
                    part[a][b] = d[whole[a][0]] * r[0][b] + d[whole[a][1]] * r[1][b]
                               + d[whole[a][2]] * r[2][b];
#pragma GCC unroll 3
            for (int a = 0; a < 3; a++)
#pragma GCC unroll 3
                for (int b = a; b < 3; b++)
                    to[whole[a][b]][x] = r[0][a] * part[0][b] + r[1][a] * part[1][b]
                                       + r[2][a] * part[2][b];
        }
    }
}

/* Values of polynomials of degree 4 at the points m d, with d a direction. */
INLINE void evaluate(float *out, const float terms[MONOMIALS][PIECE],
                     const struct matrices *m, const float *d, int64_t count)
{
    const float p = d[0], q = d[1], s = d[2];
    for (int64_t x = 0; x < count; x++) {
        const float first = m->at[0][0][x] * p + m->at[0][1][x] * q + m->at[0][2][x] * s;
        const float second = m->at[1][0][x] * p + m->at[1][1][x] * q + m->at[1][2][x] * s;
        const float z = m->at[2][0][x] * p + m->at[2][1][x] * q + m->at[2][2][x] * s;
        const float powers[5] = {1, z, z * z, z * z * z, z * z * z * z};
        float value = 0;
        int term = MONOMIALS - 1;
#pragma GCC unroll 5
        for (int a = 4; a >= 0; a--) {
            float inner = 0;
#pragma GCC unroll 5
            for (int b = 4 - a; b >= 0; b--)
                inner = inner * second + terms[term--][x] * powers[4 - a - b];
            value = value * first + inner;
        }
        out[x] = value;
    }
}

/* Functions on the sphere become f(J d), with J the polar factor of the Jacobian: exact
   for even harmonics of order 4 at most.  `number` coefficients; `polynomials` (MONOMIALS
   x number) makes polynomials of them, `inverse` (number x number) takes the values in
   `directions` (number x 3) back to coefficients. */
KERNEL void turn_harmonics(float *channels, const float *u, const int64_t *n,
                           int64_t number, const float *linear, const float *polynomials,
                           const float *directions, const float *inverse, int64_t begin,
                           int64_t end)
{
    const int64_t volume = n[0] * n[1] * n[2];
    struct matrices m;
    float terms[MONOMIALS][PIECE], values[MONOMIALS][PIECE];
    for (int64_t i = begin; i < end; i++)
    for (int64_t j = 0; j < n[1]; j++)
    for (int64_t k = 0; k < n[2]; k += PIECE) {
        const int64_t here = (i * n[1] + j) * n[2] + k, count = least(PIECE, n[2] - k);
        float *to = channels + here;
        if (!holds_values(to, volume, number, count))
            continue;
        jacobians(&m, u, n, linear, i, j, k, count);
        make_orthogonal(&m, count);
        for (int64_t t = 0; t < MONOMIALS; t++) {
            memset(terms[t], 0, sizeof terms[t]);
            for (int64_t c = 0; c < number; c++) {
                const float weight = polynomials[t * number + c];
                for (int64_t x = 0; x < count; x++)
                    terms[t][x] += weight * to[c * volume + x];
            }
        }
        for (int64_t d = 0; d < number; d++)
            evaluate(values[d], terms, &m, directions + 3 * d, count);
        for (int64_t c = 0; c < number; c++) {
            float sum[PIECE] = {0};
            for (int64_t d = 0; d < number; d++) {
                const float weight = inverse[c * number + d];
                for (int64_t x = 0; x < count; x++)
                    sum[x] += weight * values[d][x];
            }
            memcpy(to + c * volume, sum, count * sizeof *sum);
        }
    }
}
