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

enum dtype { BFLOAT16 = 0, FLOAT32 = 1, FLOAT16 = 2 };

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

/* A float16 number, by integers and exact sums, so that it takes no instruction that a processor may lack. */
INLINE float from_half(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, magnitude = half & 0x7fffu, shifted = magnitude << 13;
    /* The mantissa of a subnormal number, as that of 2^-14, has 2^-14 too much. */
    uint32_t small = to_bits(from_bits(shifted + 0x38800000u) - 0x1p-14f);
    uint32_t large = shifted + (magnitude < 0x7c00u ? 0x38000000u : 0x70000000u);
    return from_bits(sign | (magnitude < 0x0400u ? small : large));
}

/* The nearest float16 number, half to even. */
INLINE uint16_t to_half(float number) {
    uint32_t bits = to_bits(number), magnitude = bits & 0x7fffffffu;
    /* In a sum with 0.5 the last digit is 2^-24, as in a subnormal number. */
    uint32_t small = to_bits(from_bits(magnitude) + 0.5f) - 0x3f000000u;
    uint32_t large = (magnitude + 0xfffu + ((magnitude >> 13) & 1u) - 0x38000000u) >> 13;
    uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
    uint32_t finite = magnitude < 0x38800000u ? small : large;
    return (uint16_t)((bits >> 16 & 0x8000u) | (magnitude < 0x47800000u ? finite : special));
}

/* Element i of a block; the dtype is best known to the compiler. */
INLINE float element(const void *block, int dtype, ptrdiff_t i) {
    if (dtype == BFLOAT16) return from_bits((uint32_t)((const uint16_t *)block)[i] << 16);
    if (dtype == FLOAT16) return from_half(((const uint16_t *)block)[i]);
    return ((const float *)block)[i];
}

/* n elements of a block from element `first`, as float32. */
INLINE void load(const void *block, int dtype, ptrdiff_t first, int n, float *restrict out) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) out[i] = element(block, BFLOAT16, first + i);
    else if (dtype == FLOAT16)
        for (int i = 0; i < n; i++) out[i] = element(block, FLOAT16, first + i);
    else
        for (int i = 0; i < n; i++) out[i] = element(block, FLOAT32, first + i);
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
    } else if (dtype == FLOAT16) {
        uint16_t *restrict to = (uint16_t *)out + first;
        for (int i = 0; i < n; i++) {
            uint32_t magnitude = pattern_of(numbers[i]);
            largest = magnitude > largest ? magnitude : largest;
            to[i] = to_half(numbers[i]);
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
INLINE int is_finite(uint32_t largest, int dtype) {
    return largest < (dtype == BFLOAT16 ? 0x7f7f8000u : dtype == FLOAT16 ? 0x477ff000u : 0x7f800000u);
}

#endif
