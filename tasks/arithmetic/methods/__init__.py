"""Merge methods, one file each, named like the method."""
