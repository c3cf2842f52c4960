/*
 * What the C files here share: how blocks are read and written. Their functions are called by the modules
 * native*.py here, which say what the arguments are; without the library torch and numba compute the same bytes.
 *
 * Every element goes through the operations that torch's vectorised kernels do, in their order: a product is rounded, or
 * fused with a sum, exactly where it is there. fmaf is fused on every processor (in software where the hardware cannot),
 * so that results do not depend on which of the clones runs. Compiled without contraction of products and sums, and
 * without the freedoms of -ffast-math.
 */

#ifndef TASKS_ARITHMETIC_KERNELS_H
#define TASKS_ARITHMETIC_KERNELS_H

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Several small numbers are looked at as one word in places. Elsewhere nothing is compiled, and torch computes. */
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "only for little-endian processors"
#endif

#define INLINE static inline __attribute__((always_inline))

#if defined(__x86_64__) && defined(__gnu_linux__) && defined(__GNUC__) && !defined(__clang__)
#define CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define CLONES
#endif

/* Elements that stay in the cache nearest to a core while several steps are done with them. */
#define TILE 1024

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

/* Those of a magnitude: they are ordered like the magnitudes. */
INLINE uint32_t pattern_of(float number) { return to_bits(number) & 0x7fffffffu; }

/* Element i of a block; the dtype is best known to the compiler. */
INLINE float element(const void *block, int dtype, ptrdiff_t i) {
    return dtype == BFLOAT16 ? from_bits((uint32_t)((const uint16_t *)block)[i] << 16) : ((const float *)block)[i];
}

/* n elements of a block from element `first`, as float32. */
INLINE void load(const void *block, int dtype, ptrdiff_t first, int n, float *restrict out) {
    if (dtype == BFLOAT16) {
        const uint16_t *restrict from = (const uint16_t *)block + first;
        for (int i = 0; i < n; i++) out[i] = from_bits((uint32_t)from[i] << 16);
    } else {
        const float *restrict from = (const float *)block + first;
        for (int i = 0; i < n; i++) out[i] = from[i];
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

#endif
