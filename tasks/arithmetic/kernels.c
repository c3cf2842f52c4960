/*
 * The loops of a linear merge that torch does in many steps, in one pass over blocks that lie in a core's cache.
 *
 * Called by tasks/arithmetic/native.py, which says what the arguments are; without this file's library torch computes
 * the same bytes. Every element goes through the operations that torch's vectorised kernels do, in their order: a
 * product is rounded, or fused with a sum, exactly where it is there. fmaf is fused on every processor (in software
 * where the hardware cannot), so that results do not depend on which of the clones runs. Compiled without contraction
 * of products and sums, and without the freedoms of -ffast-math.
 *
 * CHUNK elements at a time stay in the first-level cache, whatever the number of inputs.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define VERSION 1
#define CHUNK 256
#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

enum dtype { BFLOAT16 = 0, FLOAT32 = 1 };

INLINE float from_bits(uint32_t bits) {
    float number;
    memcpy(&number, &bits, sizeof number);
    return number;
}

INLINE uint32_t to_bits(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

/* n <= CHUNK elements of a block from element `first`, as float32. */
INLINE void load(const void *block, int dtype, ptrdiff_t first, int n, float *restrict out) {
    if (dtype == BFLOAT16) {
        const uint16_t *restrict from = (const uint16_t *)block + first;
        for (int i = 0; i < n; i++) out[i] = from_bits((uint32_t)from[i] << 16);
    } else {
        const float *restrict from = (const float *)block + first;
        for (int i = 0; i < n; i++) out[i] = from[i];
    }
}

INLINE void multiply(float *restrict total, float factor, int n) {
    for (int i = 0; i < n; i++) total[i] = factor * total[i];
}

/* total += factor * block, product and sum rounded once. */
INLINE void add_product(float *restrict total, const void *block, int dtype, ptrdiff_t first, float factor, int n) {
    if (dtype == BFLOAT16) {
        const uint16_t *restrict from = (const uint16_t *)block + first;
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, from_bits((uint32_t)from[i] << 16), total[i]);
    } else {
        const float *restrict from = (const float *)block + first;
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, from[i], total[i]);
    }
}

/* total += factor * (block - origin), the difference rounded by itself. */
INLINE void add_change(float *restrict total, const void *block, int dtype, ptrdiff_t first,
                       const float *restrict origin, float factor, int n) {
    if (dtype == BFLOAT16) {
        const uint16_t *restrict from = (const uint16_t *)block + first;
        for (int i = 0; i < n; i++)
            total[i] = fmaf(factor, from_bits((uint32_t)from[i] << 16) - origin[i], total[i]);
    } else {
        const float *restrict from = (const float *)block + first;
        for (int i = 0; i < n; i++) total[i] = fmaf(factor, from[i] - origin[i], total[i]);
    }
}

/* Put numbers from element `first`, rounded once, half to even; the bits of the largest magnitude that was seen. */
INLINE uint32_t store(const float *restrict numbers, int n, uint32_t largest, void *out, int dtype, ptrdiff_t first) {
    if (dtype == BFLOAT16) {
        uint16_t *restrict to = (uint16_t *)out + first;
        for (int i = 0; i < n; i++) {
            uint32_t bits = to_bits(numbers[i]), magnitude = bits & 0x7fffffffu;
            largest = magnitude > largest ? magnitude : largest;
            to[i] = (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
        }
    } else {
        float *restrict to = (float *)out + first;
        for (int i = 0; i < n; i++) {
            uint32_t magnitude = to_bits(numbers[i]) & 0x7fffffffu;
            largest = magnitude > largest ? magnitude : largest;
            to[i] = numbers[i];
        }
    }
    return largest;
}

/* Whether numbers up to this magnitude are finite, and stay so when they are rounded. */
INLINE int is_finite(uint32_t largest, int dtype) { return largest < (dtype == BFLOAT16 ? 0x7f7f8000u : 0x7f800000u); }

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
