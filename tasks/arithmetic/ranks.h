/*
 * What belongs to the rank of every element's magnitude in its row, to the mean of their ranks where several are equal;
 * row_ranks.py.
 *
 * Numbers with few digits are few numbers: most differences of bfloat16 numbers are multiples of one power of two. Each
 * multiple has a bin of its own, in which all are equal: their ranks follow from how many lie in it and in those below.
 * What lies between two multiples shares a bin, is mixed, and is sorted; then each number has a bin of its own, too. Rows
 * that are mostly mixed, as those of float32 are, are sorted whole.
 *
 * What is stored at places that only the data tells is in 32 bits: with 16 such a loop takes up to twice as long.
 */

#ifndef TASKS_ARITHMETIC_RANKS_H
#define TASKS_ARITHMETIC_RANKS_H

#include <stdlib.h>

#include "kernels.h"

/* Positions are moved so often, on average, at most: too many are in a bin where magnitudes hardly differ. */
#define MOVES_PER_ELEMENT 8
/* Where the last bin begins, in mean magnitudes; of normally distributed numbers 0.1 % are larger. */
#define LAST_BIN 4.0f
/* Of a row's elements, at most one in so many may be mixed; else all are sorted. */
#define FEW_OF 8
/* Bins for multiples: short rows need more than they have elements, or too many lie between two. Shorter ones are sorted. */
#define FEWEST_MULTIPLES 384
#define SHORTEST_COUNTED 128
/* And so many at most, so that 16 bits number their bins, those between, and one for each mixed element. */
#define MOST_MULTIPLES 28000
/* The lowest bit of each of four bins. */
#define FOUR_ONES 0x0001000100010001u

/* Memory for one row of `length`, at most 65535. */
struct row_memory {
    ptrdiff_t length;
    int32_t n_bins;   /* 2 x length, or 65536 if that is less */
    uint64_t *keys;   /* length */
    uint32_t *counts; /* n_bins, or 1024 if that is more; what was found: the value of each bin */
    uint32_t *order;  /* length */
    uint16_t *bins;   /* length; what was found: the bin of each element */
};

/* Mean of the magnitudes, roughly. */
INLINE float mean_magnitude(const float *restrict row, ptrdiff_t n) {
    float parts[16] = {0.0f}, total = 0.0f;
    ptrdiff_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int j = 0; j < 16; j++) parts[j] += fabsf(row[i + j]);
    for (; i < n; i++) total += fabsf(row[i]);
    for (int j = 0; j < 16; j++) total += parts[j];
    return total / (float)n;
}

static int compare_keys(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Sort n positions by magnitude, whatever their order. */
static void sort_keys(const float *row, uint32_t *order, ptrdiff_t n, uint64_t *keys) {
    for (ptrdiff_t i = 0; i < n; i++) keys[i] = (uint64_t)pattern_of(row[order[i]]) << 32 | order[i];
    qsort(keys, (size_t)n, sizeof *keys, compare_keys);
    for (ptrdiff_t i = 0; i < n; i++) order[i] = (uint32_t)keys[i];
}

/* The same for positions that are nearly in order: move each before those of larger magnitudes. */
INLINE void sort_by_moves(const float *row, uint32_t *order, ptrdiff_t n, uint64_t *keys) {
    ptrdiff_t n_moves = 0;
    uint32_t largest = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t position = order[i], pattern = pattern_of(row[position]);
        if (pattern >= largest) {
            largest = pattern;
            continue;
        }
        ptrdiff_t place = i;
        do {
            order[place] = order[place - 1];
            place--;
        } while (place > 0 && pattern_of(row[order[place - 1]]) > pattern);
        order[place] = position;
        n_moves += i - place;
        if (n_moves > MOVES_PER_ELEMENT * n) {
            sort_keys(row, order, n, keys);
            return;
        }
    }
}

/*
 * Give each number at n sorted positions a bin of its own, from bin `next` on, and its value.
 *
 * Where these are not all elements, the low 16 bits of their present bins' counts are how many elements lie below; they
 * are counted up.
 */
INLINE void number_sorted(const float *restrict row, ptrdiff_t n, uint32_t next, const int32_t *restrict values,
                          struct row_memory *memory) {
    const uint32_t *order = memory->order;
    uint16_t *bins = memory->bins;
    uint32_t *counts = memory->counts;
    for (ptrdiff_t first = 0, stop = 0; first < n; first = stop, next++) {
        uint32_t *below = counts + bins[order[first]], pattern = pattern_of(row[order[first]]);
        do bins[order[stop++]] = (uint16_t)next;
        while (stop < n && pattern_of(row[order[stop]]) == pattern);
        uint32_t n_equal = (uint32_t)(stop - first), before = (uint32_t)first;
        if (n < memory->length) {
            before = *below & 0xffffu;
            *below += n_equal;
        }
        counts[next] = (uint32_t)values[2 * before + n_equal];
    }
}

