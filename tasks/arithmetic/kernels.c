/*
 * The loops of a linear merge that torch does in many steps, in one pass over blocks that lie in a core's cache.
 *
 * CHUNK elements at a time stay in the first-level cache, whatever the number of inputs.
 */

#include "kernels.h"

#define VERSION 5
#define CHUNK 256

INLINE void multiply(float *restrict total, float factor, int n) {
    for (int i = 0; i < n; i++) total[i] = factor * total[i];
}

/* total += factor * block, product and sum rounded once. */
INLINE void add_product(float *restrict total, const void *block, int dtype, ptrdiff_t first, float factor, int n) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, BFLOAT16, first + i), total[i]);
    else if (dtype == FLOAT16)
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, FLOAT16, first + i), total[i]);
    else
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, FLOAT32, first + i), total[i]);
}

/* total += factor * (block - origin), the difference rounded by itself. */
INLINE void add_change(float *restrict total, const void *block, int dtype, ptrdiff_t first,
                       const float *restrict origin, float factor, int n) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, BFLOAT16, first + i) - origin[i], total[i]);
    else if (dtype == FLOAT16)
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, FLOAT16, first + i) - origin[i], total[i]);
    else
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, element(block, FLOAT32, first + i) - origin[i], total[i]);
}

INLINE uint32_t sum_weighted(const void *const *blocks, const int *dtypes, const float *weights, int n_blocks,
                        ptrdiff_t first, int n, uint32_t largest, void *out, int out_dtype) {
    float total[CHUNK];
    load(blocks[0], dtypes[0], first, n, total);
    multiply(total, weights[0], n);
    for (int k = 1; k < n_blocks; k++) add_product(total, blocks[k], dtypes[k], first, weights[k], n);
    return store(total, n, largest, out, out_dtype, first);
}

INLINE uint32_t sum_task_vectors(const void *const *blocks, const int *dtypes, const float *omegas, float scale,
                            int n_skills, ptrdiff_t first, int n, uint32_t largest, void *out, int out_dtype) {
    float general[CHUNK], base[CHUNK], total[CHUNK];
    load(blocks[0], dtypes[0], first, n, general);
    load(blocks[1], dtypes[1], first, n, base);
    for (int i = 0; i < n; i++) total[i] = 0.0f;
    for (int k = 0; k < n_skills; k++) add_change(total, blocks[k + 2], dtypes[k + 2], first, base, omegas[k], n);
    for (int i = 0; i < n; i++) general[i] = fmaf(scale, total[i], general[i]);
    return store(general, n, largest, out, out_dtype, first);
}

int version(void) { return VERSION; }

CLONES int weighted_sum(const void *const *blocks, const int *dtypes, const float *weights, int n_blocks,
                        ptrdiff_t n_elements, void *out, int out_dtype) {
    uint32_t largest = 0;
    ptrdiff_t first = 0;
    for (; first + CHUNK <= n_elements; first += CHUNK)
        largest = sum_weighted(blocks, dtypes, weights, n_blocks, first, CHUNK, largest, out, out_dtype);
    int rest = (int)(n_elements - first);
    if (rest) largest = sum_weighted(blocks, dtypes, weights, n_blocks, first, rest, largest, out, out_dtype);
    return is_finite(largest, out_dtype);
}

CLONES int add_task_vectors(const void *const *blocks, const int *dtypes, const float *omegas, float scale,
                            int n_skills, ptrdiff_t n_elements, void *out, int out_dtype) {
    uint32_t largest = 0;
    ptrdiff_t first = 0;
    for (; first + CHUNK <= n_elements; first += CHUNK)
        largest = sum_task_vectors(blocks, dtypes, omegas, scale, n_skills, first, CHUNK, largest, out, out_dtype);
    int rest = (int)(n_elements - first);
    if (rest)
        largest = sum_task_vectors(blocks, dtypes, omegas, scale, n_skills, first, rest, largest, out, out_dtype);
    return is_finite(largest, out_dtype);
}
