"""Plan: resolve every reference and refuse what cannot be merged, before any heavy work."""