/* Values of all bins, the first `n_bins`, of which the odd ones hold `n_mixed` elements. */
INLINE void value_by_counting(const float *restrict row, int32_t n_bins, ptrdiff_t n_mixed,
                              const int32_t *restrict values, struct row_memory *memory) {
    const ptrdiff_t length = memory->length;
    const uint16_t *bins = memory->bins;
    uint32_t *counts = memory->counts, *order = memory->order;
    memset(counts, 0, (size_t)n_bins * sizeof *counts);
    for (ptrdiff_t i = 0; i < length; i++) counts[bins[i]]++;
    /* Of an even bin the value; of an odd one how many elements lie below, and above that how many mixed ones. */
    uint32_t before = 0, n_mixed_before = 0;
    for (int32_t bin = 0; bin < n_bins; bin += 2) {
        uint32_t after = before + counts[bin], n_between = counts[bin + 1];
        counts[bin] = (uint32_t)values[before + after];
        counts[bin + 1] = after | n_mixed_before << 16;
        n_mixed_before += n_between;
        before = after + n_between;
    }
    for (ptrdiff_t i = 0; n_mixed_before && i < length; i += 4) {
        uint64_t four = FOUR_ONES;
        if (i + 4 <= length) memcpy(&four, bins + i, sizeof four);
        if (!(four & FOUR_ONES)) continue;
        for (ptrdiff_t j = i; j < i + 4 && j < length; j++) {
            if (!(bins[j] & 1)) continue;
            order[counts[bins[j]] >> 16] = (uint32_t)j;
            counts[bins[j]] += 1u << 16;
        }
    }
    sort_by_moves(row, order, n_mixed, memory->keys);
    number_sorted(row, n_mixed, (uint32_t)n_bins, values, memory);
}

/* Values of any row: a counting sort into bins of one width, then by moves; the last bin holds all from `limit` on. */
INLINE void value_by_sorting(const float *restrict row, float limit, const int32_t *restrict values,
                             struct row_memory *memory) {
    const ptrdiff_t length = memory->length;
    uint16_t *bins = memory->bins;
    uint32_t *counts = memory->counts, *order = memory->order;
    /* A scale that overflows would make NaN of 0. */
    float last = (float)(memory->n_bins - 1), scale = limit > 1e-30f && limit < 1e38f ? last / limit : 0.0f;
    for (ptrdiff_t i = 0; i < length; i++) {
        float bin = fabsf(row[i]) * scale;
        bins[i] = (uint16_t)(int32_t)(bin < last ? bin : last);
    }
    memset(counts, 0, (size_t)memory->n_bins * sizeof *counts);
    for (ptrdiff_t i = 0; i < length; i++) counts[bins[i]]++;
    uint32_t before = 0;
    for (int32_t bin = 0; bin < memory->n_bins; bin += 2) {
        uint32_t one = counts[bin], other = counts[bin + 1];
        counts[bin] = before;
        counts[bin + 1] = before + one;
        before += one + other;
    }
    for (ptrdiff_t i = 0; i < length; i++) order[counts[bins[i]]++] = (uint32_t)i;
    sort_by_moves(row, order, length, memory->keys);
    number_sorted(row, length, 0, values, memory);
}

/*
 * Find the value of each element: counts[bins[i]].
 *
 * Even bins hold the multiples of `width`, a power of two, so that products with it are exact; odd bins hold what lies
 * between, and the one behind `last` multiples all that is larger. About as many bins as elements cost least.
 *
 * values: 2 x length + 1; of numbers with b elements below and a - b equal ones the value is at a + b.
 */
INLINE void value_row(const float *restrict row, const int32_t *restrict values, struct row_memory *memory) {
    const ptrdiff_t length = memory->length;
    uint16_t *bins = memory->bins;
    float limit = LAST_BIN * mean_magnitude(row, length), scale = 0.0f, width = 0.0f, last = 0.0f;
    if (length >= SHORTEST_COUNTED && limit > 1e-30f && limit < 1e30f) {
        ptrdiff_t most = length / 2 > FEWEST_MULTIPLES ? length / 2 : FEWEST_MULTIPLES;
        most = most < MOST_MULTIPLES ? most : MOST_MULTIPLES;
        scale = from_bits(to_bits((float)most / limit) & 0x7f800000u);
        width = 1.0f / scale;
        last = (float)(int32_t)(limit * scale);
    }
    int32_t n_mixed = 0;
    for (ptrdiff_t i = 0; i < length; i++) {
        float magnitude = fabsf(row[i]), bin = magnitude * scale;
        int32_t whole = (int32_t)(bin < last ? bin : last);
        int32_t is_mixed = (float)whole * width != magnitude;
        bins[i] = (uint16_t)(2 * whole + is_mixed);
        n_mixed += is_mixed;
    }
    if (n_mixed <= length / FEW_OF)
        value_by_counting(row, 2 * (int32_t)last + 2, n_mixed, values, memory);
    else
        value_by_sorting(row, limit, values, memory);
}

#endif
