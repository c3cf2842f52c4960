"""Weigh: losses, counts or given numbers become merge weights."""
