"""Read, write, list and compare-and-swap on one kind of place each."""
