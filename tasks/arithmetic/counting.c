/*
 * Counts of magnitudes, from which the limits of the k largest are found; see selection.py, and compiled/selection.py for
 * the same without a C compiler. Called by native_counting.py.
 */

#include "kernels.h"

/* As magnitudes.py has them. */
#define LOWER_BITS 16
#define SAMPLED 8
/* As selection.py has it. */
#define WINDOW_BINS 4u

INLINE void fill_with(const void *block, int dtype, const void *origin, int origin_dtype, ptrdiff_t first, int n,
                      uint32_t *restrict patterns) {
    for (int i = 0; i < n; i++)
        patterns[i] = pattern_of(element(block, dtype, first + i) - element(origin, origin_dtype, first + i));
}

/* The patterns of the magnitudes of n differences, from element `first`. */
INLINE void fill_patterns(const void *block, int dtype, const void *origin, int origin_dtype, ptrdiff_t first, int n,
                          uint32_t *restrict patterns) {
    if (dtype == BFLOAT16 && origin_dtype == BFLOAT16)
        fill_with(block, BFLOAT16, origin, BFLOAT16, first, n, patterns);
    else if (dtype == FLOAT16 && origin_dtype == FLOAT16)
        fill_with(block, FLOAT16, origin, FLOAT16, first, n, patterns);
    else {
        float numbers[TILE], from[TILE];
        load(block, dtype, first, n, numbers);
        load(origin, origin_dtype, first, n, from);
        fill_with(numbers, FLOAT32, from, FLOAT32, 0, n, patterns);
    }
}

/*
 * Count those of a tile's patterns that lie in the window by what they are above its lowest, and how many are above it.
 * Few are in it, and where cannot be foreseen: eight flags are looked at together.
 */
INLINE void count_in_window(const uint32_t *restrict patterns, uint32_t lowest, int64_t *counts, int64_t *n_above) {
    uint8_t flags[TILE];
    uint32_t above = 0;
    for (int i = 0; i < TILE; i++) {
        uint32_t distance = patterns[i] - lowest;
        flags[i] = distance < WINDOW_BINS << LOWER_BITS;
        above += (patterns[i] >= lowest) & (distance >= WINDOW_BINS << LOWER_BITS);
    }
    *n_above += above;
    for (int start = 0; start < TILE; start += 8) {
        uint64_t word;
        memcpy(&word, flags + start, sizeof word);
        for (; word; word &= word - 1) counts[patterns[start + (__builtin_ctzll(word) >> 3)] - lowest]++;
    }
}

/* One tile of SAMPLED in a row, not always the same one: rows may be as long as so many tiles. */
INLINE int is_sampled(ptrdiff_t tile) { return tile % SAMPLED == tile / SAMPLED * 5 % SAMPLED; }

/* What is counted of one task vector; `Counting` in native_counting.py. */
struct counting {
    const void *block;
    int32_t dtype;
    uint32_t n_windows;
    int64_t n_elements; /* the first so many of the block are counted */
    int64_t *upper;     /* by the upper bits of their patterns; NULL: not counted */
    int32_t is_sample;  /* whether only sampled tiles are, each element for SAMPLED */
    const uint32_t *bins;
    int64_t *const *windows; /* from bin bins[w] on, one by one in windows[w] */
    int64_t *const *n_above; /* what is above that window */
};

/* Count magnitudes of differences from one origin. */
CLONES void count_magnitudes(const struct counting *countings, int n_countings, const void *origin, int origin_dtype) {
    uint32_t patterns[TILE];
    for (int k = 0; k < n_countings; k++) {
        const struct counting *counting = countings + k;
        int64_t *upper = counting->upper, weight = counting->is_sample ? SAMPLED : 1;
        for (ptrdiff_t first = 0; first < counting->n_elements; first += TILE) {
            int n = (int)(counting->n_elements - first < TILE ? counting->n_elements - first : TILE);
            fill_patterns(counting->block, counting->dtype, origin, origin_dtype, first, n, patterns);
            if (upper && (weight == 1 || is_sampled(first / TILE)))
                for (int i = 0; i < n; i++) upper[patterns[i] >> LOWER_BITS] += weight;
            /* What is left of the last tile is in no window, but above all of them. */
            for (int i = n; i < TILE; i++) patterns[i] = 0xffffffffu;
            for (uint32_t w = 0; w < counting->n_windows; w++) {
                count_in_window(patterns, counting->bins[w] << LOWER_BITS, counting->windows[w], counting->n_above[w]);
                *counting->n_above[w] -= TILE - n;
            }
        }
    }
}
