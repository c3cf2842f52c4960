/*
 * Merges of thinned out task vectors, in one pass over blocks: subtract, thin out, elect signs, sum, add, round.
 *
 * A tile of elements, or the rows that fit into it, goes through all of these steps while it lies in the cache. What each
 * step does is said where numba does it: compiled/.
 */

#include <stdlib.h>

#include "kernels.h"

/* Positions are moved so often, on average, at most: too many are in a bin where magnitudes hardly differ. */
#define MOVES_PER_ELEMENT 8
/* Where the last bin begins, in mean magnitudes; of normally distributed numbers 0.1 % are larger. */
#define LAST_BIN 4.0f

/* One in each 16 bits: a number times it holds sums of the number's 16 bits. */
#define FOUR_ONES 0x0001000100010001u

enum how { ALL = 0, NONE = 1, BY_SIZE = 2, AT_RANDOM = 3, BY_RANK = 4 };

/* What is kept of one task vector; `Thinning` in native_thinning.py. */
struct thinning {
    int32_t how;
    int32_t has_least, has_largest; /* BY_SIZE: elements smaller than the least, or as large as the largest, are dropped */
    int32_t rescale;                /* BY_RANK */
    uint32_t least, largest;        /* patterns of magnitudes */
    int64_t least_ties, largest_ties; /* so many more of just that magnitude count as larger; counted down */
    uint32_t key[2];
    uint32_t chance;                /* AT_RANDOM: of 2**31 */
    const int32_t *chances;         /* BY_RANK: of the ranks of a row, of 2**31 */
};

/* Memory for the ranks of one row of `length`, at most 65535. */
struct row_memory {
    ptrdiff_t length;
    int32_t n_bins;   /* a multiple of 4, at most 65536 */
    uint64_t *keys;   /* length */
    int32_t *chances; /* length */
    uint16_t *counts; /* n_bins */
    uint16_t *bins;   /* length */
    uint16_t *order;  /* length */
};

INLINE void subtract(float *restrict numbers, const float *restrict origin, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) numbers[i] = numbers[i] - origin[i];
}

/* n elements of a block from element `first`, minus those of a tile. */
INLINE void load_change(const void *block, int dtype, ptrdiff_t first, int n, const float *restrict origin,
                        float *restrict out) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) out[i] = element(block, BFLOAT16, first + i) - origin[i];
    else
        for (int i = 0; i < n; i++) out[i] = element(block, FLOAT32, first + i) - origin[i];
}

/* Drop magnitudes below a pattern, and those equal to it but for the first `n_ties`, which is counted down. */
INLINE void keep_largest(float *restrict vector, ptrdiff_t n, uint32_t least, int64_t *n_ties) {
    if (*n_ties == 0) {
        for (ptrdiff_t i = 0; i < n; i++) vector[i] = pattern_of(vector[i]) > least ? vector[i] : 0.0f;
        return;
    }
    int32_t n_equal = 0;
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t pattern = pattern_of(vector[i]);
        n_equal += pattern == least;
        vector[i] = pattern >= least ? vector[i] : 0.0f;
    }
    if (n_equal <= *n_ties) {
        *n_ties -= n_equal;
        return;
    }
    for (ptrdiff_t i = 0; i < n; i++) {
        if (pattern_of(vector[i]) != least) continue;
        if (*n_ties > 0)
            *n_ties -= 1;
        else
            vector[i] = 0.0f;
    }
}

/* At most TILE elements. */
INLINE void keep_by_size(float *restrict vector, ptrdiff_t n, struct thinning *thinning) {
    float top[TILE];
    if (thinning->has_largest) {
        for (ptrdiff_t i = 0; i < n; i++) top[i] = vector[i];
        keep_largest(top, n, thinning->largest, &thinning->largest_ties);
    }
    if (thinning->has_least) keep_largest(vector, n, thinning->least, &thinning->least_ties);
    /* x - x, or x - 0. */
    if (thinning->has_largest) subtract(vector, top, n);
}

INLINE uint32_t random_number(uint32_t position, const uint32_t *key) {
    uint32_t x = position * 0x9e3779b9u + key[0];
    x = ((x ^ (x >> 16)) * 0x7feb352du) ^ key[1];
    x = (x ^ (x >> 15)) * 0x846ca68bu;
    return x ^ (x >> 16);
}

INLINE void keep_at_random(float *restrict vector, ptrdiff_t n, uint32_t position, const struct thinning *thinning) {
    const uint32_t key[2] = {thinning->key[0], thinning->key[1]}, chance = thinning->chance;
    for (ptrdiff_t i = 0; i < n; i++)
        vector[i] = (random_number(position + (uint32_t)i, key) >> 1) < chance ? vector[i] : 0.0f;
}

