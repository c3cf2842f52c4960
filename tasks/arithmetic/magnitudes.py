"""How bit patterns of magnitudes are cut; those of non-negative float32 numbers are ordered like the numbers."""

LOWER_BITS = 16
"""Left of 31: 8 bits of exponent and the first 7 of 23 of the fraction; the sign is left out."""
N_UPPER = 1 << (31 - LOWER_BITS)
N_LOWER = 1 << LOWER_BITS
SAMPLED = 8
"""Of so many tiles of 1024 elements one is counted where a rough picture of a vector is enough; as in counting.c."""
