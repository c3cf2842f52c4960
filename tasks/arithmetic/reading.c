/*
 * Blocks of several files in one call, so that a thread gives up Python's lock once for all of them.
 *
 * Called by tasks/merge/whole_reads.py.
 */

#include <unistd.h>

#include "kernels.h"

enum answer { READ = 0, FAILED = 1, NOT_FINITE = 2 };

CLONES static int are_finite(const void *block, int dtype, ptrdiff_t n_elements) {
    uint32_t largest = 0;
    if (dtype != FLOAT32) {
        const uint16_t *restrict numbers = block;
        uint16_t found = 0;
        for (ptrdiff_t i = 0; i < n_elements; i++) {
            uint16_t magnitude = numbers[i] & 0x7fffu;
            found = magnitude > found ? magnitude : found;
        }
        largest = dtype == FLOAT16 && found >= 0x7c00u ? 0x7f800000u : (uint32_t)found << 16;
    } else {
        const uint32_t *restrict numbers = block;
        for (ptrdiff_t i = 0; i < n_elements; i++) {
            uint32_t magnitude = numbers[i] & 0x7fffffffu;
            largest = magnitude > largest ? magnitude : largest;
        }
    }
    return largest < 0x7f800000u;
}

/* dtypes: of blocks in which NaN and infinity are looked for; NULL: in none. */
int read_blocks(int n_blocks, const int *descriptors, const int64_t *offsets, const int64_t *sizes,
                void *const *blocks, const int *dtypes) {
    int answer = READ;
    for (int k = 0; k < n_blocks; k++) {
        for (int64_t filled = 0; filled < sizes[k];) {
            ssize_t n_bytes =
                pread(descriptors[k], (char *)blocks[k] + filled, (size_t)(sizes[k] - filled), offsets[k] + filled);
            if (n_bytes <= 0) return FAILED;
            filled += n_bytes;
        }
        if (dtypes && !are_finite(blocks[k], dtypes[k], sizes[k] / (dtypes[k] == FLOAT32 ? 4 : 2))) answer = NOT_FINITE;
    }
    return answer;
}