static int compare_keys(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

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

/* Put positions in the order of their elements' bins, and in their own in each bin: a counting sort. */
INLINE void sort_into_bins(const float *restrict row, struct row_memory *memory) {
    ptrdiff_t n = memory->length;
    int32_t n_bins = memory->n_bins;
    uint16_t *restrict bins = memory->bins, *restrict counts = memory->counts, *restrict order = memory->order;
    /* Bins are of one width, and the last holds all that is large. A scale that overflows would make NaN of 0. */
    float limit = LAST_BIN * mean_magnitude(row, n), last = (float)(n_bins - 1);
    float scale = limit > 1e-30f && limit < 1e38f ? last / limit : 0.0f;
    for (ptrdiff_t i = 0; i < n; i++) {
        float bin = fabsf(row[i]) * scale;
        bins[i] = (uint16_t)(int32_t)(bin < last ? bin : last);
    }
    memset(counts, 0, (size_t)n_bins * sizeof *counts);
    for (ptrdiff_t i = 0; i < n; i++) counts[bins[i]]++;
    /* Four sums at a time, each 16 bits of a word: none is above 65535. */
    uint64_t before = 0;
    for (int32_t i = 0; i < n_bins; i += 4) {
        uint64_t word;
        memcpy(&word, counts + i, sizeof word);
        uint64_t sums = word * FOUR_ONES, all_before = (sums << 16) + before;
        memcpy(counts + i, &all_before, sizeof all_before);
        before += (sums >> 48) * FOUR_ONES;
    }
    for (ptrdiff_t i = 0; i < n; i++) order[counts[bins[i]]++] = (uint16_t)i;
}

/* Sort positions by magnitude, equal ones by position, whatever their order. */
static void sort_keys(const float *row, struct row_memory *memory) {
    ptrdiff_t n = memory->length;
    for (ptrdiff_t i = 0; i < n; i++) memory->keys[i] = (uint64_t)pattern_of(row[i]) << 32 | (uint32_t)i;
    qsort(memory->keys, (size_t)n, sizeof *memory->keys, compare_keys);
    for (ptrdiff_t i = 0; i < n; i++) memory->order[i] = (uint16_t)memory->keys[i];
}

/* Move each position before those of larger magnitudes; positions of equal ones are in order already. */
INLINE void sort_by_moves(const float *row, struct row_memory *memory) {
    uint16_t *order = memory->order;
    ptrdiff_t n_moves = 0;
    uint32_t largest = 0;
    for (ptrdiff_t i = 0; i < memory->length; i++) {
        uint16_t position = order[i];
        uint32_t pattern = pattern_of(row[position]);
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
        if (n_moves > MOVES_PER_ELEMENT * memory->length) {
            sort_keys(row, memory);
            return;
        }
    }
}

INLINE void keep_by_rank(float *restrict vector, ptrdiff_t n, uint32_t position, const struct thinning *thinning,
                         struct row_memory *memory) {
    const uint32_t key[2] = {thinning->key[0], thinning->key[1]};
    ptrdiff_t length = memory->length;
    int32_t *restrict chances = memory->chances;
    for (ptrdiff_t start = 0; start < n; start += length) {
        float *restrict row = vector + start;
        uint32_t first = position + (uint32_t)start;
        sort_into_bins(row, memory);
        sort_by_moves(row, memory);
        for (ptrdiff_t i = 0; i < length; i++) chances[memory->order[i]] = thinning->chances[i];
        for (ptrdiff_t i = 0; i < length; i++) {
            int is_kept = (random_number(first + (uint32_t)i, key) >> 1) < (uint32_t)chances[i];
            float probability = thinning->rescale ? (float)chances[i] * 0x1p-31f : 1.0f;
            row[i] = is_kept ? row[i] / probability : 0.0f;
        }
    }
}

INLINE void thin_out(float *vector, ptrdiff_t n, uint32_t position, struct thinning *thinning,
                     struct row_memory *memory) {
    switch (thinning->how) {
    case NONE: memset(vector, 0, (size_t)n * sizeof *vector); break;
    case BY_SIZE: keep_by_size(vector, n, thinning); break;
    case AT_RANDOM: keep_at_random(vector, n, position, thinning); break;
    case BY_RANK: keep_by_rank(vector, n, position, thinning, memory); break;
    default: break;
    }
}

/* total = sum of coefficient x vector, as torch adds them: product and sum rounded once. */
INLINE void add_plainly(const float *vectors, ptrdiff_t stride, const float *coefficients, int n_vectors, ptrdiff_t n,
                        float *restrict total) {
    for (ptrdiff_t i = 0; i < n; i++) total[i] = 0.0f;
    for (int k = 0; k < n_vectors; k++) {
        const float *restrict vector = vectors + k * stride;
        const float coefficient = coefficients[k];
        for (ptrdiff_t i = 0; i < n; i++) total[i] = fmaf(coefficient, vector[i], total[i]);
    }
}

INLINE int have_one_sign(float one, float other) { return ((one > 0) & (other > 0)) | ((one < 0) & (other < 0)); }

/* The same of what has the elected sign, products and sums rounded one by one; see consensus.py. memory: 2 x stride. */
INLINE void add_agreeing(const float *vectors, ptrdiff_t stride, const float *coefficients, const float *sizes,
                         int n_vectors, int normalize, ptrdiff_t n, float *memory, float *restrict total) {
    float *restrict elected = memory, *restrict agreeing = memory + stride;
    float smallest = sizes[0];
    for (int k = 1; k < n_vectors; k++) smallest = sizes[k] < smallest ? sizes[k] : smallest;
    for (ptrdiff_t i = 0; i < n; i++) elected[i] = agreeing[i] = total[i] = 0.0f;
    for (int k = 0; k < n_vectors; k++) {
        const float *restrict vector = vectors + k * stride;
        const float coefficient = coefficients[k];
        for (ptrdiff_t i = 0; i < n; i++) elected[i] += vector[i] * coefficient;
    }
    for (int k = 0; k < n_vectors; k++) {
        const float *restrict vector = vectors + k * stride;
        const float coefficient = coefficients[k], size = sizes[k];
        for (ptrdiff_t i = 0; i < n; i++) {
            float weighted = vector[i] * coefficient;
            int agrees = have_one_sign(weighted, elected[i]);
            total[i] += agrees ? weighted : 0.0f;
            agreeing[i] += agrees ? size : 0.0f;
        }
    }
    if (normalize)
        for (ptrdiff_t i = 0; i < n; i++) total[i] /= agreeing[i] > smallest ? agreeing[i] : smallest;
}

/*
 * The same where the compiler knows how many vectors there are: several elements at a time stay in registers. Two loops,
 * as gcc computes neither sum for several elements at once where one loop has both.
 */
INLINE void add_few_agreeing(const float *vectors, ptrdiff_t stride, const float *coefficients, const float *sizes,
                             int n_vectors, int normalize, ptrdiff_t n, float *memory, float *restrict total) {
    float *restrict elected = memory;
    for (ptrdiff_t i = 0; i < n; i++) {
        float sign = 0.0f, sum = 0.0f;
        for (int k = 0; k < n_vectors; k++) sign += vectors[k * stride + i] * coefficients[k];
        for (int k = 0; k < n_vectors; k++) {
            float weighted = vectors[k * stride + i] * coefficients[k];
            sum += have_one_sign(weighted, sign) ? weighted : 0.0f;
        }
        elected[i] = sign;
        total[i] = sum;
    }
    if (!normalize) return;
    float smallest = sizes[0];
    for (int k = 1; k < n_vectors; k++) smallest = sizes[k] < smallest ? sizes[k] : smallest;
    for (ptrdiff_t i = 0; i < n; i++) {
        float size = 0.0f;
        for (int k = 0; k < n_vectors; k++)
            size += sizes[k] * (float)have_one_sign(vectors[k * stride + i] * coefficients[k], elected[i]);
        total[i] /= size > smallest ? size : smallest;
    }
}

INLINE void add_agreeing_of_any(const float *vectors, ptrdiff_t stride, const float *coefficients, const float *sizes,
                                int n_vectors, int normalize, ptrdiff_t n, float *memory, float *restrict total) {
    switch (n_vectors) {
    case 1: add_few_agreeing(vectors, stride, coefficients, sizes, 1, normalize, n, memory, total); break;
    case 2: add_few_agreeing(vectors, stride, coefficients, sizes, 2, normalize, n, memory, total); break;
    case 3: add_few_agreeing(vectors, stride, coefficients, sizes, 3, normalize, n, memory, total); break;
    case 4: add_few_agreeing(vectors, stride, coefficients, sizes, 4, normalize, n, memory, total); break;
    default: add_agreeing(vectors, stride, coefficients, sizes, n_vectors, normalize, n, memory, total);
    }
}

/*
 * out = blocks[0] + scale x combination of thinned out (blocks[2 + k] - blocks[1]).
 *
 * tile: elements at a time, whole rows where ranks are asked for, else at most TILE. memory: (n_skills + 5) x tile floats.
 * Returns whether all of it is finite.
 */
CLONES int thinned_sum(const void *const *blocks, const int *dtypes, struct thinning *thinnings,
                       const float *coefficients, const float *sizes, int n_skills, int elect, int normalize,
                       float scale, uint32_t position, ptrdiff_t n_elements, ptrdiff_t tile, float *memory,
                       struct row_memory *row_memory, void *out, int out_dtype) {
    float *vectors = memory, *origin = vectors + n_skills * tile, *total = origin + tile;
    float *result = total + tile, *more = result + tile;
    uint32_t largest = 0;
    for (ptrdiff_t first = 0; first < n_elements; first += tile) {
        int n = (int)(n_elements - first < tile ? n_elements - first : tile);
        load(blocks[1], dtypes[1], first, n, origin);
        for (int k = 0; k < n_skills; k++) {
            float *vector = vectors + k * tile;
            load_change(blocks[k + 2], dtypes[k + 2], first, n, origin, vector);
            thin_out(vector, n, position + (uint32_t)first, thinnings + k, row_memory);
        }
        if (elect && n_skills)
            add_agreeing_of_any(vectors, tile, coefficients, sizes, n_skills, normalize, n, more, total);
        else
            add_plainly(vectors, tile, coefficients, n_skills, n, total);
        load(blocks[0], dtypes[0], first, n, result);
        for (int i = 0; i < n; i++) result[i] = fmaf(scale, total[i], result[i]);
        largest = store(result, n, largest, out, out_dtype, first);
    }
    return is_finite(largest, out_dtype);
}
