/*
 * Inner products in a fixed order; see dot_products.py. Called by native_dot_products.py.
 *
 * Products of float32 numbers are exact in float64; those of differences are rounded, as are all sums, one by one.
 */

#include "kernels.h"

/* As reductions.py has them. */
#define N_LANES 64
#define REDUCTION_BLOCK 65536
/* As native_dot_products.py has it. */
#define MAX_VECTORS 32
/* Elements of every lane that are added while its sum stays in a register. */
#define STRIP 4

INLINE void load_wide(const void *block, int dtype, ptrdiff_t first, int n, double *restrict out) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) out[i] = (double)element(block, BFLOAT16, first + i);
    else if (dtype == FLOAT16)
        for (int i = 0; i < n; i++) out[i] = (double)element(block, FLOAT16, first + i);
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

INLINE void multiply_add(double *restrict sums, const double *restrict left, const double *restrict right, int n) {
    for (int i = 0; i < n; i++) sums[i] += left[i] * right[i];
}

/* STRIP elements of every lane: the products of two blocks with themselves and each other, as `multiply_add` adds them. */
INLINE void add_strip(const void *left, const void *right, int dtype, ptrdiff_t first, double *restrict lanes) {
    for (int lane = 0; lane < N_LANES; lane++) {
        double squares = lanes[lane], mixed = lanes[N_LANES + lane], others = lanes[2 * N_LANES + lane];
#pragma GCC unroll 4
        for (int i = 0; i < STRIP; i++) {
            double x = (double)element(left, dtype, first + i * N_LANES + lane);
            double y = (double)element(right, dtype, first + i * N_LANES + lane);
            squares += x * x;
            mixed += x * y;
            others += y * y;
        }
        lanes[lane] = squares;
        lanes[N_LANES + lane] = mixed;
        lanes[2 * N_LANES + lane] = others;
    }
}

/* The sum of lanes, one after the other, which are 0 afterwards. */
INLINE double close_lanes(double *lanes) {
    double total = 0.0;
    for (int i = 0; i < N_LANES; i++) total += lanes[i];
    memset(lanes, 0, N_LANES * sizeof *lanes);
    return total;
}

/* At most one element of every lane. wide: memory. lanes: of the first element. */
INLINE void add_few(const void *const *blocks, const int *dtypes, int n_vectors, const void *origin, int origin_dtype,
                    ptrdiff_t first, int n, double (*wide)[N_LANES], double *lanes) {
    int is_full = n == N_LANES, pair = 0;
    for (int k = 0; k < n_vectors; k++) {
        if (is_full)
            load_difference(blocks[k], dtypes[k], origin, origin_dtype, first, N_LANES, wide[k]);
        else
            load_difference(blocks[k], dtypes[k], origin, origin_dtype, first, n, wide[k]);
    }
    for (int left = 0; left < n_vectors; left++)
        for (int right = left; right < n_vectors; right++, pair++) {
            if (is_full)
                multiply_add(lanes + pair * N_LANES, wide[left], wide[right], N_LANES);
            else
                multiply_add(lanes + pair * N_LANES, wide[left], wide[right], n);
        }
}

/*
 * Add the products of every pair of blocks (0 with 0, 0 with 1, ... 1 with 1, ...): those of elements i to lane
 * (n_seen + i) modulo their number. lanes: N_LANES for each pair. At most MAX_VECTORS blocks.
 *
 * Returns how many blocks of REDUCTION_BLOCK ended; the sums of pair p are in closed[p x max_closed], and the lanes hold
 * what came after them.
 */
CLONES int add_products(const void *const *blocks, const int *dtypes, int n_vectors, const void *origin,
                        int origin_dtype, ptrdiff_t n_elements, int64_t n_seen, double *lanes, double *closed,
                        int max_closed) {
    double wide[MAX_VECTORS][N_LANES];
    int n_closed = 0, n_pairs = n_vectors * (n_vectors + 1) / 2;
    /* What slerp asks for. A strip never crosses the end of a reduction block, which is a multiple of it. */
    int is_plain_pair = n_vectors == 2 && !origin && dtypes[0] == dtypes[1];
    for (ptrdiff_t done = 0; done < n_elements;) {
        if (is_plain_pair && (n_seen + done) % (STRIP * N_LANES) == 0 && n_elements - done >= STRIP * N_LANES) {
            if (dtypes[0] == BFLOAT16)
                add_strip(blocks[0], blocks[1], BFLOAT16, done, lanes);
            else if (dtypes[0] == FLOAT16)
                add_strip(blocks[0], blocks[1], FLOAT16, done, lanes);
            else
                add_strip(blocks[0], blocks[1], FLOAT32, done, lanes);
            done += STRIP * N_LANES;
        } else {
            int lane = (int)((n_seen + done) % N_LANES), n = N_LANES - lane;
            if (n > n_elements - done) n = (int)(n_elements - done);
            add_few(blocks, dtypes, n_vectors, origin, origin_dtype, done, n, wide, lanes + lane);
            done += n;
        }
        if ((n_seen + done) % REDUCTION_BLOCK == 0) {
            for (int p = 0; p < n_pairs; p++) closed[p * max_closed + n_closed] = close_lanes(lanes + p * N_LANES);
            n_closed++;
        }
    }
    return n_closed;
}
