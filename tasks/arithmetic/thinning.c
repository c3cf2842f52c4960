/*
 * Merges of thinned out task vectors, in one pass over blocks: subtract, thin out, elect signs, sum, add, round.
 *
 * A tile of elements, or the rows that fit into it, goes through all of these steps while it lies in the cache. What each
 * step does is said where numba does it: compiled/.
 */

#include "kernels.h"
#include "ranks.h"

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
    const int32_t *chances;         /* BY_RANK: the values of ranks.h, of 2**31 */
};

INLINE void subtract(float *restrict numbers, const float *restrict origin, ptrdiff_t n) {
    for (ptrdiff_t i = 0; i < n; i++) numbers[i] = numbers[i] - origin[i];
}

/* n elements of a block from element `first`, minus those of a tile. */
INLINE void load_change(const void *block, int dtype, ptrdiff_t first, int n, const float *restrict origin,
                        float *restrict out) {
    if (dtype == BFLOAT16)
        for (int i = 0; i < n; i++) out[i] = element(block, BFLOAT16, first + i) - origin[i];
    else if (dtype == FLOAT16)
        for (int i = 0; i < n; i++) out[i] = element(block, FLOAT16, first + i) - origin[i];
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

/* Of each element the bin, of each bin the chance. */
INLINE void keep_by_chances(float *restrict row, ptrdiff_t n, uint32_t position, const uint32_t *key, int rescale,
                            const uint16_t *restrict bins, const uint32_t *restrict chances) {
    const uint32_t own_key[2] = {key[0], key[1]};
    for (ptrdiff_t i = 0; i < n; i++) {
        uint32_t chance = chances[bins[i]];
        int is_kept = (random_number(position + (uint32_t)i, own_key) >> 1) < chance;
        float probability = rescale ? (float)(int32_t)chance * 0x1p-31f : 1.0f;
        row[i] = is_kept ? row[i] / probability : 0.0f;
    }
}

INLINE void keep_by_rank(float *vector, ptrdiff_t n, uint32_t position, const struct thinning *thinning,
                         struct row_memory *memory) {
    for (ptrdiff_t start = 0; start < n; start += memory->length) {
        value_row(vector + start, thinning->chances, memory);
        keep_by_chances(vector + start, memory->length, position + (uint32_t)start, thinning->key, thinning->rescale,
                        memory->bins, memory->counts);
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
