/*
 * Inner products in a fixed order; see dot_products.py. Called by native_dot_products.py.
 *
 * Products of float32 numbers are exact in float64; those of differences are rounded, as are all sums, one by one.
 */

#include "kernels.h"

/* As reductions.py has them. */
#define N_LANES 64
#define REDUCTION_BLOCK 65536

INLINE void load_wide(const void *block, int dtype, ptrdiff_t first, int n, double *restrict out) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) out[i] = (double)element(block, BFLOAT16, first + i);
    else
        for (int i = 0; i < n; i++) out[i] = (double)element(block, FLOAT32, first + i);
}

/* Elements from `first` on, at most one per lane; minus those of the origin, if there is one. */
INLINE void load_difference(const void *block, int dtype, const void *origin, int origin_dtype, ptrdiff_t first, int n,
                            double *restrict out) {
    load_wide(block, dtype, first, n, out);
    if (origin) {
        double from[N_LANES];
        load_wide(origin, origin_dtype, first, n, from);
        for (int i = 0; i < n; i++) out[i] -= from[i];
    }
}

/*
 * Add the products of two blocks' elements i to lane (n_seen + i) modulo their number.
 *
 * Returns how many blocks of REDUCTION_BLOCK ended; their sums are in `closed`, and the lanes hold what came after them.
 */
CLONES int add_products(const void *left, int left_dtype, const void *right, int right_dtype, const void *origin,
                        int origin_dtype, ptrdiff_t n_elements, int64_t n_seen, double *lanes, double *closed) {
    double sums[N_LANES], a[N_LANES], b[N_LANES];
    int n_closed = 0;
    memcpy(sums, lanes, sizeof sums);
    for (ptrdiff_t done = 0; done < n_elements;) {
        int lane = (int)((n_seen + done) % N_LANES), n = N_LANES - lane;
        if (n > n_elements - done) n = (int)(n_elements - done);
        load_difference(left, left_dtype, origin, origin_dtype, done, n, a);
        load_difference(right, right_dtype, origin, origin_dtype, done, n, b);
        if (n == N_LANES)
            for (int i = 0; i < N_LANES; i++) sums[i] += a[i] * b[i];
        else
            for (int i = 0; i < n; i++) sums[lane + i] += a[i] * b[i];
        done += n;
        if ((n_seen + done) % REDUCTION_BLOCK == 0) {
            double total = 0.0;
            for (int i = 0; i < N_LANES; i++) total += sums[i];
            closed[n_closed++] = total;
            memset(sums, 0, sizeof sums);
        }
    }
    memcpy(lanes, sums, sizeof sums);
    return n_closed;
}
